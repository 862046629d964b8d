"""A study desk on a real spool, ledger and outbox in one folder, and small studies that go through it in a second."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from scanned_series import MRC, PEI, PPI, Scan, data_sets

from dicom_node.arrival_times import ArrivalTimes
from dicom_node.assembly.site_rules import read_rules
from dicom_node.audit import AuditTrail
from dicom_node.case import CaseOptions
from dicom_node.claims import Claims
from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox
from dicom_node.encoding.provenance import ResultOptions
from dicom_node.examination import Work
from dicom_node.intake.spool import Spool
from dicom_node.ledger import Ledger, StudyEvent, StudyRecord, StudyState
from dicom_node.owed_failures import OwedFailures
from dicom_node.owed_pictures import OwedPictures
from dicom_node.study_actions import StudyActions
from dicom_node.study_cards import StudyCards
from dicom_node.study_desk import DeskOptions, StudyDesk
from dicom_node.study_requests import StudyRequests
from dicom_node.urgency import Urgencies
from dicom_node.views.shelf import ViewShelf
from inference.segmentation import ThresholdSegmenter

QUIET_S, PARTNER_WAIT_S = 5.0, 100.0
URGENT_SENDER = "EMERGENCY_MR"
LOCALIZER = Scan(name="localizer", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), dimension="2D", number=1)


def hydrops_study(study_uid: str = "2.25.100") -> list[Dataset]:
    """MRC, PPI and PEI of 8 x 6 x 5 voxels: a complete set in which nobody can find an ear."""
    return [one for scan in (MRC, PPI, PEI) for one in series_of(scan, study_uid)]


def series_of(scan: Scan, study_uid: str = "2.25.100") -> list[Dataset]:
    """One series of the study; series of two studies have different UIDs."""
    images = data_sets(scan.but(study_uid=study_uid))
    for one in images:
        one.SeriesInstanceUID = f"{study_uid}.{scan.number}"
    return images


class DeskParts:
    """The desk, what it works on, and a clock that the test sets."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None = None,
        send_not_computed: bool = True,
        destinations: Sequence[str] = ("pacs",),
        clock: Callable[[], float] | None = None,
        on_step: Callable[[], None] = lambda: None,
        digest: str = "0" * 64,
        summary: bool = False,
        worker_id: str = "worker-1",
    ) -> None:
        self.folder = folder
        self.wakes = 0
        self.now = 1_000_000.0
        self.put_forward_s = 0.0
        """How far somebody has put the clock forward."""
        self.engine = open_database(database_url or f"sqlite:///{folder / 'node.db'}")
        self.spool = Spool(folder / "spool", self.engine)
        self.ledger = Ledger(self.engine)
        self.claims = Claims(self.engine, worker_id)
        self.cards = StudyCards(self.engine)
        self.outbox = Outbox(folder / "outbox", self.engine)
        self.views = ViewShelf(folder / "views")
        self.owed = OwedPictures(self.engine)
        self.owed_failures = OwedFailures(self.engine)
        self.requests = StudyRequests(self.engine)
        self.urgencies = Urgencies(self.engine)
        self.audit = AuditTrail(folder / "audit", clock=clock or (lambda: self.now))
        self.actions = StudyActions(
            ledger=self.ledger,
            requests=self.requests,
            outbox=self.outbox,
            audit=self.audit,
            destinations=destinations,
            erased=self.spool.erased,
            clock=clock or (lambda: self.now),
        )
        self._on_step = on_step
        self.desk = StudyDesk(
            spool=self.spool,
            ledger=self.ledger,
            claims=self.claims,
            cards=self.cards,
            outbox=self.outbox,
            views=self.views,
            owed=self.owed,
            owed_failures=self.owed_failures,
            requests=self.requests,
            urgencies=self.urgencies,
            audit=self.audit,
            segmenter=ThresholdSegmenter(),
            case_options=CaseOptions(
                rules=read_rules(""), digest=digest, threads=1, results=ResultOptions(summary=summary)
            ),
            options=DeskOptions(
                quiet_s=QUIET_S,
                partner_wait_s=PARTNER_WAIT_S,
                send_not_computed=send_not_computed,
                destinations=tuple(destinations),
                urgent_from=(URGENT_SENDER,),
            ),
            arrival_times=ArrivalTimes(
                clock=clock or (lambda: self.now),
                monotonic=time.monotonic if clock else (lambda: self.now - self.put_forward_s),
            ),
            clock=clock or (lambda: self.now),
            monotonic=self._time_of_step,
            on_published=self._wake,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def _time_of_step(self) -> float:
        self._on_step()
        return 0.0

    def receive(self, images: Iterable[Dataset], *, at: float | None = None, source: str = "SCANNER") -> None:
        """Keep the images in the spool, as either entrance does."""
        for one in images:
            buffer = io.BytesIO()
            one.save_as(buffer, enforce_file_format=True)
            self.spool.store(buffer.getvalue(), source=source, at=self.now if at is None else at)

    def set_clock(self, by_s: float) -> None:
        """Put the clock forward, or back; no time passes."""
        self.now += by_s
        self.put_forward_s += by_s

    def look_round_after(self, seconds: float = QUIET_S + 1.0) -> list[Work]:
        """Let time pass without an image, and have the desk look round."""
        self.now += seconds
        return self.desk.look_round()

    def work_off(self) -> None:
        """Look round after a pause and compute whatever is ready."""
        for work in self.look_round_after():
            self.desk.compute(work)

    def record(self, study_uid: str = "2.25.100") -> StudyRecord:
        """What the ledger says of a study that it knows."""
        record = self.ledger.get(study_uid)
        assert record is not None
        return record

    def state(self, study_uid: str = "2.25.100") -> tuple[StudyState, str]:
        """State and reason of a study."""
        record = self.record(study_uid)
        return record.state, record.reason

    def events(self, study_uid: str = "2.25.100") -> list[StudyEvent]:
        """Everything that happened to a study."""
        return [line.event for line in self.ledger.history(study_uid)]

    def sent(self, study_uid: str = "2.25.100") -> list[tuple[str, str]]:
        """Kind and destination of what is to be delivered."""
        return [(one.kind, one.destination) for one in self.outbox.deliveries(study_uid)]
