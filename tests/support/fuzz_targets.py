"""What reads a stranger's bytes first, as functions from any bytes: a coverage-guided fuzzer calls them.

Each says by an exception that something came out which must not: an error that is no reason, an image that was taken
and cannot be read, two readers that see two different objects in the same bytes. The first byte of an input chooses
among encodings where there is a choice. The seeds are made by code, so that nobody has to trust a folder of files.
"""

from __future__ import annotations

import hashlib
import io
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import pydicom
from mr_images import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, as_file, encode, make_mr
from mutants import mutant, plain_bytes
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as ItemSequence
from raw_peer import associate_request, fragment, pdu, store_command
from scanned_series import MRC, data_sets

from dicom_node.assembly.headers import group_series, read_series_header
from dicom_node.instance_files import UNREADABLE
from dicom_node.intake.admission import Admission, AllowedPeer, NoRequest, read_request
from dicom_node.intake.messages import BrokenMessage, Message, MessageAssembler, read_command, written_response
from dicom_node.intake.part10 import file_header, split_file
from dicom_node.intake.pdu_stream import BrokenPdu, PduKind, PduStream, PeerGone, values_of
from dicom_node.intake.wire_check import InstanceIdentity, UnstorableInstance, WireLimits, check_dataset
from dicom_node.pixel_decoding import AnswerError, read_answer

SYNTAXES: Final = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1.99", "1.2.3")
LIMITS: Final = WireLimits(max_elements=20_000)
MOST_PIXEL_BYTES: Final = 1 << 20


def data_set(data: bytes) -> None:
    """Wire check: a reason, or four UIDs that every later reader of the same bytes sees as well."""
    syntax, dataset = SYNTAXES[data[0] % len(SYNTAXES)] if data else EXPLICIT_LE, data[1:]
    try:
        identity = check_dataset(dataset, syntax, limits=LIMITS)
    except UnstorableInstance:
        return
    part10 = file_header(identity, syntax, source="FUZZ") + dataset
    parts = split_file(part10)
    assert (parts.transfer_syntax_uid, parts.source, parts.dataset) == (syntax, "FUZZ", dataset), "not kept as sent"
    _require_same_identity(identity, part10)


def _require_same_identity(identity: InstanceIdentity, part10: bytes) -> None:
    """The reader that decides later sees the object that the wire check saw, and makes a header of it."""
    try:
        header = pydicom.dcmread(io.BytesIO(part10), stop_before_pixels=True)
        seen = {name: _uid(header.get(name)) for name in _IDENTITY}
    except UNREADABLE as problem:
        raise AssertionError(f"taken, but nobody can read it: {type(problem).__name__}: {problem}") from problem
    expected = {name: getattr(identity, field) for name, field in _IDENTITY.items()}
    assert seen == expected, f"taken as {expected}, read as {seen}"
    for series in group_series([header]).values():
        read_series_header(series)


_IDENTITY: Final = {
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
}


def _uid(value: object) -> str:
    raw = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return raw.rstrip("\0 ")


def dicom_file(data: bytes) -> None:
    """A file from Orthanc or from the spool: parts, or a reason; what is taken is an object like any other."""
    try:
        parts = split_file(data)
        identity = check_dataset(parts.dataset, parts.transfer_syntax_uid, limits=LIMITS)
    except UnstorableInstance:
        return
    header = file_header(identity, parts.transfer_syntax_uid, source=parts.source)
    _require_same_identity(identity, header + parts.dataset)


