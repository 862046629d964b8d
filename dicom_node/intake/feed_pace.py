"""When to look at an Orthanc's change log again.

At an interval; several times a second while images come, so that they are fetched as they arrive and only the last ones
are left when a study ends; and later and later while Orthanc, network or disk fail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

ARRIVING_LOOK_S: Final = 0.2
"""From one look to the next while images come. One that takes longer, because it fetches them, is followed at once.

Where nothing is new a look is one question: 0.4 ms of this node's processor and 0.1 ms of Orthanc's.
"""

ARRIVING_S: Final = 10.0
"""How long after the last new image that goes on. Not until Orthanc calls the series stable: by default, after 60 s."""

LONGEST_S: Final = 60.0
"""Longest pause after failures."""


class FeedPace:
    """The pauses of one feed.

    Parameters
    ----------
    interval_s
        Pause where nothing comes; the first one after a failure.
    clock
        Seconds, never set back.
    """

    def __init__(self, *, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._began = -math.inf
        self._last_at_all = -math.inf
        self._arriving_until = -math.inf
        self._failures = 0

    def begin(self) -> bool:
        """Say that a look begins; whether an interval has passed since the last one of which this said so."""
        self._began = self._clock()
        return self._began >= self._last_at_all + self._interval_s

    def end(self, taken: int, *, at_all: bool) -> float:
        """Say that it ended with so many new images, and whether it was one at everything; seconds until the next."""
        now = self._clock()
        self._failures = 0
        if at_all:
            self._last_at_all = self._began
        if taken:
            self._arriving_until = now + ARRIVING_S
        if now < self._arriving_until:
            return min(self._interval_s, max(0.0, ARRIVING_LOOK_S - (now - self._began)))
        return self._interval_s

    def fail(self) -> float:
        """Say that it failed; seconds until the next."""
        delay_s = min(self._interval_s * 2.0**self._failures, LONGEST_S)
        self._failures += 1
        return delay_s
