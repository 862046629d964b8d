"""An ear seen twice, one voxel apart along every axis, and answered by the mean of both.

A network that halves the grid sees voxels in fixed pairs, and part of its error comes from which voxels were paired.
Moved by one voxel every pair is another one, and two looks are worth as much as all eight ways to pair them. What it
gains and costs stands in docs/training.md, "Two looks"; `bench/looks.py` measures it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def seen_twice(images: Tensor) -> Tensor:
    """(2 B, C, K, J, I) of (B, C, K, J, I): the ears as they are, then moved by one voxel, their borders repeated."""
    moved = functional.pad(images, (1, 0, 1, 0, 1, 0), mode="replicate")[..., :-1, :-1, :-1]
    return torch.cat([images, moved])


def mean_of_looks(logits: Tensor) -> Tensor:
    """(B, maps, K, J, I) of the logits (2 B, maps, K, J, I) of `seen_twice`.

    The last voxels along each axis, which the second look does not show, are those of the first.
    """
    first, moved = logits.chunk(2)
    mean = first.clone()
    mean[..., :-1, :-1, :-1] += moved[..., 1:, 1:, 1:]
    mean[..., :-1, :-1, :-1] /= 2.0
    return mean
