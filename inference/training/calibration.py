"""From the network's own doubt to a 95 % interval: one factor per input set, read on ears it never saw.

Split conformal prediction: the network says how large the ratio's error typically is in this very ear, and the factor
is the quantile of (error / what it said) that 95 % of unseen ears stay below. It needs no distribution, only that the
ears it is used on resemble those it was read on; on patients that is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference.cases import InputSet
from inference.training.losses import predicted
from inference.training.scans import Scans

COVERAGE: Final = 0.95
"""Part of the ears whose true ratio shall lie inside."""

MIN_EARS: Final = 40
"""Fewer ears of one input set have no 95 % quantile to speak of: its upper neighbor would be the largest error."""


class CalibrationError(ValueError):
    """Intervals cannot be calibrated; says which input set, how many ears were expected and found."""


def interval_scales(network: nn.Module, scans: Iterable[Scans]) -> dict[InputSet, float]:
    """By input set, how many of the network's standard errors hold 95 % of the ears.

    Parameters
    ----------
    network
        Answers (logits, log_sd) as `EarUNet`; in evaluation mode.
    scans
        Ears that were neither trained on nor used to choose the weights.

    Raises
    ------
    CalibrationError
        If an input set has fewer than `MIN_EARS` ears.
    """
    surprises: dict[InputSet, list[float]] = {}
    with torch.inference_mode():
        for batch in scans:
            logits, log_sd = network(batch.images.contiguous(memory_format=torch.channels_last_3d))
            answer = predicted(logits, log_sd)
            axes = (1, 2, 3)
            ratio = batch.endolymph.sum(dim=axes) / batch.total.sum(dim=axes)
            surprise = (answer.ratio - ratio).abs() / log_sd.exp()
            for chosen, value in zip(batch.sets, surprise.tolist(), strict=True):
                surprises.setdefault(chosen, []).append(value)
    return {
        chosen: round(conformal_quantile(chosen, np.array(values)), 3) for chosen, values in sorted(surprises.items())
    }


def conformal_quantile(chosen: InputSet, values: NDArray[np.float64]) -> float:
    """The conformal quantile of (error / what was expected): of n ears the ceil((n + 1) * 0.95)-th smallest.

    Raises
    ------
    CalibrationError
        If there are fewer than `MIN_EARS`.
    """
    if len(values) < MIN_EARS:
        raise CalibrationError(f"{chosen}: expected at least {MIN_EARS} ears to calibrate on, found {len(values)}")
    rank = min(len(values), ceil((len(values) + 1) * COVERAGE))
    return float(np.sort(values)[rank - 1])
