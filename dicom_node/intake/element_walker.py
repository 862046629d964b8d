"""One bounded, iterative pass over the elements of an encoded data set (PS3.5 7).

Nothing is decoded and nothing recurses: 3,000 nested sequences cost 3,000 steps, and a length that lies costs a
comparison, not an allocation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from pydicom._dicom_dict import DicomDictionary

from dicom_node.intake.wire_status import UnstorableInstance, WireReason


@dataclass(frozen=True, kw_only=True)
class WireLimits:
    """Bounds on what is read. Real MR nests 6 deep; an Enhanced MR of 2,000 frames has about 300,000 elements."""

    max_depth: int = 32
    max_elements: int = 1_000_000


IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
# A deflated data set of 509 KiB grew to 1 GiB when it was read: not offered, not taken.
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_STANDARD_SYNTAX = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d+)*")

_PIXEL_DATA = 0x7FE00010
_PIXELS = frozenset({_PIXEL_DATA, 0x7FE00009, 0x7FE00008})  # integers, doubles, floats: headers are read up to here
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_START = b"\xfe\xff\x00\xe0"
_UNDEFINED = 0xFFFFFFFF
_SEQUENCE_TAGS = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
# PS3.5 7.1.2: these carry a 32-bit length after two reserved bytes, the others a 16-bit length.
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UID_VRS = frozenset({b"UI", b"UN", None})
"""What a UID may be written as: itself, unknown to whoever wrote it, or implied."""
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
# No value that is asked for here is longer; UIDs have 64 bytes, but some senders pad to a fixed field.
_MAX_VALUE_BYTES = 128


def read_values(
    dataset: bytes | bytearray, transfer_syntax_uid: str, wanted: Container[int], limits: WireLimits
) -> Mapping[int, bytes]:
    """Raw values of the `wanted` tags of the outermost data set, after all of it was read.

    Raises
    ------
    UnstorableInstance
        Truncated, garbage, contradictory lengths or an unreadable transfer syntax; too deep or too many elements;
        a wanted element twice, longer than 128 bytes, of another value representation than UI, or behind the pixel
        data.
    """
    return _Walker(dataset, _encoding(transfer_syntax_uid), wanted, limits).walk()


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """How element headers are written."""

    explicit: bool
    tag_and_length: struct.Struct
    tag_vr_short: struct.Struct
    long_length: struct.Struct


_IMPLICIT_LE, _EXPLICIT_LE, _EXPLICIT_BE = (
    _Encoding(
        explicit=explicit,
        tag_and_length=struct.Struct(order + "HHI"),
        tag_vr_short=struct.Struct(order + "HH2sH"),
        long_length=struct.Struct(order + "I"),
    )
    for explicit, order in ((False, "<"), (True, "<"), (True, ">"))
)


def _encoding(transfer_syntax_uid: str) -> _Encoding:
    if transfer_syntax_uid in _DEFLATED or not _STANDARD_SYNTAX.fullmatch(transfer_syntax_uid):
        raise UnstorableInstance(WireReason.TS_UNSUPPORTED, f"transfer syntax {transfer_syntax_uid!r}")
    if transfer_syntax_uid == IMPLICIT_LITTLE:
        return _IMPLICIT_LE
    return _EXPLICIT_BE if transfer_syntax_uid == EXPLICIT_BIG else _EXPLICIT_LE


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


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
    """One pass over the elements; `walk` returns the raw wanted values of the outermost data set."""

    data: bytes | bytearray
    encoding: _Encoding
    wanted: Container[int]
    limits: WireLimits
    position: int = 0
    header_start: int = 0
    elements: int = 0
    depth: int = 0
    stack: list[_Frame] = field(default_factory=list)
    found: dict[int, bytes] = field(default_factory=dict)
    group_end: tuple[int, int] | None = None
    behind_pixels: bool = False

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
                f"{_name(tag)} announces {length} bytes, {frame.end - self.position} are left",
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
            self.behind_pixels |= tag in _PIXELS
        end = self._end_of(length, frame, tag)
        if length == _UNDEFINED:
            self._enter_undefined(frame, tag, vr)
        elif vr == b"SQ" or (vr is None and tag in _SEQUENCE_TAGS):
            self._enter(_Frame(end=end, encoding=frame.encoding, holds_items=True))
        elif vr in (None, b"UN") and self.data.startswith(_ITEM_START, self.position):
            self._enter(_Frame(end=end, encoding=_IMPLICIT_LE, holds_items=True, guess=True))
        else:
            if outermost:
                self._keep(tag, vr, end)
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

    def _keep(self, tag: int, vr: bytes | None, end: int) -> None:
        if tag in self.wanted:
            if vr not in _UID_VRS:
                detail = f"{_name(tag)} claims the value representation {(vr or b'').decode()}, which is no UID"
                raise UnstorableInstance(WireReason.UID_ILLEGAL, detail)
            if self.behind_pixels:
                detail = f"{_name(tag)} stands behind the pixel data; tags must ascend (PS3.5 7.1)"
                raise UnstorableInstance(WireReason.WIRE_UNREADABLE, detail)
            if tag in self.found or end - self.position > _MAX_VALUE_BYTES:
                raise UnstorableInstance(WireReason.UID_ILLEGAL, f"{_name(tag)} occurs twice or is too long")
            self.found[tag] = bytes(self.data[self.position : end])
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
