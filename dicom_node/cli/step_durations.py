"""How long the named steps took since the worker's start, as a histogram that Prometheus can read."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any, Final

BOUNDS_S: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds in seconds; a step takes from a few hundredths to some ten seconds on two cores."""


class StepDurations:
    """Counts of durations by step; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, step: str, seconds: float) -> None:
        """One step ended. Steps are named by the program, so there are a dozen of them."""
        with self._lock:
            counts = self._counts.setdefault(step, [0] * (len(BOUNDS_S) + 1))
            counts[bisect_left(BOUNDS_S, seconds)] += 1
            self._sums[step] = self._sums.get(step, 0.0) + seconds

    def as_json(self) -> dict[str, Any]:
        """Step -> `counts` (one for each bound, and one for what is longer) and `sum_s`."""
        with self._lock:
            return {step: {"counts": list(counts), "sum_s": self._sums[step]} for step, counts in self._counts.items()}
