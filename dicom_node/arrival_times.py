"""When images came, by the clock as it is now: a clock that was set keeps no study waiting, and closes none early.

Times of receipt are wall times, because a quiet time has to go on over a restart. After the clock was set they are
judged by a clock that nobody can set: what seems to come from the future came when this process first saw it, and what
came before the clock was put forward came, at the earliest, at that moment. Either way a study waits for one quiet
time more, at the most.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from dicom_node.assembly.completeness import Arrival
from dicom_node.clock_watch import ClockWatch

log = logging.getLogger(__name__)


class ArrivalTimes:
    """What one process knows of the clock beside the times of receipt; safe with several threads.

    Parameters
    ----------
    clock, monotonic
        POSIX seconds, and seconds that nobody sets.
    """

    def __init__(self, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._watch = ClockWatch(clock, monotonic)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._put_forward_at: float | None = None
        self._from_the_future: dict[str, tuple[float, float]] = {}

    def look(self) -> None:
        """Find out whether the clock was set; to be called often, so that it is known when that was."""
        by_s = self._watch.set_by_s()
        if not by_s:
            return
        log.warning("event=clock_set by_s=%.0f hint=studies that wait for images wait for one quiet time more", by_s)
        if by_s > 0.0:
            with self._lock:
                self._put_forward_at = self._monotonic()

    def as_of(self, arrivals: Mapping[str, Arrival], now: float) -> dict[str, Arrival]:
        """The arrivals with times of receipt that can be compared with `now` (POSIX seconds)."""
        self.look()
        with self._lock:
            return {series: replace(one, last_received_at=self._came_at(one, now)) for series, one in arrivals.items()}

    def _came_at(self, arrival: Arrival, now: float) -> float:
        """When the last image of a series came, by a clock that had always been as it is now."""
        steady, stamp = self._monotonic(), arrival.last_received_at
        if stamp > now:
            known, seen_at = self._from_the_future.get(arrival.series_instance_uid, (stamp, steady))
            if known != stamp:
                seen_at = steady
            self._from_the_future[arrival.series_instance_uid] = (stamp, seen_at)
            return now - (steady - seen_at)
        self._from_the_future.pop(arrival.series_instance_uid, None)
        if self._put_forward_at is None:
            return stamp
        return max(stamp, now - (steady - self._put_forward_at))
