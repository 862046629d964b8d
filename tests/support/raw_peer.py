"""DICOM upper layer by hand: peers that no library would let us be."""

from __future__ import annotations

import socket
import struct

from patience import PATIENCE_S
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

_VERIFICATION = "1.2.840.10008.1.1"


def associate_request(
    *,
    calling: bytes = b"SCANNER",
    called: bytes = b"HYDROPS",
    contexts: int = 2,
    version: int = 1,
    proposals: bytes = b"",
    more: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ for C-ECHO (context 1) and MR storage (context 3 and further ones); titles are padded.

    `version` is the protocol's, bit 0 for version 1; `proposals` are further presentation contexts, and `more` items of
    user information after those that must be.
    """
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for n in range(contexts):
        number, abstract = (2 * n + 1) % 256, MRImageStorage if n else _VERIFICATION
        syntaxes = item(0x30, abstract.encode()) + item(0x40, ExplicitVRLittleEndian.encode())
        items += item(0x20, bytes((number, 0, 0, 0)) + syntaxes)
    items += proposals + item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3") + more)
    return pdu(0x01, struct.pack(">HH16s16s32x", version, 0, called.ljust(16), calling.ljust(16)) + items)


def pdu(kind: int, content: bytes) -> bytes:
    """A whole PDU."""
    return struct.pack(">BxI", kind, len(content)) + content


def fragment(context: int, control: int, content: bytes) -> bytes:
    """A P-DATA-TF of one presentation data value; `control` 3 ends a command, 2 a data set, 1 and 0 do not."""
    return pdu(0x04, struct.pack(">IBB", len(content) + 2, context, control) + content)


def store_command(sop_instance: bytes, *, sop_class: bytes = MRImageStorage.encode()) -> bytes:
    """The command set of a C-STORE-RQ with a data set to follow; an empty UID is left out."""
    elements = _element(0x0002, _even(sop_class)) + _element(0x0100, struct.pack("<H", 0x0001))
    elements += _element(0x0110, struct.pack("<H", 7)) + _element(0x0700, struct.pack("<H", 0))
    elements += _element(0x0800, struct.pack("<H", 0x0102))
    if sop_instance:
        elements += _element(0x1000, _even(sop_instance))
    return _element(0x0000, struct.pack("<I", len(elements))) + elements


def command_of(field: int, sop_class: str) -> bytes:
    """A command set of any Command Field (0000,0100) about one SOP class, without a data set."""
    elements = _element(0x0002, _even(sop_class.encode())) + _element(0x0100, struct.pack("<H", field))
    elements += _element(0x0110, struct.pack("<H", 7)) + _element(0x0800, struct.pack("<H", 0x0101))
    return _element(0x0000, struct.pack("<I", len(elements))) + elements


def connect(port: int, *, timeout_s: float = PATIENCE_S) -> socket.socket:
    """A TCP connection to the listener."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def receive_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Kind and content of the next PDU; (0, b"") when the peer closed."""
    header = _receive(connection, 6)
    if len(header) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxI", header)
    return kind, _receive(connection, length)


def response_status(content: bytes) -> int:
    """Status (0000,0900) of a response that came in one P-DATA-TF."""
    start = content.index(struct.pack("<HHI", 0x0000, 0x0900, 2)) + 8
    return int.from_bytes(content[start : start + 2], "little")


def _receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        try:
            chunk = connection.recv(count - len(received))
        except ConnectionResetError:
            break
        if not chunk:
            break
        received += chunk
    return received


def item(kind: int, content: bytes) -> bytes:
    """An item of an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    return struct.pack(">BxH", kind, len(content)) + content


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def _even(text: bytes) -> bytes:
    return text + b"\0" * (len(text) % 2)
