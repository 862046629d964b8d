"""Where an array lies in the patient: one convention for the whole project.

Arrays are indexed (k, j, i) = (slice, row, column) with shape (K, J, I). Patient space is DICOM's LPS in
millimeters: +x to the patient's left, +y to posterior, +z to the head (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

ORTHOGONALITY_TOLERANCE: Final = 1e-3
"""Largest cosine between two axes of a grid: 0.06 degrees, far below what moves a voxel across an ear."""


class GeometryError(ValueError):
    """A grid that has no place in patient space: singular, sheared, non-finite or of another shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeGeometry:
    """A regular grid in one frame of reference, without pixels.

    Parameters
    ----------
    shape
        (K, J, I), every entry >= 1.
    index_to_lps
        (4, 4) affine; maps (k, j, i, 1) to LPS millimeters of the voxel's center.
    frame_of_reference_uid
        The frame in which LPS is meant (0020,0052).

    Raises
    ------
    GeometryError
        If the affine is not finite, singular, or its axes are not orthogonal.
    """

    shape: tuple[int, int, int]
    index_to_lps: FloatArray
    frame_of_reference_uid: str

    def __post_init__(self) -> None:
        affine = np.array(self.index_to_lps, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"index_to_lps must be a finite 4 x 4 matrix, found shape {affine.shape}")
        if len(self.shape) != 3 or any(int(n) != n or n < 1 for n in self.shape):
            raise GeometryError(f"shape must be three positive integers (K, J, I), found {self.shape}")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if (spacing <= 0).any():
            raise GeometryError(f"every axis needs a positive spacing, found {spacing.tolist()} mm")
        cosines = affine[:3, :3] / spacing
        skew = np.abs(cosines.T @ cosines - np.eye(3)).max()
        if skew > ORTHOGONALITY_TOLERANCE:
            raise GeometryError(
                f"axes must be orthogonal; largest cosine found {skew:.2e}, allowed {ORTHOGONALITY_TOLERANCE:.0e}"
            )
        affine.flags.writeable = False
        object.__setattr__(self, "index_to_lps", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing_mm(self) -> FloatArray:
        """(3,) spacing along k, j, i in mm."""
        spacing: FloatArray = np.linalg.norm(self.index_to_lps[:3, :3], axis=0)
        return spacing

    @property
    def directions(self) -> FloatArray:
        """(3, 3) unit vectors in LPS; column 0 is where k grows, 1 where j grows, 2 where i grows."""
        return self.index_to_lps[:3, :3] / self.spacing_mm

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3."""
        return float(abs(np.linalg.det(self.index_to_lps[:3, :3])))

    @property
    def center_lps_mm(self) -> FloatArray:
        """(3,) LPS position of the middle of the grid."""
        return self.to_lps((np.array(self.shape) - 1) / 2.0)

    def to_lps(self, index: ArrayLike) -> FloatArray:
        """LPS millimeters of (k, j, i) indices; (..., 3) in, (..., 3) out; fractions allowed."""
        points = np.asarray(index, dtype=np.float64)
        return points @ self.index_to_lps[:3, :3].T + self.index_to_lps[:3, 3]

    def to_index(self, lps_mm: ArrayLike) -> FloatArray:
        """Fractional (k, j, i) indices of LPS millimeters; (..., 3) in, (..., 3) out."""
        points = np.asarray(lps_mm, dtype=np.float64) - self.index_to_lps[:3, 3]
        return points @ np.linalg.inv(self.index_to_lps[:3, :3]).T

    def crop(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> VolumeGeometry:
        """The sub-grid that begins at index `start` (k, j, i); it may reach outside this grid."""
        affine = self.index_to_lps.copy()
        affine[:3, 3] = self.to_lps(start)
        return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid=self.frame_of_reference_uid)

    def same_grid(self, other: VolumeGeometry, *, tolerance_mm: float = 1e-3) -> bool:
        """True if both grids have the same frame of reference, shape and voxel positions within `tolerance_mm`."""
        if self.frame_of_reference_uid != other.frame_of_reference_uid or self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1).T
        return bool(np.abs(self.to_lps(corners) - other.to_lps(corners)).max() <= tolerance_mm)


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """An array and its place: `array` has shape (K, J, I) equal to `geometry.shape`.

    Raises
    ------
    GeometryError
        If the array's shape is not the geometry's.
    """

    array: NDArray[np.generic]
    geometry: VolumeGeometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise GeometryError(f"array shape {self.array.shape} is not the geometry's {self.geometry.shape}")

    def crop(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Volume:
        """The sub-volume from index `start` (k, j, i); where it reaches outside, it is filled with zeros."""
        geometry = self.geometry.crop(start, shape)
        out = np.zeros(shape, dtype=self.array.dtype)
        inner, outer = [], []
        for begin, size, limit in zip(start, shape, self.array.shape, strict=True):
            low, high = max(begin, 0), min(begin + size, limit)
            outer.append(slice(low, max(high, low)))
            inner.append(slice(low - begin, max(high, low) - begin))
        out[tuple(inner)] = self.array[tuple(outer)]
        return Volume(array=out, geometry=geometry)
