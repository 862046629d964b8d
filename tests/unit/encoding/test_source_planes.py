import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mr_sources import HYDROPS_UID, classic_series, enhanced_image, oblique_grid

from dicom_node.encoding.source_planes import read_source_grid
from dicom_node.errors import Reason, RejectedStudy

GRID = oblique_grid(shape=(9, 12, 10))


def reason_of(sources):
    with pytest.raises(RejectedStudy) as rejected:
        read_source_grid(sources)
    return rejected.value.refusal.reason


@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.3, 3.0)] * 3),
    st.randoms(use_true_random=False),
)
def test_any_orientation_in_any_list_order_gives_the_same_grid(angles_deg, spacing_mm, shuffler: random.Random):
    grid = oblique_grid(shape=(4, 6, 5), spacing_mm=spacing_mm, angles_deg=angles_deg)
    headers = classic_series(grid)
    shuffler.shuffle(headers)
    assert read_source_grid(headers).geometry.same_grid(grid, tolerance_mm=1e-3)


@pytest.mark.parametrize("order", [range(9), range(8, -1, -1), [3, 1, 8, 0, 2, 7, 5, 6, 4]])
def test_frames_of_an_enhanced_image_are_found_by_position(order):
    grid = read_source_grid([enhanced_image(GRID, frame_order=order)])
    assert grid.geometry.same_grid(GRID, tolerance_mm=1e-3)
    assert [plane.frame_number for plane in grid.planes] == [list(order).index(k) + 1 for k in range(9)]


def test_slices_grow_along_the_cross_product_of_row_and_column():
    geometry = read_source_grid(classic_series(GRID, reverse=True)).geometry
    k, j, i = geometry.directions.T
    assert np.cross(i, j) == pytest.approx(k)


def test_two_patients_in_one_series_are_refused():
    headers = classic_series(GRID)
    headers[4].PatientID = "P-0002"
    assert reason_of(headers) is Reason.PATIENT_MISMATCH


def test_a_refusal_of_two_patients_names_neither():
    headers = classic_series(GRID)
    headers[4].PatientID = "P-0002"
    with pytest.raises(RejectedStudy) as rejected:
        read_source_grid(headers)
    assert "P-000" not in str(rejected.value)


def test_slices_of_two_series_are_refused():
    assert reason_of([*classic_series(GRID)[:5], *classic_series(GRID, series_uid=HYDROPS_UID)[5:]]) is Reason.CONFLICT


def test_two_frames_of_reference_are_refused():
    headers = classic_series(GRID)
    headers[2].FrameOfReferenceUID = "2.25.9"
    assert reason_of(headers) is Reason.FOR_MIXED


def test_a_missing_frame_of_reference_is_refused():
    assert reason_of(classic_series(GRID, drop=["FrameOfReferenceUID"])) is Reason.FOR_MISSING


def test_a_missing_slice_is_refused():
    headers = classic_series(GRID)
    del headers[4]
    assert reason_of(headers) is Reason.SPACING


def test_a_turned_slice_is_refused():
    headers = classic_series(GRID)
    headers[4].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    assert reason_of(headers) is Reason.ORIENT_MIXED


def test_a_slice_of_another_size_is_refused():
    headers = classic_series(GRID)
    headers[4].Rows = 99
    assert reason_of(headers) is Reason.MATRIX_MIXED


def test_a_tilted_stack_is_refused():
    headers = classic_series(GRID)
    row = GRID.directions[:, 2]
    for k, header in enumerate(headers):
        header.ImagePositionPatient = [f"{value:.8f}" for value in GRID.to_lps((k, 0, 0)) + 0.2 * k * row]
    assert reason_of(headers) is Reason.ORIENT_INVALID


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_without_its_place_is_refused(keyword):
    headers = classic_series(GRID)
    delattr(headers[4], keyword)
    assert reason_of(headers) is Reason.GEOM_MISSING
