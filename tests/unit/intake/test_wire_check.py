"""The bad-input list (B numbers) as far as it is decided on the bytes of one data set."""

from __future__ import annotations

import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedMRImageStorage

from dicom_node.intake.wire_check import (
    InstanceIdentity,
    UnstorableInstance,
    WireLimits,
    WireReason,
    check_command,
    check_dataset,
)

EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
ENCODINGS = {EXPLICIT_LE: (False, True), IMPLICIT_LE: (True, True), EXPLICIT_BE: (False, False)}
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
UNDEFINED = b"\xff\xff\xff\xff"


def refusal(dataset: bytes, syntax: str = EXPLICIT_LE) -> WireReason:
    with pytest.raises(UnstorableInstance) as caught:
        check_dataset(dataset, syntax)
    return caught.value.reason


def outcome(dataset: bytes, syntax: str) -> InstanceIdentity | UnstorableInstance:
    try:
        return check_dataset(dataset, syntax)
    except UnstorableInstance as refused:
        return refused


def nested(depth: int) -> bytes:
    """An explicit VR sequence of undefined length, `depth` deep, in Request Attributes Sequence (0040,0275)."""
    opening = struct.pack("<HH2sxx", 0x0040, 0x0275, b"SQ") + UNDEFINED + ITEM + UNDEFINED
    return opening * depth + (ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)) * depth


def nested_defined(depth: int) -> bytes:
    """The same in implicit VR with defined lengths, as a private element that only looks like a sequence."""
    value = b""
    for _ in range(depth):
        value = struct.pack("<HHI", 0x0041, 0x1001, len(value) + 8) + ITEM + struct.pack("<I", len(value)) + value
    return value


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_an_mr_image_is_named_by_its_four_uids_in_every_encoding(make_mr, encode, syntax):
    image = make_mr()
    implicit, little = ENCODINGS[syntax]
    identity = check_dataset(encode(image, implicit=implicit, little=little), syntax)
    assert identity.sop_instance_uid == image.SOPInstanceUID
    assert identity.series_instance_uid == image.SeriesInstanceUID
    assert identity.study_instance_uid == image.StudyInstanceUID
    assert identity.sop_class_uid == image.SOPClassUID
    assert identity.warnings == ()


def test_encapsulated_pixel_data_are_passed_without_decoding(make_mr, encode):
    image = make_mr()
    image.PixelData = encapsulate([b"\xff\xd8 not a jpeg \xff\xd9"] * 3)
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    encoded = encode(image)
    assert check_dataset(encoded, JPEG_LOSSLESS).sop_instance_uid == image.SOPInstanceUID
    without_end = encoded[: encoded.rindex(SEQUENCE_END)]
    assert refusal(without_end, JPEG_LOSSLESS) is WireReason.WIRE_TRUNCATED


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_b01_b02_every_cut_inside_an_element_is_truncated_and_every_cut_between_elements_lacks_a_uid_or_pixels(
    make_mr, encode, syntax
):
    implicit, little = ENCODINGS[syntax]
    encoded = encode(make_mr(), implicit=implicit, little=little)
    outcomes = [outcome(encoded[:length], syntax) for length in range(len(encoded))]
    reasons = {one.reason for one in outcomes if isinstance(one, UnstorableInstance)}
    assert reasons == {WireReason.WIRE_TRUNCATED, WireReason.UID_MISSING}
    assert refusal(encoded[:-1], syntax) is WireReason.WIRE_TRUNCATED
    assert refusal(b"", syntax) is WireReason.WIRE_TRUNCATED


