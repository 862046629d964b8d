"""A series is read while it lies still, once, and anew as soon as anything about it is another object."""

from __future__ import annotations

import pytest
from scanned_series import MRC, PPI, data_sets

from dicom_node import series_reader
from dicom_node.assembly.headers import read_series_header
from dicom_node.series_reader import SERIES_KEPT, SeriesReader


@pytest.fixture
def read_uids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Series Instance UIDs in the order of being read for the first time."""
    found: list[str] = []

    def noted(datasets):
        found.append(str(datasets[0].SeriesInstanceUID))
        return read_series_header(datasets)

    monkeypatch.setattr(series_reader, "read_series_header", noted)
    return found


def test_a_series_that_lies_still_is_read_ahead_and_one_that_grows_is_not(read_uids: list[str]) -> None:
    reader, still, growing = SeriesReader(), data_sets(MRC), data_sets(PPI)
    for count in (2, 3, 4):
        reader.read_if_still(still)
        reader.read_if_still(growing[:count])
    assert read_uids == [str(still[0].SeriesInstanceUID)]
    assert reader.read(still) == read_series_header(still)
    assert len(read_uids) == 1


def test_a_series_with_one_image_more_or_one_that_was_replaced_is_read_anew(read_uids: list[str]) -> None:
    reader, images, again = SeriesReader(), data_sets(MRC), data_sets(MRC)
    assert len(reader.read(images[:-1]).frames) == len(images) - 1
    assert len(reader.read(images).frames) == len(images)
    again[0].EchoTime = 99.0
    assert reader.read([again[0], *images[1:]]).frames[0].echo_time_ms == 99.0
    assert len(read_uids) == 3


def test_it_forgets_what_it_read_long_ago(read_uids: list[str]) -> None:
    reader, images = SeriesReader(), data_sets(MRC)
    reader.read(images)
    for number in range(SERIES_KEPT):
        (other,) = data_sets(PPI)[:1]
        other.SeriesInstanceUID = f"2.25.77.{number}"
        reader.read([other])
    reader.read(images)
    assert read_uids.count(str(images[0].SeriesInstanceUID)) == 2


def test_series_of_many_images_are_forgotten_earlier_so_that_memory_stays_bounded(
    read_uids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, first, second = SeriesReader(), data_sets(MRC), data_sets(PPI)
    monkeypatch.setattr(series_reader, "IMAGES_KEPT", len(first) + len(second) - 1)
    reader.read(first)
    reader.read(second)
    reader.read(second)
    reader.read(first)
    uids = [str(images[0].SeriesInstanceUID) for images in (first, second)]
    assert read_uids == [*uids, uids[0]]


def test_a_study_that_is_done_is_forgotten_and_no_other(read_uids: list[str]) -> None:
    reader, done, waiting = SeriesReader(), data_sets(MRC), data_sets(PPI)
    for image in waiting:
        image.StudyInstanceUID = "2.25.77"
    for images in (done, waiting):
        reader.read(images)
    reader.forget(str(done[0].StudyInstanceUID))
    for images in (done, waiting):
        reader.read(images)
    assert read_uids.count(str(done[0].SeriesInstanceUID)) == 2
    assert read_uids.count(str(waiting[0].SeriesInstanceUID)) == 1
