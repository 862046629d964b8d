"""Resampling moves tissue where the transform says, in millimeters of the patient, on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from inference.geometry import GeometryError, Volume, VolumeGeometry
from inference.resampling import Interpolation, check_rigid, coarsen, from_sitk, resample, resample_where, to_sitk

FRAME = "1.2.826.0.1.3680043.8.498.1"
OTHER_FRAME = "1.2.826.0.1.3680043.8.498.2"


@st.composite
def grids(draw: st.DrawFn, side_mm: float = 24.0) -> VolumeGeometry:
    """Oblique grids of about `side_mm` around the patient's origin; half of them left-handed."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    signs = np.array(draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3)))
    spacing_mm = np.array(draw(st.tuples(*[st.floats(0.6, 1.4)] * 3)))
    shape = np.ceil(side_mm / spacing_mm).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * signs * spacing_mm
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    return VolumeGeometry(shape=tuple(shape.tolist()), index_to_lps=affine, frame_of_reference_uid=FRAME)


@st.composite
def motions(draw: st.DrawFn) -> np.ndarray:
    """Rigid motions of up to 4 mm and 10 degrees."""
    matrix = np.eye(4)
    angles = draw(st.tuples(*[st.floats(-10, 10)] * 3))
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = draw(st.tuples(*[st.floats(-4, 4)] * 3))
    return matrix


def blob(geometry: VolumeGeometry, center_mm: np.ndarray, sigma_mm: float = 2.0) -> Volume:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1)
    squared = ((geometry.to_lps(index) - center_mm) ** 2).sum(axis=-1)
    return Volume(array=np.exp(-squared / (2 * sigma_mm**2)).astype(np.float32), geometry=geometry)


def center_of_mass_mm(volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.array.shape], indexing="ij"), axis=-1)
    weights = volume.array / volume.array.sum()
    return (volume.geometry.to_lps(index) * weights[..., None]).sum(axis=(0, 1, 2))


@settings(max_examples=40, deadline=None)
@given(grid=grids())
def test_every_voxel_keeps_its_place_through_simpleitk(grid: VolumeGeometry) -> None:
    volume = blob(grid, np.zeros(3))
    image = to_sitk(volume)
    for k, j, i in [(0, 0, 0), (1, 2, 3), tuple(n - 1 for n in grid.shape)]:
        assert np.allclose(image.TransformIndexToPhysicalPoint((int(i), int(j), int(k))), grid.to_lps((k, j, i)))
        assert image[int(i), int(j), int(k)] == volume.array[k, j, i]
    back = from_sitk(image, FRAME)
    assert back.geometry.same_grid(grid)
    assert np.array_equal(back.array, volume.array)


@settings(max_examples=30, deadline=None)
@given(grid=grids(), interpolation=st.sampled_from(Interpolation))
def test_resampling_onto_its_own_grid_changes_nothing(grid: VolumeGeometry, interpolation: Interpolation) -> None:
    noise = np.random.default_rng(7).normal(size=grid.shape).astype(np.float32)
    again = resample(Volume(array=noise, geometry=grid), grid, interpolation=interpolation, fill=-1000.0)
    assert np.abs(again.array - noise).max() < 2e-4
    assert again.array.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(moving=grids(), fixed=grids(), motion=motions(), at=st.tuples(*[st.floats(-2, 2)] * 3))
def test_a_rigid_motion_moves_a_blob_where_it_should(
    moving: VolumeGeometry, fixed: VolumeGeometry, motion: np.ndarray, at: tuple[float, float, float]
) -> None:
    expected = motion[:3, :3] @ np.array(at) + motion[:3, 3]
    moved = resample(blob(moving, np.array(at), sigma_mm=1.5), fixed, moving_to_fixed=motion)
    assert np.abs(center_of_mass_mm(moved) - expected).max() < 0.05
    assert moved.geometry is fixed


