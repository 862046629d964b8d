"""Pixels that are not what their header says refuse the study, with the instance and without the patient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from loaded_volumes import loaded, reason_of
from pydicom.dataset import Dataset
from scanned_series import MRC, Scan, data_sets, with_raw, write_files

from dicom_node.assembly.headers import read_series_header
from dicom_node.errors import Reason, RejectedStudy
from dicom_node.volumes import load_volume


def with_change(change: Callable[[Dataset], None], scan: Scan = MRC) -> list[Dataset]:
    """The series with one slice in the middle changed."""
    datasets = data_sets(scan)
    change(datasets[4])
    return datasets


def with_values(**attributes: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def _remove_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def _pixels_as(vr: str, value: bytes) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        with_raw(dataset, "PixelData", vr, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_values(PixelData=b"\x00\x01" * 29), Reason.PIXEL_LENGTH),
        (with_values(PixelData=b"\x00\x01" * 32), Reason.PIXEL_LENGTH),
        (with_values(NumberOfFrames=2**31 - 1), Reason.PIXEL_LENGTH),
        (with_values(PixelData=b""), Reason.PIXEL_MISSING),
        (_remove_pixels, Reason.PIXEL_MISSING),
        (with_values(BitsStored=17), Reason.PIXEL_FORMAT),
        (with_values(BitsAllocated=32), Reason.PIXEL_FORMAT),
        (with_values(SamplesPerPixel=3), Reason.PIXEL_FORMAT),
        (with_values(PhotometricInterpretation="PALETTE COLOR"), Reason.PIXEL_FORMAT),
        (with_values(HighBit=3), Reason.PIXEL_FORMAT),
        (with_values(PixelRepresentation=None), Reason.PIXEL_FORMAT),
        (_pixels_as("FD", b"\x00\x01" * 28), Reason.PIXEL_FORMAT),
        (_pixels_as("DS", b"1.5 " * 15), Reason.PIXEL_FORMAT),
        (with_values(PixelRepresentation=2), Reason.PIXEL_FORMAT),
    ],
)
def test_pixels_that_are_not_what_the_header_says_are_refused(tmp_path, change, reason):
    datasets = with_change(change)
    assert reason_of(lambda: loaded(datasets, tmp_path)) is reason


def test_a_forged_matrix_is_refused_before_memory_is_taken(tmp_path):
    datasets = data_sets(MRC)
    for dataset in datasets:
        dataset.Rows = dataset.Columns = 65535
    assert reason_of(lambda: loaded(datasets, tmp_path)) is Reason.PIXEL_LENGTH


def test_a_file_that_is_not_dicom_is_refused(tmp_path):
    datasets = data_sets(MRC)
    files = write_files(datasets, tmp_path)
    next(iter(files.values())).write_bytes(b"\x00" * 500)
    assert reason_of(lambda: load_volume(read_series_header(datasets), files)) is Reason.DECODE


def test_the_refusal_names_the_instance_and_no_patient(tmp_path):
    datasets = with_change(with_values(PixelData=b"\x00\x01"))
    with pytest.raises(RejectedStudy) as caught:
        loaded(datasets, tmp_path)
    assert str(datasets[4].SOPInstanceUID) in caught.value.refusal.detail
    assert "expected 60 bytes" in caught.value.refusal.detail
    assert "Phantom" not in str(caught.value)
