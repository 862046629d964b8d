"""DIMSE messages from fragments, within bounds, and the command sets of the two services that are served at speed.

A command set is always Implicit VR Little Endian and has a dozen short elements (PS3.7 6.3.1), so it is read here in
microseconds; pynetdicom, which makes a data set and an object of each, takes ten times the rest of an image's way.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_COMMAND_BYTES: Final = 65536
"""A command set has a dozen short elements."""

COMMAND_LAST, COMMAND_PART, DATA_LAST = 3, 1, 2
"""Message control headers (PS3.8 E.2)."""

_ELEMENT: Final = struct.Struct("<HHI")
_US: Final = struct.Struct("<H")
_NO_DATA_SET: Final = 0x0101
_RESPONSE: Final = 0x8000
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED_ID, _DATA_SET_TYPE = 0x0002, 0x0100, 0x0110, 0x0120, 0x0800
_STATUS, _ERROR_COMMENT, _SOP_INSTANCE = 0x0900, 0x0902, 0x1000


class Operation(IntEnum):
    """Command Field (0000,0100) of the requests that are served here (PS3.7 E.1)."""

    C_STORE = 0x0001
    C_ECHO = 0x0030


class BrokenMessage(Exception):
    """Fragments that make no message, or more of them than there may be."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a request's command set says; None where an element is missing. UIDs are without padding."""

    field: int | None
    message_id: int | None
    has_dataset: bool
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message. `dataset` is None when none came, or when it outgrew the bound: then `is_oversized`.

    It is the buffer in which it came together, handed over instead of copied.
    """

    context_id: int
    command: Command
    command_set: bytes
    dataset: bytes | bytearray | None
    is_oversized: bool = False


class MessageAssembler:
    """Puts fragments together; never holds more of an object than `max_instance_bytes`."""

    def __init__(self, *, max_instance_bytes: int) -> None:
        self._max_instance_bytes = max_instance_bytes
        self._context_id: int | None = None
        self._command: Command | None = None
        self._command_set = bytearray()
        self._dataset = bytearray()
        self._dataset_bytes = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a message has begun and is not whole."""
        return self._context_id is not None

    def take(self, context_id: int, control: int, fragment: bytes | memoryview) -> Message | None:
        """The message that this fragment completes, if it does.

        Raises
        ------
        BrokenMessage
            The fragment fits no message: another context in between, a data set without a command, too much.
        """
        if self._context_id not in (None, context_id):
            raise BrokenMessage("two messages at once")
        self._context_id = context_id
        if control & COMMAND_PART:
            return self._take_command(fragment, is_last=control & DATA_LAST != 0)
        return self._take_data(fragment, is_last=control & DATA_LAST != 0)

    def _take_command(self, fragment: bytes | memoryview, *, is_last: bool) -> Message | None:
        if self._command is not None or len(self._command_set) + len(fragment) > MAX_COMMAND_BYTES:
            raise BrokenMessage("a command set of more than 64 KiB, or two")
        self._command_set += fragment
        if is_last:
            self._command = read_command(bytes(self._command_set))
        return self._whole(None) if self._command is not None and not self._command.has_dataset else None

    def _take_data(self, fragment: bytes | memoryview, *, is_last: bool) -> Message | None:
        if self._command is None:
            raise BrokenMessage("a data set without a command")
        self._dataset_bytes += len(fragment)
        if self._dataset_bytes <= self._max_instance_bytes:
            self._dataset += fragment
        else:
            self._dataset.clear()
        return self._whole(self._dataset) if is_last else None

    def _whole(self, dataset: bytearray | None) -> Message:
        if self._command is None or self._context_id is None:
            raise BrokenMessage("a message without a command")
        oversized = self._dataset_bytes > self._max_instance_bytes
        message = Message(
            context_id=self._context_id,
            command=self._command,
            command_set=bytes(self._command_set),
            dataset=None if oversized else dataset,
            is_oversized=oversized,
        )
        self._context_id = self._command = None
        self._command_set, self._dataset, self._dataset_bytes = bytearray(), bytearray(), 0
        return message


def read_command(command_set: bytes) -> Command:
    """The elements of a request's command set that decide how it is served.

    Raises
    ------
    BrokenMessage
        It is not a sequence of elements of group 0000, or a number in it is none.
    """
    found: dict[int, bytes] = {}
    position, end = 0, len(command_set)
    while position < end:
        if end - position < _ELEMENT.size:
            raise BrokenMessage("the command set ends inside an element")
        group, number, length = _ELEMENT.unpack_from(command_set, position)
        position += _ELEMENT.size
        if group != 0 or length > end - position:
            raise BrokenMessage("an element of the command set is of another group or longer than it")
        found[number] = command_set[position : position + length]
        position += length
    data_set_type = _number(found, _DATA_SET_TYPE)
    return Command(
        field=_number(found, _FIELD),
        message_id=_number(found, _MESSAGE_ID),
        has_dataset=data_set_type is not None and data_set_type != _NO_DATA_SET,
        sop_class_uid=_text(found, _SOP_CLASS),
        sop_instance_uid=_text(found, _SOP_INSTANCE),
    )


def written_response(request: Command, *, status: int, comment: str = "") -> bytes:
    """The command set of the response; without the UIDs of a C-ECHO's, and without one that is no UID.

    Parameters
    ----------
    request
        With a Message ID and a Command Field.
    status
        (0000,0900).
    comment
        Error Comment (0000,0902), ASCII, at most 64 characters; empty leaves it out.
    """
    if request.field is None or request.message_id is None:
        raise ValueError("a request without Command Field or Message ID cannot be answered")
    elements = _written(_SOP_CLASS, request.sop_class_uid.encode("ascii", "replace"), padding=b"\0")
    elements += _written(_FIELD, _US.pack(request.field | _RESPONSE))
    elements += _written(_ANSWERED_ID, _US.pack(request.message_id))
    elements += _written(_DATA_SET_TYPE, _US.pack(_NO_DATA_SET))
    elements += _written(_STATUS, _US.pack(status), always=True)
    elements += _written(_ERROR_COMMENT, comment.encode("ascii", "replace"), padding=b" ")
    elements += _written(_SOP_INSTANCE, request.sop_instance_uid.encode("ascii", "replace"), padding=b"\0")
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(elements)) + elements


def _written(number: int, value: bytes, *, padding: bytes = b"", always: bool = False) -> bytes:
    if not value and not always:
        return b""
    value += padding * (len(value) % 2)
    return _ELEMENT.pack(0, number, len(value)) + value


def _number(found: Mapping[int, bytes], number: int) -> int | None:
    value = found.get(number)
    if value is None:
        return None
    if len(value) != _US.size:
        raise BrokenMessage(f"(0000,{number:04X}) has {len(value)} bytes, a number of 16 bit has 2")
    return int(_US.unpack(value)[0])


def _text(found: Mapping[int, bytes], number: int) -> str:
    return found.get(number, b"").rstrip(b"\0 ").decode("latin-1")
