"""Distances have the right sign and size, and voxel counting finds known volumes."""

import numpy as np
import pytest
import torch

from inference.geometry import VolumeGeometry
from inference.phantom.motion import rotation
from inference.phantom.shapes import capsule, column, ellipsoid, occupancy, smooth_union
from inference.phantom.voxelization import filled_fraction, sample_inside

ORIGIN = column((0.0, 0.0, 0.0))


def test_distance_to_a_ball_is_exact_on_both_sides() -> None:
    points = torch.tensor([[3.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    assert ellipsoid(points, ORIGIN, column((4.0, 4.0, 4.0))).tolist() == pytest.approx([-1.0, 1.0], abs=1e-4)


def test_distance_to_a_rod_follows_its_changing_radius() -> None:
    rod = (column((0.0, 0.0, 0.0)), column((10.0, 0.0, 0.0)))
    points = torch.tensor([[0.0, 10.0], [3.0, 3.0], [0.0, 0.0]])
    assert capsule(points, *rod, 1.0, 2.0).tolist() == pytest.approx([2.0, 1.0])


def test_smooth_union_is_never_smaller_than_the_two_solids() -> None:
    points = torch.randn(3, 2000, generator=torch.Generator().manual_seed(1)) * 4
    first = ellipsoid(points, ORIGIN, column((2.0, 2.0, 2.0)))
    second = ellipsoid(points, column((3.0, 0.0, 0.0)), column((2.0, 2.0, 2.0)))
    assert (smooth_union(first, second, 0.5) <= torch.minimum(first, second) + 1e-6).all()


def test_a_cell_cut_in_the_middle_is_half_occupied() -> None:
    assert occupancy(torch.tensor([-9.0, 0.0, 9.0]), 1.0).tolist() == [1.0, 0.5, 0.0]


def test_sampled_points_of_an_ellipsoid_have_its_volume() -> None:
    semi = (1.0, 2.0, 3.0)
    points = sample_inside(lambda p: ellipsoid(p, ORIGIN, column(semi)), (-4, -4, -4), (4, 4, 4), step_mm=0.1)
    assert points.shape[1] * 0.1**3 == pytest.approx(4 / 3 * np.pi * 6.0, rel=2e-3)


def test_points_fill_the_voxels_of_a_turned_grid_without_losing_volume() -> None:
    points = sample_inside(
        lambda p: ellipsoid(p, ORIGIN, column((3.0, 3.0, 3.0))), (-4, -4, -4), (4, 4, 4), step_mm=0.1
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation(np.array([1.0, 2.0, 3.0]), 25.0) @ np.diag([1.0, 0.5, 0.5])
    affine[:3, 3] = affine[:3, :3] @ -np.array([9.5, 19.5, 19.5])
    grid = VolumeGeometry(shape=(20, 40, 40), index_to_lps=affine, frame_of_reference_uid="1.2")

    fraction = filled_fraction(points.numpy().T, 0.1**3, grid)

    assert fraction.sum() * grid.voxel_volume_mm3 == pytest.approx(points.shape[1] * 0.1**3, rel=5e-3)
    assert fraction[10, 20, 20] == pytest.approx(1.0, abs=0.06)
    assert fraction[0, 0, 0] == 0.0
