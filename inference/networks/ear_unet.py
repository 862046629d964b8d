"""The shipped network: a small 3D U-Net that answers fluid, endolymph's share of it, and how sure it is of the ratio.

Two decisions differ from the paper's network. Endolymph is predicted as a *share* of the voxel's fluid, so it cannot
lie outside the labyrinth; and both answers are partial-volume fractions, so volumes sum up below the voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import Final, cast

import torch
from torch import Tensor, nn

TYPICAL_ERROR: Final = 0.03
"""Standard error of an ear's ratio that an untrained network starts from."""

TYPICAL_LOGITS: Final = (-4.0, -1.0)
"""Where an untrained network starts: 2 % of a box is fluid, a quarter of the fluid endolymph."""


class EarUNet(nn.Module):
    """Four-level 3D U-Net with batch normalization and learned upsampling.

    Parameters
    ----------
    channels
        Feature maps per level, finest first; multiples of 16 run fastest.
    inputs
        Image channels.

    Raises
    ------
    ValueError
        If there are fewer than two levels or a width is not positive.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 96, 160), inputs: int = 4) -> None:
        super().__init__()
        self.channels, self.inputs = tuple(channels), inputs
        if len(channels) < 2 or min(*channels, inputs) < 1:
            raise ValueError(
                f"need two or more levels with positive widths, found channels {tuple(channels)}, inputs {inputs}"
            )
        self.down = nn.ModuleList(_stage(before, after) for before, after in pairwise((inputs, *channels)))
        upward = list(pairwise(reversed(channels)))
        self.grow = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for coarse, fine in upward)
        self.up = nn.ModuleList(_stage(2 * fine, fine) for _, fine in upward)
        self.head = nn.Conv3d(channels[0], 2, 1)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            cast(Tensor, self.head.bias).copy_(torch.tensor(TYPICAL_LOGITS))
        self.doubt = nn.Sequential(nn.Linear(channels[-1], 32), nn.ReLU(), nn.Linear(32, 1))
        nn.init.constant_(cast(nn.Linear, self.doubt[-1]).bias, log(TYPICAL_ERROR))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and doubt.

        Parameters
        ----------
        images
            (B, inputs, K, J, I); K, J and I must be multiples of 2 ** (levels - 1).

        Returns
        -------
        tuple
            (B, 2, K, J, I) logits of the total fluid fraction and of endolymph's share of the fluid, and (B,) the
            natural logarithm of the EH ratio's standard error. The latter reads the features without training them.
        """
        skips = []
        features = images
        for level, stage in enumerate(self.down):
            features = stage(features if level == 0 else nn.functional.max_pool3d(features, 2))
            skips.append(features)
        coarsest = skips.pop()
        log_sd = self.doubt(coarsest.detach().float().mean(dim=(2, 3, 4)))[:, 0]
        for grow, stage in zip(self.grow, self.up, strict=True):
            features = stage(torch.cat([grow(features), skips.pop()], dim=1))
        return self.head(features), log_sd


def _stage(before: int, after: int) -> nn.Sequential:
    """Twice 3 x 3 x 3 convolution, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv3d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm3d(after),
        nn.ReLU(inplace=True),
        nn.Conv3d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm3d(after),
        nn.ReLU(inplace=True),
    )
