"""A real ear on a heavily T2-weighted image (T2-SPACE and the like), brought to the clinical grid, with a reference.

Nobody labeled it, so the reference is the fluid at half maximum: read where the image is fine, then averaged to parts
of the clinical voxels. There is no contrast series; only the total fluid can be judged.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from inference.anatomy import EarSide
from inference.cases import CERTAIN_SIDE_MM, CaseError, EarCase
from inference.findings import EarImages, EarROI
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import resample

BoolImage = NDArray[np.bool_]

CLINICAL_MM: Final = (1.0, 0.5, 0.5)
"""Spacing along k, j, i that the MR cisternography of a hydrops study has."""

BOX_VOXELS: Final = (26, 64, 64)

SAMPLES: Final = (5, 3, 3)
"""Points per clinical voxel along k, j, i that are averaged into it: every 0.2 mm, as fine as the crops are."""

SEED_FRACTIONS: Final = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
"""Of the brightest fluid, tried in turn: the fundus of the auditory canal, thinned by nerves, parts from cochlea and
vestibule at one of them."""

BRIGHTEST: Final = 99.5
"""Percentile of the middle that counts as the brightest fluid: single voxels ring above it."""

HALF: Final = 0.5
"""Half of the fluid core, where the outline of something wider than the blur truly lies."""

CORE_MM: Final = 0.4
"""From the seed's border inward: fluid that no bone dims."""

DARK_FRACTION: Final = 0.25
"""Of the brightest fluid: bone."""

LABYRINTH_MM: Final = 14.0
"""From the crop's middle to the farthest canal, if the ear is off the middle by 2 mm; a part beyond is CSF."""

MIDDLE_MM: Final = 9.0
"""Around the crop's middle: mostly labyrinth."""

MIN_PART_MM3: Final = 1.0
"""Smaller parts are noise and vessels, and start no flood."""


def real_ear(fine: Volume, *, name: str) -> EarCase:
    """The crop's ear on the clinical grid; its endolymph is unknown and left empty, HYDROPS is zero.

    `name` is what the case is called.

    Raises
    ------
    CaseError
        If the crop's place does not tell the side, or nothing in its middle is fluid.
    """
    array = np.asarray(fine.array)
    if not np.isfinite(array).all():
        wrong = int(np.count_nonzero(~np.isfinite(array)))
        raise CaseError(f"{name}: expected finite values, found {wrong} voxels that have none")
    if array.min() == array.max():
        raise CaseError(f"{name}: expected an image, found {float(array.min()):g} in every voxel")
    reference = half_maximum(fine)
    if not np.asarray(reference.array).any():
        raise CaseError(f"{name}: expected a bright labyrinth around the middle of the crop, found none")
    center = fine.geometry.to_lps(ndimage.center_of_mass(np.asarray(reference.array, dtype=np.float64)))
    if abs(center[0]) < CERTAIN_SIDE_MM:
        raise CaseError(f"{name}: expected scanner coordinates; the ear lies {center[0]:.0f} mm from their middle")
    side = EarSide.LEFT if center[0] > 0 else EarSide.RIGHT
    grid = _clinical_grid(fine.geometry, center)
    x, y, z = (float(c) for c in center)
    mrc = averaged(fine, grid)
    nothing = Volume(array=np.zeros(grid.shape, dtype=np.float32), geometry=grid)
    return EarCase(
        images=EarImages(
            roi=EarROI(side=side, center_lps_mm=(x, y, z), geometry=grid, score=1.0), mrc=mrc, hydrops=nothing
        ),
        total_fluid=averaged(reference, grid),
        endolymph=nothing,
        tags={"case": name, "side": side.value, "input_set": "MRC"},
    )


