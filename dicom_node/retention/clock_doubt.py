"""Whether the clock may be gone by when something is erased: by one that is far ahead, everything would be."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dicom_node.clock_watch import ClockWatch
from dicom_node.retention.periods import A_DAY_S

log = logging.getLogger(__name__)

MARK: Final = "retention.clock"
"""A file in the state folder, as old as the last look at which the clock was believed. While it is not, it holds for
how many seconds the node has yet to run: one that is started anew every night has to come to an end of its doubt."""


class ClockDoubt:
    """Doubts a clock for a day after it jumped ahead by more than one, be it while the node did not run.

    A node that was off for longer cannot tell that from a wrong clock, and doubts it as well. The day is one of a node
    that runs: while it is off nobody sees that it doubts, and the clock that would tell how long it was off is the one
    in doubt. One that is set back may be gone by at once.

    Parameters
    ----------
    clock, monotonic
        POSIX seconds, and seconds that nobody sets.
    """

    def __init__(self, state_dir: Path, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._mark = state_dir / MARK
        self._clock = clock
        self._monotonic = monotonic
        self._watch = ClockWatch(clock, monotonic)
        self._looked = False
        self._believed_from: float | None = None

    def is_over(self) -> bool:
        """Whether the clock is believed now."""
        now, steady, ahead_s = self._clock(), self._monotonic(), self._watch.set_by_s()
        left_s = A_DAY_S
        if not self._looked and self._mark.exists():
            ahead_s = now - self._mark.stat().st_mtime
            left_s = self._left_s()
        self._looked = True
        if ahead_s > A_DAY_S:
            self._believed_from = steady + left_s
            log.error("event=clock_jumped ahead_s=%.0f nothing_ends_for_s=%.0f", ahead_s, left_s)
        elif ahead_s < -A_DAY_S:
            self._believed_from = None
        if self._believed_from is not None and steady < self._believed_from:
            self._write(f"{self._believed_from - steady:.0f}")
            return False
        self._believed_from = None
        self._write("")
        os.utime(self._mark, (now, now))
        return True

    def _left_s(self) -> float:
        """How long a doubt lasts that may have begun before this start; an older version's mark holds since when."""
        left = self._mark.read_text(encoding="utf-8")
        return min(A_DAY_S, float(left)) if left else A_DAY_S

    def _write(self, text: str) -> None:
        """Put this into the mark, whose age stays what it is: a younger one would say that the clock is believed."""
        written = self._mark.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        if self._mark.exists():
            age = self._mark.stat()
            os.utime(written, ns=(age.st_atime_ns, age.st_mtime_ns))
        written.replace(self._mark)
