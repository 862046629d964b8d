"""What a series does not show: places beyond its slab, and the padding that a reformatted one is filled up with."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import part_covering, resample

BoolImage = NDArray[np.bool_]

NEIGHBORS: Final = 3
"""Voxels along each axis that have one value in padding, whatever value; noise gives 27 neighbors never the same."""


def unseen(series: Volume, onto: VolumeGeometry, *, moving_to_fixed: FloatArray | None = None) -> BoolImage:
    """The voxels (K, J, I) of `onto` of which `series` shows nothing.

    Parameters
    ----------
    series
        As acquired, on its own grid: interpolation rings into padding, and an aligned image hides it.
    moving_to_fixed
        (4, 4) rigid, LPS mm to LPS mm, from the series to `onto`; None means the identity.
    """
    rim_mm = NEIGHBORS * float(series.geometry.spacing_mm.max())
    part = part_covering(series, onto, moving_to_fixed=moving_to_fixed, rim_mm=rim_mm)
    if part is None:
        return np.ones(onto.shape, dtype=np.bool_)
    lowest, highest = (
        extreme(part.array, size=NEIGHBORS, mode="nearest")
        for extreme in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    shown = Volume(array=(lowest < highest).astype(np.float32), geometry=part.geometry)
    nothing: BoolImage = np.asarray(resample(shown, onto, moving_to_fixed=moving_to_fixed).array) < 0.5
    return nothing
