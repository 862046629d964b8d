"""What the network is asked for: fractions that are right on average, and a ratio that is right in every ear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

FLUID_WEIGHT: Final = 1.0
SHARE_WEIGHT: Final = 1.0
OVERLAP_WEIGHT: Final = 0.3
RATIO_WEIGHT: Final = 4.0
DOUBT_WEIGHT: Final = 0.05
SMALLEST_SD: Final = 0.002


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Fractions (B, K, J, I) 0..1 of each voxel, endolymph within total fluid; `log_sd` (B,) of the ratio's error."""

    total: Tensor
    endolymph: Tensor
    log_sd: Tensor

    @property
    def ratio(self) -> Tensor:
        """(B,) endolymph over total fluid, 0..1."""
        return _ratio(self.endolymph, self.total)


def predicted(logits: Tensor, log_sd: Tensor) -> Prediction:
    """Fractions of a network's logits (B, 2, K, J, I), float32."""
    total, share = torch.sigmoid(logits.float()).unbind(dim=1)
    return Prediction(total=total, endolymph=total * share, log_sd=log_sd)


def fraction_loss(logits: Tensor, log_sd: Tensor, total: Tensor, endolymph: Tensor) -> Tensor:
    """Scalar loss of a batch.

    Cross-entropy against partial volumes has its minimum at their expectation, so sums of predicted fractions are
    unbiased even where a voxel cannot be read; endolymph's share counts by the fluid that is there. A little soft Dice
    sharpens outlines, the ratio's own error ties the voxels together, and the doubt learns how large that error is.
    """
    logits = logits.float()
    answer = predicted(logits, log_sd)
    fluid = binary_cross_entropy_with_logits(logits[:, 0], total, reduction="none").mean(dim=(1, 2, 3))
    fluid = fluid / total.mean(dim=(1, 2, 3)).clamp(min=1e-4)
    wanted = (endolymph / total.clamp(min=1e-3)).clamp(0.0, 1.0)
    share = binary_cross_entropy_with_logits(logits[:, 1], wanted, weight=total, reduction="none").sum(dim=(1, 2, 3))
    share = share / total.sum(dim=(1, 2, 3)).clamp(min=1.0)
    overlap = 2.0 - _soft_dice(answer.total, total) - _soft_dice(answer.endolymph, endolymph)
    off = answer.ratio - _ratio(endolymph, total)
    sd = log_sd.exp().clamp(min=SMALLEST_SD)
    doubt = 0.5 * (off.detach() / sd) ** 2 + sd.log()
    loss: Tensor = (
        FLUID_WEIGHT * fluid
        + SHARE_WEIGHT * share
        + OVERLAP_WEIGHT * overlap
        + RATIO_WEIGHT * off.abs()
        + DOUBT_WEIGHT * doubt
    ).mean()
    return loss


def _ratio(endolymph: Tensor, total: Tensor) -> Tensor:
    return endolymph.sum(dim=(1, 2, 3)) / total.sum(dim=(1, 2, 3)).clamp(min=1.0)


def _soft_dice(one: Tensor, other: Tensor) -> Tensor:
    """(B,) overlap of fractions: 1 for equal images (squares in the denominator), 0 for disjoint ones."""
    axes = (1, 2, 3)
    both = (one * other).sum(dim=axes)
    return (2.0 * both + 1.0) / ((one**2).sum(dim=axes) + (other**2).sum(dim=axes) + 1.0)
