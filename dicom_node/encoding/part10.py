"""Data sets to the bytes of a DICOM file (PS3.10) in memory and back; the outbox keeps and resends these bytes."""

from __future__ import annotations

from io import BytesIO

import pydicom


def part10_bytes(dataset: pydicom.Dataset) -> bytes:
    """The complete file of `dataset`, preamble and meta information included."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def read_part10(data: bytes) -> pydicom.Dataset:
    """The data set in the bytes of a DICOM file."""
    return pydicom.dcmread(BytesIO(data))
