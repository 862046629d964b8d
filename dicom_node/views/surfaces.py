"""The surface of a fluid space as triangles in the patient, for looking at: no number is made from it.

Nothing is smoothed. Marching cubes draws one level of the fraction, and at one half a space thinner than a voxel would
vanish: endolymph lost half its volume on a phantom. So each surface lies at the level at which it encloses the volume
that was measured; what is seen is as large as the number beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from inference.geometry import FloatArray, Volume

LEVELS: Final = (0.1, 0.9)
"""Levels tried, in parts of a voxel; beyond them the surface follows single noisy voxels."""

HALVINGS: Final = 7
"""Of the range of levels: leaves 0.006, below a per cent of the volume."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """A closed surface: `vertices_lps_mm` (n, 3) float64; `triangles` (m, 3) int64, seen from outside they turn left.

    An empty space has no triangle.
    """

    vertices_lps_mm: FloatArray
    triangles: NDArray[np.int64]

    @property
    def volume_mm3(self) -> float:
        """The volume that the triangles enclose; positive because they face outward."""
        a, b, c = (self.vertices_lps_mm[self.triangles[:, corner]] for corner in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def surface_of(fraction: Volume) -> Surface:
    """The surface that encloses as much as `fraction` (0..1 of each voxel) adds up to.

    It is closed also at the border of the grid. Where no level in `LEVELS` does so, the nearest one is taken.
    """
    padded = np.pad(np.asarray(fraction.array, dtype=np.float32), 1)
    wanted_mm3 = float(padded.sum(dtype=np.float64)) * fraction.geometry.voxel_volume_mm3
    low, high = LEVELS
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if _at_level(padded, middle, fraction).volume_mm3 > wanted_mm3:
            low = middle
        else:
            high = middle
    return _at_level(padded, 0.5 * (low + high), fraction)


def _at_level(padded: NDArray[np.float32], level: float, fraction: Volume) -> Surface:
    """The surface at one level of the fraction, which was padded by one empty voxel on each side."""
    if padded.max() <= level:
        return Surface(vertices_lps_mm=np.empty((0, 3)), triangles=np.empty((0, 3), dtype=np.int64))
    vertices, triangles, _normals, _values = marching_cubes(padded, level)
    in_patient = fraction.geometry.to_lps(vertices.astype(np.float64) - 1.0)
    surface = Surface(vertices_lps_mm=in_patient, triangles=triangles.astype(np.int64))
    if surface.volume_mm3 >= 0.0:
        return surface
    # A left-handed grid (columns, rows and slices that form no right-handed frame) turns every triangle inside out.
    return Surface(vertices_lps_mm=in_patient, triangles=surface.triangles[:, ::-1])


def ply_file(surface: Surface) -> bytes:
    """A binary PLY file in LPS millimeters, as 3D Slicer reads it; float32 vertices, triangles."""
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment SPACE=LPS\n"
        f"element vertex {len(surface.vertices_lps_mm)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(surface.triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.empty(len(surface.triangles), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"] = 3
    faces["corners"] = surface.triangles
    return header.encode("ascii") + surface.vertices_lps_mm.astype("<f4").tobytes() + faces.tobytes()
