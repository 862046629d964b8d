"""A syslog server over TLS (RFC 5425): reads frames, can go away, hang or cut, and demands a certificate."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from certificates import Certificate
from free_ports import free_port
from patience import PATIENCE_S

_SEQUENCE = re.compile(rb'sequenceId="(\d+)"')


@dataclass(kw_only=True)
class SyslogReceiver:
    """Started with `start`, stopped with `stop`, and started again on the same port.

    `cut_after` closes a session without a word after so many messages; `holds_end` leaves the end of a session
    unanswered until it is set; `is_stopping` says close_notify as soon as bytes are there, and closes without reading.
    """

    own: Certificate
    client_ca: Path | None = None
    port: int = 0
    cut_after: int | None = None
    is_stopping: bool = False
    holds_end: threading.Event = field(default_factory=threading.Event)
    messages: list[bytes] = field(default_factory=list)
    sessions: int = 0

    def __post_init__(self) -> None:
        self.holds_end.set()

    @property
    def sequences(self) -> list[int]:
        """Numbers of the entries in the order in which they came."""
        return [int(found[1]) for one in self.messages if (found := _SEQUENCE.search(one))]

    def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.own.certificate, self.own.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self.port = self.port or free_port()  # one that nobody takes between a stop and the next start
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listening, context), daemon=True).start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listening.close()

    def _accept(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain, context), daemon=True).start()

    def _serve(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
            self.sessions += 1
            if self.is_stopping:
                _say_goodbye(secured)
                return
            taken = 0
            with secured.makefile("rb") as stream:
                while (length := _length(stream)) is not None:
                    self.messages.append(stream.read(length))
                    taken += 1
                    if taken == self.cut_after:
                        plain_again = secured.detach()
                        socket.socket(fileno=plain_again).close()
                        return
            self.holds_end.wait(PATIENCE_S)
            secured.unwrap()


def _say_goodbye(secured: ssl.SSLSocket) -> None:
    """End a session whose bytes are here and not read, as a server does that is being stopped."""
    select.select([secured], [], [], PATIENCE_S)
    secured.setblocking(False)
    with contextlib.suppress(OSError):
        secured.unwrap()  # sends close_notify; the peer's is not waited for
    time.sleep(0.2)  # it arrives before the reset


def _length(stream: object) -> int | None:
    """MSG-LEN of the next frame; None at the end of the session."""
    digits = b""
    while (one := stream.read(1)) not in (b" ", b""):  # type: ignore[attr-defined]
        digits += one
    return int(digits) if digits else None
