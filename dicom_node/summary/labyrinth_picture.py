"""A labyrinth in three dimensions: total fluid translucent, endolymph solid, seen from in front and from its own side.

Parallel projection, no perspective: sizes can be compared. Each space is drawn at the level of its fraction at which it
is as large as it was measured; at one half, endolymph thinner than a voxel would vanish.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.views.orientation import letters_toward
from inference.anatomy import EarSide
from inference.findings import EarFluid
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import resample

STEP_MM: Final = 0.2
"""Of the rays and along them; a canal is 1 mm wide."""

WIDTH_MM: Final = 21.0
"""Of the cube that is looked at: a labyrinth's diagonal (14 x 16 x 14 mm, some 20 mm at most) in any view."""

EDGE: Final = 0.2
"""Width of an outline in parts of a voxel's fraction: softer than a pixel's step, sharper than a blur."""

LEAST_LEVEL: Final = 0.05
"""Fainter samples are no surface, whatever volume is wanted."""

NO_LEVEL: Final = 2.0
"""Above every fraction."""

SMOOTHING_VOXELS: Final = 0.5
"""Of the fractions before they are drawn; without it slices of 1 mm look like stairs."""

FROM_SIDE_DEG: Final = 50.0
FROM_ABOVE_DEG: Final = 20.0
"""Where the viewer stands: from in front toward the ear's own side, and raised. Cochlea, vestibule and all three canals
lie apart there."""

LEAST_SHARE: Final = 0.4
"""Of a direction that is worth a letter beside a picture seen from an angle."""

LIGHT: Final = np.array([0.35, 0.45, 0.82])
"""Direction to the light in the picture's own axes (right, up, toward the viewer)."""

TOTAL_FLUID_RGB: Final = np.array([86, 180, 233]) / 255.0
ENDOLYMPH_RGB: Final = np.array([230, 159, 0]) / 255.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Relief:
    """What is seen of one surface, (rows, columns) 0..1 each: the part of a pixel covered, how it faces and is lit."""

    covered: NDArray[np.float64]
    facing: NDArray[np.float64]
    light: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabyrinthPicture:
    """Both surfaces of one ear, ready to be painted; `letters` are those of the left, right, top and bottom edge."""

    total_fluid: Relief
    endolymph: Relief
    letters: tuple[str, str, str, str]

    def painted(self, background: float) -> NDArray[np.float64]:
        """(rows, columns, 3) 0..1 over a gray `background` (0 black, 1 white)."""
        empty = np.full((*self.endolymph.covered.shape, 3), background)
        solid = _painted(empty, self.endolymph, ENDOLYMPH_RGB, opacity=self.endolymph.covered)
        # Glass is seen at its rims: where the surface turns away, a ray stays longer in it.
        glass = self.total_fluid.covered * (0.38 + 0.5 * (1.0 - self.total_fluid.facing) ** 2)
        return np.clip(_painted(solid, self.total_fluid, TOTAL_FLUID_RGB, opacity=glass), 0.0, 1.0)


def labyrinth_picture(fluid: EarFluid) -> LabyrinthPicture:
    """One ear's labyrinth as it is seen by the viewer."""
    axes = viewing_axes(fluid.roi.side)
    center = _center_mm(fluid.total_fluid_fraction)
    right, up, _ = axes
    return LabyrinthPicture(
        total_fluid=_relief(fluid.total_fluid_fraction, axes, center),
        endolymph=_relief(fluid.endolymph_fraction, axes, center),
        letters=(_letters(-right), _letters(right), _letters(up), _letters(-up)),
    )


def _letters(direction: FloatArray) -> str:
    return letters_toward(direction, least=LEAST_SHARE)


def viewing_axes(side: EarSide) -> FloatArray:
    """(3, 3) LPS unit vectors: right, up, and toward the viewer. The two ears are seen as mirror images."""
    azimuth, raised = np.radians([FROM_SIDE_DEG, FROM_ABOVE_DEG])
    outward = float(side.lps_sign)
    toward = np.array([outward * np.sin(azimuth) * np.cos(raised), -np.cos(azimuth) * np.cos(raised), np.sin(raised)])
    right = np.cross([0.0, 0.0, 1.0], toward)
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(toward, right), toward])


