"""A network made for pairs (MRC, HYDROPS-Mi2), asked with the node's four channels and answering in its terms.

The published networks see HYDROPS-Mi2, the product of MRC and HYDROPS, and answer two maps that know nothing of each
other. So that they are trained, validated and served by the same code as ours, this stands in between.
"""

from __future__ import annotations

from math import log
from typing import Final

import torch
from torch import Tensor, nn

PAIR_INPUTS: Final = ("MRC", "HYDROPS_MI2")
"""The two images, as a model folder names them."""

UNKNOWN_ERROR: Final = 0.03
"""Standard error of the ratio that is answered for a network that has no doubt of its own."""

LEAST_FLUID: Final = 1e-6
"""Keeps the share finite where there is no fluid."""


class PairNetwork(nn.Module):
    """`network` behind the channels of `inference.ear_grid.INPUTS`.

    Parameters
    ----------
    network
        Answers logits (B, 2, K, J, I) of total fluid and of endolymph to images (B, 2, K, J, I).
    shares
        Answer endolymph as a share of the voxel's fluid, as `EarUNet` does, instead of as a map of its own. Where the
        map exceeds total fluid, the share is 1: endolymph lies inside the labyrinth.
    """

    def __init__(self, network: nn.Module, *, shares: bool = False) -> None:
        super().__init__()
        self.network = network
        self.shares = shares

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, K, J, I) logits and (B,) log of a constant standard error, for images (B, 4, K, J, I)."""
        maps: Tensor = self.network(paired(images))
        return _shares(maps) if self.shares else maps, maps.new_full((len(maps),), log(UNKNOWN_ERROR))


def paired(images: Tensor) -> Tensor:
    """(B, 2, K, J, I) of (B, 4, K, J, I) in the order MRC, HYDROPS, PPI, 3D-real IR: MRC and MRC x signed series."""
    mrc, hydrops, _, real = images.unbind(dim=1)
    return torch.stack([mrc, mrc * (hydrops + real)], dim=1)


def _shares(maps: Tensor) -> Tensor:
    total, endolymph = torch.sigmoid(maps.float()).unbind(dim=1)
    share = (endolymph / total.clamp(min=LEAST_FLUID)).clamp(0.0, 1.0)
    return torch.stack([maps[:, 0].float(), torch.logit(share, eps=LEAST_FLUID)], dim=1)
