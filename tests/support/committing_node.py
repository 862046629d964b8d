"""The delivering half of a node with a listener that takes reports, on a real database: what commitment needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from dicom_receivers import COMPREHENSIVE_3D_SR, SEG, destination, encoded
from patience import PATIENCE_S, wait_until
from queued_results import put
from sqlalchemy import Engine

from dicom_node.database import open_database
from dicom_node.delivery import commitment_scu
from dicom_node.delivery.commitment_pump import CommitmentPump
from dicom_node.delivery.commitment_reports import ReportDesk
from dicom_node.delivery.commitment_rows import Commitment, CommitmentState
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import Delivery, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import Destination
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

STUDY = "2.25.7001"
SEG_UID, SR_UID = f"{STUDY}.3", f"{STUDY}.2"
QUICK = RetryPolicy(first_retry_s=0.3, max_retry_s=0.6, give_up_after_s=3600)
ONCE = RetryPolicy(first_retry_s=600, max_retry_s=600)
"""No second question by time: what comes of the first one does not depend on how busy the machine is."""
STAY_S = 1.0
"""So long our association waits for the answer here: reports after it have to come by another one."""


class CommittingNode:
    """Sends and asks once started, asks again by `policy`; its listener listens from the beginning."""

    def __init__(self, folder: Path, engine: Engine, *, policy: RetryPolicy = ONCE, port: int = 0) -> None:
        self.engine = engine
        self.outbox = Outbox(folder / "outbox", engine)
        self.commitments = Commitments(engine, policy=policy)
        self._sending: DeliveryPump | None = None
        self._asking: CommitmentPump | None = None
        self.listener = Listener(
            ListenerOptions(ae_title="HYDROPS", port=port, allowed=(_peer("PACS"), _peer("SCANNER"))),
            Spool(folder / "spool", engine),
            on_report=ReportDesk(self.commitments, clock=time.time).answer,
        )
        self.listener.start()

    def put(self, *kinds: str) -> None:
        """Queue a study's results for "pacs"."""
        put(self.outbox, "key", STUDY, [result(kind) for kind in kinds], ["pacs"], at=time.time())

    def send_to(self, port: int) -> None:
        """Send what is queued to an archive on this port, and what is queued later."""
        self._sending = DeliveryPump(
            self.outbox,
            [archive_at(port)],
            {"dicom": store},
            policy=QUICK,
            clock=time.time,
            on_delivered=lambda _delivery: None if self._asking is None else self._asking.wake(),
        )
        self._sending.start()

    def ask(self, *destinations: Destination) -> None:
        """Ask these destinations to commit from now on."""
        self._asking = asking(self.commitments, *destinations)
        self._asking.start()

    def send_again(self) -> None:
        """What a person does who resends the study."""
        self.outbox.send_again("key", ["pacs"], at=time.time())

    def deliveries(self, condition: Callable[[list[Delivery]], bool]) -> list[Delivery]:
        """All deliveries as soon as the condition holds."""

        def holds() -> bool:
            if self._sending is not None:
                self._sending.wake()  # what another process queued it would find by itself, only later
            return condition(self.outbox.deliveries(STUDY))

        wait_until(holds, found=lambda: self.outbox.deliveries(STUDY))
        return self.outbox.deliveries(STUDY)

    def commitments_once(self, *states: CommitmentState) -> list[Commitment]:
        """The commitments of all deliveries in their order, once they are in these states."""
        found = self.deliveries(lambda all_: [one.commitment and one.commitment.state for one in all_] == [*states])
        return [one.commitment for one in found if one.commitment is not None]

    def stop(self) -> None:
        """End everything in good order."""
        assert self._sending is None or self._sending.stop(PATIENCE_S)
        assert self._asking is None or self._asking.stop(PATIENCE_S)
        self.listener.stop(drain_s=5.0)


@contextmanager
def committing_node(folder: Path, *, policy: RetryPolicy = ONCE, port: int = 0) -> Iterator[CommittingNode]:
    """A node on SQLite in `folder`, stopped at the end."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    node = CommittingNode(folder, engine, policy=policy, port=port)
    try:
        yield node
    finally:
        node.stop()
        engine.dispose()


def archive_at(port: int) -> Destination:
    """The destination "pacs", which is to commit."""
    return replace(destination(port), to_commit=True)


def asking(commitments: Commitments, *destinations: Destination) -> CommitmentPump:
    """What asks, with little patience."""
    return CommitmentPump(
        commitments,
        destinations,
        reports=ReportDesk(commitments, clock=time.time),
        asker=partial(commitment_scu.ask, stay_s=STAY_S),
        clock=time.time,
    )


def result(kind: str) -> OutboxObject:
    """A small result of the study."""
    sop_class = {"SEG": SEG, "SR": COMPREHENSIVE_3D_SR}[kind]
    uid = f"{STUDY}.{len(kind)}"
    data = encoded(sop_class, sop_instance_uid=uid, study_instance_uid=STUDY)
    return OutboxObject(
        kind=kind, sop_class_uid=sop_class, sop_instance_uid=uid, series_instance_uid=f"{uid}.1", data=data
    )


def _peer(ae_title: str) -> AllowedPeer:
    return AllowedPeer(ae_title=ae_title, networks=("127.0.0.0/8",))
