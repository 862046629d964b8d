"""A real worker process on a folder of `desk_parts` whose studies hang in their first step.

    python hanging_worker.py FOLDER LIMIT_S

It ends by itself when no study waits or is under way.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from desk_parts import DeskParts

from dicom_node.ledger import StudyState
from dicom_node.look_pace import LookPace
from dicom_node.roster import Roster
from dicom_node.time_limit import TimeLimit
from dicom_node.workflow import StudyWorker

BUSY = (StudyState.WAITING, StudyState.QUEUED, StudyState.COMPUTING)


def main(folder: Path, limit_s: float) -> None:
    """Work until there is nothing to do, or until the limit ends this process."""
    parts = DeskParts(folder, clock=time.time, on_step=lambda: time.sleep(3600))
    worker = StudyWorker(
        parts.desk,
        workflow_url=f"sqlite:///{folder / 'workflow.db'}",
        worker_id="worker-1",
        roster=Roster(parts.engine),
        pace=LookPace(parts.engine, clock=time.time, monotonic=time.monotonic),
        time_limit=TimeLimit(folder / "worker-1.limit", limit_s),
    )
    stop = threading.Event()
    threading.Thread(target=_stop_when_idle, args=(parts, stop), daemon=True).start()
    worker.run(stop)


def _stop_when_idle(parts: DeskParts, stop: threading.Event) -> None:
    while parts.ledger.in_state(*BUSY):
        time.sleep(0.05)
    stop.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
