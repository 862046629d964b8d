"""Data sets to the bytes of a DICOM file (PS3.10) in memory and back; the outbox keeps and resends these bytes."""

from __future__ import annotations

from io import BytesIO

import pydicom
from pydicom.uid import UID

from dicom_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


def part10_bytes(dataset: pydicom.Dataset) -> bytes:
    """The complete file of `dataset`, preamble and meta information included; the latter names us as who wrote it."""
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def read_part10(data: bytes) -> pydicom.Dataset:
    """The data set in the bytes of a DICOM file."""
    return pydicom.dcmread(BytesIO(data))
