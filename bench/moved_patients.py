"""Patients who moved while one series was acquired: two pictures of them lie over each other on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.geometry import Volume
from inference.phantom import PhantomStudy

Series = dict[str, Volume]
SLICES, ROWS, COLUMNS = range(3)


def changed(volume: Volume, array: NDArray[Any]) -> Volume:
    """Other values on the same grid."""
    return Volume(array=np.asarray(array, dtype=np.float32), geometry=volume.geometry)


def moved_during(
    role: str, mm: float, *, along: int = ROWS, share: float = 0.5
) -> Callable[[Series, PhantomStudy], Series]:
    """The patient lay `mm` elsewhere for `share` of the echo trains of one series.

    Of the cisternogram that a HYDROPS-Mi2 was multiplied with, too: the product is of the two pictures then.
    """

    def spoil(series: Series, _study: PhantomStudy) -> Series:
        still = series[role]
        voxels = round(mm / float(still.geometry.spacing_mm[along]))
        array = (1.0 - share) * still.array + share * np.roll(still.array, voxels, axis=along)
        spoiled = series | {role: changed(still, array)}
        if role == "MRC" and "HYDROPS_MI2" in series:
            product = series["HYDROPS_MI2"]
            spoiled["HYDROPS_MI2"] = changed(product, product.array / np.maximum(still.array, 1e-3) * array)
        return spoiled

    return spoil
