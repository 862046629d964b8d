"""Decoding in a child process: whatever the stream does there, here it is one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO

import numpy as np
import pydicom
import pytest
from mr_images import as_file, make_mr
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_node.pixel_decoding import AnswerError, DecoderLimits, Decoders, UndecodableError, read_answer

IMAGE = make_mr(size=6)
PIXELS = np.frombuffer(IMAGE.PixelData, dtype="<u2").reshape(6, 6)
LAYOUT = {
    keyword: int(IMAGE[keyword].value) for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")
}
LAYOUT |= {"NumberOfFrames": 1, "SamplesPerPixel": 1, "PixelRepresentation": 0}
LAYOUT |= {"PhotometricInterpretation": "MONOCHROME2"}


@pytest.fixture(scope="module")
def decoders():
    with Decoders() as started:
        yield started


def rle() -> bytes:
    """Pixel Data as a sender compresses it."""
    image = pydicom.dcmread(BytesIO(as_file(make_mr(size=6))))
    image.compress(RLELossless)
    return bytes(image.PixelData)


def test_a_lawful_stream_comes_back_as_it_was(decoders):
    np.testing.assert_array_equal(decoders.decode(rle(), RLELossless, LAYOUT), PIXELS)


def test_a_stream_that_the_decoder_refuses_names_its_error_and_the_child_goes_on(decoders):
    with pytest.raises(UndecodableError, match="while decoding"):
        decoders.decode(encapsulate([b"\xff\x4f\xff\x51" + bytes(80)]), JPEG2000Lossless, LAYOUT)
    np.testing.assert_array_equal(decoders.decode(rle(), RLELossless, LAYOUT), PIXELS)


def test_a_child_that_wants_more_memory_than_it_may_have_is_an_undecodable_stream():
    limits = DecoderLimits(memory_bytes=600 * 1024**2)
    vast = {**LAYOUT, "Rows": 20_000, "Columns": 20_000}
    with Decoders(limits) as small, pytest.raises(UndecodableError):
        small.decode(rle(), RLELossless, vast)


def test_a_child_that_does_not_answer_in_time_is_ended_and_the_next_one_works():
    with Decoders(DecoderLimits(seconds=0.01)) as hurried, pytest.raises(UndecodableError, match=r"within 0\.01 s"):
        hurried.decode(rle(), RLELossless, LAYOUT)


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("import socket; socket.socket()", "Too many open files"),
        ("open('/etc/passwd')", "Too many open files"),
        pytest.param(
            *("import os; os.fork()", "Resource temporarily unavailable"),
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="the limit on processes does not hold for root"),
        ),
        ("bytearray(1 << 31)", "MemoryError"),
    ],
)
def test_s17_the_child_can_open_no_socket_and_no_file_and_take_no_more_memory(attempt, error):
    code = (
        "import resource; from dicom_node.decoding_child import give_up_rights, load_decoders\n"
        "load_decoders(); import socket\n"
        f"give_up_rights(memory_bytes=1 << 30, seconds=10)\n{attempt}\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert error in ended.stderr


GOOD = {"dtype": "<u2", "shape": [1, 2, 2], "bytes": 8}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({**GOOD, "bytes": 1 << 60}, "announced 1152921504606846976 bytes"),
        ({**GOOD, "shape": [1 << 40, 1 << 40], "bytes": 1 << 81}, "shape"),
        ({**GOOD, "shape": [-1, -2, 2]}, "shape"),
        ({**GOOD, "shape": [True, 2, 2]}, "shape"),
        ({**GOOD, "shape": []}, "announced 8 bytes"),
        ({**GOOD, "dtype": "O"}, "no pixels"),
        ({**GOOD, "dtype": ["<u2"]}, "no pixels"),
        ({"error": 7, "bytes": 0}, "no pixels"),
        ([1, 2], "no pixels"),
    ],
)
def test_b15_a_child_that_a_stream_took_over_cannot_make_us_take_more_than_pixels(said, why):
    with pytest.raises(AnswerError, match=why):
        read_answer(BytesIO(json.dumps(said).encode() + b"\n" + bytes(8)), most_bytes=1000)


@pytest.mark.parametrize("line", [b"\xff\n", b"{\n", b"[" * 4000 + b"\n", b" " * 5000 + b"\n"])
def test_b15_a_child_that_talks_nonsense_is_one_sentence(line):
    with pytest.raises(AnswerError):
        read_answer(BytesIO(line), most_bytes=1000)


@pytest.mark.parametrize("cut", [b"", b"{", json.dumps(GOOD).encode() + b"\n" + bytes(7)])
def test_b15_a_child_that_ended_in_mid_answer_is_seen(cut):
    with pytest.raises(EOFError):
        read_answer(BytesIO(cut), most_bytes=1000)


def test_a_childs_error_is_a_short_name():
    assert read_answer(BytesIO(b'{"error": "ValueError", "bytes": 0}\n'), most_bytes=0) == "ValueError"
    assert len(read_answer(BytesIO(b'{"error": "' + b"x" * 3000 + b'"}\n'), most_bytes=0)) == 100
