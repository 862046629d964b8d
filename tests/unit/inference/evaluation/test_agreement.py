"""Statistics against published examples and against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inference.evaluation.agreement import (
    compare_groups,
    compare_pairs,
    intraclass_correlation,
    ratio_agreement,
    share_interval,
)


def icc_2_1_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    """Shrout and Fleiss 1979, case 2: (BMS - EMS) / (BMS + (k - 1) EMS + k (JMS - EMS) / n) with k = 2 raters."""
    table = np.stack([one, other], axis=1)
    n, k = table.shape
    grand = table.mean()
    between = k * ((table.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    judges = n * ((table.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + grand
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    return float((between - error) / (between + (k - 1) * error + k * (judges - error) / n))


def test_the_icc_is_shrout_and_fleiss_case_two_and_counts_a_bias_as_disagreement() -> None:
    rng = np.random.default_rng(4)
    true = rng.uniform(0.06, 0.5, 30)
    noisy, biased = true + rng.normal(0.0, 0.03, 30), true + 0.1
    for found in (noisy, biased):
        icc = intraclass_correlation(true, found)
        assert icc is not None
        value, low, high = icc
        assert value == pytest.approx(icc_2_1_by_hand(true, found), abs=1e-6)
        assert low <= value <= high
    assert np.corrcoef(true, biased)[0, 1] == pytest.approx(1.0)
    assert icc_2_1_by_hand(true, biased) < 0.9


def test_the_interval_of_the_icc_keeps_its_digits_and_narrows_with_more_ears() -> None:
    rng = np.random.default_rng(6)
    widths = []
    for ears in (20, 200):
        true = rng.uniform(0.06, 0.5, ears)
        icc = intraclass_correlation(true, true + rng.normal(0.0, 0.05, ears))
        assert icc is not None
        value, low, high = icc
        assert low < value < high
        assert round(low, 2) != low
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_icc_of_identical_ratings_is_one_and_of_constant_or_few_ones_undefined() -> None:
    ratios = np.linspace(0.1, 0.4, 8)
    icc = intraclass_correlation(ratios, ratios)
    assert icc is not None
    assert icc == pytest.approx((1.0, 1.0, 1.0))
    assert intraclass_correlation(np.full(8, 0.2), np.full(8, 0.2)) is None
    assert intraclass_correlation(ratios[:4], ratios[:4]) is None


def test_bland_altman_limits_are_bias_and_1_96_standard_deviations() -> None:
    true, error = np.full(6, 0.3), np.array([0.01, -0.01, 0.03, 0.01, -0.01, 0.03])
    agreed = ratio_agreement(true.tolist(), (true + error).tolist(), [])
    assert agreed.bias == pytest.approx(0.01)
    assert agreed.mae == pytest.approx(0.1 / 6)
    spread = 1.96 * np.sqrt((error - 0.01) @ (error - 0.01) / 5)
    assert (agreed.limit_low, agreed.limit_high) == pytest.approx((0.01 - spread, 0.01 + spread))
    assert agreed.coverage is None


def test_coverage_counts_the_true_ratios_inside_their_own_intervals_borders_included() -> None:
    true = [0.1, 0.2, 0.3, 0.4]
    agreed = ratio_agreement(true, [0.12, 0.2, 0.38, 0.4], [(0.07, 0.17), (0.2, 0.3), (0.33, 0.43), (0.35, 0.45)])
    assert agreed.coverage == 0.75
    assert agreed.mean_half_width == pytest.approx(0.05)


def test_a_share_of_few_ears_leaves_much_open_and_of_many_little() -> None:
    assert share_interval(1.0, 32) == pytest.approx((0.025 ** (1 / 32), 1.0))
    few, many = share_interval(0.95, 40), share_interval(0.95, 400)
    assert few[0] < many[0] < 0.95 < many[1] < few[1]
    assert many[1] - many[0] < 0.05


def test_of_no_ear_nothing_is_known_and_of_one_ear_no_limits() -> None:
    none = ratio_agreement([], [], [])
    assert (none.ears, none.mae, none.bias, none.limit_low, none.icc, none.coverage) == (
        0,
        None,
        None,
        None,
        None,
        None,
    )
    one = ratio_agreement([0.2], [0.25], [(0.2, 0.3)])
    assert (one.limit_low, one.limit_high, one.icc) == (None, None, None)
    assert (one.bias, one.coverage) == (pytest.approx(0.05), 1.0)


def test_pairs_of_different_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="one found ratio"):
        ratio_agreement([0.1, 0.2], [0.1], [])
    with pytest.raises(ValueError, match="found 2 and 1"):
        compare_pairs("error", {"right": [0.1, 0.2], "left": [0.1]})


def test_one_side_measured_worse_in_every_patient_is_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(2)
    right = rng.uniform(0.0, 0.02, 12)
    worse = compare_pairs("error", {"right": right.tolist(), "left": (right + 0.01).tolist()})
    assert worse.p_value == pytest.approx(2 / 2**12)  # exact: all 12 signs alike, two-sided
    alike = compare_pairs("error", {"right": right.tolist(), "left": rng.permutation(right).tolist()})
    assert alike.p_value is not None
    assert alike.p_value > 0.05
    assert compare_pairs("error", {"right": [0.1] * 9, "left": [0.1] * 9}).p_value is None


def test_a_scanner_that_differs_is_found_and_tiny_groups_are_left_undecided() -> None:
    rng = np.random.default_rng(3)
    groups = {name: rng.normal(middle, 0.01, 9).tolist() for name, middle in (("A", 0.02), ("B", 0.02), ("C", 0.08))}
    differs = compare_groups("error", groups)
    assert differs.p_value is not None
    assert differs.p_value < 0.001
    assert differs.counts == (9, 9, 9)
    assert compare_groups("error", {"A": groups["A"], "C": groups["C"][:4]}).p_value is None
    assert compare_groups("error", {"A": groups["A"]}).p_value is None
