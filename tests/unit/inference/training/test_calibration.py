"""Intervals: the network's doubt, scaled so that 95 % of unseen ears lie inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference.cases import InputSet
from inference.training.calibration import CalibrationError, interval_scales
from inference.training.scans import Scans

GRID = (2, 2, 2)


class Guess(nn.Module):
    """Says that a quarter of every ear's fluid is endolymph, give or take 0.02."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(len(images), 2, *GRID)
        logits[:, 0], logits[:, 1] = 20.0, float(np.log(0.25 / 0.75))
        return logits, torch.full((len(images),), float(np.log(0.02)))


def ears(ratios: list[float], chosen: InputSet) -> Scans:
    total = torch.ones(len(ratios), *GRID)
    return Scans(
        images=torch.zeros(len(ratios), 4, *GRID),
        total=total,
        endolymph=total * torch.tensor(ratios)[:, None, None, None],
        sets=(chosen,) * len(ratios),
    )


def test_the_factor_holds_95_percent_of_new_ears_of_the_same_kind() -> None:
    rng = np.random.default_rng(5)
    seen, unseen = (0.25 + rng.normal(0.0, 0.04, 2000)).clip(0, 1), (0.25 + rng.normal(0.0, 0.04, 2000)).clip(0, 1)
    scale = interval_scales(Guess(), [ears(seen.tolist(), InputSet.PPI_PEI)])[InputSet.PPI_PEI]
    assert scale == pytest.approx(2 * 1.96, abs=0.2)  # errors are twice what the network says
    assert np.mean(np.abs(unseen - 0.25) <= scale * 0.02) == pytest.approx(0.95, abs=0.015)


def test_every_input_set_has_a_factor_of_its_own() -> None:
    rng = np.random.default_rng(6)
    small, large = (0.25 + rng.normal(0.0, sd, 100) for sd in (0.01, 0.05))
    scales = interval_scales(
        Guess(), [ears(small.tolist(), InputSet.PPI_PEI), ears(large.clip(0, 1).tolist(), InputSet.REAL_IR)]
    )
    assert scales[InputSet.REAL_IR] > 3 * scales[InputSet.PPI_PEI]


def test_too_few_ears_are_no_calibration() -> None:
    with pytest.raises(CalibrationError, match="HYDROPS: expected at least 40 ears to calibrate on, found 3"):
        interval_scales(Guess(), [ears([0.2, 0.3, 0.4], InputSet.HYDROPS)])