def test_b02_garbage_is_unreadable():
    assert refusal(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n") is WireReason.WIRE_UNREADABLE
    assert refusal(bytes(1000)) is WireReason.WIRE_UNREADABLE
    assert WireReason.WIRE_UNREADABLE.status == 0xC101


def test_b03_a_lying_length_costs_no_memory(make_mr, encode):
    encoded = encode(make_mr()) + struct.pack("<HH2sxxI", 0x7FE1, 0x1010, b"OB", 0xFFFFFFF0)
    tracemalloc.start()
    reason = refusal(encoded)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason is WireReason.WIRE_TRUNCATED
    assert peak_bytes < 100_000


def test_b03_a_group_length_must_fit_its_group(make_mr, encode):
    encoded = encode(make_mr())
    group_8 = encoded[: encoded.index(b"\x10\x00\x10\x00PN")]
    honest = struct.pack("<HH2sHI", 0x0008, 0x0000, b"UL", 4, len(group_8))
    lying = struct.pack("<HH2sHI", 0x0008, 0x0000, b"UL", 4, 0xFFFFFFF0)
    assert check_dataset(honest + encoded, EXPLICIT_LE)
    assert refusal(lying + encoded) is WireReason.WIRE_UNREADABLE


@pytest.mark.parametrize("depth", [300, 3000, 100_000])
def test_b04_deep_sequences_are_refused_without_recursion(make_mr, encode, depth):
    deep = encode(make_mr(PixelData=None)) + nested(depth)
    assert refusal(deep) is WireReason.DEPTH_LIMIT
    assert WireReason.DEPTH_LIMIT.status == 0xC103


def test_b04_deep_private_values_that_look_like_sequences_are_refused_too(make_mr, encode):
    start = encode(make_mr(PixelData=None), implicit=True)
    assert check_dataset(start + nested_defined(30), IMPLICIT_LE)
    assert refusal(start + nested_defined(300), IMPLICIT_LE) is WireReason.DEPTH_LIMIT


def test_a_private_value_that_only_looks_like_a_sequence_is_no_reason_to_refuse(make_mr, encode):
    value = ITEM + struct.pack("<I", 4000) + b"not a sequence at all"
    odd = struct.pack("<HHI", 0x0041, 0x1001, len(value)) + value
    assert check_dataset(encode(make_mr(PixelData=None), implicit=True) + odd, IMPLICIT_LE)


def test_nested_sequences_as_scanners_write_them_pass(make_mr, encode):
    image = make_mr(SOPClassUID=EnhancedMRImageStorage)
    frame, plane, reference = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = "1.2.3"
    plane.ImagePositionPatient = [0, 0, 0]
    frame.PlanePositionSequence = [plane]
    frame.DerivationImageSequence = [Dataset()]
    frame.DerivationImageSequence[0].SourceImageSequence = [reference]
    image.PerFrameFunctionalGroupsSequence = [frame] * 200
    for implicit, syntax in ((True, IMPLICIT_LE), (False, EXPLICIT_LE)):
        assert check_dataset(encode(image, implicit=implicit), syntax).sop_class_uid == EnhancedMRImageStorage


def test_more_elements_than_the_limit_are_refused(make_mr, encode):
    with pytest.raises(UnstorableInstance) as caught:
        check_dataset(encode(make_mr()), EXPLICIT_LE, limits=WireLimits(max_elements=5))
    assert caught.value.reason is WireReason.ELEMENT_LIMIT


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_b07_a_missing_or_empty_uid_is_named_in_the_refusal(make_mr, encode, keyword):
    for value in (None, ""):
        with pytest.raises(UnstorableInstance, match="UID") as caught:
            check_dataset(encode(make_mr(**{keyword: value})), EXPLICIT_LE)
        assert caught.value.reason is WireReason.UID_MISSING
        assert caught.value.reason.status == 0xC102


def with_uid(encoded: bytes, old: str, value: bytes) -> bytes:
    """The data set with the Study Instance UID replaced by raw bytes, explicit VR little endian."""
    start = encoded.index(b"\x20\x00\x0d\x00UI")
    length = int.from_bytes(encoded[start + 6 : start + 8], "little")
    assert encoded[start + 8 :].startswith(old.encode())
    return encoded[: start + 6] + struct.pack("<H", len(value)) + value + encoded[start + 8 + length :]


HOSTILE_UIDS = [
    b"../../x ",
    b"/etc/cron.d/x",
    b"1.2.%2e%2e%2f",
    b"1.2\x00.3",
    b"1.2\n.3 ",
    b"1.2;$(id)",
    b"1.2.3\\1.2.4",
    b"1.2.a3",
    b" 1.2",
    b"1..2",
    b".1.2",
    b"1.2.",
    b"1" * 65 + b" ",
    b"9" * 84,
    b"1.2" + b" " * 500,
    b"\xd9\xa1.\xd9\xa2",  # digits, but Arabic ones
]


@pytest.mark.parametrize("value", HOSTILE_UIDS)
def test_b08_b09_what_is_no_uid_is_refused(make_mr, encode, value):
    image = make_mr()
    assert refusal(with_uid(encode(image), image.StudyInstanceUID, value)) is WireReason.UID_ILLEGAL
    assert WireReason.UID_ILLEGAL.status == 0xC102


@pytest.mark.parametrize("value", [b"1.2.3\0", b"1.2.3 ", b"1.2.3\0\0\0", b"1.2.3   "])
def test_b08_padding_is_trimmed_silently(make_mr, encode, value):
    image = make_mr()
    identity = check_dataset(with_uid(encode(image), image.StudyInstanceUID, value), EXPLICIT_LE)
    assert identity.study_instance_uid == "1.2.3"
    assert identity.warnings == ()


@pytest.mark.parametrize(("value", "odd"), [(b"1.02.3", True), (b"01.2.3", True), (b"1.0.3 ", False)])
def test_b08_a_leading_zero_is_stored_with_a_remark(make_mr, encode, value, odd):
    image = make_mr()
    identity = check_dataset(with_uid(encode(image), image.StudyInstanceUID, value), EXPLICIT_LE)
    assert identity.warnings == (("UID_LEADING_ZERO",) if odd else ())


def test_a_uid_that_stands_there_twice_is_refused(make_mr, encode):
    encoded = encode(make_mr(PixelData=None))
    second = struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", 4) + b"1.9\0"
    assert refusal(encoded + second) is WireReason.UID_ILLEGAL


@pytest.mark.parametrize("pixels", [0x0010, 0x0009, 0x0008])
def test_a_uid_behind_the_pixel_data_is_refused_because_no_header_is_read_that_far(make_mr, encode, pixels):
    image = make_mr(PixelData=None)
    moved = struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", 4) + b"1.9\0"
    del image.SeriesInstanceUID
    picture = struct.pack("<HH2sHI", 0x7FE0, pixels, b"OW", 0, 2) + b"\0\0"
    assert refusal(encode(image) + picture + moved) is WireReason.WIRE_UNREADABLE
    assert refusal(encode(image) + picture) is WireReason.UID_MISSING


@pytest.mark.parametrize(("vr", "answer"), [(b"FD", WireReason.UID_ILLEGAL), (b"DS", WireReason.UID_ILLEGAL)])
def test_a_uid_of_another_value_representation_is_refused(make_mr, encode, vr, answer):
    encoded = encode(make_mr())
    header = struct.pack("<HH", 0x0020, 0x000E)
    assert refusal(encoded.replace(header + b"UI", header + vr, 1)) is answer


def test_b10_the_command_must_name_the_object_it_brings(make_mr, encode):
    image = make_mr()
    identity = check_dataset(encode(image), EXPLICIT_LE)
    check_command(identity, sop_class_uid=image.SOPClassUID, sop_instance_uid=image.SOPInstanceUID + "\0")
    for sop_class, sop_instance in ((image.SOPClassUID, "1.2.3"), ("1.2.840.10008.5.1.4.1.1.2", image.SOPInstanceUID)):
        with pytest.raises(UnstorableInstance) as caught:
            check_command(identity, sop_class_uid=sop_class, sop_instance_uid=sop_instance)
        assert caught.value.reason.status == 0xA900


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1.99", "1.2.840.113619.5.2", "1.2.3", ""])
def test_b12_b26_deflated_and_private_transfer_syntaxes_are_not_read(make_mr, encode, syntax):
    assert refusal(encode(make_mr()), syntax) is WireReason.TS_UNSUPPORTED


def test_b13_absurd_image_sizes_are_none_of_the_wires_business(make_mr, encode):
    assert check_dataset(encode(make_mr(Rows=65535, Columns=65535, NumberOfFrames=2**31 - 1)), EXPLICIT_LE)


def test_no_refusal_repeats_a_value_of_the_patients(make_mr, encode):
    encoded = encode(make_mr())
    said = [str(outcome(encoded[:length], EXPLICIT_LE)) for length in range(len(encoded))]
    assert any("TRUNCATED" in one for one in said)
    assert not any("arker" in one.lower() for one in said)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_b68_any_bytes_give_an_identity_or_one_reason(make_mr, encode, data):
    syntax = data.draw(st.sampled_from([*ENCODINGS, JPEG_LOSSLESS]))
    implicit, little = ENCODINGS.get(syntax, (False, True))
    image = make_mr(SOPInstanceUID="1.2.826.0.1.3680043.10.1.1.1")
    image.RequestAttributesSequence = [Dataset()]
    image.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
    mutant = bytearray(encode(image, implicit=implicit, little=little))
    for _ in range(data.draw(st.integers(1, 6))):
        mutant[data.draw(st.integers(0, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    result = outcome(bytes(mutant), syntax)
    if isinstance(result, UnstorableInstance):
        assert result.reason.status in (0xC101, 0xC102, 0xC103)
    else:
        assert all(c in "0123456789." for c in result.study_instance_uid + result.sop_instance_uid)


def test_many_tiny_elements_are_read_in_linear_time(make_mr, encode):
    encoded = encode(make_mr(PixelData=None))
    started_s = time.process_time()
    check_dataset(encoded + struct.pack("<HH2sH", 0x0041, 0x1001, b"LO", 0) * 200_000, EXPLICIT_LE)
    assert time.process_time() - started_s < 10
