"""The surface of a fluid space as triangles in the patient, for looking at: no number is made from it.

Marching cubes runs where a voxel is half full. Nothing is smoothed: a canal thinner than a voxel may show gaps, and
those gaps are what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from inference.geometry import FloatArray, Volume

HALF_FULL: Final = 0.5


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
    """The surface at which `fraction` (0..1 of each voxel) is one half; closed also at the border of the grid."""
    padded = np.pad(np.asarray(fraction.array, dtype=np.float32), 1)
    if padded.max() <= HALF_FULL:
        return Surface(vertices_lps_mm=np.empty((0, 3)), triangles=np.empty((0, 3), dtype=np.int64))
    vertices, triangles, _normals, _values = marching_cubes(padded, HALF_FULL)
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
