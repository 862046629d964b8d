"""PDUs from a real socket: however they come in pieces, bounded in length and time."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from patience import PATIENCE_S
from raw_peer import fragment, pdu

from dicom_node.intake.pdu_stream import (
    BrokenPdu,
    Pdu,
    PduStream,
    PeerGone,
    abort,
    data_pdu,
    release_response,
    values_of,
)

LIMIT = 1000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def stream(ends: tuple[socket.socket, socket.socket]) -> PduStream:
    return PduStream(ends[0], max_pdu_bytes=LIMIT, pdu_timeout_s=0.5, is_stopped=lambda: False)


def read(stream: PduStream, *, within_s: float = PATIENCE_S) -> tuple[int, bytes]:
    found = stream.read(within_s=within_s)
    assert found is not None
    return found.kind, bytes(found.content)


@pytest.mark.parametrize("piece", [1, 3, 7, 1006, 5000])
def test_pdus_are_read_one_by_one_however_they_come(ends, piece):
    stream = PduStream(ends[0], max_pdu_bytes=LIMIT, pdu_timeout_s=PATIENCE_S, is_stopped=lambda: False)
    lengths = (0, 1, 500, LIMIT, 2, LIMIT, LIMIT, 3)
    content = b"".join(pdu(4, bytes((n,)) * length) for n, length in enumerate(lengths))

    def send() -> None:
        for start in range(0, len(content), piece):
            ends[1].sendall(content[start : start + piece])

    sender = threading.Thread(target=send)
    sender.start()
    for n, length in enumerate(lengths):
        assert read(stream) == (4, bytes((n,)) * length)
    sender.join()


def test_silence_is_none_and_a_stall_inside_a_pdu_is_broken(ends, stream):
    assert stream.read(within_s=0.1) is None
    ends[1].sendall(pdu(4, bytes(100))[:50])
    started_s = time.monotonic()
    with pytest.raises(BrokenPdu, match="50 of 106 bytes"):
        stream.read(within_s=3600)
    assert time.monotonic() - started_s > 0.4  # it was waited for, by far not as long as for a PDU


def test_a_pdu_longer_than_agreed_is_broken_before_it_is_collected(ends, stream):
    ends[1].sendall(struct.pack(">BxI", 4, LIMIT + 1))
    with pytest.raises(BrokenPdu, match="1001 bytes announced"):
        stream.read(within_s=PATIENCE_S)


def test_a_closed_connection_and_a_stop_end_reading(ends):
    stopped = threading.Event()
    stream = PduStream(ends[0], max_pdu_bytes=LIMIT, pdu_timeout_s=5, is_stopped=stopped.is_set)
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(PeerGone, match="stopped"):
        stream.read(within_s=3600)
    stopped.clear()
    ends[1].close()
    with pytest.raises(PeerGone, match="closed"):
        stream.read(within_s=PATIENCE_S)
    with pytest.raises(PeerGone):
        stream.send(bytes(10_000_000))


def test_values_are_found_and_lengths_that_do_not_fit_are_broken():
    content = fragment(3, 3, b"abc")[6:] + fragment(5, 2, b"")[6:]
    values = [(context, control, bytes(value)) for context, control, value in values_of(made(content))]
    assert values == [(3, 3, b"abc"), (5, 2, b"")]
    for broken in (content[:-1], content + b"\0", b"\0\0\0\1\3\3", b"\xff\xff\xff\xff\3\3", b"\0\0\0\0\3\3"):
        with pytest.raises(BrokenPdu):
            list(values_of(made(broken)))


def made(content: bytes) -> Pdu:
    return Pdu(kind=4, content=memoryview(content))


def test_what_is_written_is_what_a_peer_reads():
    assert data_pdu(3, 3, b"abc") == fragment(3, 3, b"abc")
    assert release_response() == pdu(0x06, bytes(4))
    assert abort(source=2, reason=6) == pdu(0x07, bytes((0, 0, 2, 6)))
