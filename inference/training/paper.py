"""What HydropsOTO was trained with: the focal Tversky loss, on masks, for two maps that know nothing of each other.

The article (Yoo et al. 2024) names the loss without its constants; these are those of the published code.
"""

from __future__ import annotations

from typing import Final

import torch
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from inference.training.losses import Prediction

FALSE_POSITIVES: Final = 0.1
FALSE_NEGATIVES: Final = 0.9
FOCUS: Final = 2.0
"""Exponent that turns the Tversky loss into the focal one."""
SMOOTH: Final = 1.0


def focal_tversky_loss(logits: Tensor, log_sd: Tensor, total: Tensor, endolymph: Tensor) -> Tensor:
    """Scalar loss of two maps' logits (B, 2, K, J, I) against the masks that the half-voxel rule makes of the truth.

    Both maps of all ears are taken as one long list of voxels, as in the published code. `log_sd` is not learned.
    """
    del log_sd
    inside = total >= 0.5
    masks = torch.stack([inside, inside & (endolymph >= 0.5 * total)], dim=1).float()
    tversky = TverskyLoss(sigmoid=True, alpha=FALSE_POSITIVES, beta=FALSE_NEGATIVES, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    loss: Tensor = tversky(logits.float().reshape(1, 1, -1), masks.reshape(1, 1, -1)) ** FOCUS
    return loss


def nested_maps(logits: Tensor, log_sd: Tensor) -> Prediction:
    """Fractions of two maps' logits (B, 2, K, J, I): endolymph is taken back inside the total fluid."""
    total, endolymph = torch.sigmoid(logits.float()).unbind(dim=1)
    return Prediction(total=total, endolymph=torch.minimum(endolymph, total), log_sd=log_sd)
