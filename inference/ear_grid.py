"""What a network sees of an ear: one grid for every ear of every scanner, and one scale for its gray values.

The grid follows the MRC's own axes, so that a slab of 0.5 x 0.5 x 1.0 mm is only turned and cropped, never
interpolated. Its first axis runs most nearly to the head, its second to posterior, its third *laterally*: a right ear
is seen as its mirror image, and the network only ever learns one ear. The mirror is part of the grid's affine, so
whatever comes back lies where it belongs.
"""

from __future__ import annotations

from itertools import permutations
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from inference.anatomy import EarSide
from inference.findings import EarImages
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import Interpolation, resample

SHAPE: Final = (24, 48, 48)
SPACING_MM: Final = (1.0, 0.5, 0.5)
"""24 mm in every direction: a labyrinth (14 x 16 x 14 mm) at any obliquity, with slack to be off center."""

INPUTS: Final = ("MRC", "HYDROPS", "PPI", "REAL_IR")
"""The network's channels. What a study does not have is zero."""

SAME_SPACING: Final = 0.02
"""Relative difference up to which the MRC's own voxels are taken as they are."""

LEVEL_QUANTILE: Final = 0.98
"""Of the MRC around the center: within fluid, which fills 5 to 15 % of a ball of `CORE_MM`."""

CORE_MM: Final = 10.0
"""Radius of the ball in which gray levels are read."""

CERTAIN_FLUID: Final = 0.6
"""Of the fluid level: voxels that show how strong the contrast series' signal is."""


def ear_grid(side: EarSide, mrc: VolumeGeometry, center_lps_mm: ArrayLike) -> VolumeGeometry:
    """The grid of one ear, centered within half a voxel on `center_lps_mm` and on the voxels of `mrc`."""
    axes = _axes(side, mrc)
    middle = mrc.to_lps(np.rint(mrc.to_index(center_lps_mm)))
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(_spacing(side, mrc))
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(SHAPE) // 2)
    return VolumeGeometry(shape=SHAPE, index_to_lps=affine, frame_of_reference_uid=mrc.frame_of_reference_uid)


def _axes(side: EarSide, mrc: VolumeGeometry) -> FloatArray:
    """(3, 3) unit vectors of the MRC's axes, ordered and turned to run most nearly superior, posterior, lateral."""
    wanted = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [float(side.lps_sign), 0.0, 0.0]]).T
    cosines = wanted.T @ mrc.directions
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[a, b]) for a, b in enumerate(order)))
    chosen: FloatArray = np.stack(
        [mrc.directions[:, b] * np.copysign(1.0, cosines[a, b]) for a, b in enumerate(best)], axis=1
    )
    return chosen


def _spacing(side: EarSide, mrc: VolumeGeometry) -> tuple[float, float, float]:
    """The model's spacing, or the MRC's own where the two hardly differ: 0.5 against 0.508 mm is not worth blurring."""
    own = np.abs(_axes(side, mrc).T @ mrc.index_to_lps[:3, :3]).sum(axis=1)
    k, j, i = (
        float(found) if abs(found / model - 1.0) <= SAME_SPACING else model
        for found, model in zip(own, SPACING_MM, strict=True)
    )
    return k, j, i


def onto_grid(volume: Volume, grid: VolumeGeometry) -> NDArray[np.float32]:
    """`volume` as seen on `grid`, float32 (K, J, I): copied where the voxels agree, averaged where they are finer."""
    parts = [
        max(1, int(np.ceil(wanted / finest - 0.1)))
        for wanted, finest in zip(grid.spacing_mm, _spacing_along(volume.geometry, grid), strict=True)
    ]
    fine = _split(grid, parts)
    seen = resample(volume, fine, interpolation=Interpolation.LINEAR if max(parts) > 1 else Interpolation.BSPLINE)
    k, j, i = grid.shape
    blocks = np.asarray(seen.array, dtype=np.float32).reshape(k, parts[0], j, parts[1], i, parts[2])
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3, 5), dtype=np.float32)
    return means


def _spacing_along(source: VolumeGeometry, grid: VolumeGeometry) -> FloatArray:
    """(3,) the source's spacing along the axes of `grid`."""
    along: FloatArray = 1.0 / np.linalg.norm(np.linalg.inv(source.index_to_lps[:3, :3]) @ grid.directions, axis=0)
    return along


def _split(grid: VolumeGeometry, parts: list[int]) -> VolumeGeometry:
    """Every voxel of `grid` cut into `parts` along k, j, i."""
    affine = grid.index_to_lps.copy()
    affine[:3, :3] /= parts
    affine[:3, 3] = grid.to_lps((1.0 / np.array(parts) - 1.0) / 2.0)
    k, j, i = (n * part for n, part in zip(grid.shape, parts, strict=True))
    return VolumeGeometry(shape=(k, j, i), index_to_lps=affine, frame_of_reference_uid=grid.frame_of_reference_uid)


def channels(images: EarImages, grid: VolumeGeometry) -> Tensor:
    """(4, K, J, I) float32 in the order of `INPUTS`, not yet scaled; absent series are zero."""
    mrc = onto_grid(images.mrc, grid)
    signed = onto_grid(images.hydrops, grid)
    nothing = np.zeros_like(mrc)
    ppi = nothing if images.ppi is None else onto_grid(images.ppi, grid)
    hydrops, real = (nothing, signed) if images.phase_sensitive else (signed, nothing)
    return torch.from_numpy(np.stack([mrc, hydrops, ppi, real]))


def scaled(raw: Tensor) -> Tensor:
    """Gray values a network can compare between scanners.

    MRC becomes 0 in bone and 1 in fluid. The contrast series share one divisor, the median magnitude of the signed
    series in fluid, so that the ratio of PPI to HYDROPS, which tells how much contrast agent there is, stays.

    Parameters
    ----------
    raw
        (B, 4, K, J, I) in the order of `INPUTS`, scanner units.
    """
    core = _core(raw.shape[2], raw.shape[3], raw.shape[4])
    out = torch.empty_like(raw)
    for ear, into in zip(raw, out, strict=True):
        mrc = ear[0]
        dark = mrc.flatten().kthvalue(max(1, mrc.numel() // 4)).values
        level = torch.quantile(mrc[core], LEVEL_QUANTILE)
        into[0] = ((mrc - dark) / (level - dark).clamp(min=1e-6)).clamp(0.0, 2.0)
        signed = ear[1] + ear[3]
        fluid = signed[core & (into[0] > CERTAIN_FLUID)]
        size = fluid.abs().median() if fluid.numel() else signed.new_zeros(())
        into[1:] = (ear[1:] / size.clamp(min=1e-6)).clamp(-6.0, 6.0)
    return out


def _core(depth: int, height: int, width: int) -> Tensor:
    """(K, J, I) bool: voxels within `CORE_MM` of the grid's center."""
    axes = [(torch.arange(n) - n // 2) * spacing for n, spacing in zip((depth, height, width), SPACING_MM, strict=True)]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    inside: Tensor = k**2 + j**2 + i**2 <= CORE_MM**2
    return inside
