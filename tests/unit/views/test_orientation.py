"""Planes are shown the radiological way, whatever the order in which a scanner wrote its slices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ball_ears import LEFT, POSTERIOR, SUPERIOR, grid_around
from viewed_study import oblique_slab

from dicom_node.views.orientation import Plane, display, edge_letters
from inference.geometry import Volume

TURNED = list(product((False, True), repeat=3))
TOWARD = {"L": LEFT, "R": -LEFT, "P": POSTERIOR, "A": -POSTERIOR, "H": SUPERIOR, "F": -SUPERIOR}
EXPECTED = {  # plane: toward the viewer's right, downward
    Plane.AXIAL: ("L", "P"),
    Plane.CORONAL: ("L", "F"),
    Plane.SAGITTAL: ("P", "F"),
}


@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("plane", Plane)
def test_the_patients_right_is_on_the_viewers_left_in_every_storage_order(plane, turned):
    grid = oblique_slab(turned=turned)
    shown = display(grid, plane)
    positions = grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1))
    middle = grid.shape[shown.through] // 2
    x, y, z = (shown.slice_of(positions[..., axis], middle) for axis in range(3))
    rightward = np.array([one[5, 9] - one[5, 8] for one in (x, y, z)])
    downward = np.array([one[9, 5] - one[8, 5] for one in (x, y, z)])
    right_letter, down_letter = EXPECTED[plane]
    assert rightward @ TOWARD[right_letter] > 0.9 * np.linalg.norm(rightward)
    assert downward @ TOWARD[down_letter] > 0.9 * np.linalg.norm(downward)


@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("plane", Plane)
def test_the_letters_at_the_edges_name_where_the_edges_point(plane, turned):
    grid = oblique_slab(turned=turned)
    left, right, top, bottom = edge_letters(grid, display(grid, plane))
    right_letter, down_letter = EXPECTED[plane]
    opposite = {"L": "R", "R": "L", "P": "A", "A": "P", "H": "F", "F": "H"}
    assert (left[0], right[0]) == (opposite[right_letter], right_letter)
    assert (top[0], bottom[0]) == (opposite[down_letter], down_letter)


def test_an_upright_slab_needs_one_letter_per_edge_and_a_tilted_one_two():
    upright = grid_around(np.zeros(3))
    assert edge_letters(upright, display(upright, Plane.AXIAL)) == ("R", "L", "A", "P")
    tilted = oblique_slab()
    assert edge_letters(tilted, display(tilted, Plane.AXIAL))[2:] == ("AF", "PH")


def test_a_sagittal_acquisition_shows_its_own_slices_as_the_sagittal_plane():
    grid = grid_around(np.zeros(3), axes=(LEFT, SUPERIOR, POSTERIOR))
    shown = {plane: display(grid, plane).through for plane in Plane}
    assert shown == {Plane.SAGITTAL: 0, Plane.AXIAL: 1, Plane.CORONAL: 2}


def test_a_slice_is_a_view_of_the_measured_voxels_and_not_a_resampling():
    grid = oblique_slab()
    values = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    shown = display(grid, Plane.CORONAL)
    picture = shown.slice_of(Volume(array=values, geometry=grid).array, 7)
    assert np.array_equal(np.sort(picture, axis=None), np.sort(np.take(values, 7, axis=shown.through), axis=None))
