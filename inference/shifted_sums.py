"""Two pictures on one grid laid upon each other in every way that a patient can have moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]


def sums_by_shift(picture: Array, seen: Array, reach: Sequence[int]) -> Array:
    """Sum of `picture` times `seen` for every shift of the picture by up to `reach` voxels along each axis.

    Parameters
    ----------
    picture, seen
        (K, J, I), of one shape; beyond their borders both are zero.
    reach
        Whole voxels along K, J, I; less than the shape.

    Returns
    -------
    Array
        (2 * reach + 1) along each axis; the middle is no shift.
    """
    size = [fft.next_fast_len(n + r, real=True) for n, r in zip(seen.shape, reach, strict=True)]
    sums = fft.irfftn(fft.rfftn(seen, size) * np.conj(fft.rfftn(picture, size)), size)
    near: Array = sums[np.ix_(*(np.arange(-r, r + 1) for r in reach))]
    return near
