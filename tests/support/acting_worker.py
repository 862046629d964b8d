"""A real worker process on a folder of `desk_parts`, killed (SIGKILL) just before its Nth commit to the state database.

    python acting_worker.py FOLDER KILL_AT SETTINGS_DIGEST

KILL_AT 0 lets it live. It ends by itself when no request is open and no study waits or is under way.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from desk_parts import DeskParts

from dicom_node.ledger import StudyState
from dicom_node.look_pace import LookPace
from dicom_node.roster import Roster
from dicom_node.workflow import StudyWorker

BUSY = (StudyState.WAITING, StudyState.QUEUED, StudyState.COMPUTING)


def main(folder: Path, kill_at: int, digest: str) -> None:
    """Work until there is nothing to do, or until the kill."""
    parts = DeskParts(folder, clock=time.time, digest=digest)
    commits = itertools.count(1)

    @sa.event.listens_for(parts.engine, "commit")
    def _perhaps_the_last(_connection: sa.Connection) -> None:
        if next(commits) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    worker = StudyWorker(
        parts.desk,
        workflow_url=f"sqlite:///{folder / 'workflow.db'}",
        worker_id="worker-1",
        roster=Roster(parts.engine),
        pace=LookPace(parts.engine, clock=time.time, monotonic=time.monotonic),
    )
    stop = threading.Event()
    threading.Thread(target=_stop_when_idle, args=(parts, stop), daemon=True).start()
    worker.run(stop)


def _stop_when_idle(parts: DeskParts, stop: threading.Event) -> None:
    while parts.requests.open() or parts.ledger.in_state(*BUSY):
        time.sleep(0.05)
    stop.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