def test_cosines_next_to_nothing_leave_an_image_where_it_is() -> None:
    onto = VolumeGeometry(shape=(24, 24, 24), index_to_lps=np.eye(4), frame_of_reference_uid=FRAME)
    for exponent in np.linspace(-140.0, -312.0, 200):
        rotation = Rotation.from_euler("y", 0.001 * exponent).as_matrix()
        rotation[1, 2], rotation[0, 1] = 10.0**exponent, -0.7 * 10.0**exponent
        affine = np.eye(4)
        affine[:3, :3] = rotation
        grid = VolumeGeometry(shape=(24, 24, 24), index_to_lps=affine, frame_of_reference_uid=FRAME)
        moved = resample(Volume(array=np.ones(grid.shape, dtype=np.float32), geometry=grid), onto)
        assert moved.array.mean() > 0.5


@pytest.mark.parametrize("interpolation", list(Interpolation))
def test_a_part_of_the_grid_gets_the_values_of_the_whole(interpolation: Interpolation) -> None:
    affine = np.diag((1.0, 0.5, 0.5, 1.0))[[2, 1, 0, 3]]
    whole = VolumeGeometry(shape=(40, 80, 80), index_to_lps=affine, frame_of_reference_uid=FRAME)
    values = Volume(array=np.random.default_rng(3).normal(size=whole.shape).astype(np.float32), geometry=whole)
    motion = np.eye(4)
    motion[:3, 3] = (0.31, -0.17, 0.43)
    all_of_it = resample(values, whole, moving_to_fixed=motion, interpolation=interpolation)
    part = resample(values, whole.crop((14, 30, 32), (9, 16, 18)), moving_to_fixed=motion, interpolation=interpolation)
    assert np.abs(part.array - all_of_it.array[14:23, 30:46, 32:50]).max() < 1e-4


def test_a_spline_where_it_is_asked_for_and_a_line_everywhere_else() -> None:
    affine = np.diag((1.0, 0.5, 0.5, 1.0))[[2, 1, 0, 3]]
    grid = VolumeGeometry(shape=(30, 50, 40), index_to_lps=affine, frame_of_reference_uid=FRAME)
    values = Volume(array=np.random.default_rng(4).normal(size=grid.shape).astype(np.float32), geometry=grid)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", (2.0, -3.0, 1.0), degrees=True).as_matrix()
    motion[:3, 3] = (0.31, -0.17, 1.43)  # some voxels come from outside the series
    where = np.zeros(grid.shape, dtype=bool)
    where[:14, 8:30, 5:40] = True
    mixed = resample_where(values, grid, where, moving_to_fixed=motion).array
    spline = resample(values, grid, moving_to_fixed=motion, interpolation=Interpolation.BSPLINE).array
    line = resample(values, grid, moving_to_fixed=motion, interpolation=Interpolation.LINEAR).array
    assert np.abs(mixed - spline)[where].max() < 1e-4
    assert np.array_equal(mixed[~where], line[~where])
    assert (mixed[where] == 0.0).any()
    assert np.abs(spline - line)[where].max() > 0.1


@settings(max_examples=60, deadline=None)
@given(
    grid=grids(side_mm=6.0),
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    start=st.tuples(*[st.integers(-3, 9)] * 3),
    interpolation=st.sampled_from(Interpolation),
)
def test_where_two_grids_share_their_voxels_values_are_copied_bit_for_bit(
    grid: VolumeGeometry, axes: list[int], signs: tuple, start: tuple, interpolation: Interpolation
) -> None:
    volume = Volume(array=np.random.default_rng(3).normal(size=grid.shape).astype(np.float32), geometry=grid)
    affine = grid.index_to_lps.copy()
    affine[:3, :3] = grid.index_to_lps[:3, axes] * signs
    affine[:3, 3] = grid.to_lps(start)
    onto = VolumeGeometry(shape=(5, 4, 6), index_to_lps=affine, frame_of_reference_uid=FRAME)
    found = resample(volume, onto, interpolation=interpolation, fill=-7.0).array
    for place in np.ndindex(onto.shape):
        there = np.rint(grid.to_index(onto.to_lps(place))).astype(int)
        inside = (there >= 0).all() and (there < grid.shape).all()
        assert found[place] == (volume.array[tuple(there)] if inside else np.float32(-7.0))


