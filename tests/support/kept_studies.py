"""Studies that went all the way on a real desk, and what erases them: for tests of retention, with a clock by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from desk_parts import DeskParts, hydrops_study

from dicom_node.delivery.outbox import RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.retention import Eraser, Periods, RetentionRounds, StudyKeeping, keeping_of
from dicom_node.views.shelf import MANIFEST

STUDY = "2.25.100"
A_DAY_S = 86400.0
PERIODS = Periods(inputs_days=14, results_days=100, audit_days=1000)


class KeptStudies(DeskParts):
    """The desk's parts, an eraser, and rounds of it."""

    def __init__(self, folder: Path, *, periods: Periods = PERIODS, **changes: Any) -> None:
        super().__init__(folder, **changes)
        self.periods = periods
        self.eraser = Eraser(
            self.engine, folder, spool=self.spool, audit=self.audit, clock=changes.get("clock") or (lambda: self.now)
        )
        self.rounds = RetentionRounds(
            self.engine,
            folder,
            eraser=self.eraser,
            sweeps=[self.outbox.sweep],
            audit=self.audit,
            periods=periods,
            clock=changes.get("clock") or (lambda: self.now),
            monotonic=lambda: self.now - self.put_forward_s,
        )

    def finish_study(self, study_uid: str = STUDY, *, deliver: bool = True) -> None:
        """Receive a study, have it decided and its "not computed" report delivered."""
        self.receive(hydrops_study(study_uid))
        self.work_off()
        if deliver:
            self.deliver()

    def deliver(self, kind: OutcomeKind = OutcomeKind.DELIVERED) -> None:
        """Have everything that waits come to this end, at the clock's time."""
        for destination in {one.destination for one in self.outbox.backlog()}:
            for delivery in self.outbox.due(destination, self.now):
                self.outbox.record(
                    delivery.delivery_id, DeliveryOutcome(kind=kind, detail="by the test"), self.now, RetryPolicy()
                )

    def round_after(self, days: float) -> bool:
        """Let days pass and erase what is due then."""
        self.now += days * A_DAY_S
        return self.rounds.once()

    def keeping(self, study_uid: str = STUDY) -> StudyKeeping:
        """How long a known study is kept."""
        with self.engine.connect() as connection:
            found = keeping_of(connection, study_uid, self.periods)
        assert found is not None
        return found

    def image_files(self) -> list[Path]:
        """Every file of an image on disk."""
        return sorted(self.folder.glob("spool/??/*"))

    def result_files(self) -> list[Path]:
        """Every file of a result on disk."""
        return sorted(self.folder.glob("outbox/*"))

    def draw(self, study_uid: str = STUDY) -> Path:
        """Put pictures of the study's work on the shelf, which refused studies have none of: the folder."""
        work_id = self.record(study_uid).work_id.partition("-")[0]
        self.views.put(work_id, {MANIFEST: b'{"files": {}}'})
        with self.engine.begin() as connection:
            known = sa.text("UPDATE ledger_results SET work_id = :plain WHERE study_instance_uid = :study")
            connection.execute(known, {"plain": work_id, "study": study_uid})
        return self.folder / "views" / work_id
