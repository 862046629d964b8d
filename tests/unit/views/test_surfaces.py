"""Surfaces lie where the fluid is, enclose what was measured and face outward on every grid."""

from __future__ import annotations

import numpy as np
import pytest
from ball_ears import ENDOLYMPH_MM3, ball_ear, center_mm
from viewed_study import endolymph_center_mm, oblique_slab, viewed_study

from dicom_node.views.surfaces import ply_file, surface_of
from inference.anatomy import EarSide
from inference.geometry import Volume


@pytest.mark.parametrize("turned", [(False, False, False), (True, False, False), (False, True, True)])
def test_the_surface_of_a_ball_lies_around_its_center_and_encloses_its_volume(turned):
    findings = viewed_study(oblique_slab(turned=turned))
    for side, ear in findings.ears.items():
        surface = surface_of(ear.fluid.total_fluid_fraction)
        distances = np.linalg.norm(surface.vertices_lps_mm - center_mm(side), axis=1)
        assert distances.min() > 3.5
        assert distances.max() < 4.5
        assert surface.volume_mm3 == pytest.approx(ear.ratio.total_fluid_mm3, rel=0.02)


def test_endolymph_is_off_center_on_the_same_side_as_the_truth():
    ear = viewed_study(oblique_slab()).ears[EarSide.LEFT]
    surface = surface_of(ear.fluid.endolymph_fraction)
    middle = 0.5 * (surface.vertices_lps_mm.min(axis=0) + surface.vertices_lps_mm.max(axis=0))
    assert np.abs(middle - endolymph_center_mm(EarSide.LEFT)).max() < 0.3


def test_a_sheet_thinner_than_a_voxel_keeps_its_volume():
    grid = ball_ear().images.mrc.geometry
    thin = np.zeros(grid.shape, dtype=np.float32)
    thin[12:20, 20:44, 30] = 0.4  # at one half there would be no surface at all
    surface = surface_of(Volume(array=thin, geometry=grid))
    assert surface.volume_mm3 == pytest.approx(0.4 * 8 * 24 * grid.voxel_volume_mm3, rel=0.05)


def test_no_fluid_has_no_triangle():
    grid = ball_ear().images.mrc.geometry
    surface = surface_of(Volume(array=np.zeros(grid.shape, dtype=np.float32), geometry=grid))
    assert surface.triangles.shape == (0, 3)
    assert b"element face 0" in ply_file(surface)


def test_a_ply_file_holds_the_triangles_in_lps_millimeters():
    surface = surface_of(ball_ear(EarSide.RIGHT).endolymph)
    header, _, body = ply_file(surface).partition(b"end_header\n")
    assert b"comment SPACE=LPS" in header
    count = len(surface.vertices_lps_mm)
    vertices = np.frombuffer(body, dtype="<f4", count=3 * count).reshape(count, 3)
    faces = np.frombuffer(body, offset=12 * count, dtype=[("count", "u1"), ("corners", "<i4", 3)])
    assert np.allclose(vertices, surface.vertices_lps_mm, atol=1e-4)
    assert np.array_equal(faces["corners"], surface.triangles)
    assert set(faces["count"]) == {3}
    a, b, c = (vertices[faces["corners"][:, corner]].astype(float) for corner in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0 == pytest.approx(ENDOLYMPH_MM3, rel=0.05)
