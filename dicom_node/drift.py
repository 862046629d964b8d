"""How a scanner's results move over time: ratios, quality, refusals and latency of every finished study, in periods.

A scanner that gets a new coil, another protocol or another dose shifts its numbers without any error message. Two plain
rules point at such a shift. They are a reason to look, never a finding: patients change as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

DAY_S: Final = 86400.0

RECENT: Final = 20
"""How many of the last values are held against those before: about a month of a busy inner-ear clinic."""

EARLIER: Final = 40
"""Fewer earlier values than this say too little about what is usual; then nothing is pointed at."""

BAND: Final = (0.272, 0.728)
"""Quantiles of earlier values between which the median of 20 further ones falls in 95 of 100 cases if nothing changed:
the p with P(Binomial(20, p) <= 10) = 0.025, and its mirror image."""

UNUSUAL: Final = 0.025
"""How unlikely a count of the last 20 has to be, toward more or toward less, to be pointed at."""

RECORD: Final = np.dtype(
    [
        ("finished_at", "<f8"),
        ("ratios", "<f8", (2,)),
        ("latency_s", "<f8"),
        ("refused", "?"),
        ("flagged", "?"),
    ]
)
"""One finished study. Ratios 0..1 of up to two ears, NaN where there is none; `flagged` if any ear had a remark on its
quality; `finished_at` is POSIX seconds.

`latency_s` runs from the last image's arrival to the last confirmed delivery; NaN if not everything arrived, or if the
study was examined again without new images: nobody waited for that since they came.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Finished studies, oldest first; `records` has shape (n,) and type `RECORD`."""

    records: NDArray[np.void]

    @classmethod
    def of(cls, parts: Sequence[NDArray[np.void]]) -> Self:
        """The studies of several arrays together."""
        together = np.concatenate([np.empty(0, RECORD), *parts])
        return cls(records=together[np.argsort(together["finished_at"], kind="stable")])

    def where(self, chosen: NDArray[np.bool_]) -> Points:
        """Those of them, `chosen` having shape (n,)."""
        return Points(records=self.records[chosen])

    @property
    def ratios(self) -> NDArray[np.float64]:
        """The ratio of every ear that has one, study by study."""
        every: NDArray[np.float64] = self.records["ratios"].ravel()
        return every[~np.isnan(every)]

    @property
    def latencies_s(self) -> NDArray[np.float64]:
        """The latency of every study that has one."""
        every: NDArray[np.float64] = self.records["latency_s"]
        return every[~np.isnan(every)]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of several values: how many, their median and the middle half."""

    count: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Period:
    """All studies that one scanner finished between `begin` and `end`; shares are 0..1 of the studies."""

    begin: float
    end: float
    studies: int
    refused: int
    flagged: int
    ratio: Spread | None
    latency: Spread | None


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Something to look at: `subject` names the number, `sentence` says what was seen and by which rule."""

    subject: str
    sentence: str


def periods(points: Points, *, since: float, until: float, length_s: float) -> list[Period]:
    """The points in periods of equal length from `since` on; empty periods are left out."""
    at = points.records["finished_at"]
    inside = points.where((since <= at) & (at <= until))
    numbers = (inside.records["finished_at"] - since) // length_s
    return [
        _period(
            since + number * length_s,
            min(until, since + (number + 1) * length_s),
            inside.where(numbers == number),
        )
        for number in map(int, np.unique(numbers))
    ]


def _period(begin: float, end: float, points: Points) -> Period:
    return Period(
        begin=begin,
        end=end,
        studies=len(points.records),
        refused=int(np.count_nonzero(points.records["refused"])),
        flagged=int(np.count_nonzero(points.records["flagged"])),
        ratio=spread(points.ratios),
        latency=spread(points.latencies_s),
    )


def spread(values: ArrayLike) -> Spread | None:
    """The spread of some values; None if there are none."""
    ordered = np.sort(np.asarray(values, np.float64))
    if not len(ordered):
        return None
    return Spread(
        count=len(ordered), median=_median(ordered), low=quantile(ordered, 0.25), high=quantile(ordered, 0.75)
    )


def quantile(ordered: NDArray[np.float64], part: float) -> float:
    """The value below which `part` (0..1) of the ascending `ordered` lies, between neighbors in proportion."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _median(ordered: NDArray[np.float64]) -> float:
    """The middle of the ascending `ordered`, or halfway between the two that are."""
    return float(0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]))


def shifts(points: Points) -> list[Shift]:
    """What the last studies of one scanner give reason to look at."""
    computed = points.where(~points.records["refused"])
    seen = (
        median_shift("EH ratio", 100.0 * computed.ratios, "%"),
        median_shift("Latency", points.latencies_s, "s"),
        share_shift("Quality remarks", computed.records["flagged"]),
        share_shift("Refusals", points.records["refused"]),
    )
    return [shift for shift in seen if shift is not None]


def median_shift(subject: str, values: ArrayLike, unit: str) -> Shift | None:
    """Whether the median of the last `RECENT` values lies outside the 95 % band of the values before."""
    every = np.asarray(values, np.float64)
    if len(every) < RECENT + EARLIER:
        return None
    earlier, recent = np.sort(every[:-RECENT]), np.sort(every[-RECENT:])
    low, high = (quantile(earlier, part) for part in BAND)
    now = _median(recent)
    if low <= now <= high:
        return None
    return Shift(
        subject=subject,
        sentence=f"{subject}: the median of the last {RECENT} values is {now:.1f} {unit}; judging by the "
        f"{len(earlier)} values before, 95 of 100 such medians lie between {low:.1f} and {high:.1f} {unit}.",
    )


def share_shift(subject: str, happened: ArrayLike) -> Shift | None:
    """Whether something happened to the last `RECENT` studies unusually often, or seldom, by the share before."""
    every = np.asarray(happened, bool)
    if len(every) < RECENT + EARLIER:
        return None
    before, earlier = int(np.count_nonzero(every[:-RECENT])), len(every) - RECENT
    now = int(np.count_nonzero(every[-RECENT:]))
    # Half a case and half a counter-case more: what never happened before may happen once without being a shift.
    share = (before + 0.5) / (earlier + 1.0)
    as_often = sum(_binomial(RECENT, share, count) for count in range(now, RECENT + 1))
    as_seldom = sum(_binomial(RECENT, share, count) for count in range(now + 1))
    if min(as_often, as_seldom) > UNUSUAL:
        return None
    return Shift(
        subject=subject,
        sentence=f"{subject}: {now} of the last {RECENT} studies, against {before} of the {earlier} before; "
        f"by chance alone so {'many' if as_often < as_seldom else 'few'} come in fewer than 25 of 1000 cases.",
    )


def _binomial(trials: int, share: float, count: int) -> float:
    return math.comb(trials, count) * share**count * (1.0 - share) ** (trials - count)
