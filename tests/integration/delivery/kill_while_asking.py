"""Run by test_commitment.py as a process of its own: delivers, asks to commit, and dies at a named step."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicom_node.database import open_database
from dicom_node.delivery import commitment_scu
from dicom_node.delivery.commitment_pump import CommitmentPump
from dicom_node.delivery.commitment_reports import ReportDesk
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import Delivery, Outbox, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store


def die() -> None:
    """End as `kill -9` would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class DyingReports(ReportDesk):
    """Dies when a report has come, or when it has been written down and not answered yet."""

    step = ""

    def answer(self, event: Any) -> tuple[int, None]:
        if self.step == "report came":
            die()
        answer = super().answer(event)
        if self.step == "report kept":
            die()
        return answer


def main(folder: Path, port: int, step: str) -> None:
    """Send what is in the outbox to the archive on `port` of the loopback, ask it, and die at `step`."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    commitments, policy = Commitments(engine, policy=RetryPolicy()), RetryPolicy()
    pacs = Destination(name="pacs", kind="dicom", host="127.0.0.1", port=port, called_ae="PACS", timeout_s=60.0)
    pacs = replace(pacs, to_commit=True)
    reports = DyingReports(commitments, clock=time.time)
    reports.step = step

    def ask(*asked: Any, **how: Any) -> DeliveryOutcome:
        if step == "question kept":
            die()
        outcome = commitment_scu.ask(*asked, **how, stay_s=0.5)
        if step == "question sent":
            die()
        return outcome

    asking = CommitmentPump(commitments, [pacs], reports=reports, asker=ask, clock=time.time)

    def delivered(_delivery: Delivery) -> None:
        if step == "delivery kept":
            die()
        asking.wake()

    sending = DeliveryPump(
        Outbox(folder / "outbox", engine),
        [pacs],
        {"dicom": store},
        policy=policy,
        clock=time.time,
        on_delivered=delivered,
    )
    asking.start()
    sending.start()
    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
