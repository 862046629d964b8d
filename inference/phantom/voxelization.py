"""From continuous shapes to voxels: fine points inside a solid, and the part of each voxel that points fill.

The anatomy is never resampled as an image. Points are moved to where the patient lay and then counted per voxel, so
partial volume and rotation are exact up to the distance of the points.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.geometry import VolumeGeometry

BLOCK: Final = 8
"""Points per edge of a block; a block is looked into only if its center lies near the solid."""

CHUNK: Final = 400_000
"""Points evaluated at once; bounds memory and keeps the arrays in cache."""


def sample_inside(
    distance: Callable[[Tensor], Tensor],
    low_mm: tuple[float, float, float],
    high_mm: tuple[float, float, float],
    *,
    step_mm: float,
) -> Tensor:
    """(3, N) float32 points, `step_mm` apart in layers, where `distance` is negative.

    A coarse grid of blocks is tried first; only blocks that the surface or the inside can reach are filled.
    """
    block_mm = BLOCK * step_mm
    axes = [
        torch.arange(low + block_mm / 2, high + block_mm / 2, block_mm)
        for low, high in zip(low_mm, high_mm, strict=True)
    ]
    centers = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3).T
    # Half the diagonal, and a third more because the distances of smooth unions and ellipsoids are first order only.
    reach = block_mm * 3**0.5 / 2 * 4 / 3
    centers = centers[:, distance(centers) < reach]
    offsets = (torch.arange(BLOCK) - (BLOCK - 1) / 2) * step_mm
    inner = torch.stack(torch.meshgrid(offsets, offsets, offsets, indexing="ij"))
    # Every other layer is shifted by half a step: thin ducts along an axis then meet as many points as they should.
    inner[1:, 1::2] += step_mm / 2
    inner = inner.reshape(3, 1, -1)
    kept = []
    for some in torch.split(centers, max(1, CHUNK // BLOCK**3), dim=1):
        points = (some[:, :, None] + inner).reshape(3, -1)
        kept.append(points[:, distance(points) < 0.0])
    return torch.cat(kept, dim=1)


def filled_fraction(lps_mm: NDArray[np.float32], volume_mm3: float, geometry: VolumeGeometry) -> NDArray[np.float32]:
    """(K, J, I) float32, the part of each voxel filled by points that stand for `volume_mm3` each."""
    everything = np.ones((1, len(lps_mm)), dtype=np.float32)
    (fraction,) = filled_fractions(lps_mm, everything, volume_mm3, geometry)
    return np.asarray(fraction, dtype=np.float32)


def filled_fractions(
    lps_mm: NDArray[np.float32], weights: NDArray[np.float32], volume_mm3: float, geometry: VolumeGeometry
) -> NDArray[np.float32]:
    """(W, K, J, I) float32 0..1, one map for each row of `weights` (W, N), the part 0..1 of a point that counts.

    A point counts as a small cube along the voxel's axes: where it straddles voxels it is shared by overlap. Counting
    whole points instead makes full voxels of a turned grid scatter by several percent.
    """
    width = volume_mm3 ** (1 / 3) / geometry.spacing_mm
    edge = geometry.to_index(lps_mm) + 0.5 - width / 2
    low = np.floor(edge).astype(np.int64)
    beyond = np.clip((edge + width - low - 1.0) / width, 0.0, 1.0)
    padded = tuple(n + 2 for n in geometry.shape)
    filled = np.zeros((len(weights), int(np.prod(padded))))
    for corner in product((0, 1), repeat=3):
        share = np.where(np.array(corner) == 1, beyond, 1.0 - beyond).prod(axis=1)
        index = low + np.array(corner) + 1
        keep = (share > 0) & ((index >= 0) & (index < np.array(padded))).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[keep].T), padded)
        for row, weight in zip(filled, weights, strict=True):
            row += np.bincount(flat, weights=share[keep] * weight[keep], minlength=row.size)
    inner = filled.reshape(-1, *padded)[:, 1:-1, 1:-1, 1:-1] * (volume_mm3 / geometry.voxel_volume_mm3)
    fractions: NDArray[np.float32] = np.minimum(inner, 1.0).astype(np.float32)
    return fractions
