"""DICOM files as the node reads them: where each is, its header without pixels, and the digest of its content."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

META_GROUP_END: Final = 144
"""Preamble (128), "DICM" (4) and the File Meta group length element (12): PS3.10 7.1."""


UNREADABLE: Final = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    NotImplementedError,
    RecursionError,
    OverflowError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
)
"""What pydicom was seen to raise on damaged and hostile files; such a file is passed over, it never ends the work."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceFile:
    """One DICOM file: where it is, the SHA-256 of its data set (File Meta excluded), and its header without pixels."""

    path: Path
    sha256: str
    header: pydicom.Dataset

    @property
    def sop_instance_uid(self) -> str:
        """(0008,0018)."""
        return str(self.header.SOPInstanceUID)


def read_folder(folder: Path) -> dict[str, list[InstanceFile]]:
    """Every DICOM image file under `folder` by Study Instance UID; whatever is not DICOM is passed over."""
    studies: dict[str, list[InstanceFile]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file = read_instance(path)
        if file is not None:
            studies.setdefault(str(file.header.StudyInstanceUID), []).append(file)
    return studies


def read_instance(path: Path, sha256: str | None = None) -> InstanceFile | None:
    """One file's header and digest, or None if it is not a DICOM instance with the three UIDs.

    Pass `sha256` where it is known (the spool): then the pixels are not read at all.
    """
    try:
        if sha256 is None:
            content = path.read_bytes()
            header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
            sha256 = hashlib.sha256(content[_dataset_offset(content) :]).hexdigest()
        else:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        named = all(header.get(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    except UNREADABLE:
        return None
    if not named:
        return None
    return InstanceFile(path=path, sha256=sha256, header=header)


def _dataset_offset(content: bytes) -> int:
    """Where the data set begins; the File Meta group length (0002,0000) says so."""
    if content[132:136] == b"\x02\x00\x00\x00":
        return META_GROUP_END + int.from_bytes(content[140:144], "little")
    return 0
