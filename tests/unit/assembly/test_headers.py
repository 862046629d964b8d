"""Reading series headers: what scanners write is understood, what nobody should write never raises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEGLSLossless, JPEGLSNearLossless
from scanned_series import MRC, PEI, PPI, data_sets, enhanced_data_set, header_of, uid_of, with_raw

from dicom_node.assembly.attributes import parse_moment
from dicom_node.assembly.headers import group_series, read_series_header
from dicom_node.errors import Reason

READ_KEYWORDS = (
    *("Rows", "ImagePositionPatient", "InversionTime", "ImageType", "PatientName", "AcquisitionTime", "PixelSpacing"),
    *("SourceImageSequence", "SeriesNumber", "BitsStored", "NumberOfFrames", "LossyImageCompression"),
    *("StudyInstanceUID", "ContributingEquipmentSequence"),
)


def test_a_classic_series_is_read_with_physics_identity_and_every_plane():
    header = header_of(PPI)
    assert (header.repetition_time_ms, header.echo_time_ms, header.inversion_time_ms) == (9000.0, 544.0, 2250.0)
    assert header.acquisition_3d is True
    assert header.image_type == ("ORIGINAL", "PRIMARY", "M", "ND")
    assert header.acquired_at is not None
    assert header.acquired_at.isoformat() == "2026-01-02T10:15:00"
    assert [frame.instance_number for frame in header.frames] == list(range(1, 9))
    assert {identity.patient_id for identity in header.identities} == {"PHANTOM-1"}
    assert not header.lossy
    assert all(frame.problem is None for frame in header.frames)


def test_an_enhanced_image_reads_like_the_classic_series_it_was_made_from():
    enhanced, classic = read_series_header([enhanced_data_set(PPI)]), header_of(PPI)
    assert enhanced.enhanced
    assert not classic.enhanced
    for name in ("repetition_time_ms", "echo_time_ms", "inversion_time_ms", "acquisition_3d", "image_type"):
        assert getattr(enhanced, name) == getattr(classic, name), name
    for one, other in zip(enhanced.frames, classic.frames, strict=True):
        assert one.position_mm == other.position_mm
        assert one.orientation == other.orientation
        assert one.pixel_spacing_mm == other.pixel_spacing_mm
    assert [frame.frame_number for frame in enhanced.frames] == list(range(1, 9))


def test_an_enhanced_image_announcing_two_billion_frames_is_refused_without_listing_them():
    image = enhanced_data_set(PPI)
    image.NumberOfFrames = 2**31 - 1
    header = read_series_header([image])
    assert len(header.frames) == 1
    assert header.frames[0].problem is not None
    assert header.frames[0].problem[0] == Reason.PIXEL_LENGTH


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "reason"),
    [
        ("Rows", "DS", b"512 ", Reason.TAG_INVALID),  # B05
        ("PixelSpacing", "DS", b"abc\\0.5 ", Reason.TAG_INVALID),
        ("PixelSpacing", "DS", b"0.5\\0 ", Reason.TAG_INVALID),
        ("ImageOrientationPatient", "DS", b"1\\0\\0\\0\\1 ", Reason.TAG_INVALID),
        ("ImagePositionPatient", "DS", b"nan\\0\\0 ", Reason.GEOM_NONFINITE),  # B06
        ("ImagePositionPatient", "DS", b"0\\inf\\0 ", Reason.GEOM_NONFINITE),
        ("InstanceNumber", "IS", b"1e400 ", Reason.GEOM_NONFINITE),
        ("RepetitionTime", "DS", b"1e400 ", Reason.GEOM_NONFINITE),
        ("InstanceNumber", "IS", b"1.5 ", Reason.TAG_INVALID),
        ("EchoTime", "DS", b"long", Reason.TAG_INVALID),
        ("Rows", "US", b"\x00\x02\x00\x02", Reason.TAG_INVALID),
        ("Columns", "US", b"\x00\x02\x00", Reason.TAG_INVALID),
        ("RescaleSlope", "DS", b"0 ", Reason.TAG_INVALID),
        ("SOPInstanceUID", "UI", b"", Reason.TAG_INVALID),
    ],
)
def test_an_illegal_value_becomes_the_problem_of_its_plane(keyword, vr, value, reason):
    datasets = data_sets(PPI)
    with_raw(datasets[3], keyword, vr, value)
    problems = [frame.problem for frame in read_series_header(datasets).frames]
    assert problems[3] is not None
    assert problems[3][0] == reason
    assert keyword in problems[3][1]
    assert problems[:3] + problems[4:] == [None] * 7


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["DS", "IS", "US", "FD", "SQ", "LO", "UI", "SS"]), st.data())
def test_no_bytes_in_any_attribute_ever_raise(value, vr, data):
    keyword = data.draw(st.sampled_from(READ_KEYWORDS))
    dataset = with_raw(data_sets(PPI)[0], keyword, vr, value)
    header = read_series_header([dataset])
    assert header.series_instance_uid == PPI.series_uid


def test_missing_geometry_is_none_and_not_zero():
    absent = {"ImagePositionPatient": None, "PixelSpacing": None, "FrameOfReferenceUID": None, "SliceThickness": None}
    frame = header_of(PPI.with_attributes(**absent)).frames[0]
    assert frame.position_mm is None
    assert frame.pixel_spacing_mm is None
    assert frame.frame_of_reference_uid is None
    assert frame.slice_thickness_mm is None


def test_an_inversion_time_of_zero_means_no_inversion():
    assert header_of(MRC.with_attributes(InversionTime=0)).inversion_time_ms is None


def test_two_inversion_times_in_one_series_are_no_inversion_time():
    assert read_series_header([*data_sets(PPI), *data_sets(PEI)]).inversion_time_ms is None


def test_two_patients_in_one_series_are_both_kept():
    datasets = data_sets(MRC)
    datasets[5].IssuerOfPatientID = "OTHER HOSPITAL"
    assert len(read_series_header(datasets).identities) == 2


@pytest.mark.parametrize(
    ("syntax", "stated", "lossy"),
    [(JPEGLSLossless, "00", False), (JPEGLSNearLossless, "", True), (JPEG2000, "", True), (JPEGLSLossless, "01", True)],
)
def test_loss_is_seen_in_the_transfer_syntax_and_in_the_flag(syntax, stated, lossy):
    datasets = data_sets(MRC)
    datasets[2].file_meta.TransferSyntaxUID = syntax
    datasets[2].LossyImageCompression = stated
    assert read_series_header(datasets).lossy is lossy


def test_sources_of_a_computed_series_are_read_from_both_kinds_of_reference():
    dataset, image, series = data_sets(MRC)[0], Dataset(), Dataset()
    image.ReferencedSOPInstanceUID = uid_of("source image")
    series.SeriesInstanceUID = uid_of("source series")
    dataset.SourceImageSequence, dataset.ReferencedSeriesSequence = [image], [series]
    header = read_series_header([dataset])
    assert header.source_instance_uids == {uid_of("source image")}
    assert header.source_series_uids == {uid_of("source series")}


def test_data_sets_are_grouped_by_series_and_nameless_ones_are_not_lost():
    nameless = data_sets(MRC)[0]
    del nameless.SeriesInstanceUID
    groups = group_series([*data_sets(PPI), nameless, *data_sets(PEI)])
    assert {uid: len(group) for uid, group in groups.items()} == {PPI.series_uid: 8, "": 1, PEI.series_uid: 8}
    assert read_series_header(groups[""]).frames[0].problem == (Reason.TAG_INVALID, "SeriesInstanceUID is missing")


def test_images_of_one_series_that_name_two_studies_are_in_conflict():
    datasets = [*data_sets(MRC), *data_sets(MRC.but(study_uid="2.25.101"))]
    problems = {frame.problem[0] for frame in read_series_header(datasets).frames if frame.problem}
    assert problems == {Reason.CONFLICT}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20260102101500.25", "2026-01-02T10:15:00.250000"),
        ("202601021015", "2026-01-02T10:15:00"),
        ("20260102101500+0900", "2026-01-02T10:15:00"),
        ("2026-01-02", None),
        ("20261302101500", None),
        ("", None),
        ("20260102101500.x", None),
    ],
)
def test_only_legal_times_become_times(text, moment):
    read = parse_moment(text)
    assert (read.isoformat() if read else None) == moment


def test_a_series_needs_an_image():
    with pytest.raises(ValueError, match="at least one"):
        read_series_header([])
