"""Intervals read again on whole studies: 95 % of those ears inside, the weights untouched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.anatomy import EarSide
from inference.evaluation.interval_widths import read_again, surprise_of
from inference.evaluation.record import Evaluation, Source, evaluate
from inference.evaluation.scores import EarScore
from inference.model_description import ModelDescription
from inference.training.calibration import CalibrationError

DESCRIPTION = ModelDescription(
    name="ear",
    version="7",
    network="ear_unet",
    network_options={"width": 8},
    inputs=("MRC", "HYDROPS"),
    spacing_mm=(1.0, 0.5, 0.5),
    shape=(24, 48, 48),
    interval_scales={"PPI_PEI": 2.0, "REAL_IR": 1.5},
    training={"steps": 4321},
    intended_use="Research use only. For phantoms.",
    weights_sha256="cd" * 32,
)


def ear(error: float, *, half: float = 0.1, inputs: str = "PPI_PEI") -> EarScore:
    return EarScore(
        case="phantom",
        side=EarSide.LEFT,
        tags={"input_set": inputs},
        true_ratio=0.3,
        ratio=0.3 + error,
        low=0.3 + error - half,
        high=0.3 + error + half,
    )


def evaluation(scores: list[EarScore], description: ModelDescription = DESCRIPTION) -> Evaluation:
    source = Source(kind="phantoms", name="made", description="made", studies=len(scores))
    return evaluate(
        scores,
        model=description.identity,
        source=source,
        created="2026-11-22",
        command="evaluate --seed 5",
        node_version="1",
    )


def test_ninety_five_of_a_hundred_ears_lie_inside_afterwards() -> None:
    scores = [ear(0.002 * n) for n in range(1, 101)]  # errors of 0.02 to 2 half widths
    again = read_again(DESCRIPTION, [evaluation(scores)])
    grown = again.interval_scales["PPI_PEI"] / 2.0
    assert grown == pytest.approx(1.92)  # the conformal rank of 100 ears is 96
    assert sum(abs(one.ratio_error or 0.0) <= 0.1 * grown + 1e-9 for one in scores) == 96


def test_only_what_was_evaluated_changes_and_the_record_tells_the_command() -> None:
    again = read_again(DESCRIPTION, [evaluation([ear(0.05)] * 30), evaluation([ear(-0.05)] * 30)])
    assert again.interval_scales == {"PPI_PEI": 1.0, "REAL_IR": 1.5}
    assert again.training == {"steps": 4321, "intervals_from": ["evaluate --seed 5"] * 2}
    assert again.weights_sha256 == DESCRIPTION.weights_sha256
    assert again.identity != DESCRIPTION.identity


def test_ears_without_number_or_interval_do_not_count() -> None:
    nothing = replace(ear(0.1), ratio=None, low=None, high=None)
    again = read_again(DESCRIPTION, [evaluation([ear(0.1)] * 40 + [nothing] * 40)])
    assert again.interval_scales["PPI_PEI"] == pytest.approx(2.0)
    assert surprise_of(nothing) is None


def test_a_side_that_is_cut_off_at_zero_is_not_the_half_width() -> None:
    cut = replace(ear(-0.25, half=0.2), low=0.0)
    assert surprise_of(cut) == pytest.approx(1.25)


def test_too_few_ears_are_refused() -> None:
    with pytest.raises(CalibrationError, match="PPI_PEI: expected at least 40 ears to calibrate on, found 39"):
        read_again(DESCRIPTION, [evaluation([ear(0.1)] * 39)])


def test_the_evaluation_of_another_model_is_refused() -> None:
    other = replace(DESCRIPTION, version="8")
    with pytest.raises(
        CalibrationError, match=r"is of ear 8 \([0-9a-f]{12}\), not of ear 7 .* evaluate this model first"
    ):
        read_again(DESCRIPTION, [evaluation([ear(0.1)] * 40, other)])
