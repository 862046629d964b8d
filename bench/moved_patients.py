"""Patients who moved while one series was acquired: two pictures of them lie over each other on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from inference.geometry import Volume
from inference.phantom import PhantomStudy

Series = dict[str, Volume]

SLICES, ROWS, COLUMNS = range(3)
EDGES_MM: Final = (1.0, 0.5, 0.5)


def moved_during(
    role: str, mm: float, *, along: int = ROWS, share: float = 0.5
) -> Callable[[Series, PhantomStudy], Series]:
    """The patient lay `mm` elsewhere for `share` of the echo trains of one series.

    Of the cisternogram that a HYDROPS-Mi2 was multiplied with, too: the product is of the two pictures then.
    """
    voxels = round(mm / EDGES_MM[along])

    def spoil(series: Series, _study: PhantomStudy) -> Series:
        still = series[role]
        array = (1.0 - share) * still.array + share * np.roll(still.array, voxels, axis=along)
        spoiled = series | {role: _changed(still, array)}
        if role == "MRC" and "HYDROPS_MI2" in series:
            product = series["HYDROPS_MI2"]
            spoiled["HYDROPS_MI2"] = _changed(product, product.array / np.maximum(still.array, 1e-3) * array)
        return spoiled

    return spoil


def _changed(volume: Volume, array: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Volume:
    return Volume(array=np.asarray(array, dtype=np.float32), geometry=volume.geometry)
