"""DICOM files around an untouched data set: our own preamble and File Meta Information, the received bytes after it.

The preamble is zero whatever came in: a preamble may make the file a program as well (CVE-2019-11687).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from dicom_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.intake.wire_check import InstanceIdentity, UnstorableInstance, WireReason

_PREAMBLE = b"\0" * 128 + b"DICM"
_META_VERSION = struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01"
_SHORT = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<I")
_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


@dataclass(frozen=True, kw_only=True)
class FileParts:
    """A DICOM file taken apart: how its data set is encoded, where it came from, and the data set's bytes."""

    transfer_syntax_uid: str
    source: str
    dataset: bytes


def file_header(identity: InstanceIdentity, transfer_syntax_uid: str, *, source: str) -> bytes:
    """Preamble and File Meta Information (PS3.10 7.1), to be followed by the data set as received.

    `source` is written as Source Application Entity Title when it is a legal one.
    """
    elements = _META_VERSION
    elements += _short_element(0x0002, b"UI", identity.sop_class_uid)
    elements += _short_element(0x0003, b"UI", identity.sop_instance_uid)
    elements += _short_element(0x0010, b"UI", transfer_syntax_uid)
    elements += _short_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
    elements += _short_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
    if _AE_TITLE.fullmatch(source):
        elements += _short_element(0x0016, b"AE", source)
    return _PREAMBLE + _SHORT.pack(0x0002, 0x0000, b"UL", 4) + _LONG_LENGTH.pack(len(elements)) + elements


def _short_element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(0x0002, number, vr, len(value)) + value


def split_file(part10: bytes) -> FileParts:
    """The parts of a DICOM file; the data set is a copy of the bytes after the File Meta Information.

    Raises
    ------
    UnstorableInstance
        No DICM prefix, File Meta Information cut off, or no Transfer Syntax UID in it (C101).
    """
    if part10[128:132] != b"DICM":
        raise UnstorableInstance(WireReason.WIRE_UNREADABLE, "not a DICOM file: no DICM prefix at byte 128")
    meta: dict[int, bytes] = {}
    position = 132
    while part10[position : position + 2] == b"\x02\x00":
        number, value, position = _meta_element(part10, position)
        meta[number] = value
    syntax = meta.get(0x0010, b"").rstrip(b"\0 ")
    if not syntax:
        raise UnstorableInstance(WireReason.TS_UNSUPPORTED, "no Transfer Syntax UID (0002,0010)")
    return FileParts(
        transfer_syntax_uid=syntax.decode("ascii", "replace"),
        source=meta.get(0x0016, b"").strip(b"\0 ").decode("ascii", "replace"),
        dataset=part10[position:],
    )


def _meta_element(part10: bytes, position: int) -> tuple[int, bytes, int]:
    """Element number, value and the position after it; File Meta Information is always explicit little endian."""
    header = part10[position : position + 12]
    if len(header) < 8:
        raise UnstorableInstance(WireReason.WIRE_TRUNCATED, "ends inside the File Meta Information")
    _, number, vr, length = _SHORT.unpack_from(header)
    start = position + 8
    if vr in (b"OB", b"UN", b"OW", b"UT"):
        if len(header) < 12:
            raise UnstorableInstance(WireReason.WIRE_TRUNCATED, "ends inside the File Meta Information")
        (length,) = _LONG_LENGTH.unpack_from(header, 8)
        start = position + 12
    if start + length > len(part10):
        raise UnstorableInstance(WireReason.WIRE_TRUNCATED, "ends inside the File Meta Information")
    return number, part10[start : start + length], start + length
