"""The process that decodes compressed pixels for `pixel_decoding`: run as `python -m dicom_node.decoding_child`.

It reads compressed streams that a stranger made, with decoders written in C. So it gets bytes, not paths; once its
decoders are loaded it can open nothing any more, no file and no socket, start no process (unless root runs it), and
take no more memory and processor time than it was given. Whatever a forged stream does to it ends this process, not
the worker.

Requests and answers are one line of JSON and the bytes that it announces, on standard input and output.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pixel_array

from dicom_node.assembly.attributes import CONVERSION_ERRORS

DECODER_ERRORS: Final = (RuntimeError, AttributeError, MemoryError, *CONVERSION_ERRORS)
"""What pydicom and its decoders raise for forged or broken streams."""

LAYOUT: Final = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PhotometricInterpretation"),
)
"""Attributes of the image pixel module that decoding needs; a request has each of them."""


def main() -> None:
    """Decode until standard input ends."""
    memory_bytes, seconds = int(sys.argv[1]), int(sys.argv[2])
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder that prints must not print into an answer
    load_decoders()
    give_up_rights(memory_bytes=memory_bytes, seconds=seconds)
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        answer(request, read_exactly(requests, request["bytes"]), answers)


def load_decoders() -> None:
    """Import what pydicom would import at the first stream of each form; later nothing can be opened."""
    import libjpeg  # noqa: F401
    import openjpeg  # noqa: F401


def give_up_rights(*, memory_bytes: int, seconds: int) -> None:
    """From here on: no new descriptor of any kind, no process, no larger file, bounded memory and processor time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes; the parent sends all of them or is gone."""
    data = stream.read(count)
    if len(data) != count:
        raise SystemExit(0)
    return data


def answer(request: dict[str, Any], data: bytes, answers: BinaryIO) -> None:
    """Decode one instance and write what came of it."""
    try:
        pixels = decode(request, data)
        head: dict[str, Any] = {"dtype": pixels.dtype.str, "shape": pixels.shape, "bytes": pixels.nbytes}
        content = pixels.tobytes()
    except DECODER_ERRORS as error:
        head, content = {"error": type(error).__name__, "bytes": 0}, b""
    answers.write(json.dumps(head).encode() + b"\n" + content)
    answers.flush()


def decode(request: dict[str, Any], data: bytes) -> NDArray[Any]:
    """The stored values as the decoder gives them."""
    dataset = Dataset()
    for keyword in LAYOUT:
        setattr(dataset, keyword, request[keyword])
    dataset.PixelData = data
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = request["syntax"]
    return np.ascontiguousarray(pixel_array(dataset, raw=True, decoding_plugin=request["plugin"]))


if __name__ == "__main__":
    main()
