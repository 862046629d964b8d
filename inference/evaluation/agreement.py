"""How well found numbers agree with true ones, and whether groups of ears differ: pingouin and scipy do the statistics.

Every value is None where it is undefined; a table then shows a dash, never a zero.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LIMITS_SD: Final = 1.96
"""Bland-Altman's 95 % limits of agreement are the mean difference -+ this many SDs of the differences."""

MIN_FOR_ICC: Final = 5
"""Fewer ears give an intraclass correlation whose interval spans everything (and pingouin refuses them)."""

MIN_PER_GROUP: Final = 5
"""Fewer values per group, or pairs, make a rank test's p value meaningless."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Found against true EH ratios of the ears that got a number.

    `mae` mean absolute error, `bias` mean of found less true, `limit_low` and `limit_high` Bland-Altman's 95 % limits,
    `icc` the intraclass correlation ICC(2,1) (two-way random, single measurement, absolute agreement) with its 95 %
    interval, `coverage` the part of ears whose true ratio lies in the stated interval, `mean_half_width` that
    interval's.
    """

    ears: int
    mae: float | None
    bias: float | None
    limit_low: float | None
    limit_high: float | None
    icc: float | None
    icc_low: float | None
    icc_high: float | None
    coverage: float | None
    mean_half_width: float | None


@dataclass(frozen=True, kw_only=True)
class GroupTest:
    """A rank test of whether ears of several groups are measured equally well; `p_value` None if it is undefined."""

    name: str
    quantity: str
    groups: tuple[str, ...]
    counts: tuple[int, ...]
    statistic: float | None
    p_value: float | None


def ratio_agreement(
    true: Sequence[float], found: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> Agreement:
    """Agreement of paired ratios; `intervals` are (low, high) of each ear, or empty if none were stated.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    if len(true) != len(found) or (len(intervals) and len(intervals) != len(true)):
        raise ValueError(f"need one found ratio and interval per true one: {len(true)}, {len(found)}, {len(intervals)}")
    truth, error = np.array(true, dtype=np.float64), np.array(found, dtype=np.float64) - np.array(true)
    spread = LIMITS_SD * float(error.std(ddof=1)) if len(error) > 1 else None
    bias = float(error.mean()) if len(error) else None
    icc = intraclass_correlation(truth, truth + error)
    low, high = np.array(intervals, dtype=np.float64).reshape(-1, 2).T
    return Agreement(
        ears=len(true),
        mae=float(np.abs(error).mean()) if len(error) else None,
        bias=bias,
        limit_low=None if bias is None or spread is None else bias - spread,
        limit_high=None if bias is None or spread is None else bias + spread,
        icc=None if icc is None else icc[0],
        icc_low=None if icc is None else icc[1],
        icc_high=None if icc is None else icc[2],
        coverage=float(((low <= truth) & (truth <= high)).mean()) if len(low) else None,
        mean_half_width=float((high - low).mean() / 2.0) if len(low) else None,
    )


def intraclass_correlation(one: Numbers, other: Numbers) -> tuple[float, float, float] | None:
    """ICC(2,1) of two measurements of the same ears with its 95 % interval; None if it is undefined.

    Undefined with fewer than `MIN_FOR_ICC` ears, or if all values are the same.
    """
    if len(one) < MIN_FOR_ICC or np.ptp(np.concatenate([one, other])) == 0.0:
        return None
    import pandas
    import pingouin

    ears = np.arange(len(one))
    table = pandas.DataFrame(
        {
            "ear": np.concatenate([ears, ears]),
            "rater": np.repeat(["truth", "node"], len(one)),
            "ratio": np.concatenate([one, other]),
        }
    )
    # Identical ratings make the residual zero; pingouin then divides by it, and the limit is what is meant: 1.
    # Its own deprecations of pandas are none of ours.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings(), _unrounded():
        warnings.simplefilter("ignore")
        result = pingouin.intraclass_corr(data=table, targets="ear", raters="rater", ratings="ratio")
    row = result.set_index("Type").loc["ICC(A,1)"]
    value, (low, high) = float(row["ICC"]), (float(limit) for limit in row["CI95"])
    if not math.isfinite(value):
        return None
    return value, low if math.isfinite(low) else value, high if math.isfinite(high) else value


def share_interval(share: float, of: int) -> tuple[float, float]:
    """The 95 % interval (Clopper and Pearson) of a share (0..1) that was counted in `of` independent ears.

    A coverage of 32 of 32 ears leaves 0.89 to 1 open; two ears of one patient resemble each other, so it is a little
    wider in truth.
    """
    interval = stats.binomtest(round(share * of), of).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


@contextmanager
def _unrounded() -> Iterator[None]:
    """Intervals with all digits; pingouin rounds them to two, which an ICC of 0.97 cannot afford."""
    import pingouin

    before = pingouin.options["round.column.CI95"]
    pingouin.options["round.column.CI95"] = None
    try:
        yield
    finally:
        pingouin.options["round.column.CI95"] = before


def compare_pairs(quantity: str, pairs: Mapping[str, Sequence[float]]) -> GroupTest:
    """Wilcoxon's signed-rank test of two groups whose n-th values belong together (two ears of one patient).

    Raises
    ------
    ValueError
        If there are not two groups of one length.
    """
    groups = tuple(pairs)
    one, other = (np.array(pairs[name], dtype=np.float64) for name in groups)
    if len(one) != len(other):
        raise ValueError(f"pairs need as many values on both sides, found {len(one)} and {len(other)}")
    statistic, p_value = None, None
    if np.count_nonzero(one != other) >= MIN_PER_GROUP:
        result = stats.wilcoxon(one, other)
        statistic, p_value = float(result.statistic), float(result.pvalue)
    return GroupTest(
        name="Wilcoxon signed-rank",
        quantity=quantity,
        groups=groups,
        counts=(len(one), len(other)),
        statistic=statistic,
        p_value=p_value,
    )


def compare_groups(quantity: str, groups: Mapping[str, Sequence[float]]) -> GroupTest:
    """Kruskal and Wallis's test of independent groups (scanners, contrast states)."""
    values = [np.array(one, dtype=np.float64) for one in groups.values()]
    statistic, p_value = None, None
    enough = len(values) >= 2 and min(len(one) for one in values) >= MIN_PER_GROUP
    if enough and np.ptp(np.concatenate(values)) > 0.0:
        result = stats.kruskal(*values)
        statistic, p_value = float(result.statistic), float(result.pvalue)
    return GroupTest(
        name="Kruskal-Wallis",
        quantity=quantity,
        groups=tuple(groups),
        counts=tuple(len(one) for one in values),
        statistic=statistic,
        p_value=p_value,
    )
