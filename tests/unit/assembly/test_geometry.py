"""Stacks of planes: regular ones pass in any order and orientation, everything else is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned_series import AXIAL, AXIAL_FROM_ABOVE, CORONAL, MRC, SAGITTAL, Scan, data_sets, header_of, with_raw

from dicom_node.assembly.geometry import check_stack, is_cut_short, overlap, same_slices, split_stacks, stack_for_role
from dicom_node.assembly.headers import SeriesHeader, SeriesRole, read_series_header
from dicom_node.errors import Reason, RejectedStudy


def turned(angles_deg: tuple[float, float, float]) -> tuple[float, ...]:
    """Row and column direction of an axial plane turned about x, y and z."""
    a, b, c = np.radians(angles_deg)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turn = about_x @ about_y @ about_z
    return tuple(turn[:, 0]) + tuple(turn[:, 1])


angles = st.tuples(*[st.floats(-180, 180)] * 3)


def moved(header: SeriesHeader, k: int, by_mm: tuple[float, float, float]) -> SeriesHeader:
    """The header with plane k somewhere else."""
    frames = list(header.frames)
    x, y, z = (a + b for a, b in zip(frames[k].position_mm, by_mm, strict=True))
    frames[k] = replace(frames[k], position_mm=(x, y, z))
    return replace(header, frames=tuple(frames))


def reason_of(header: SeriesHeader) -> Reason:
    with pytest.raises(RejectedStudy) as caught:
        check_stack(header)
    assert caught.value.refusal.series_instance_uid == header.series_instance_uid
    return caught.value.refusal.reason


@settings(max_examples=50, deadline=None)
@given(angles, st.randoms())
def test_slices_are_ordered_along_the_normal_whatever_order_they_arrive_in(angles_deg, random):
    scan = MRC.but(orientation=turned(angles_deg))
    datasets = data_sets(scan)
    random.shuffle(datasets)
    for number, dataset in enumerate(datasets):
        dataset.InstanceNumber = number // 2  # duplicates, too: B38
    stack = check_stack(read_series_header(datasets))
    np.testing.assert_allclose([frame.position_mm for frame in stack.frames], scan.positions_mm(), atol=1e-5)
    np.testing.assert_allclose(stack.normal, scan.directions[:, 0], atol=1e-6)
    assert stack.spacing_mm == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, AXIAL_FROM_ABOVE])
def test_the_standard_orientations_are_regular(orientation):
    assert len(check_stack(header_of(MRC.but(orientation=orientation))).frames) == 8


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_plane_without_place_is_refused(keyword):
    datasets = data_sets(MRC)
    delattr(datasets[4], keyword)
    assert reason_of(read_series_header(datasets)) is Reason.GEOM_MISSING


def test_without_slice_thickness_distances_come_from_positions():
    header = header_of(MRC.but(spacing_mm=(1.25, 0.5, 0.6)).with_attributes(SliceThickness=None))
    assert check_stack(header).spacing_mm == pytest.approx(1.25)


def test_a_series_without_frame_of_reference_is_refused():
    assert reason_of(header_of(MRC.but(frame_of_reference_uid=None))) is Reason.FOR_MISSING


def test_two_frames_of_reference_in_a_series_are_refused():
    datasets = data_sets(MRC)
    datasets[4].FrameOfReferenceUID = "2.25.9"
    assert reason_of(read_series_header(datasets)) is Reason.FOR_MIXED


def test_two_orientations_in_a_series_are_refused():
    datasets = [*data_sets(MRC), *data_sets(MRC.but(orientation=CORONAL))]
    assert reason_of(read_series_header(datasets)) is Reason.ORIENT_MIXED


@pytest.mark.parametrize("orientation", [(0.9, 0, 0, 0, 1, 0), (1, 0, 0, 0.01, 1, 0), (1, 0, 0, 0, 1.0002, 0)])
def test_directions_that_are_no_perpendicular_unit_vectors_are_refused(orientation):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.ImageOrientationPatient = [str(value) for value in orientation]
    assert reason_of(read_series_header(datasets)) is Reason.ORIENT_INVALID


@settings(max_examples=50, deadline=None)
@given(angles, st.integers(1, 6))
def test_a_missing_slice_in_the_middle_is_always_found(angles_deg, k):
    datasets = data_sets(MRC.but(orientation=turned(angles_deg)))
    del datasets[k]
    assert reason_of(read_series_header(datasets)) is Reason.SLICE_GAP


def test_a_3d_slab_with_every_second_slice_missing_is_a_gap():
    assert reason_of(read_series_header(data_sets(MRC)[::2])) is Reason.SLICE_GAP


def test_two_slices_at_one_position_are_refused():
    datasets = data_sets(MRC)
    extra = data_sets(MRC)[3]
    extra.SOPInstanceUID = "2.25.77"
    assert reason_of(read_series_header([*datasets, extra])) is Reason.SLICE_DUP


@pytest.mark.parametrize("shift_mm", [0.02, -0.3])
def test_uneven_slices_are_refused(shift_mm):
    assert reason_of(moved(header_of(MRC), 3, (0, 0, shift_mm))) is Reason.SPACING


def test_slice_positions_rounded_to_a_hundredth_of_a_step_pass():
    assert len(check_stack(moved(header_of(MRC), 3, (0, 0, 0.004))).frames) == 8


def test_a_sheared_stack_is_refused():
    header = header_of(MRC)
    for k in range(8):
        header = moved(header, k, (0.2 * k, 0.0, 0.0))
    assert reason_of(header) is Reason.SHEAR


@pytest.mark.parametrize(("keyword", "value"), [("PixelSpacing", ["0.5", "0.7"]), ("Rows", 7), ("Columns", 9)])
def test_images_of_different_size_are_refused(keyword, value):
    datasets = data_sets(MRC)
    setattr(datasets[6], keyword, value)
    assert reason_of(read_series_header(datasets)) is Reason.MATRIX_MIXED


def test_an_image_without_rows_is_refused():
    assert reason_of(header_of(MRC.with_attributes(Rows=0))) is Reason.PIXEL_LENGTH


def test_one_slice_is_not_a_volume():
    assert reason_of(read_series_header(data_sets(MRC)[:1])) is Reason.INCOMPLETE


def test_the_problem_of_a_plane_becomes_the_refusal():
    datasets = data_sets(MRC)
    with_raw(datasets[2], "ImagePositionPatient", "DS", b"nan\\0\\0 ")
    assert reason_of(read_series_header(datasets)) is Reason.GEOM_NONFINITE


def mixed(*scans: Scan) -> SeriesHeader:
    """Several scans written into one series."""
    datasets = [dataset for number, scan in enumerate(scans) for dataset in data_sets(scan.but(name=f"part {number}"))]
    for dataset in datasets:
        dataset.SeriesInstanceUID = "2.25.500"
    return read_series_header(datasets)


def test_magnitude_and_real_part_in_one_series_are_split_by_role():
    magnitude, real = MRC.but(inversion_time_ms=2700.0), MRC.but(image_type=("ORIGINAL", "PRIMARY", "R"))
    header = mixed(magnitude, real)
    assert len(split_stacks(header)) == 2
    assert stack_for_role(header, SeriesRole.REAL_IR).image_type[2] == "R"
    assert stack_for_role(header, SeriesRole.PPI).image_type[2] == "M"
    assert len(check_stack(stack_for_role(header, SeriesRole.PPI)).frames) == 8


def test_two_echoes_that_could_both_be_meant_are_refused():
    header = mixed(MRC, MRC.but(echo_time_ms=300.0))
    with pytest.raises(RejectedStudy, match=r"SLICE_DUP.*2 of them could be the MRC"):
        stack_for_role(header, SeriesRole.MRC)


def test_repeated_acquisitions_in_one_series_are_split_by_acquisition_number():
    header = mixed(MRC.with_attributes(AcquisitionNumber=1), MRC.with_attributes(AcquisitionNumber=2))
    assert [len(part.frames) for part in split_stacks(header)] == [8, 8]


def test_volumes_in_different_places_do_not_overlap():
    here, there = check_stack(header_of(MRC)), check_stack(header_of(MRC.but(center_mm=(0.0, 0.0, 60.0))))
    assert overlap(here, here)
    assert not overlap(here, there)


def test_equal_slices_are_told_from_shifted_and_shorter_ones():
    whole = check_stack(header_of(MRC))
    assert same_slices(whole, check_stack(header_of(MRC.but(shape=(8, 9, 9)))))
    assert not same_slices(whole, check_stack(header_of(MRC.but(center_mm=(0.0, 0.0, 1.0)))))
    assert not same_slices(whole, check_stack(read_series_header(data_sets(MRC)[:-1])))
    assert not same_slices(whole, check_stack(header_of(MRC.but(orientation=CORONAL))))


@pytest.mark.parametrize("part", [slice(0, 5), slice(3, 8), slice(1, 7)])
def test_a_part_of_a_grid_is_recognized_as_cut_short(part):
    whole, piece = check_stack(header_of(MRC)), check_stack(read_series_header(data_sets(MRC)[part]))
    assert is_cut_short(piece, whole)
    assert not is_cut_short(whole, piece)


def test_a_thinner_slab_on_its_own_grid_is_not_cut_short():
    whole, other = check_stack(header_of(MRC)), check_stack(header_of(MRC.but(shape=(5, 9, 9))))
    assert not is_cut_short(other, whole)
