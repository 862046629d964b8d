"""How a scanner's results move over time: ratios, quality, refusals and latency of every finished study, in periods.

A scanner that gets a new coil, another protocol or another dose shifts its numbers without any error message. Two plain
rules point at such a shift. They are a reason to look, never a finding: patients change as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from dicom_node.delivery.outbox import Outbox
from dicom_node.ledger import Ledger
from dicom_node.ledger_rows import FinishedStudy
from dicom_node.study_cards import StudyCards, WorkEars

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


@dataclass(frozen=True, kw_only=True)
class StudyPoint:
    """One finished study. Ratios 0..1; `flagged` if any ear had a remark on its quality; times are POSIX seconds.

    `latency_s` runs from the last image's arrival to the last confirmed delivery; None if not everything arrived, or if
    the study was examined again without new images: nobody waited for that since they came.
    """

    study_instance_uid: str
    scanner: str
    finished_at: float
    refused: bool
    flagged: bool
    ratios: tuple[float, ...]
    latency_s: float | None


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


def study_points(ledger: Ledger, cards: StudyCards, outbox: Outbox, *, since: float) -> list[StudyPoint]:
    """Every study that finished at `since` or later, once, with what came of it last; oldest first."""
    ears_of, delivered = cards.ears_since(since), outbox.delivered_since(since)
    finished = _last_of_each(ledger.finished_since(since))
    without_ears = [one.study_instance_uid for one, _ in finished if one.work_id not in ears_of]
    scanners = cards.scanners(without_ears)
    points = []
    for one, examined_again in finished:
        ears = ears_of.get(one.work_id) or WorkEars(scanner=scanners.get(one.study_instance_uid, ""))
        confirmed = None if examined_again else delivered.get(one.work_id)
        points.append(
            StudyPoint(
                study_instance_uid=one.study_instance_uid,
                scanner=ears.scanner,
                finished_at=one.finished_at,
                refused=one.refused,
                flagged=ears.is_flagged,
                ratios=tuple(ears.ratios),
                latency_s=None if confirmed is None else max(0.0, confirmed - one.arrived_at),
            )
        )
    return points


def _last_of_each(finished: Iterable[FinishedStudy]) -> list[tuple[FinishedStudy, bool]]:
    """The last piece of work of each study, in the order in which they ended, and whether it repeats one before."""
    last: dict[str, tuple[FinishedStudy, bool]] = {}
    for one in finished:
        before = last.pop(one.study_instance_uid, None)
        last[one.study_instance_uid] = one, before is not None and one.arrived_at <= before[0].finished_at
    return list(last.values())


def periods(points: Iterable[StudyPoint], *, since: float, until: float, length_s: float) -> list[Period]:
    """The points in periods of equal length from `since` on; empty periods are left out."""
    found: dict[int, list[StudyPoint]] = {}
    for point in points:
        if since <= point.finished_at <= until:
            found.setdefault(int((point.finished_at - since) // length_s), []).append(point)
    return [
        _period(since + number * length_s, min(until, since + (number + 1) * length_s), found[number])
        for number in sorted(found)
    ]


def _period(begin: float, end: float, points: Sequence[StudyPoint]) -> Period:
    return Period(
        begin=begin,
        end=end,
        studies=len(points),
        refused=sum(point.refused for point in points),
        flagged=sum(point.flagged for point in points),
        ratio=spread(ratio for point in points for ratio in point.ratios),
        latency=spread(point.latency_s for point in points if point.latency_s is not None),
    )


def spread(values: Iterable[float]) -> Spread | None:
    """The spread of some values; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Spread(count=len(ordered), median=median(ordered), low=quantile(ordered, 0.25), high=quantile(ordered, 0.75))


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which `part` (0..1) of the ascending `ordered` lies, between neighbors in proportion."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def shifts(points: Sequence[StudyPoint]) -> list[Shift]:
    """What the last studies of one scanner give reason to look at; `points` oldest first."""
    computed = [point for point in points if not point.refused]
    seen = (
        median_shift("EH ratio", [100.0 * ratio for point in computed for ratio in point.ratios], "%"),
        median_shift("Latency", [point.latency_s for point in points if point.latency_s is not None], "s"),
        share_shift("Quality remarks", [point.flagged for point in computed]),
        share_shift("Refusals", [point.refused for point in points]),
    )
    return [shift for shift in seen if shift is not None]


def median_shift(subject: str, values: Sequence[float], unit: str) -> Shift | None:
    """Whether the median of the last `RECENT` values lies outside the 95 % band of the values before."""
    if len(values) < RECENT + EARLIER:
        return None
    earlier, recent = sorted(values[:-RECENT]), values[-RECENT:]
    low, high = (quantile(earlier, part) for part in BAND)
    now = median(recent)
    if low <= now <= high:
        return None
    return Shift(
        subject=subject,
        sentence=f"{subject}: the median of the last {RECENT} values is {now:.1f} {unit}; judging by the "
        f"{len(earlier)} values before, 95 of 100 such medians lie between {low:.1f} and {high:.1f} {unit}.",
    )


def share_shift(subject: str, happened: Sequence[bool]) -> Shift | None:
    """Whether something happened to the last `RECENT` studies unusually often, or seldom, by the share before."""
    if len(happened) < RECENT + EARLIER:
        return None
    earlier, now = happened[:-RECENT], sum(happened[-RECENT:])
    # Half a case and half a counter-case more: what never happened before may happen once without being a shift.
    share = (sum(earlier) + 0.5) / (len(earlier) + 1.0)
    as_often = sum(_binomial(RECENT, share, count) for count in range(now, RECENT + 1))
    as_seldom = sum(_binomial(RECENT, share, count) for count in range(now + 1))
    if min(as_often, as_seldom) > UNUSUAL:
        return None
    return Shift(
        subject=subject,
        sentence=f"{subject}: {now} of the last {RECENT} studies, against {sum(earlier)} of the {len(earlier)} before; "
        f"by chance alone so {'many' if as_often < as_seldom else 'few'} come in fewer than 25 of 1000 cases.",
    )


def _binomial(trials: int, share: float, count: int) -> float:
    return math.comb(trials, count) * share**count * (1.0 - share) ** (trials - count)
