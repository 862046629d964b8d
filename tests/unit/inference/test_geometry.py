"""Any grid a scanner can make has one place in the patient, and points find their way there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.geometry import GeometryError, Volume, VolumeGeometry

FRAME = "1.2.826.0.1.3680043.8.498.1"
INDICES = st.tuples(*[st.floats(-500, 500)] * 3)


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    """Proper rotations from unit quaternions."""
    q = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.05)))
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def geometries(draw: st.DrawFn) -> VolumeGeometry:
    """Oblique, reversed and left-handed grids with the spacings that MR scanners use."""
    directions = draw(rotations()) * np.array(draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(draw(st.tuples(*[st.floats(0.2, 5.0)] * 3)))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    shape = draw(st.tuples(*[st.integers(1, 40)] * 3))
    return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid=FRAME)


def axial(shape: tuple[int, int, int] = (4, 5, 6)) -> VolumeGeometry:
    affine = np.diag((1.0, 0.5, 0.5, 1.0))[[2, 1, 0, 3]]
    return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid=FRAME)


@given(geometry=geometries(), index=INDICES)
def test_an_index_comes_back_from_the_patient(geometry: VolumeGeometry, index: tuple[float, float, float]) -> None:
    assert np.allclose(geometry.to_index(geometry.to_lps(index)), index, atol=1e-6)


@given(geometry=geometries(), start=st.tuples(*[st.integers(-9, 9)] * 3))
def test_a_crop_moves_no_voxel(geometry: VolumeGeometry, start: tuple[int, int, int]) -> None:
    crop = geometry.crop(start, (2, 3, 4))
    index = np.array((1, 2, 3))
    assert np.allclose(crop.to_lps(index), geometry.to_lps(index + start), atol=1e-9)
    assert crop.frame_of_reference_uid == geometry.frame_of_reference_uid


@given(geometry=geometries())
def test_spacing_directions_and_volume_agree_with_the_affine(geometry: VolumeGeometry) -> None:
    assert np.allclose(geometry.directions * geometry.spacing_mm, geometry.index_to_lps[:3, :3])
    assert geometry.voxel_volume_mm3 == pytest.approx(np.prod(geometry.spacing_mm), rel=1e-9)


@given(geometry=geometries(), shift_mm=st.floats(0.01, 20))
def test_a_grid_is_itself_and_not_its_shifted_copy(geometry: VolumeGeometry, shift_mm: float) -> None:
    moved = geometry.index_to_lps.copy()
    moved[:3, 3] += (shift_mm, 0, 0)
    other = VolumeGeometry(shape=geometry.shape, index_to_lps=moved, frame_of_reference_uid=FRAME)
    assert geometry.same_grid(geometry)
    assert not geometry.same_grid(other)


def test_grids_in_two_frames_of_reference_are_never_the_same() -> None:
    other = VolumeGeometry(shape=(4, 5, 6), index_to_lps=axial().index_to_lps, frame_of_reference_uid=FRAME + ".2")
    assert not axial().same_grid(other)


def test_an_axial_grid_runs_columns_to_the_left_rows_to_the_back_and_slices_to_the_head() -> None:
    assert axial().to_lps((1, 0, 0)).tolist() == [0.0, 0.0, 1.0]
    assert axial().to_lps((0, 1, 0)).tolist() == [0.0, 0.5, 0.0]
    assert axial().to_lps((0, 0, 1)).tolist() == [0.5, 0.0, 0.0]


@settings(max_examples=50)
@given(start=st.tuples(*[st.integers(-8, 8)] * 3), shape=st.tuples(*[st.integers(1, 9)] * 3))
def test_a_cropped_volume_keeps_its_values_and_is_zero_outside(
    start: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    array = np.arange(1, 121, dtype=np.int32).reshape(4, 5, 6)
    crop = Volume(array=array, geometry=axial()).crop(start, shape)
    for index in np.ndindex(shape):
        source = np.array(index) + start
        inside = bool((source >= 0).all() and (source < array.shape).all())
        assert crop.array[index] == (array[tuple(source)] if inside else 0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a.__setitem__((0, 0), np.nan), "finite"),
        (lambda a: a.__setitem__((slice(0, 3), 1), 0.0), "spacing"),
        (lambda a: a.__setitem__((0, 1), 0.01), "orthogonal"),
    ],
)
def test_an_affine_without_a_place_in_the_patient_is_refused(change, word) -> None:
    affine = np.diag((1.0, 1.0, 1.0, 1.0))
    change(affine)
    with pytest.raises(GeometryError, match=word):
        VolumeGeometry(shape=(2, 2, 2), index_to_lps=affine, frame_of_reference_uid=FRAME)


def test_a_geometry_cannot_be_changed_through_the_matrix_it_was_made_from() -> None:
    affine = np.eye(4)
    geometry = VolumeGeometry(shape=(2, 2, 2), index_to_lps=affine, frame_of_reference_uid=FRAME)
    affine[0, 3] = 99.0
    assert geometry.to_lps((0, 0, 0)).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        geometry.index_to_lps[0, 3] = 1.0


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(4, 5, 7\)"):
        Volume(array=np.zeros((4, 5, 7)), geometry=axial())
