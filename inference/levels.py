"""The two slices that readers look at, and their 2D area ratios: the vestibule's level and the cochlea's.

A level is the slice of the MRC series in which that part of the labyrinth is largest; its ratio counts only that part.
It is a 2D area ratio, comparable at best with planimetry on a single slice, never with a ratio of volumes, and it is
not a grade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.findings import EarFluid, LevelRatio
from inference.geometry import VolumeGeometry
from inference.labyrinth_parts import MAX_MISSING_SHARE, LabyrinthPart, LabyrinthParts, NoUsualForm, labyrinth_parts

MAX_TILT_DEG: Final = 35.0
"""Between the slices' normal and the body's axis. Slabs along the canthomeatal line or the internal auditory canal are
tilted by up to 30 degrees; published ratios are of such slices, not of coronal or sagittal ones."""

MIN_AREA_MM2: Final = 4.0
"""The largest section of a cochlea or vestibule has 10 to 30 mm2; less is a remnant."""

LEVELS: Final = (LabyrinthPart.VESTIBULE, LabyrinthPart.COCHLEA)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sections:
    """Area of one part's fluids in every slice, (K,) in mm2."""

    total_mm2: np.ndarray[tuple[int], np.dtype[np.float64]]
    endolymph_mm2: np.ndarray[tuple[int], np.dtype[np.float64]]


def level_ratios(fluid: EarFluid, *, first_slice: int = 0) -> tuple[LevelRatio, ...]:
    """The 2D area ratio of the vestibule and of the cochlea, each on its own slice; or why a level cannot be told.

    Parameters
    ----------
    first_slice
        Where the ear's grid begins on the MRC, so that slices are counted there.
    """
    tilt = tilt_deg(fluid.roi.geometry)
    if tilt > MAX_TILT_DEG:
        reason = f"the slices are tilted by {tilt:.0f} degrees against axial ones, and a level is an axial slice"
        return tuple(LevelRatio(part=part.value, reason=reason) for part in LEVELS)
    parts = labyrinth_parts(fluid)
    if isinstance(parts, NoUsualForm):
        return tuple(LevelRatio(part=part.value, reason=parts.reason) for part in LEVELS)
    return tuple(_level(fluid, parts, part, first_slice) for part in LEVELS)


def tilt_deg(geometry: VolumeGeometry) -> float:
    """The angle between the slices and axial ones, 0..90."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(geometry.directions[2, 0]))))))


def _level(fluid: EarFluid, parts: LabyrinthParts, part: LabyrinthPart, first_slice: int) -> LevelRatio:
    missing = parts.missing[part]
    if missing > MAX_MISSING_SHARE:
        return LevelRatio(part=part.value, reason=f"fluid is missing in {100 * missing:.0f} % of where a {part} lies")
    sections = _sections(fluid, parts, part)
    k = int(np.argmax(sections.total_mm2))
    if sections.total_mm2[k] < MIN_AREA_MM2:
        return LevelRatio(part=part.value, reason=f"no slice shows {MIN_AREA_MM2:.0f} mm2 or more of the {part}")
    return LevelRatio(
        part=part.value,
        slice_index=first_slice + k,
        total_fluid_mm2=float(sections.total_mm2[k]),
        endolymph_mm2=float(sections.endolymph_mm2[k]),
        ratio=float(min(1.0, sections.endolymph_mm2[k] / sections.total_mm2[k])),
    )


def _sections(fluid: EarFluid, parts: LabyrinthParts, part: LabyrinthPart) -> _Sections:
    geometry = fluid.roi.geometry
    pixel_mm2 = geometry.voxel_volume_mm3 / float(geometry.spacing_mm[0])
    own = parts.holds(part)
    return _Sections(
        total_mm2=np.asarray(fluid.total_fluid_fraction.array * own, dtype=np.float64).sum(axis=(1, 2)) * pixel_mm2,
        endolymph_mm2=np.asarray(fluid.endolymph_fraction.array * own, dtype=np.float64).sum(axis=(1, 2)) * pixel_mm2,
    )