def test_a_grid_a_hundredth_of_a_voxel_off_is_interpolated() -> None:
    grid = VolumeGeometry(shape=(6, 6, 6), index_to_lps=np.eye(4), frame_of_reference_uid=FRAME)
    ramp = Volume(array=np.indices(grid.shape)[2].astype(np.float32), geometry=grid)
    moved = np.eye(4)
    moved[:3, 3] = grid.to_lps((0.0, 0.0, 0.01))
    onto = VolumeGeometry(shape=(6, 6, 5), index_to_lps=moved, frame_of_reference_uid=FRAME)
    assert resample(ramp, onto).array == pytest.approx(np.broadcast_to(np.arange(5) + 0.01, onto.shape), abs=1e-4)


def test_the_result_lives_in_the_frame_of_the_target() -> None:
    moving = VolumeGeometry(shape=(4, 4, 4), index_to_lps=np.eye(4), frame_of_reference_uid=OTHER_FRAME)
    onto = VolumeGeometry(shape=(4, 4, 4), index_to_lps=np.eye(4), frame_of_reference_uid=FRAME)
    volume = Volume(array=np.ones((4, 4, 4), dtype=np.int16), geometry=moving)
    assert resample(volume, onto).geometry.frame_of_reference_uid == FRAME


def test_voxels_outside_the_moving_series_get_the_fill_value() -> None:
    volume = Volume(
        array=np.ones((4, 4, 4), dtype=np.float32),
        geometry=VolumeGeometry(shape=(4, 4, 4), index_to_lps=np.eye(4), frame_of_reference_uid=FRAME),
    )
    wider = resample(volume, volume.geometry.crop((-1, -1, -1), (6, 6, 6)), fill=-5.0).array
    assert (wider[1:-1, 1:-1, 1:-1] == 1.0).all()
    assert np.count_nonzero(wider == -5.0) == 6**3 - 4**3
    assert (resample(volume, volume.geometry.crop((90, 0, 0), (2, 2, 2)), fill=-5.0).array == -5.0).all()


@settings(max_examples=40, deadline=None)
@given(grid=grids(), spacing_mm=st.floats(1.0, 5.0))
def test_coarse_blocks_stand_where_their_voxels_stood(grid: VolumeGeometry, spacing_mm: float) -> None:
    coarse = coarsen(blob(grid, np.zeros(3), sigma_mm=2.5), spacing_mm)
    assert np.abs(center_of_mass_mm(coarse)).max() < 0.05
    assert (coarse.geometry.spacing_mm >= grid.spacing_mm - 1e-9).all()
    assert (coarse.geometry.spacing_mm <= np.maximum(spacing_mm * 1.5, grid.spacing_mm) + 1e-9).all()


def test_a_coarse_value_is_the_mean_of_its_block() -> None:
    array = np.arange(2 * 4 * 5, dtype=np.int16).reshape(2, 4, 5)
    grid = VolumeGeometry(shape=(2, 4, 5), index_to_lps=np.eye(4), frame_of_reference_uid=FRAME)
    coarse = coarsen(Volume(array=array, geometry=grid), 2.0)
    assert coarse.array.shape == (1, 2, 2)
    assert coarse.array[0, 1, 1] == array[:, 2:4, 2:4].mean()
    assert coarse.geometry.to_lps((0, 0, 0)).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (np.diag((1.01, 1.0, 1.0, 1.0)), "deviates"),
        (np.diag((-1.0, 1.0, 1.0, 1.0)), "mirrors"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(3), "4 x 4"),
    ],
)
def test_a_transform_that_is_not_a_motion_of_the_head_is_refused(matrix: np.ndarray, word: str) -> None:
    with pytest.raises(GeometryError, match=word):
        check_rigid(matrix)
