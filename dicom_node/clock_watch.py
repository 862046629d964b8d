"""Notices that somebody set the clock: everything that waits is planned in wall time, which survives a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

SET_BY_S: Final = 1.0
"""From here on a step counts as set. Time servers slew smaller differences in, and no wait of ours is that short."""


class ClockWatch:
    """Compares the wall clock with one that nobody can set; safe with several threads.

    A machine that was asleep looks like one whose clock was put forward: in both cases nobody was awake to be waited
    for, and what is done about it is the same.

    Parameters
    ----------
    clock
        POSIX seconds.
    monotonic
        Seconds that only ever grow, at the same pace.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._apart_s: float | None = None

    def set_by_s(self) -> float:
        """How many seconds the clock was put forward since the last call (negative: back); 0.0 if it just ran on.

        The first call has nothing to compare with, and gives 0.0.
        """
        with self._lock:
            apart_s, before_s = self._read_apart_s(), self._apart_s
            self._apart_s = apart_s
        by_s = 0.0 if before_s is None else apart_s - before_s
        return by_s if abs(by_s) >= SET_BY_S else 0.0

    def _read_apart_s(self) -> float:
        """By how much the clocks are apart; a thread that was kept waiting in between reads them anew."""
        while True:
            steady, now = self._monotonic(), self._clock()
            if self._monotonic() - steady < SET_BY_S / 2:
                return now - steady
