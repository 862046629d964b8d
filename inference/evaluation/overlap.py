"""Overlap and distance of two fluids of one space, computed by MONAI's metrics in millimeters."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

BoolImage = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A fluid found against the true one; None where a value is undefined because a mask is empty.

    `dice`, `iou` (0..1) and the distances (mm, between the masks' border voxels) compare masks; `hausdorff_mm` is the
    largest distance, `hausdorff95_mm` the larger of the two directions' 95th percentiles, `surface_distance_mm` the
    mean over both borders. `fraction_dice` compares the parts of the voxels, so partial volume counts. Volumes are
    sums of fractions.
    """

    dice: float | None
    iou: float | None
    fraction_dice: float | None
    hausdorff_mm: float | None
    hausdorff95_mm: float | None
    surface_distance_mm: float | None
    volume_mm3: float
    true_volume_mm3: float


def overlap(
    fraction: NDArray[np.float32],
    mask: BoolImage,
    true_fraction: NDArray[np.float32],
    true_mask: BoolImage,
    spacing_mm: tuple[float, float, float],
) -> Overlap:
    """Compare two fluids given on one grid.

    Parameters
    ----------
    fraction, true_fraction
        (K, J, I), part of each voxel 0..1.
    mask, true_mask
        (K, J, I).
    spacing_mm
        Along k, j, i.
    """
    voxel_mm3 = math.prod(spacing_mm)
    amount, true_amount = float(fraction.sum(dtype=np.float64)), float(true_fraction.sum(dtype=np.float64))
    shared = float(np.minimum(fraction, true_fraction).sum(dtype=np.float64))
    distances = _distances(mask, true_mask, spacing_mm) if mask.any() and true_mask.any() else (None, None, None)
    return Overlap(
        dice=_share(2 * _count(mask & true_mask), _count(mask) + _count(true_mask)),
        iou=_share(_count(mask & true_mask), _count(mask | true_mask)),
        fraction_dice=_share(2.0 * shared, amount + true_amount),
        hausdorff_mm=distances[0],
        hausdorff95_mm=distances[1],
        surface_distance_mm=distances[2],
        volume_mm3=amount * voxel_mm3,
        true_volume_mm3=true_amount * voxel_mm3,
    )


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None


def _count(mask: BoolImage) -> int:
    return int(np.count_nonzero(mask))


def _distances(
    mask: BoolImage, true_mask: BoolImage, spacing_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(largest, 95 %, mean) border distance in mm of two masks that are not empty."""
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    found, truth, spacing = _batch(mask), _batch(true_mask), list(spacing_mm)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "monai.metrics.utils", FutureWarning)  # MONAI calls its own old interface
        largest = compute_hausdorff_distance(found, truth, include_background=True, spacing=spacing)
        common = compute_hausdorff_distance(found, truth, include_background=True, percentile=95, spacing=spacing)
        mean = compute_average_surface_distance(found, truth, include_background=True, symmetric=True, spacing=spacing)
    return float(largest), float(common), float(mean)


def _batch(mask: BoolImage) -> torch.Tensor:
    """(1, 1, K, J, I) float: MONAI's batch and channel axes."""
    import torch

    return torch.from_numpy(mask.astype(np.float32))[None, None]
