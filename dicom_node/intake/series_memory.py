"""Which series of an Orthanc still arrive, and which have come to rest, as far as this process has seen.

Orthanc says that a series is stable when no image has come for its StableAge; but what is not stable is in its memory,
and so calls everything stable after a restart, half a series too. So a series is at rest only when, besides, it was
seen unchanged for a quiet time. That is measured on our own clock, which nobody can set: Orthanc's may have been put
right in the same restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass

from dicom_node.orthanc_client import OrthancSeries


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A series as Orthanc has it: its SOP Instance UIDs by Orthanc id, but for those new `again`, which are fetched.

    `unchanged_s` is for how long it has been seen as it is.
    """

    series: OrthancSeries
    study_uid: str
    sop_uids: dict[str, str]
    again: frozenset[str]
    unchanged_s: float

    def lacking(self, had: Set[str]) -> set[str]:
        """The ids of which the spool, which has these UIDs, has nothing."""
        return {one for one in self.series.instance_ids if one in self.sop_uids and self.sop_uids[one] not in had}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A series at rest of which nothing was lacking: the spool then had so many images of it."""

    study_uid: str
    kept: int


State = tuple[float | None, int]


def _state(series: OrthancSeries) -> State:
    """Equal as long as nothing has happened to a series."""
    return series.last_update, len(series.instance_ids)


class SeriesMemory:
    """What was seen of the series of one Orthanc; one thread uses it.

    Parameters
    ----------
    clock
        Seconds, never set back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._arriving: dict[str, Reading] = {}
        self._seen: dict[str, tuple[State, float]] = {}
        self._settled: dict[str, tuple[State, Settled]] = {}

    def clear(self) -> None:
        """It is another database now."""
        self._arriving.clear()
        self._seen.clear()
        self._settled.clear()

    def arriving(self) -> list[str]:
        """Orthanc ids of the series that have not come to rest."""
        return sorted(self._arriving)

    def before(self, series: OrthancSeries) -> Reading | None:
        """What was read last of a series that has not come to rest."""
        return self._arriving.get(series.orthanc_id)

    def unchanged_s(self, series: OrthancSeries, *, listed_at: float) -> float:
        """For how long the series had been seen as it is when Orthanc listed it, which was not before `listed_at`."""
        state, since = self._seen.get(series.orthanc_id, (None, 0.0))
        if state != _state(series):
            self._seen[series.orthanc_id] = (_state(series), self.clock())
            return 0.0
        return max(0.0, listed_at - since)

    def settled(self, series: OrthancSeries) -> Settled | None:
        """What was noted when it settled, if nothing has happened to it since."""
        state, settled = self._settled.get(series.orthanc_id, (None, None))
        return settled if state == _state(series) else None

    def arrives(self, reading: Reading) -> None:
        """More is to come of this series."""
        self._arriving[reading.series.orthanc_id] = reading

    def rests(self, series: OrthancSeries, settled: Settled | None) -> None:
        """It has come to rest; `settled` if nothing is lacking of it, so that it need not be looked at again."""
        self.forget(series.orthanc_id)
        if settled is not None:
            self._settled[series.orthanc_id] = (_state(series), settled)

    def pass_over(self, series_id: str) -> None:
        """It is not to be looked at before the next comparison."""
        self._arriving.pop(series_id, None)

    def forget(self, series_id: str) -> None:
        """It is gone."""
        for known in (self._arriving, self._seen, self._settled):
            known.pop(series_id, None)
