"""PDUs of an established association, read by the thread that serves it: no polling, no queue, no second thread.

A read waits in the kernel until bytes are there. What is announced is bounded before it is collected, and what has
begun must come to its end in time (PS3.8 9.3).
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEADER: Final = struct.Struct(">BxI")
_VALUE_HEADER: Final = struct.Struct(">IB")
_TIMEVAL: Final = struct.Struct("@ll")
_LEAST_WAIT_S: Final = 0.001
"""Zero would mean for ever (socket(7))."""

_LOOK_UP_EVERY_S: Final = 0.25
"""How often a waiting thread looks whether it is to stop."""


class PduKind(IntEnum):
    """First byte of a PDU (PS3.8 9.3.1)."""

    DATA = 0x04
    RELEASE_REQUEST = 0x05
    RELEASE_RESPONSE = 0x06
    ABORT = 0x07


class PeerGone(Exception):
    """The connection is closed or lost."""


class BrokenPdu(Exception):
    """The peer sends what is no PDU, more than agreed, or too slowly; `reason` is that of an A-ABORT (PS3.8 9-26)."""

    def __init__(self, words: str, *, reason: int = 6) -> None:
        super().__init__(words)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Pdu:
    """One PDU. `content` is a view that the next read overwrites."""

    kind: int
    content: memoryview


class PduStream:
    """Reads and writes PDUs on a connected socket; for one thread.

    Parameters
    ----------
    connection
        Plain or TLS.
    max_pdu_bytes
        Most that one PDU may hold.
    pdu_timeout_s
        Longest that the rest of a PDU may take to come once its first byte is here, and an answer to be taken.
    is_stopped
        Looked at while waiting; reading ends with `PeerGone` when it says so.
    """

    def __init__(
        self, connection: socket.socket, *, max_pdu_bytes: int, pdu_timeout_s: float, is_stopped: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._max_pdu_bytes = max_pdu_bytes
        self._pdu_timeout_s = pdu_timeout_s
        self._is_stopped = is_stopped
        self._buffer = bytearray(_HEADER.size + max_pdu_bytes)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._timeout_s: float | None = None
        # The kernel waits by itself for as much of a PDU as lacks: a call where polling takes a dozen, each of which
        # hands the interpreter to another thread and asks for it back. TLS reads records, and has no such wait.
        self._in_one = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        if self._in_one:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(pdu_timeout_s))

    def read(self, *, within_s: float) -> Pdu | None:
        """The next PDU; None when not a byte of it came in time.

        Raises
        ------
        PeerGone
            The connection was closed or lost, or we are to stop.
        BrokenPdu
            It is longer than agreed, or stopped half-way.
        """
        if self._start == self._end and not self._receive_some(within_s):
            return None
        deadline_s = time.monotonic() + self._pdu_timeout_s
        self._require(_HEADER.size, deadline_s)
        kind, length = _HEADER.unpack_from(self._buffer, self._start)
        if length > self._max_pdu_bytes:
            raise BrokenPdu(f"PDU of {length} bytes announced, at most {self._max_pdu_bytes} agreed")
        self._require(_HEADER.size + length, deadline_s)
        begin = self._start + _HEADER.size
        self._start = begin + length
        return Pdu(kind=kind, content=self._view[begin : self._start])

    def send(self, pdu: bytes) -> None:
        """Send a whole PDU.

        Raises
        ------
        PeerGone
            The peer does not take it.
        """
        try:
            if not self._in_one:
                self._wait_at_most(self._pdu_timeout_s)
            self._connection.sendall(pdu)
        except OSError as error:
            raise PeerGone(type(error).__name__) from None

    def _require(self, count: int, deadline_s: float) -> None:
        """Have `count` bytes from the start on in the buffer."""
        if self._start + count > len(self._buffer):
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        while (lacking := count - (self._end - self._start)) > 0:
            if not self._receive_some(deadline_s - time.monotonic(), lacking=lacking):
                raise BrokenPdu(f"{self._end - self._start} of {count} bytes of a PDU in {self._pdu_timeout_s:g} s")

    def _receive_some(self, within_s: float, *, lacking: int = 0) -> bool:
        """Read what is there, or `lacking` bytes and no more if a PDU has begun; whether anything came in time."""
        if self._start == self._end:
            self._start = self._end = 0
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if self._is_stopped():
                raise PeerGone("stopped")
            try:
                self._wait_at_most(min(within_s, _LOOK_UP_EVERY_S))
                count = self._receive(lacking)
            except (TimeoutError, BlockingIOError):
                continue
            except OSError as error:
                raise PeerGone(type(error).__name__) from None
            if count == 0:
                raise PeerGone("closed")
            self._end += count
            return True
        return False

    def _receive(self, lacking: int) -> int:
        """How many bytes came into the free end of the buffer; 0 at the end of the connection."""
        if lacking and self._in_one:
            return self._connection.recv_into(self._view[self._end : self._end + lacking], lacking, self._in_one)
        return self._connection.recv_into(self._view[self._end :])

    def _wait_at_most(self, timeout_s: float) -> None:
        """Bound the next call on the socket; each change of the bound costs a call itself."""
        if timeout_s == self._timeout_s:
            return
        if self._in_one:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout_s))
        else:
            self._connection.settimeout(timeout_s)
        self._timeout_s = timeout_s


def _timeval(seconds: float) -> bytes:
    """A time as the kernel takes it: seconds and microseconds."""
    whole, part = divmod(max(seconds, _LEAST_WAIT_S), 1.0)
    return _TIMEVAL.pack(int(whole), int(part * 1e6))


def values_of(pdu: Pdu) -> Iterator[tuple[int, int, memoryview]]:
    """Context ID, message control header and fragment of each presentation data value of a P-DATA-TF (PS3.8 9.3.5).

    Raises
    ------
    BrokenPdu
        A length does not fit.
    """
    position, end = 0, len(pdu.content)
    while position < end:
        if end - position < _VALUE_HEADER.size + 1:
            raise BrokenPdu("a presentation data value ends inside its header")
        length, context_id = _VALUE_HEADER.unpack_from(pdu.content, position)
        begin = position + _VALUE_HEADER.size
        position = begin + length - 1
        if length < 2 or position > end:
            raise BrokenPdu("a presentation data value is longer than its PDU")
        yield context_id, pdu.content[begin], pdu.content[begin + 1 : position]


def data_pdu(context_id: int, control: int, content: bytes) -> bytes:
    """A P-DATA-TF with one presentation data value."""
    value = _VALUE_HEADER.pack(len(content) + 2, context_id) + bytes((control,)) + content
    return _HEADER.pack(PduKind.DATA, len(value)) + value


def release_response() -> bytes:
    """An A-RELEASE-RP."""
    return _HEADER.pack(PduKind.RELEASE_RESPONSE, 4) + bytes(4)


def abort(*, source: int, reason: int) -> bytes:
    """An A-ABORT: `source` 0 is the user of the service, 2 its provider."""
    return _HEADER.pack(PduKind.ABORT, 4) + bytes((0, 0, source, reason))
