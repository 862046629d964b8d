"""Run by test_pump.py as a process of its own: sends what is due and dies before it can record that it did."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store


def send_and_die(data: bytes, destination: Destination) -> DeliveryOutcome:
    """Deliver, then end as `kill -9` would, so that the outcome is never recorded."""
    store(data, destination)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def main(folder: Path, port: int) -> None:
    """Pump the outbox in `folder` to the receiver on `port` of the loopback."""
    outbox = Outbox(folder / "outbox", open_database(f"sqlite:///{folder / 'node.db'}"))
    pacs = Destination(name="pacs", kind="dicom", host="127.0.0.1", port=port, called_ae="PACS", timeout_s=60.0)
    DeliveryPump(outbox, [pacs], {"dicom": send_and_die}, policy=RetryPolicy(), clock=time.time).start()
    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
