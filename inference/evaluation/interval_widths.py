"""How wide intervals must be in whole studies: scales of a model read again on what an evaluation found.

A training calibrates on single ears, where alignment is nearly perfect and the box is well centered. Through the whole
pipeline errors are larger in one input set and smaller in another; there the same split conformal rule is applied
again, to the half widths that the node stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from inference.cases import InputSet
from inference.evaluation.record import Evaluation
from inference.evaluation.scores import EarScore
from inference.model_description import ModelDescription
from inference.training.calibration import CalibrationError, conformal_quantile

KEPT_DIGITS: Final = 3


def read_again(description: ModelDescription, evaluations: Sequence[Evaluation]) -> ModelDescription:
    """The same model whose intervals hold 95 % of the ears of `evaluations`, an input set at a time.

    Input sets that were not evaluated keep their scale. The record in `training` tells which commands the new scales
    came from.

    Raises
    ------
    CalibrationError
        If an evaluation judged another model, or measured too few ears with an input set.
    """
    identity = description.identity
    for one in evaluations:
        if one.model != identity:
            raise CalibrationError(
                f"the evaluation of {one.created} is of {one.model.name} {one.model.version} "
                f"({one.model.sha256[:12]}), not of {identity.name} {identity.version} ({identity.sha256[:12]}); "
                "evaluate this model first"
            )
    surprises: dict[InputSet, list[float]] = {}
    for score in (score for one in evaluations for score in one.scores):
        surprise = surprise_of(score)
        if surprise is not None:
            surprises.setdefault(InputSet(str(score.tags["input_set"])), []).append(surprise)
    told = dict(description.interval_scales)
    scales = told | {
        inputs.value: round(told[inputs] * conformal_quantile(inputs, np.array(values)), KEPT_DIGITS)
        for inputs, values in sorted(surprises.items())
        if inputs in told
    }
    record = {**description.training, "intervals_from": [one.command for one in evaluations]}
    return replace(description, interval_scales=scales, training=record)


def surprise_of(score: EarScore) -> float | None:
    """The ratio's error in half widths of the stated interval; None for an ear without number, interval or truth.

    The wider side counts: the other may be cut off at 0 or 1.
    """
    error = score.ratio_error
    if error is None or score.ratio is None or score.low is None or score.high is None:
        return None
    half = max(score.high - score.ratio, score.ratio - score.low)
    return abs(error) / half if half > 0.0 else None