def _center_mm(fraction: Volume) -> FloatArray:
    """The middle of the box around the fluid."""
    points = np.argwhere(np.asarray(fraction.array) > 0.5)
    if not len(points):
        return fraction.geometry.center_lps_mm
    return fraction.geometry.to_lps(0.5 * (points.min(axis=0) + points.max(axis=0)))


def _samples(fraction: Volume, axes: FloatArray, center_mm: FloatArray) -> NDArray[np.float32]:
    """The fraction on a cube that looks at the viewer: (depth from the viewer, rows downward, columns to the right)."""
    count = round(WIDTH_MM / STEP_MM)
    right, up, toward = axes
    steps = np.stack([-toward, -up, right], axis=1) * STEP_MM
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = steps
    index_to_lps[:3, 3] = center_mm - steps @ np.full(3, (count - 1) / 2.0)
    cube = VolumeGeometry(
        shape=(count, count, count),
        index_to_lps=index_to_lps,
        frame_of_reference_uid=fraction.geometry.frame_of_reference_uid,
    )
    smooth = ndimage.gaussian_filter(np.asarray(fraction.array, dtype=np.float32), SMOOTHING_VOXELS)
    return np.asarray(resample(Volume(array=smooth, geometry=fraction.geometry), cube).array, dtype=np.float32)


def _level(samples: NDArray[np.float32], fraction: Volume) -> float:
    """The level above which as much lies as the fraction adds up to; beyond every fraction if that is nothing."""
    wanted_mm3 = float(np.asarray(fraction.array, dtype=np.float64).sum()) * fraction.geometry.voxel_volume_mm3
    candidates = samples[samples > LEAST_LEVEL]
    count = min(candidates.size, round(wanted_mm3 / STEP_MM**3))
    if count < 1:
        return NO_LEVEL
    return float(np.partition(candidates, candidates.size - count)[candidates.size - count])


def _relief(fraction: Volume, axes: FloatArray, center_mm: FloatArray) -> Relief:
    samples = _samples(fraction, axes, center_mm)
    level = _level(samples, fraction)
    inside = samples > level
    seen: NDArray[np.bool_] = np.any(inside, axis=0)
    depth = np.where(seen, inside.argmax(axis=0), 0)
    rows, columns = np.indices(depth.shape)
    # The surface lies between the first sample inside and the one before it.
    here, before = samples[depth, rows, columns], samples[np.maximum(depth - 1, 0), rows, columns]
    exact = depth - np.clip((here - level) / np.maximum(here - before, 1e-6), 0.0, 1.0)
    slope_down, slope_right = _slopes(exact, seen)
    normal = np.stack([slope_right, -slope_down, np.ones_like(slope_down)])
    normal /= np.linalg.norm(normal, axis=0)
    light = np.clip(np.tensordot(LIGHT / np.linalg.norm(LIGHT), normal, axes=1), 0.0, 1.0)
    covered = (
        np.clip(0.5 + (samples.max(axis=0) - level) / EDGE, 0.0, 1.0) if np.isfinite(level) else seen.astype(float)
    )
    return Relief(covered=covered, facing=normal[2], light=light)


def _slopes(depth: NDArray[np.float64], covered: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How the depth grows downward and to the right, smoothed within the covered part only."""
    weight = ndimage.gaussian_filter(covered.astype(float), 1.2)
    smooth = ndimage.gaussian_filter(np.where(covered, depth, 0.0), 1.2) / np.maximum(weight, 1e-3)
    down, right = np.gradient(smooth)
    return down, right


def _painted(
    picture: NDArray[np.float64], relief: Relief, color: FloatArray, *, opacity: NDArray[np.float64]
) -> NDArray[np.float64]:
    shade = (0.45 + 0.55 * relief.light)[..., None] * color
    return picture * (1.0 - opacity[..., None]) + shade * opacity[..., None]
