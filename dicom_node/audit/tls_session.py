"""A TLS session whose end tells whether the peer has read everything.

Either the peer answers our close_notify with its own and closes, or (rsyslog) it just closes. That counts when TCP has
every byte acknowledged and no reset comes: a program that closes with bytes unread resets, and bytes that arrive
after it closed are answered by a reset instead of an acknowledgment.

`ssl.SSLSocket.unwrap` would not do: to it a fatal alert is an end like any other, and with TLS 1.3 a server that
refuses our certificate says so by an alert after the handshake, when we may have sent everything.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress

_PIECE_BYTES = 65536
_ACKNOWLEDGED_WITHIN_S = 5.0


class TlsSession:
    """A session on a connected socket, whose timeout holds for each wait.

    Raises
    ------
    OSError
        In every method: `ssl.SSLError` for what TLS finds wrong, others for the connection.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, *, server_name: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._run(self._tls.do_handshake)

    def send(self, content: bytes) -> None:
        """Send all of it."""
        view = memoryview(content)
        while view:
            view = view[self._tls.write(view[:_PIECE_BYTES]) :]
            self._flush()

    def end(self) -> None:
        """Say that this was all, and wait until the peer has read it."""
        with suppress(ssl.SSLWantReadError):
            self._tls.read(_PIECE_BYTES)  # an alert that came already; it must not be taken for the answer below
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        try:
            self._run(self._read_away)
        except ssl.SSLZeroReturnError:  # its close_notify
            self._await_close()

    def _await_close(self) -> None:
        """Wait for TCP's end too: a server that stops says close_notify by itself, and resets what it left unread."""
        self._flush()
        self._connection.shutdown(socket.SHUT_WR)
        while self._connection.recv(_PIECE_BYTES):
            continue
        self._require_all_acknowledged()

    def _read_away(self) -> None:
        """Read to the peer's end; a syslog server says nothing before it."""
        try:
            while self._tls.read(_PIECE_BYTES):
                continue
        except ssl.SSLEOFError:
            self._require_all_acknowledged()

    def _require_all_acknowledged(self) -> None:
        deadline_s = time.monotonic() + _ACKNOWLEDGED_WITHIN_S
        while unsent := _unacknowledged_bytes(self._connection):
            if problem := self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"closed with {unsent} bytes not acknowledged")
            time.sleep(0.005)
        if problem := self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(problem, os.strerror(problem))

    def _run(self, step: Callable[[], None]) -> None:
        """Take a step, as often as it needs more from the peer."""
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            else:
                self._flush()
                return

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())

    def _feed(self) -> None:
        received = self._connection.recv(_PIECE_BYTES)
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """How many bytes TCP still holds for the peer (SIOCOUTQ, which Linux calls TIOCOUTQ for terminals)."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
