"""Whether an encoded data set can be stored and named safely: a bounded, iterative look at its bytes.

Answer by storability, judge by fitness: this refuses only what cannot be read to its end or has no lawful name.
Wrong geometry, odd pixels or a missing patient are stored here and refused later with a reason, because a refused
modality queue blocks the scanner.

Nothing is decoded, no value is copied but four UIDs, nothing recurses: 3,000 nested sequences cost 3,000 steps.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydicom._dicom_dict import DicomDictionary

from dicom_node.errors import NodeError

STATUS_SUCCESS = 0x0000
STATUS_OUT_OF_RESOURCES = 0xA700
STATUS_SOP_MISMATCH = 0xA900
STATUS_UNREADABLE = 0xC101
STATUS_UID = 0xC102
STATUS_LIMIT = 0xC103


class WireReason(StrEnum):
    """Why an instance is not stored; the value is the code in the log."""

    WIRE_TRUNCATED = "WIRE_TRUNCATED"
    WIRE_UNREADABLE = "WIRE_UNREADABLE"
    TS_UNSUPPORTED = "TS_UNSUPPORTED"
    UID_MISSING = "UID_MISSING"
    UID_ILLEGAL = "UID_ILLEGAL"
    SOP_MISMATCH = "SOP_MISMATCH"
    DEPTH_LIMIT = "DEPTH_LIMIT"
    ELEMENT_LIMIT = "ELEMENT_LIMIT"
    SIZE_LIMIT = "SIZE_LIMIT"

    @property
    def status(self) -> int:
        """The C-STORE status that says this (PS3.4 B.2.3; Cxxx is "cannot understand", the digits are ours)."""
        return _STATUS[self]


_STATUS: Mapping[WireReason, int] = {
    WireReason.WIRE_TRUNCATED: STATUS_UNREADABLE,
    WireReason.WIRE_UNREADABLE: STATUS_UNREADABLE,
    WireReason.TS_UNSUPPORTED: STATUS_UNREADABLE,
    WireReason.UID_MISSING: STATUS_UID,
    WireReason.UID_ILLEGAL: STATUS_UID,
    WireReason.SOP_MISMATCH: STATUS_SOP_MISMATCH,
    WireReason.DEPTH_LIMIT: STATUS_LIMIT,
    WireReason.ELEMENT_LIMIT: STATUS_LIMIT,
    WireReason.SIZE_LIMIT: STATUS_OUT_OF_RESOURCES,
}


class UnstorableInstance(NodeError):
    """The instance cannot be kept; `detail` names the tag or offset, never a value of the patient's."""

    def __init__(self, reason: WireReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """Bounds on what is read. Real MR nests 6 deep; an Enhanced MR of 2,000 frames has about 300,000 elements."""

    max_depth: int = 32
    max_elements: int = 1_000_000


@dataclass(frozen=True, kw_only=True)
class InstanceIdentity:
    """The four UIDs of an instance, padding removed, and remarks that do not stop it (codes for the log)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    warnings: tuple[str, ...] = ()


IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
# A deflated data set of 509 KiB grew to 1 GiB when it was read: not offered, not taken.
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_STANDARD_SYNTAX = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d+)*")

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_IDENTITY_TAGS = {
    _STUDY: "Study Instance UID (0020,000D)",
    _SERIES: "Series Instance UID (0020,000E)",
    _SOP_INSTANCE: "SOP Instance UID (0008,0018)",
    _SOP_CLASS: "SOP Class UID (0008,0016)",
}
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_SEQUENCE_TAGS = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
# PS3.5 7.1.2: these carry a 32-bit length after two reserved bytes, the others a 16-bit length.
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_LEADING_ZERO = re.compile(rb"(^|\.)0[0-9]")
MAX_UID_BYTES = 64
# Some senders pad every UID to a fixed field; 128 bytes is the longest such field we allow.
MAX_UID_VALUE_BYTES = 128


def check_dataset(
    dataset: bytes,
    transfer_syntax_uid: str,
    *,
    limits: WireLimits = WireLimits(),
) -> InstanceIdentity:
    """The identity of an encoded data set that can be read to its last byte.

    Parameters
    ----------
    dataset
        Encoded data set without File Meta Information.
    transfer_syntax_uid
        How it is encoded.
    limits
        Bounds on nesting and number of elements.

    Raises
    ------
    UnstorableInstance
        Truncated, garbage or contradictory lengths (C101); too deep or too many elements (C103); one of the four
        UIDs missing, repeated or not a UID (C102).
    """
    found = _Walker(dataset, _encoding(transfer_syntax_uid), limits).walk()
    uids = {tag: _read_uid(found.get(tag), name) for tag, name in _IDENTITY_TAGS.items()}
    odd = [name for tag, name in _IDENTITY_TAGS.items() if _LEADING_ZERO.search(uids[tag])]
    return InstanceIdentity(
        study_instance_uid=uids[_STUDY].decode("ascii"),
        series_instance_uid=uids[_SERIES].decode("ascii"),
        sop_instance_uid=uids[_SOP_INSTANCE].decode("ascii"),
        sop_class_uid=uids[_SOP_CLASS].decode("ascii"),
        warnings=("UID_LEADING_ZERO",) if odd else (),
    )


def check_command(identity: InstanceIdentity, *, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Nothing when the C-STORE command names the same object as its data set.

    Raises
    ------
    UnstorableInstance
        SOP class or instance differ (A900).
    """
    for name, said, found in (
        ("SOP class", sop_class_uid, identity.sop_class_uid),
        ("SOP instance", sop_instance_uid, identity.sop_instance_uid),
    ):
        if said.rstrip("\0 ") != found:
            raise UnstorableInstance(WireReason.SOP_MISMATCH, f"{name} of the command is not the data set's {found}")


def is_legal_uid(raw: bytes) -> bool:
    """Whether the unpadded bytes are a UID in the sense of PS3.5 9.1, leading zeros in a component forgiven."""
    return len(raw) <= MAX_UID_BYTES and _UID.fullmatch(raw) is not None


def _read_uid(raw: bytes | None, name: str) -> bytes:
    value = (raw or b"").rstrip(b"\0 ")
    if not value:
        raise UnstorableInstance(WireReason.UID_MISSING, f"{name} is missing or empty")
    if not is_legal_uid(value):
        raise UnstorableInstance(WireReason.UID_ILLEGAL, f"{name} is not a UID of at most 64 characters")
    return value


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """How element headers are written."""

    explicit: bool
    tag_and_length: struct.Struct
    tag_vr_short: struct.Struct
    long_length: struct.Struct
    item_start: bytes


_IMPLICIT_LE, _EXPLICIT_LE, _EXPLICIT_BE = (
    _Encoding(
        explicit=explicit,
        tag_and_length=struct.Struct(order + "HHI"),
        tag_vr_short=struct.Struct(order + "HH2sH"),
        long_length=struct.Struct(order + "I"),
        item_start=struct.pack(order + "HH", 0xFFFE, 0xE000),
    )
    for explicit, order in ((False, "<"), (True, "<"), (True, ">"))
)


def _encoding(transfer_syntax_uid: str) -> _Encoding:
    if transfer_syntax_uid in _DEFLATED or not _STANDARD_SYNTAX.fullmatch(transfer_syntax_uid):
        raise UnstorableInstance(WireReason.TS_UNSUPPORTED, f"transfer syntax {transfer_syntax_uid!r}")
    if transfer_syntax_uid == IMPLICIT_LITTLE:
        return _IMPLICIT_LE
    return _EXPLICIT_BE if transfer_syntax_uid == EXPLICIT_BIG else _EXPLICIT_LE


class _Malformed(Exception):
    """The bytes contradict themselves here."""

    def __init__(self, reason: WireReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(kw_only=True, slots=True)
class _Frame:
    """What we are inside of: the data set, a sequence (`holds_items`), or an item.

    `end` is its last byte plus one; for an undefined length it is that of the enclosing frame, and a delimiter must
    come before it. A `guess` is a value that merely looks like a sequence (private, implicit VR or UN): readers may
    take it as one, so its depth counts, but it may also be something else, so its lengths are not held against it.
    """

    end: int
    encoding: _Encoding
    holds_items: bool
    delimited: bool = False
    guess: bool = False


@dataclass(slots=True)
class _Walker:
    """One pass over the elements; `walk` returns the raw values of the four UIDs of the outermost data set."""

    data: bytes
    encoding: _Encoding
    limits: WireLimits
    position: int = 0
    header_start: int = 0
    elements: int = 0
    depth: int = 0
    stack: list[_Frame] = field(default_factory=list)
    found: dict[int, bytes] = field(default_factory=dict)
    group_end: tuple[int, int] | None = None

    def walk(self) -> Mapping[int, bytes]:
        if not self.data:
            raise UnstorableInstance(WireReason.WIRE_TRUNCATED, "the data set is empty")
        self.stack.append(_Frame(end=len(self.data), encoding=self.encoding, holds_items=False))
        while self.stack:
            try:
                self._step(self.stack[-1])
            except _Malformed as problem:
                self._leave_guess(problem)
        return self.found

    def _step(self, frame: _Frame) -> None:
        """Read one header and enter, skip or leave what it announces."""
        if self.position == frame.end and not frame.delimited:
            if len(self.stack) == 1:
                self._close_group(None)
            self._leave()
            return
        self._count()
        self.header_start = self.position
        if frame.holds_items:
            self._item(frame)
        else:
            self._element(frame)

    def _count(self) -> None:
        self.elements += 1
        if self.elements > self.limits.max_elements:
            raise UnstorableInstance(WireReason.ELEMENT_LIMIT, f"more than {self.limits.max_elements} elements")

    def _leave(self) -> None:
        if self.stack.pop().holds_items:
            self.depth -= 1

    def _leave_guess(self, problem: _Malformed) -> None:
        """Take what merely looked like a sequence as an opaque value after all; otherwise the data set is bad."""
        while self.stack:
            frame = self.stack[-1]
            if frame.guess:
                self.position = frame.end
                self._leave()
                return
            self._leave()
        raise UnstorableInstance(problem.reason, str(problem)) from None

    def _unpack(self, layout: struct.Struct, frame: _Frame) -> tuple[int, ...]:
        if self.position + layout.size > frame.end:
            raise _Malformed(WireReason.WIRE_TRUNCATED, f"ends inside the element header at byte {self.position}")
        values = layout.unpack_from(self.data, self.position)
        self.position += layout.size
        return values

    def _item(self, frame: _Frame) -> None:
        group, number, length = self._unpack(frame.encoding.tag_and_length, frame)
        tag = group << 16 | number
        if tag == _SEQUENCE_END and frame.delimited:
            self._leave()
        elif tag == _ITEM:
            end = self._end_of(length, frame, tag)
            delimited = length == _UNDEFINED
            self.stack.append(_Frame(end=end, encoding=frame.encoding, holds_items=False, delimited=delimited))
        else:
            raise _Malformed(WireReason.WIRE_UNREADABLE, f"no item where one must start, before byte {self.position}")

    def _end_of(self, length: int, frame: _Frame, tag: int) -> int:
        if length == _UNDEFINED:
            return frame.end
        end = self.position + length
        if end > frame.end:
            raise _Malformed(
                WireReason.WIRE_TRUNCATED,
                f"({tag >> 16:04X},{tag & 0xFFFF:04X}) announces {length} bytes, {frame.end - self.position} are left",
            )
        return end

    def _element(self, frame: _Frame) -> None:
        tag, vr, length = self._header(frame)
        if tag == _ITEM_END and frame.delimited:
            self._leave()
            return
        if tag >> 16 == 0xFFFE or tag >> 16 == 0:
            raise _Malformed(WireReason.WIRE_UNREADABLE, f"stray delimiter or command before byte {self.position}")
        outermost = len(self.stack) == 1
        if outermost:
            self._close_group(tag)
        end = self._end_of(length, frame, tag)
        if length == _UNDEFINED:
            self._enter_undefined(frame, tag, vr)
        elif vr == b"SQ" or (vr is None and tag in _SEQUENCE_TAGS):
            self._enter(_Frame(end=end, encoding=frame.encoding, holds_items=True))
        elif vr in (None, b"UN") and self.data.startswith(_IMPLICIT_LE.item_start, self.position):
            self._enter(_Frame(end=end, encoding=_IMPLICIT_LE, holds_items=True, guess=True))
        else:
            if outermost:
                self._keep(tag, end)
            self.position = end

    def _header(self, frame: _Frame) -> tuple[int, bytes | None, int]:
        """Tag, VR (None where it is implicit) and length; the position is then at the value."""
        encoding, start = frame.encoding, self.position
        group, number, length = self._unpack(encoding.tag_and_length, frame)
        tag = group << 16 | number
        if not encoding.explicit or group == 0xFFFE:
            return tag, None, length
        _, _, vr, short = encoding.tag_vr_short.unpack_from(self.data, start)
        if vr in _SHORT_VRS:
            return tag, vr, short
        if vr not in _LONG_VRS:
            raise _Malformed(WireReason.WIRE_UNREADABLE, f"no value representation at byte {start + 4}")
        (length,) = self._unpack(encoding.long_length, frame)
        return tag, vr, length

    def _enter_undefined(self, frame: _Frame, tag: int, vr: bytes | None) -> None:
        if vr in (b"OB", b"OW") or (vr is None and tag == _PIXEL_DATA):
            self._skip_fragments(frame)
        elif vr in (None, b"SQ", b"UN"):
            # PS3.5 6.2.2: the content of an UN of undefined length is implicit VR little endian.
            inner = _IMPLICIT_LE if vr == b"UN" else frame.encoding
            self._enter(_Frame(end=frame.end, encoding=inner, holds_items=True, delimited=True))
        else:
            raise _Malformed(WireReason.WIRE_UNREADABLE, f"undefined length of a plain value at byte {self.position}")

    def _enter(self, sequence: _Frame) -> None:
        self.depth += 1
        self.stack.append(sequence)
        if self.depth > self.limits.max_depth:
            raise UnstorableInstance(WireReason.DEPTH_LIMIT, f"sequences nested deeper than {self.limits.max_depth}")

    def _skip_fragments(self, frame: _Frame) -> None:
        """Pass encapsulated pixel data (PS3.5 A.4) up to and including its delimiter."""
        while True:
            self._count()
            group, number, length = self._unpack(frame.encoding.tag_and_length, frame)
            tag = group << 16 | number
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM or length == _UNDEFINED:
                raise _Malformed(WireReason.WIRE_UNREADABLE, f"no fragment of pixel data before byte {self.position}")
            self.position = self._end_of(length, frame, tag)

    def _keep(self, tag: int, end: int) -> None:
        if tag in _IDENTITY_TAGS:
            if tag in self.found:
                raise UnstorableInstance(WireReason.UID_ILLEGAL, f"{_IDENTITY_TAGS[tag]} occurs twice")
            if end - self.position > MAX_UID_VALUE_BYTES:
                raise UnstorableInstance(WireReason.UID_ILLEGAL, f"{_IDENTITY_TAGS[tag]} is too long")
            self.found[tag] = self.data[self.position : end]
        elif tag & 0xFFFF == 0 and end - self.position == 4:
            (length,) = self.encoding.long_length.unpack_from(self.data, self.position)
            self.group_end = tag >> 16, end + length

    def _close_group(self, tag: int | None) -> None:
        """Hold a (retired) group length to its word: some readers skip by it and would see another object."""
        start = len(self.data) if tag is None else self.header_start
        if self.group_end is not None and (tag is None or tag >> 16 != self.group_end[0]):
            group, end = self.group_end
            self.group_end = None
            if end != start:
                raise _Malformed(WireReason.WIRE_UNREADABLE, f"group length of {group:04X} does not fit its group")
