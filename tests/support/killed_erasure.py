"""A process that erases on a folder of `kept_studies`, killed (SIGKILL) just before its Nth step.

A step is whatever changes the state folder for good: a commit, a file that goes, a folder that is renamed, an entry of
the audit trail. The process is forked from the test's, which has everything imported: a kill costs a tenth of a second.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import sqlalchemy as sa
from kept_studies import A_DAY_S, KeptStudies

CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.truncate"}
FINISHED = 0
FAILED = 1


def erase(folder: Path, *, kill_at: int, days: float) -> int:
    """Erase what is due after so many days; `FINISHED`, or -SIGKILL if it was killed before its step `kill_at`.

    With `kill_at` 0, or when it takes fewer steps, it lives to its end.
    """
    child = os.fork()
    if child == 0:
        ended = FAILED
        try:
            _erase_here(folder, kill_at, days)
            ended = FINISHED
        finally:  # whatever happened: the child must not go on with the test that it is a copy of
            if ended is FAILED:
                traceback.print_exc()
            os._exit(ended)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _erase_here(folder: Path, kill_at: int, days: float) -> None:
    now = time.time() + days * A_DAY_S
    node = KeptStudies(folder, clock=lambda: now)
    _kill_before(node.engine, kill_at)
    while node.rounds.once():
        pass


def _kill_before(engine: sa.Engine, kill_at: int) -> None:
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @sa.event.listens_for(engine, "commit")
    def _commit(_connection: sa.Connection) -> None:
        step()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        appends = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & os.O_APPEND)
        if event in CHANGES or appends:
            step()

    sys.addaudithook(hook)
