"""A shift of a scanner is pointed at, ordinary scatter is not, and periods say what a plain computation says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from math import comb
from statistics import median, quantiles

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.drift import (
    BAND,
    EARLIER,
    RECENT,
    RECORD,
    Period,
    Points,
    Spread,
    median_shift,
    periods,
    share_shift,
    shifts,
)


def point(
    at: float,
    *,
    ratios: Sequence[float] = (0.2,),
    refused: bool = False,
    flagged: bool = False,
    latency_s: float = 60.0,
) -> NDArray[np.void]:
    padded = (*ratios, math.nan, math.nan)[:2]
    return np.array([(at, padded, latency_s, refused, flagged)], RECORD)


def test_the_band_holds_95_of_100_medians_of_twenty():
    low, high = BAND
    above = sum(comb(20, n) * high**n * (1.0 - high) ** (20 - n) for n in range(11))
    assert above == pytest.approx(0.025, abs=0.0005)
    assert low == pytest.approx(1.0 - high, abs=1e-9)


def test_unchanged_values_are_pointed_at_in_about_one_of_twenty_looks():
    rng = random.Random(7)
    looks = 400
    seen = sum(
        median_shift("EH ratio", [rng.gauss(20.0, 6.0) for _ in range(200 + RECENT)], "%") is not None
        for _ in range(looks)
    )
    assert 0.02 * looks < seen < 0.10 * looks


def test_a_scanner_that_reads_higher_from_one_day_on_is_pointed_at_with_the_numbers():
    rng = random.Random(1)
    values = [rng.gauss(20.0, 5.0) for _ in range(100)] + [rng.gauss(30.0, 5.0) for _ in range(RECENT)]
    shift = median_shift("EH ratio", values, "%")
    assert shift is not None
    assert shift.sentence.startswith(f"EH ratio: the median of the last {RECENT} values is 2")
    assert "95 of 100 such medians lie between" in shift.sentence


def test_too_few_values_say_nothing_whatever_they_are():
    few = [10.0] * (EARLIER - 1) + [90.0] * RECENT
    assert median_shift("EH ratio", few, "%") is None
    assert median_shift("EH ratio", [10.0, *few], "%") is not None


@pytest.mark.parametrize(("before", "now", "pointed"), [(5, 1, False), (5, 8, True), (0, 1, False), (0, 4, True)])
def test_a_share_is_pointed_at_when_so_many_are_hardly_chance(before, now, pointed):
    happened = [n < before for n in range(60)] + [n < now for n in range(RECENT)]
    assert (share_shift("Refusals", happened) is not None) is pointed


def test_a_share_that_fell_is_pointed_at_as_well():
    shift = share_shift("Quality remarks", [True, True, False] * 30 + [False] * RECENT)
    assert shift is not None
    assert f"0 of the last {RECENT} studies" in shift.sentence
    assert "so few" in shift.sentence


def test_refused_studies_count_for_refusals_and_not_for_quality():
    points = [point(float(n)) for n in range(80)] + [
        point(80.0 + n, ratios=(), refused=n % 2 == 0) for n in range(RECENT)
    ]
    assert [shift.subject for shift in shifts(Points.of(points))] == ["Refusals"]


def test_periods_hold_medians_and_shares_and_leave_empty_ones_out():
    points = [point(1.0, ratios=[0.1]), point(2.0, ratios=[0.3], flagged=True), point(3.0, ratios=[], refused=True)]
    points += [point(25.0, ratios=[0.5])]
    first, last = periods(Points.of(points), since=0.0, until=28.0, length_s=10.0)
    assert (first.begin, first.end, first.studies, first.flagged, first.refused) == (0.0, 10.0, 3, 1, 1)
    assert first.ratio is not None
    assert (first.ratio.count, first.ratio.median) == (2, pytest.approx(0.2))
    assert (first.ratio.low, first.ratio.high) == (pytest.approx(0.15), pytest.approx(0.25))
    assert (last.begin, last.end, last.studies) == (20.0, 28.0, 1)


def test_studies_of_several_scanners_stand_in_the_order_in_which_they_finished():
    late, early = point(9.0, latency_s=2.0), np.concatenate([point(5.0, latency_s=1.0), point(1.0, latency_s=0.0)])
    assert list(Points.of([late, early]).latencies_s) == [0.0, 1.0, 2.0]
    assert len(Points.of([]).records) == 0


@pytest.mark.parametrize("studies", [1, 2, 3, 50, 2000])
def test_periods_are_to_the_last_digit_what_a_plain_computation_says(studies: int):
    rng = random.Random(studies)
    rows = [
        (
            rng.uniform(-5.0, 105.0),
            tuple(rng.random() for _ in range(rng.choice([0, 1, 2, 2, 2]))),
            rng.choice([math.nan, rng.uniform(5.0, 500.0)]),
            rng.random() < 0.1,
            rng.random() < 0.2,
        )
        for _ in range(studies)
    ]
    points = Points.of([point(at, ratios=r, latency_s=s, refused=no, flagged=flag) for at, r, s, no, flag in rows])
    assert periods(points, since=0.0, until=100.0, length_s=7.0) == plainly(sorted(rows), 0.0, 100.0, 7.0)


def plainly(rows: Sequence[tuple], since: float, until: float, length_s: float) -> list[Period]:
    """Period by period, value by value."""
    found: dict[int, list[tuple]] = {}
    for row in rows:
        if since <= row[0] <= until:
            found.setdefault(int((row[0] - since) // length_s), []).append(row)
    return [
        Period(
            begin=since + number * length_s,
            end=min(until, since + (number + 1) * length_s),
            studies=len(those),
            refused=sum(row[3] for row in those),
            flagged=sum(row[4] for row in those),
            ratio=plain_spread([ratio for row in those for ratio in row[1]]),
            latency=plain_spread([row[2] for row in those if not math.isnan(row[2])]),
        )
        for number, those in sorted(found.items())
    ]


def plain_spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    near = {"rel": 1e-14, "abs": 0.0}  # the library's own quartiles round their last digit otherwise
    return Spread(
        count=len(values), median=median(values), low=pytest.approx(low, **near), high=pytest.approx(high, **near)
    )
