"""The labyrinth's fluid on MRC: how much of each voxel it fills, kept apart from the CSF next door.

Coil gain differs between the sides, so every ear has its own fluid level. The CSF of the internal auditory canal is
as bright as the labyrinth and touches it; two facts part them: CSF reaches out of the temporal bone and is negative
on HYDROPS, and a thin dark wall of bone runs between. Flooding MRC from perilymph on one side and from distant CSF
on the other lets both meet at that wall, and leaves even a large negative endolymph to the labyrinth around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from inference.geometry import Volume, VolumeGeometry

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

BACKGROUND, LABYRINTH, CSF = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class LabyrinthOptions:
    """Constants of the total fluid segmentation; lengths in mm, fluid fractions 0..1.

    Parameters
    ----------
    search_radius_mm
        Around the ear's box center, where the fluid level is read.
    level_percentile
        Of voxels above 0.6 of the level: the fluid level. Calibrated on phantoms, where it makes the summed
        fractions equal the true volume within a few per cent: canals and turns are blurred below it.
    reach_mm
        Farthest labyrinth from the perilymph's centroid; bright and negative beyond is CSF.
    core_fraction
        Half maximum: the labyrinth's outline.
    rim_fraction
        Fainter partial volume than this is not told from noise and blur.
    gap_mm
        Farthest island (a canal interrupted by noise) from the main part.
    island_positive_share
        An island with a smaller share of positive voxels is CSF or a stray cell.
    """

    search_radius_mm: float = 10.0
    level_percentile: float = 92.0
    reach_mm: float = 13.0
    core_fraction: float = 0.5
    rim_fraction: float = 0.1
    gap_mm: float = 2.0
    island_positive_share: float = 0.3


@dataclass(frozen=True, kw_only=True, eq=False)
class LabyrinthFluid:
    """Fluid of the ear's box, arrays (K, J, I).

    `fraction` is float32 0..1 of the labyrinth, `amount` the MRC over its fluid `level` (scanner units) without the
    upper bound, which is what other series divide by; `csf` is bool.
    """

    fraction: FloatImage
    amount: FloatImage
    csf: BoolImage
    level: float


MIN_MARKER_VOXELS: Final = 4
"""Fewer connected positive voxels are noise, not perilymph."""

SMOOTHING_MM: Final = 0.5
"""Of HYDROPS before its sign is read: noise halves, a cochlear turn (1.5 mm) keeps its sign."""


def total_fluid(mrc: Volume, hydrops: Volume, options: LabyrinthOptions) -> LabyrinthFluid:
    """How much of each voxel the labyrinth's fluid fills.

    Parameters
    ----------
    mrc, hydrops
        (K, J, I) on the same grid, the ear near its middle; HYDROPS signed and registered.

    Returns
    -------
    LabyrinthFluid
        All zero if nothing is bright around the middle.
    """
    geometry = mrc.geometry
    bright = np.asarray(mrc.array, dtype=np.float32)
    distance = _distance_mm(geometry, geometry.center_lps_mm)
    dark = float(np.percentile(bright, 25.0))
    level = _fluid_level(bright[distance <= options.search_radius_mm], dark, options)
    nothing = LabyrinthFluid(
        fraction=np.zeros(geometry.shape, np.float32),
        amount=np.zeros(geometry.shape, np.float32),
        csf=np.zeros(geometry.shape, bool),
        level=level,
    )
    if level <= dark:
        return nothing
    amount: FloatImage = np.clip((bright - dark) / (level - dark), 0.0, None).astype(np.float32)
    fraction: FloatImage = np.minimum(amount, np.float32(1.0))
    signed = ndimage.gaussian_filter(
        np.asarray(hydrops.array, dtype=np.float32), SMOOTHING_MM / geometry.spacing_mm, truncate=2.0
    )
    center = _perilymph_center(fraction, signed, distance, geometry, options)
    markers = _markers(fraction, signed, _distance_mm(geometry, center), options)
    if not (markers == LABYRINTH).any():
        return nothing
    territory = _flood(fraction, markers)
    fluid = (territory == LABYRINTH) & (fraction >= options.core_fraction)
    core = _labyrinth_parts(fluid, signed, distance, geometry, options)
    csf = (territory == CSF) & (fraction >= options.core_fraction)
    rim = ndimage.binary_dilation(core, np.ones((3, 3, 3))) & (territory != CSF) & (fraction >= options.rim_fraction)
    kept = core | rim
    return LabyrinthFluid(
        fraction=np.where(kept, fraction, np.float32(0.0)),
        amount=np.where(kept, amount, np.float32(0.0)),
        csf=csf,
        level=level,
    )


def _fluid_level(bright: FloatImage, dark: float, options: LabyrinthOptions) -> float:
    """MRC value of a voxel full of fluid: a high percentile of what is bright near the ear, settled in three rounds."""
    level = float(np.percentile(bright, 99.0))
    for _ in range(3):
        fluid = bright[bright > dark + 0.6 * (level - dark)]
        if fluid.size == 0:
            return dark
        level = float(np.percentile(fluid, options.level_percentile))
    return level


def _perilymph_center(
    fraction: FloatImage,
    signed: FloatImage,
    distance: NDArray[np.float64],
    geometry: VolumeGeometry,
    options: LabyrinthOptions,
) -> NDArray[np.float64]:
    """Centroid (LPS mm) of bright positive voxels near the box's middle, or the middle if there are none."""
    near = (fraction > options.core_fraction) & (signed > 0.0) & (distance <= options.search_radius_mm)
    if np.count_nonzero(near) < MIN_MARKER_VOXELS:
        return geometry.center_lps_mm
    center: NDArray[np.float64] = geometry.to_lps(np.argwhere(near)).mean(axis=0)
    return center


