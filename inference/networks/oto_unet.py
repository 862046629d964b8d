"""The 3D U-Net that HydropsOTO was published with: the reference that the shipped network is measured against.

The paper's text and its published code differ. Its parameter count, 2,512,930, is exactly that of the code: batch
normalization, a bottleneck no wider than the level above it, trilinear upsampling instead of learned one. That is the
default; `as_printed` builds what the text describes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

WIDTHS: Final = (16, 32, 64, 128, 128)
"""Feature maps per level, finest first; the last is the bottleneck."""

DECODER: Final = ((256, 64), (128, 32), (64, 16), (32, 16))
"""Feature maps into (skip and what comes from below, equally many) and out of each decoder stage, coarsest first."""

ANSWERS: Final = 2
"""Total fluid and endolymph, a sigmoid each: the second lies inside the first, so that they exclude nothing."""


class OtoUNet(nn.Module):
    """U-Net of five levels and four poolings on a pair of images.

    Made for 2 x 24 x 64 x 64 voxels (MRC and HYDROPS-Mi2) of 1.0 x 0.5 x 0.5 mm.

    Parameters
    ----------
    inputs
        Image channels.
    as_printed
        Build the paper's text instead of its code: 2 x 2 x 2 transposed convolutions upsample, nothing normalizes.

    Raises
    ------
    ValueError
        If `inputs` is not positive.
    """

    def __init__(self, inputs: int = 2, as_printed: bool = False) -> None:
        super().__init__()
        if inputs < 1:
            raise ValueError(f"need one or more image channels, found {inputs}")
        normalize = not as_printed
        self.encoder = nn.ModuleList(_stage(before, after, normalize) for before, after in pairwise((inputs, *WIDTHS)))
        self.upsample = nn.ModuleList(_LearnedGrowth(into // 2) if as_printed else _Growth() for into, _ in DECODER)
        self.decoder = nn.ModuleList(_stage(into, out, normalize) for into, out in DECODER)
        self.head = nn.Conv3d(DECODER[-1][1], ANSWERS, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 2, K, J, I) logits of total fluid and endolymph for (B, inputs, K, J, I) images.

        Any size from 16 voxels per axis; four poolings make 1 of 24 slices (24, 12, 6, 3, 1), so each level is brought
        back to the size of its skip rather than doubled.
        """
        skips = []
        features = images
        for level, stage in enumerate(self.encoder):
            features = stage(features if level == 0 else nn.functional.max_pool3d(features, 2))
            skips.append(features)
        features = skips.pop()
        for grow, stage in zip(self.upsample, self.decoder, strict=True):
            skip = skips.pop()
            features = stage(torch.cat([skip, grow(features, skip.shape[2:])], dim=1))
        logits: Tensor = self.head(features)
        return logits


class _Growth(nn.Module):
    """Trilinear upsampling to a given size."""

    def forward(self, features: Tensor, size: torch.Size) -> Tensor:
        return nn.functional.interpolate(features, size=size, mode="trilinear", align_corners=False)


class _LearnedGrowth(nn.Module):
    """Transposed convolution by 2; where pooling dropped an odd voxel, the last one is made of the bias alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose3d(channels, channels, 2, stride=2)

    def forward(self, features: Tensor, size: torch.Size) -> Tensor:
        grown: Tensor = self.convolution(features, output_size=list(size))
        return grown


def _stage(before: int, after: int, normalize: bool) -> nn.Sequential:
    """Twice 3 x 3 x 3 convolution with bias, batch normalization if wanted, ReLU."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers.append(nn.Conv3d(channels, after, 3, padding=1))
        if normalize:
            layers.append(nn.BatchNorm3d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
