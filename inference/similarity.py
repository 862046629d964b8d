"""How well two images of one ear fit, whatever their contrasts: mutual information over a box, at many shifts.

Mutual information is what perilymph-only PPI, CSF-rich PEI and signed HYDROPS have in common with an MRC that
shows all fluid; correlation fails on PPI by up to 10 mm.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.geometry import FloatArray

Levels = NDArray[np.intp]
"""Gray levels 0..BINS-1, or `OUTSIDE`."""

BINS: Final = 16
"""Gray levels per image: enough for bone, brain, and fluid, few enough that a box of 20 x 20 x 20 fills them."""

TAIL_PERCENT: Final = 0.3
"""Share of voxels clipped into the first and the last bin. A labyrinth is 1 % of its box and must stay separate."""

MIN_OVERLAP: Final = 0.7
"""Part of a box that must lie inside both series for its similarity to mean anything."""

OUTSIDE: Final = BINS
"""Bin of voxels outside their series; they never enter a histogram."""


def gray_levels(values: NDArray[np.generic]) -> Levels:
    """Bin 0..BINS-1 of every value, linear between its tails; NaN (outside the series) becomes `OUTSIDE`."""
    inside = ~np.isnan(values)
    levels = np.full(values.shape, OUTSIDE, dtype=np.intp)
    if not inside.any():
        return levels
    low, high = (float(v) for v in np.percentile(values[inside], (TAIL_PERCENT, 100 - TAIL_PERCENT)))
    scale = BINS / (high - low) if high > low else 0.0
    levels[inside] = np.clip((values[inside] - low) * scale, 0, BINS - 1)
    return levels


def mutual_information(joint: Levels) -> float:
    """Mutual information (nats) of a joint histogram (BINS, BINS) of counts; 0 if it is empty."""
    total = joint.sum()
    if total == 0:
        return 0.0
    share = joint / total
    independent = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / independent[filled])).sum())


def shift_landscape(fixed: Levels, moving: Levels) -> FloatArray:
    """Similarity of `fixed` with every sub-box of `moving`.

    Parameters
    ----------
    fixed
        (K, J, I) gray levels of one box.
    moving
        (K + 2a, J + 2b, I + 2c) gray levels of the same box with a rim.

    Returns
    -------
    NDArray
        (2a + 1, 2b + 1, 2c + 1) mutual information in nats; the entry in the middle compares the boxes unshifted.
        0 where less than `MIN_OVERLAP` of the box lies inside both series.
    """
    reach = np.array(moving.shape) - np.array(fixed.shape)
    rows = (fixed * (BINS + 1)).ravel()
    landscape = np.zeros(tuple(reach + 1))
    for k, j, i in np.ndindex(landscape.shape):
        window = moving[k : k + fixed.shape[0], j : j + fixed.shape[1], i : i + fixed.shape[2]]
        counts = np.bincount(rows + window.ravel(), minlength=(BINS + 1) ** 2)
        joint = counts.reshape(BINS + 1, BINS + 1)[:BINS, :BINS]
        if joint.sum() >= MIN_OVERLAP * rows.size:
            landscape[k, j, i] = mutual_information(joint)
    return landscape