def half_maximum(image: Volume) -> Volume:
    """The labyrinth as a mask (float32 0 or 1) on the image's own grid; empty if nothing in its middle is one.

    The bright part in the middle floods the image against CSF and bone, so that the auditory canal stays out; half of
    the fluid core's signal then draws the outline.
    """
    array = np.asarray(image.array, dtype=np.float32)
    from_middle = _distance_mm(image.geometry, image.geometry.center_lps_mm)
    brightest = float(np.percentile(array[from_middle <= MIDDLE_MM], BRIGHTEST))
    for fraction in SEED_FRACTIONS:
        seed, others = _parts(array > fraction * brightest, from_middle, image.geometry)
        if not seed.any() or from_middle[seed].max() > LABYRINTH_MM:
            continue
        markers = np.zeros(array.shape, dtype=np.uint8)
        markers[array < DARK_FRACTION * brightest], markers[seed], markers[others] = 1, 2, 3
        flooded = sitk.MorphologicalWatershedFromMarkers(
            sitk.GetImageFromArray(-array), sitk.GetImageFromArray(markers), markWatershedLine=False
        )
        core = seed & (ndimage.distance_transform_edt(seed, sampling=image.geometry.spacing_mm) >= CORE_MM)
        level = float(np.median(array[core if core.any() else seed]))
        inside = (sitk.GetArrayFromImage(flooded) == 2) & (array > HALF * level)
        return Volume(array=inside.astype(np.float32), geometry=image.geometry)
    return Volume(array=np.zeros_like(array), geometry=image.geometry)


def _parts(bright: BoolImage, from_middle: NDArray[np.float64], grid: VolumeGeometry) -> tuple[BoolImage, BoolImage]:
    """(the part that fills most of the middle, every other part worth mentioning) of `bright`."""
    labels, count = ndimage.label(bright)
    in_middle = np.bincount(labels[from_middle <= MIDDLE_MM], minlength=count + 1)
    in_middle[0] = 0
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * grid.voxel_volume_mm3
    main = int(np.argmax(in_middle))
    mentioned = sizes >= MIN_PART_MM3
    mentioned[[0, main]] = False
    return (labels == main) & (main > 0), mentioned[labels]


def averaged(fine: Volume, grid: VolumeGeometry) -> Volume:
    """Means of `fine` over the voxels of a coarser grid."""
    affine = grid.index_to_lps.copy()
    affine[:3, :3] /= np.array(SAMPLES)
    affine[:3, 3] = grid.to_lps((np.array(SAMPLES) - 1) / (-2.0 * np.array(SAMPLES)))
    k, j, i = grid.shape
    a, b, c = SAMPLES
    dense = VolumeGeometry(
        shape=(k * a, j * b, i * c), index_to_lps=affine, frame_of_reference_uid=grid.frame_of_reference_uid
    )
    samples = np.asarray(resample(fine, dense).array).reshape(k, a, j, b, i, c)
    return Volume(array=samples.mean(axis=(1, 3, 5), dtype=np.float32), geometry=grid)


def _clinical_grid(fine: VolumeGeometry, center_lps_mm: FloatArray) -> VolumeGeometry:
    """A grid of clinical voxels along the crop's own axes, the one nearest to head-feet first."""
    order = _slices_first(fine)
    affine = np.eye(4)
    affine[:3, :3] = fine.directions[:, order] * np.array(CLINICAL_MM)
    affine[:3, 3] = center_lps_mm - affine[:3, :3] @ ((np.array(BOX_VOXELS) - 1) / 2.0)
    return VolumeGeometry(shape=BOX_VOXELS, index_to_lps=affine, frame_of_reference_uid=fine.frame_of_reference_uid)


def _slices_first(grid: VolumeGeometry) -> list[int]:
    first = int(np.argmax(np.abs(grid.directions[2])))
    return [first, *(axis for axis in range(3) if axis != first)]


def _distance_mm(grid: VolumeGeometry, point_lps_mm: FloatArray) -> NDArray[np.float64]:
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    distance: NDArray[np.float64] = np.linalg.norm(grid.to_lps(index) - point_lps_mm, axis=-1)
    return distance
