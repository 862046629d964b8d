"""Volumes: one object, scanned in any orientation, has the same values at the same place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loaded_volumes import loaded, reason_of
from pydicom.dataset import Dataset
from scanned_series import (
    AXIAL,
    AXIAL_FROM_ABOVE,
    CORONAL,
    MRC,
    PPI,
    SAGITTAL,
    data_sets,
    enhanced_data_set,
    header_of,
    object_value,
    write_files,
)

from dicom_node.assembly.headers import read_series_header
from dicom_node.errors import Reason
from dicom_node.volumes import check_geometry, load_volume, ordered_frames
from inference.geometry import Volume


def voxel_points(volume: Volume) -> np.ndarray:
    """(K, J, I, 3) LPS mm of every voxel."""
    return volume.geometry.to_lps(np.stack(np.indices(volume.array.shape), axis=-1))


def assert_shows_the_object(volume: Volume) -> None:
    """The scanned object at the place where the geometry says each voxel is; 1 for the rounding of positions."""
    np.testing.assert_allclose(volume.array, object_value(voxel_points(volume)), atol=1.0)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, AXIAL_FROM_ABOVE, (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_object_is_where_it_is_in_every_standard_orientation(tmp_path, orientation, backwards):
    datasets = data_sets(MRC.but(orientation=orientation, center_mm=(5.0, -3.0, 2.0)))
    volume = loaded(datasets[::-1] if backwards else datasets, tmp_path)
    assert volume.array.dtype == np.float32
    assert volume.array.shape == (8, 6, 5)
    assert_shows_the_object(volume)
    np.testing.assert_allclose(volume.geometry.center_lps_mm, (5.0, -3.0, 2.0), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    angles_deg=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 2.0)] * 3),
    random=st.randoms(),
)
def test_the_object_is_where_it_is_in_any_oblique_anisotropic_shuffled_series(
    tmp_path_factory, angles_deg, spacing_mm, random
):
    a, b, c = np.radians(angles_deg)
    row = np.array([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)])
    across = np.cross(row, [0.0, 0.0, 1.0]) if abs(row[2]) < 0.9 else np.cross(row, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    column = np.cos(c) * across + np.sin(c) * np.cross(row, across)
    scan = MRC.but(orientation=(*row, *column), spacing_mm=spacing_mm, shape=(4, 3, 5))
    datasets = data_sets(scan)
    random.shuffle(datasets)
    volume = loaded(datasets, tmp_path_factory.mktemp("oblique"))
    assert_shows_the_object(volume)
    np.testing.assert_allclose(volume.geometry.spacing_mm, spacing_mm, rtol=1e-4)
    assert (
        np.linalg.det(volume.geometry.directions) < 0
    )  # columns k, j, i: k = row x column, so i, j, k is right-handed


def test_a_series_acquired_feet_first_and_one_acquired_head_first_are_the_same_patient(tmp_path):
    upward, downward = MRC.but(shape=(8, 6, 6)), MRC.but(shape=(8, 6, 6), orientation=AXIAL_FROM_ABOVE)
    one, other = loaded(data_sets(upward), tmp_path / "up"), loaded(data_sets(downward), tmp_path / "down")
    assert one.geometry.directions[2, 0] == pytest.approx(1.0)
    assert other.geometry.directions[2, 0] == pytest.approx(-1.0)
    index = np.rint(other.geometry.to_index(voxel_points(one))).astype(int)
    np.testing.assert_array_equal(one.array, other.array[tuple(np.moveaxis(index, -1, 0))])


def test_frames_come_in_the_order_of_k(tmp_path):
    datasets = data_sets(MRC)[::-1]
    header, files = read_series_header(datasets), write_files(datasets, tmp_path)
    frames = ordered_frames(header)
    volume = load_volume(header, files)
    for k, frame in enumerate(frames):
        np.testing.assert_allclose(volume.geometry.to_lps((k, 0, 0)), frame.position_mm, atol=1e-4)


def test_an_enhanced_image_loads_like_its_classic_twin(tmp_path):
    classic = loaded(data_sets(PPI), tmp_path / "classic")
    enhanced = loaded([enhanced_data_set(PPI)], tmp_path / "enhanced")
    np.testing.assert_array_equal(enhanced.array, classic.array)
    assert enhanced.geometry.same_grid(classic.geometry)


def test_rescale_is_applied_slice_by_slice(tmp_path):
    plain = loaded(data_sets(MRC), tmp_path / "plain")
    datasets = data_sets(MRC)
    for k, dataset in enumerate(datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1.0 + k / 4, -10.0 * k
    expected = plain.array * (1.0 + np.arange(8) / 4)[:, None, None] - 10.0 * np.arange(8)[:, None, None]
    np.testing.assert_allclose(loaded(datasets, tmp_path / "scaled").array, expected, rtol=1e-6)


def test_private_scales_and_real_world_values_change_nothing(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.01)
        mapping = Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 5.0, 7.0
        dataset.RealWorldValueMappingSequence = [mapping]
    assert_shows_the_object(loaded(datasets, tmp_path))


def test_negative_stored_values_stay_negative(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, "<u2").astype("<i2") - 1000
        dataset.PixelData, dataset.PixelRepresentation = values.tobytes(), 1
        dataset.BitsStored, dataset.HighBit = 16, 15
    volume = loaded(datasets, tmp_path)
    assert volume.array.min() < 0
    np.testing.assert_allclose(volume.array + 1000, object_value(voxel_points(volume)), atol=1.0)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_are_masked(tmp_path, signed):
    datasets, offset = data_sets(MRC), 1000 if signed else 0
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, "<u2").astype(np.int32) - offset
        dataset.PixelData = ((values & 0x0FFF) | 0xA000).astype("<u2").tobytes()
        dataset.PixelRepresentation = int(signed)
    volume = loaded(datasets, tmp_path)
    np.testing.assert_allclose(volume.array + offset, object_value(voxel_points(volume)), atol=1.0)


def test_a_monochrome1_twin_is_inverted_once(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.PixelData = (4095 - np.frombuffer(dataset.PixelData, "<u2")).astype("<u2").tobytes()
        dataset.PhotometricInterpretation = "MONOCHROME1"
    assert_shows_the_object(loaded(datasets, tmp_path))


def test_eight_bit_images_load(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, "<u2") // 16
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = values.astype(np.uint8).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = 16, 0
    volume = loaded(datasets, tmp_path)
    np.testing.assert_allclose(volume.array, object_value(voxel_points(volume)), atol=17.0)


@pytest.mark.parametrize("high_bit", [None, "absent"])
def test_an_unstated_high_bit_is_that_of_the_stored_bits(tmp_path, high_bit):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.HighBit = None
        if high_bit == "absent":
            del dataset.HighBit
    expected = load_volume(header_of(MRC), write_files(data_sets(MRC), tmp_path / "stated"))
    found = load_volume(read_series_header(datasets), write_files(datasets, tmp_path / "unstated"))
    np.testing.assert_array_equal(found.array, expected.array)


def test_a_gap_has_no_geometry():
    datasets = data_sets(MRC)
    del datasets[3]
    assert reason_of(lambda: check_geometry(read_series_header(datasets))) is Reason.SLICE_GAP
