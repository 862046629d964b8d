"""Is a series of the kind that the methods were made for? Judged before anything is looked for in it."""

from __future__ import annotations

from typing import Final

import numpy as np

from inference.findings import QualityCode, QualityFlag, Severity
from inference.geometry import Volume

VOXEL_MM: Final = (0.3, 1.2)
"""Edges of the voxels that the methods were tried on; protocols use 0.4 to 0.5 mm in plane and 0.8 to 1.0 mm slices."""

THICKEST_MM: Final = 1.5
"""A cochlear turn and the wall between turns: thicker voxels show neither."""

MAX_ANISOTROPY: Final = 4.0
"""Longest over shortest edge of a voxel; 2 to 2.5 is usual."""


def check_series(name: str, volume: Volume) -> tuple[QualityFlag, ...]:
    """Remarks about one series; any STOP means that nothing can be measured in it.

    Parameters
    ----------
    name
        What the series is called in the sentences.
    volume
        As loaded, not resampled.
    """
    return (*_check_values(name, volume), *_check_voxels(name, volume))


def _check_values(name: str, volume: Volume) -> tuple[QualityFlag, ...]:
    array = np.asarray(volume.array)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        message = f"{name}: {bad} of {array.size} values are not finite numbers"
        return (_flag(Severity.STOP, message, float(bad), 0.0),)
    low, high = float(array.min()), float(array.max())
    if low == high:
        return (_flag(Severity.STOP, f"{name}: every value is {low:g}; the series shows nothing", 0.0, 0.0),)
    return ()


def _check_voxels(name: str, volume: Volume) -> tuple[QualityFlag, ...]:
    spacing = volume.geometry.spacing_mm
    thin, thick = float(spacing.min()), float(spacing.max())
    edges = " x ".join(f"{edge:.2f}" for edge in sorted(spacing.tolist()))
    if thick > THICKEST_MM:
        message = f"{name}: voxels of {edges} mm are too thick to show the walls inside an inner ear"
        return (_flag(Severity.STOP, message, thick, THICKEST_MM),)
    if thick > VOXEL_MM[1] or thin < VOXEL_MM[0]:
        low, high = VOXEL_MM
        message = f"{name}: voxels of {edges} mm; the method was tried on {low:g} to {high:g} mm"
        return (_flag(Severity.WARN, message, *((thick, high) if thick > high else (thin, low))),)
    if thick > MAX_ANISOTROPY * thin:
        message = f"{name}: voxels of {edges} mm are {thick / thin:.1f} times as long as wide"
        return (_flag(Severity.WARN, message, thick / thin, MAX_ANISOTROPY),)
    return ()


def _flag(severity: Severity, message: str, measured: float, limit: float) -> QualityFlag:
    return QualityFlag(
        code=QualityCode.OUT_OF_DOMAIN, severity=severity, message=message, measured=measured, limit=limit
    )
