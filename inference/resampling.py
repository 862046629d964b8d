"""Volumes on other grids, in millimeters of the patient: nothing here knows what the pixels mean.

SimpleITK indexes (i, j, k) and numpy (k, j, i); the affine's columns are reversed exactly once, here.
A rigid transform is named by where it goes: fixed_point = moving_to_fixed @ moving_point, both in LPS mm.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from inference.geometry import FloatArray, GeometryError, Volume, VolumeGeometry

RIGIDITY_TOLERANCE: Final = 1e-6
"""Largest deviation of R @ R.T from the identity: rounding of a composed rotation, not a scaling of the head."""

SUPPORT_VOXELS: Final = 12
"""Voxels of the moving grid kept around what the target covers. A cubic B-spline's prefilter decays by 0.27 per
voxel, so 12 voxels hide the cut below 1e-6; linear and sinc need fewer."""

SAME_VOXEL: Final = 1e-3
"""Voxels by which voxels of two grids may miss each other and still be the same: half a micrometer, rounding."""


class Interpolation(StrEnum):
    """How values between voxel centers are made."""

    LINEAR = "linear"
    """Never overshoots: for masks, fractions and anything whose sign is read at an edge."""
    BSPLINE = "bspline"
    """Cubic, keeps thin canals sharp; overshoots a little at hard edges."""
    WINDOWED_SINC = "windowed_sinc"
    """Lanczos, radius 5: closest to the acquired k-space, slowest, rings at edges."""


_SITK_INTERPOLATORS: Final = {
    Interpolation.LINEAR: sitk.sitkLinear,
    Interpolation.BSPLINE: sitk.sitkBSpline,
    Interpolation.WINDOWED_SINC: sitk.sitkLanczosWindowedSinc,
}


NO_COSINE: Final = 1e-12
"""Rounding: a tenth of a millionth of a millimeter at the other end of a head."""


def to_sitk(volume: Volume) -> sitk.Image:
    """SimpleITK image (float32) at the same place in LPS; left-handed grids stay left-handed."""
    geometry = volume.geometry
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array, dtype=np.float32))
    image.SetOrigin(geometry.index_to_lps[:3, 3].tolist())
    image.SetSpacing(geometry.spacing_mm[::-1].tolist())
    image.SetDirection(_cosines(geometry))
    return image


def _cosines(geometry: VolumeGeometry) -> list[float]:
    """Direction cosines as SimpleITK wants them. Its inverse of a matrix that holds 1e-296 may be no number."""
    cosines = geometry.directions[:, ::-1].flatten()
    return [0.0 if abs(cosine) < NO_COSINE else float(cosine) for cosine in cosines]


def from_sitk(image: sitk.Image, frame_of_reference_uid: str) -> Volume:
    """Volume (K, J, I) of a SimpleITK image; the image cannot name its frame of reference, so the caller does."""
    directions = np.array(image.GetDirection()).reshape(3, 3)[:, ::-1]
    spacing_mm = np.array(image.GetSpacing())[::-1]
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = directions * spacing_mm
    index_to_lps[:3, 3] = image.GetOrigin()
    geometry = VolumeGeometry(
        shape=tuple(reversed(image.GetSize())),
        index_to_lps=index_to_lps,
        frame_of_reference_uid=frame_of_reference_uid,
    )
    return Volume(array=sitk.GetArrayFromImage(image), geometry=geometry)


def check_rigid(matrix: NDArray[np.float64]) -> FloatArray:
    """`matrix` as (4, 4) float64, if it is a proper rigid transform in mm.

    Raises
    ------
    GeometryError
        If it is not finite, not (4, 4), scales, shears, or mirrors. A mirrored head must never pass.
    """
    rigid = np.asarray(matrix, dtype=np.float64)
    if rigid.shape != (4, 4) or not np.isfinite(rigid).all():
        raise GeometryError(f"a rigid transform is a finite 4 x 4 matrix, found shape {rigid.shape}")
    rotation = rigid[:3, :3]
    deviation = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if deviation > RIGIDITY_TOLERANCE or not np.allclose(rigid[3], (0.0, 0.0, 0.0, 1.0), atol=RIGIDITY_TOLERANCE):
        raise GeometryError(
            f"not a rigid transform: rotation deviates by {deviation:.1e}, last row {rigid[3].tolist()}"
        )
    if np.linalg.det(rotation) < 0:
        raise GeometryError("not rigid: it mirrors left and right")
    return rigid


def invert_rigid(matrix: NDArray[np.float64]) -> FloatArray:
    """The way back of a rigid transform, itself rigid to the last bit; raises like `check_rigid`."""
    rigid = check_rigid(matrix)
    back = np.eye(4)
    back[:3, :3] = rigid[:3, :3].T
    back[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return back


def resample(
    moving: Volume,
    onto: VolumeGeometry,
    *,
    moving_to_fixed: NDArray[np.float64] | None = None,
    interpolation: Interpolation = Interpolation.LINEAR,
    fill: float = 0.0,
) -> Volume:
    """Values of `moving` at the voxel centers of `onto`, float32; copied where the two grids share their voxels.

    Parameters
    ----------
    moving
        Any grid, any orientation; its frame of reference may differ if `moving_to_fixed` bridges the two.
    onto
        The target grid; the result has exactly this geometry and its frame of reference.
    moving_to_fixed
        (4, 4) rigid, LPS mm to LPS mm; None means the identity.
    fill
        Value of voxels more than half a voxel outside `moving`.

    Raises
    ------
    GeometryError
        If `moving_to_fixed` is not rigid.
    """
    if moving_to_fixed is None and (shared := _shared_voxels(moving, onto, fill)) is not None:
        return shared
    fixed_to_moving = np.eye(4) if moving_to_fixed is None else invert_rigid(moving_to_fixed)
    rim_mm = SUPPORT_VOXELS * float(moving.geometry.spacing_mm.max())
    covered = part_covering(moving, onto, moving_to_fixed=moving_to_fixed, rim_mm=rim_mm)
    if covered is None:
        return Volume(array=np.full(onto.shape, fill, dtype=np.float32), geometry=onto)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(fixed_to_moving[:3, :3].flatten().tolist())
    transform.SetTranslation(fixed_to_moving[:3, 3].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(onto.shape[::-1])
    resampler.SetOutputOrigin(onto.index_to_lps[:3, 3].tolist())
    resampler.SetOutputSpacing(onto.spacing_mm[::-1].tolist())
    resampler.SetOutputDirection(_cosines(onto))
    resampler.SetTransform(transform)
    resampler.SetInterpolator(_SITK_INTERPOLATORS[interpolation])
    resampler.SetDefaultPixelValue(fill)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return Volume(array=sitk.GetArrayFromImage(resampler.Execute(to_sitk(covered))), geometry=onto)


def _shared_voxels(moving: Volume, onto: VolumeGeometry, fill: float) -> Volume | None:
    """Voxels of `moving`, turned and cropped; None if `onto` has places between them.

    At a voxel every interpolation gives the voxel's value, but a spline's prefilter costs thirty times a copy.
    """
    steps = np.linalg.inv(moving.geometry.index_to_lps[:3, :3]) @ onto.index_to_lps[:3, :3]
    whole, start = np.rint(steps), moving.geometry.to_index(onto.index_to_lps[:3, 3])
    missed = np.abs(start - np.rint(start)).max() + (np.abs(steps - whole) @ np.array(onto.shape)).max()
    turned = (np.abs(whole).sum(axis=0) == 1).all() and (np.abs(whole).sum(axis=1) == 1).all()
    if missed > SAME_VOXEL or not turned:
        return None
    axes = np.abs(whole).argmax(axis=0).tolist()
    source, target = [], []
    for axis, count, step in zip(axes, onto.shape, whole.sum(axis=0), strict=True):
        index = int(np.rint(start[axis])) + int(step) * np.arange(count)
        inside = (index >= 0) & (index < moving.array.shape[axis])
        source.append(index[inside])
        target.append(np.flatnonzero(inside))
    array = np.full(onto.shape, fill, dtype=np.float32)
    array[np.ix_(*target)] = moving.array.transpose(axes)[np.ix_(*source)]
    return Volume(array=array, geometry=onto)


def resample_where(
    moving: Volume, onto: VolumeGeometry, where: NDArray[np.bool_], *, moving_to_fixed: NDArray[np.float64]
) -> Volume:
    """`resample` by cubic B-spline at the voxels of `where` (K, J, I), linearly at all others; zero outside, float32.

    A spline costs twenty times what a line does, and most of a slab is looked at only roughly.
    """
    values = resample(moving, onto, moving_to_fixed=moving_to_fixed).array.copy()
    fixed_to_moving = invert_rigid(moving_to_fixed)
    places = onto.to_lps(np.argwhere(where)) @ fixed_to_moving[:3, :3].T + fixed_to_moving[:3, 3]
    index = moving.geometry.to_index(places)
    beside = ((index < -0.5) | (index > np.array(moving.array.shape) - 0.5)).any(axis=1)
    if beside.all():
        return Volume(array=np.where(where, np.float32(0.0), values), geometry=onto)
    low = np.maximum(np.floor(index[~beside].min(axis=0)).astype(int) - SUPPORT_VOXELS, 0)
    high = np.ceil(index[~beside].max(axis=0)).astype(int) + SUPPORT_VOXELS + 1
    part = np.asarray(moving.array[tuple(map(slice, low, high))], dtype=np.float32)
    coefficients = ndimage.spline_filter(part, output=np.float32, mode="mirror")
    found = ndimage.map_coordinates(coefficients, (index - low).T, output=np.float32, prefilter=False, mode="mirror")
    found[beside] = 0.0
    values[where] = found
    return Volume(array=values, geometry=onto)


def part_covering(
    moving: Volume, box: VolumeGeometry, *, moving_to_fixed: NDArray[np.float64] | None = None, rim_mm: float = 0.0
) -> Volume | None:
    """The part of `moving` that shows `box`, a grid in the fixed frame, and `rim_mm` around it; None if none does.

    An ear is a hundredth of a head: converting and prefiltering only that part is what keeps resampling fast. The
    part's array is a view of the whole one, not a copy.
    """
    back = np.eye(4) if moving_to_fixed is None else invert_rigid(moving_to_fixed)
    corners = box.to_lps(np.array(np.meshgrid(*[(0, n - 1) for n in box.shape], indexing="ij")).reshape(3, -1).T)
    index = moving.geometry.to_index(corners @ back[:3, :3].T + back[:3, 3])
    rim = rim_mm / moving.geometry.spacing_mm
    low = np.maximum(np.floor(index.min(axis=0) - rim).astype(int), 0)
    high = np.minimum(np.ceil(index.max(axis=0) + rim).astype(int) + 1, moving.array.shape)
    if (high <= low).any():
        return None
    k, j, i = (int(n) for n in low)
    depth, height, width = (int(n) for n in high - low)
    geometry = moving.geometry.crop((k, j, i), (depth, height, width))
    return Volume(array=moving.array[k : k + depth, j : j + height, i : i + width], geometry=geometry)


def coarsen(volume: Volume, spacing_mm: float) -> Volume:
    """Means over whole blocks of voxels, so that no axis is finer than about `spacing_mm`; float32.

    Blocks are whole voxels, so the spacing is the nearest multiple; a remainder at the far border is dropped.
    """
    blocks = np.maximum(1, np.rint(spacing_mm / volume.geometry.spacing_mm).astype(int))
    blocks = np.minimum(blocks, volume.array.shape)
    shape = tuple(int(n) for n in np.array(volume.array.shape) // blocks)
    k, j, i = (int(n * b) for n, b in zip(shape, blocks, strict=True))
    array = np.asarray(volume.array[:k, :j, :i], dtype=np.float32)
    for axis in (2, 1, 0):  # the contiguous axis first: the other two then touch less memory
        array = _block_means(array, axis, int(blocks[axis]))
    index_to_lps = volume.geometry.index_to_lps.copy()
    index_to_lps[:3, :3] *= blocks
    index_to_lps[:3, 3] = volume.geometry.to_lps((blocks - 1) / 2.0)
    geometry = VolumeGeometry(
        shape=(shape[0], shape[1], shape[2]),
        index_to_lps=index_to_lps,
        frame_of_reference_uid=volume.geometry.frame_of_reference_uid,
    )
    return Volume(array=array, geometry=geometry)


def _block_means(array: NDArray[np.float32], axis: int, block: int) -> NDArray[np.float32]:
    """Means over whole blocks along one axis; every n-th voxel added at a time, seven times faster than `mean`."""
    if block == 1:
        return array
    parts = [slice(None)] * array.ndim
    parts[axis] = slice(0, None, block)
    total = array[tuple(parts)].copy()
    for first in range(1, block):
        parts[axis] = slice(first, None, block)
        total += array[tuple(parts)]
    total *= np.float32(1.0 / block)
    return total
