"""Real workers on a folder of `desk_parts`, forked from a process that has their modules loaded.

What is forked is a worker of its own: its threads, files and databases are made after the fork. It computes, and
delivers to a PACS on this machine, until it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Final

BEAT_S: Final = 0.1
"""Signs of life come twenty times as fast as in a node, so that a trial takes seconds."""


class Stem:
    """The process that workers are forked from; it ends with the process that made it."""

    def __init__(self) -> None:
        folders = os.pathsep.join(one for one in sys.path if one)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": folders, "OMP_NUM_THREADS": "1"},
        )

    def fork(
        self,
        folder: Path,
        worker_id: str,
        pacs_port: int,
        point: str = "",
        harm: str = "",
        version: str = "",
        beat_s: float = BEAT_S,
    ) -> int:
        """Start a worker that comes to `harm` at `point` of its first study; returns its process id.

        `version` is that of the steps which it knows, if not today's; signs of life come every `beat_s` seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), worker_id, pacs_port, point, harm, version, beat_s]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that workers are forked from is gone")
        return int(line)


@cache
def the_stem() -> Stem:
    """One for the whole run."""
    return Stem()


def run_worker(
    folder: Path, worker_id: str, pacs_port: int, point: str, harm: str, version: str, beat_s: float
) -> None:
    """Work for ever, as worker `worker_id`; its log is `WORKER_ID.log` in the folder."""
    import logging

    from desk_parts import DeskParts
    from dicom_receivers import destination
    from tripwire import arm

    from dicom_node import workflow
    from dicom_node.delivery.outbox import RetryPolicy
    from dicom_node.delivery.pump import DeliveryPump
    from dicom_node.delivery.store_scu import store
    from dicom_node.look_pace import LookPace
    from dicom_node.roster import Roster

    logging.basicConfig(filename=folder / f"{worker_id}.log", level=logging.INFO)
    if point:
        arm(point, harm)
    parts = DeskParts(folder, clock=time.time, worker_id=worker_id, summary=True)
    policy = RetryPolicy(first_retry_s=0.1, max_retry_s=0.5)
    pump = DeliveryPump(
        parts.outbox, [destination(pacs_port, timeout_s=5.0)], {"dicom": store}, policy=policy, clock=time.time
    )
    pump.start()
    threading.Thread(target=_wake_often, args=(pump,), daemon=True).start()
    workflow.APPLICATION_VERSION = version or workflow.APPLICATION_VERSION  # type: ignore[misc]
    worker = workflow.StudyWorker(
        parts.desk,
        workflow_url=f"sqlite:///{folder / 'workflow.db'}",
        worker_id=worker_id,
        roster=Roster(parts.engine),
        pace=LookPace(parts.engine, clock=time.time, monotonic=time.monotonic),
        beat_s=beat_s,
    )
    worker.run(threading.Event())


def _wake_often(pump: object) -> None:
    """The other worker cannot wake this one's pump, which by itself looks every ten seconds."""
    while True:
        pump.wake()  # type: ignore[attr-defined]
        time.sleep(0.1)


def _fork_on_request() -> None:
    import dicom_receivers  # noqa: F401 - loaded before the fork, like all that follows
    from desk_parts import DeskParts  # noqa: F401
    from tripwire import arm  # noqa: F401

    from dicom_node import workflow  # noqa: F401
    from dicom_node.delivery import pump, store_scu  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel takes them away
    for line in iter(sys.stdin.readline, ""):
        folder, *words = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run_worker(Path(folder), *words)
        print(pid, flush=True)


if __name__ == "__main__":
    _fork_on_request()