def _markers(
    fraction: FloatImage, signed: FloatImage, distance: NDArray[np.float64], options: LabyrinthOptions
) -> NDArray[np.uint8]:
    """Where each flood starts: certain perilymph, certain CSF, certain background.

    Without any perilymph (no contrast agent) the brightest voxels in the middle start the labyrinth's flood, so that
    the gates can say "no contrast" about an ear instead of "no fluid".
    """
    fluid = fraction > options.core_fraction
    scale = float(np.median(np.abs(signed[fluid]))) if fluid.any() else 0.0
    perilymph = fluid & (signed > 0.3 * scale) & (distance <= options.reach_mm)
    labels, count = ndimage.label(perilymph)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    perilymph &= sizes[labels] >= MIN_MARKER_VOXELS
    if not perilymph.any():
        perilymph = (fraction > 0.65) & (distance <= 0.5 * options.search_radius_mm)
    markers = np.zeros(fraction.shape, np.uint8)
    markers[fraction < options.rim_fraction] = BACKGROUND
    markers[fluid & (signed < 0.0) & (distance > options.reach_mm)] = CSF
    markers[perilymph] = LABYRINTH
    return markers


def _flood(fraction: FloatImage, markers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Watershed of MRC, brightest first: every voxel goes to the marker that reaches it over the brightest path."""
    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(1.0 - fraction), sitk.GetImageFromArray(markers), markWatershedLine=False
    )
    territory: NDArray[np.uint8] = sitk.GetArrayFromImage(flooded)
    return territory


def _labyrinth_parts(
    core: BoolImage,
    signed: FloatImage,
    distance: NDArray[np.float64],
    geometry: VolumeGeometry,
    options: LabyrinthOptions,
) -> BoolImage:
    """The part with most fluid near the box's middle, and the islands near it that hold perilymph.

    Not simply the largest: a venous sinus in the corner of the box may be larger than a labyrinth in pieces.
    """
    labels, count = ndimage.label(core, np.ones((3, 3, 3)))
    if count == 0:
        return core
    numbers = np.arange(1, count + 1)
    nearness = np.clip(1.0 - distance / options.reach_mm, 0.0, 1.0)
    main = labels == numbers[int(np.argmax(ndimage.sum_labels(nearness, labels, numbers)))]
    gap = ndimage.distance_transform_edt(~main, sampling=geometry.spacing_mm)
    nearest = ndimage.minimum(gap, labels, numbers)
    positive = ndimage.mean(signed > 0.0, labels, numbers)
    keep = numbers[(nearest <= options.gap_mm) & (positive >= options.island_positive_share)]
    kept: BoolImage = main | np.isin(labels, keep)
    return kept


def _distance_mm(geometry: VolumeGeometry, point_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, J, I) distance of every voxel's center from a point."""
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)
    distance: NDArray[np.float64] = np.linalg.norm(geometry.to_lps(index) - point_lps_mm, axis=-1)
    return distance
