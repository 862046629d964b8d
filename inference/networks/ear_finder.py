"""Where the ears are in a whole slab: a small 3D U-Net whose answer is a heat map per side.

Softmax over all places, with one more place for "not in these images", makes it a choice between places instead of a
picture of blobs: a mean squared error on heat maps never learned to find ears that fill a ten-thousandth of the slab.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDE = 2
"""Voxels of the input per place of the heat map."""

MULTIPLE = 8
"""Every axis of the input must be a multiple of this."""


class EarFinder(nn.Module):
    """Three-level 3D U-Net that works at half the input's resolution.

    Parameters
    ----------
    channels
        Feature maps per level, finest first.

    Raises
    ------
    ValueError
        If there are not three positive widths.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        if len(channels) != 3 or min(channels) < 1:
            raise ValueError(f"need three positive widths, found {tuple(channels)}")
        fine, middle, coarse = channels
        # Three places wide and one place apart: what a 3 x 3 x 3 convolution over 2 x 2 x 2 blocks sees.
        stem = nn.Conv3d(1, fine, 3 * STRIDE, stride=STRIDE, padding=STRIDE, bias=False)
        self.fine = nn.Sequential(stem, *_normalized(fine), *_convolution(fine, fine))
        self.middle = nn.Sequential(*_convolution(fine, middle), *_convolution(middle, middle))
        self.coarse = nn.Sequential(*_convolution(middle, coarse), *_convolution(coarse, coarse))
        self.grow_middle = nn.ConvTranspose3d(coarse, middle, 2, stride=2)
        self.join_middle = nn.Sequential(*_convolution(2 * middle, middle), *_convolution(middle, middle))
        self.grow_fine = nn.ConvTranspose3d(middle, fine, 2, stride=2)
        self.join_fine = nn.Sequential(*_convolution(2 * fine, fine), *_convolution(fine, fine))
        self.head = nn.Conv3d(fine, 2, 1)

    def forward(self, mrc: Tensor) -> Tensor:
        """Logits of every place, right ear first.

        Parameters
        ----------
        mrc
            (B, 1, K, J, I) MRC over its fluid level; axes to the head, to posterior and to the patient's left; sizes in
            multiples of 8.

        Returns
        -------
        Tensor
            (B, 2, K/2 * J/2 * I/2 + 1), the last of which is "not in these images" and always 0.
        """
        fine = self.fine(mrc)
        middle = self.middle(nn.functional.max_pool3d(fine, 2))
        coarse = self.coarse(nn.functional.max_pool3d(middle, 2))
        middle = self.join_middle(torch.cat([middle, self.grow_middle(coarse)], dim=1))
        fine = self.join_fine(torch.cat([fine, self.grow_fine(middle)], dim=1))
        places = self.head(fine).flatten(2)
        return torch.cat([places, torch.zeros_like(places[..., :1])], dim=-1)


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv3d(before, after, 3, padding=1, bias=False), *_normalized(after)]


def _normalized(width: int) -> list[nn.Module]:
    return [nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