def association_request(data: bytes) -> None:
    """The first PDU of an unknown peer: a request that is judged, or why it is none."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        try:
            request = read_request(ours, timeout_s=5.0)
        except NoRequest:
            return
    for title in (request.called_ae, request.calling_ae):
        assert title is None or (title.isascii() and title.isprintable() and title == title.strip(" "))
    rejection = _ADMISSION.judge(request, "10.1.2.3", certificate_sha256="")
    assert rejection is None or rejection.encoded()[0] == 0x03
    assert rejection is not None or (request.calling_ae, request.called_ae) == ("SCANNER", "HYDROPS")


_ADMISSION: Final = Admission("HYDROPS", [AllowedPeer(ae_title="SCANNER", networks=("10.0.0.0/8",))])


def association_data(data: bytes) -> None:
    """What an admitted peer sends: PDUs, fragments, commands; each is served, or why the association ends."""
    ours, theirs = socket.socketpair()
    assembler = MessageAssembler(max_instance_bytes=MOST_OBJECT_BYTES)
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        stream = PduStream(ours, max_pdu_bytes=MOST_PDU_BYTES, pdu_timeout_s=5.0, is_stopped=lambda: False)
        try:
            while (one := stream.read(within_s=1.0)) is not None:
                for context_id, control, value in values_of(one) if one.kind == PduKind.DATA else ():
                    _require_bounded(assembler.take(context_id, control, value))
        except (PeerGone, BrokenPdu, BrokenMessage):
            return


MOST_PDU_BYTES: Final = 2048
MOST_OBJECT_BYTES: Final = 4096


def _require_bounded(message: Message | None) -> None:
    """A message holds no more than it may, and its answer can be read back."""
    if message is None:
        return
    assert message.dataset is None or len(message.dataset) <= MOST_OBJECT_BYTES, "more than it may hold"
    assert message.command == read_command(message.command_set), "its own bytes say something else"
    command = message.command
    if command.field is not None and command.message_id is not None:
        answer = read_command(written_response(command, status=0xC102, comment="UID_MISSING"))
        assert answer.field == command.field | 0x8000
        assert not answer.has_dataset


def decoder_answer(data: bytes) -> None:
    """What a decoding child says, which a forged stream may have taken over: pixels of the size asked for, or no."""
    try:
        pixels = read_answer(io.BytesIO(data), most_bytes=MOST_PIXEL_BYTES)
    except (AnswerError, EOFError):
        return
    assert isinstance(pixels, str) or pixels.nbytes <= MOST_PIXEL_BYTES


@dataclass(frozen=True, kw_only=True)
class Target:
    """One entrance: the function, and inputs to begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    most_bytes: int = 4096


def _data_sets() -> list[bytes]:
    """An image in each encoding, nested once, with fragments; and damaged ones, for a head start."""
    image = make_mr(size=4, SOPInstanceUID="1.2.3.4", RequestAttributesSequence=ItemSequence([Dataset()]))
    image.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
    image.add_new(0x00091001, "UN", b"\xfe\xff\x00\xe0\x00\x00\x00\x00")
    fragments = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    plain = make_mr(size=4, SOPInstanceUID="1.2.3.4", PixelData=None)
    whole = [
        b"\0" + encode(image),
        b"\1" + encode(image, implicit=True),
        b"\2" + encode(image, little=False),
        b"\3" + encode(plain) + fragments,
    ]
    originals = [plain_bytes(one) for one in data_sets(MRC)[:2]]
    damaged = [b"\0" + mutant(seed, originals).dataset for seed in range(40)]
    return [*whole, *(one for one in damaged if len(one) <= 4096)]


def _files() -> list[bytes]:
    return [as_file(make_mr(size=4, SOPInstanceUID="1.2.3.4")), b"\0" * 128 + b"DICM"]


def _requests() -> list[bytes]:
    return [
        associate_request(),
        associate_request(calling=b"STRANGER\0"),
        pdu(0x05, bytes(4)),
        b"\x16\x03\x01\0\5hello",
    ]


def _messages() -> list[bytes]:
    command = store_command(b"1.2.3.4")
    parts = [(3, 3, command), (3, 2, encode(make_mr(size=2))), (3, 1, command[:20]), (3, 3, command[20:])]
    return [b"".join(fragment(*part) for part in parts)]


def _answers() -> list[bytes]:
    good = {"dtype": "<u2", "shape": [1, 2, 2], "bytes": 8}
    lies = ({"bytes": 1 << 60}, {"shape": [2, -2, -2]}, {"dtype": "O"}, {"shape": [1e400]}, {"error": "ValueError"})
    return [json.dumps({**good, **lie}).encode() + b"\n" + bytes(8) for lie in ({}, *lies)]


TARGETS: Final = {
    "data_set": Target(run=data_set, seeds=_data_sets),
    "dicom_file": Target(run=dicom_file, seeds=_files),
    "association_request": Target(run=association_request, seeds=_requests),
    "association_data": Target(run=association_data, seeds=_messages),
    "decoder_answer": Target(run=decoder_answer, seeds=_answers, most_bytes=512),
}


def name_of(data: bytes) -> str:
    """What an input is filed under."""
    return hashlib.sha256(data).hexdigest()[:16]
