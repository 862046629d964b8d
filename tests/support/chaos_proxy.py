"""A TCP proxy that harms what goes through it: delays, dribbles, cuts, resets, swallows.

It stands between a sender and its receiver, both real. `harm` is asked once for each new connection, so that the
first connections can be harmed and later ones go through.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CHUNK = 16384


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What is done to one connection. Counts are bytes from sender to receiver, unless they say otherwise.

    `cut_after`, `cut_after_back`: close both sides once this many bytes went to, or came from, the receiver.
    `reset`: a cut is a reset (RST) and no orderly end. `swallow_after`: go on reading, pass nothing on, answer nothing.
    `refuse`: close at once. `slice_bytes`, `pause_s`: pass on in slices of this size with this pause between.
    """

    cut_after: int | None = None
    cut_after_back: int | None = None
    reset: bool = False
    swallow_after: int | None = None
    refuse: bool = False
    slice_bytes: int = CHUNK
    pause_s: float = 0.0


NONE = Harm()


class ChaosProxy:
    """Listens on a free port of this machine and passes on to `target`."""

    def __init__(self, target: int, harm: Callable[[int], Harm]) -> None:
        self._target = target
        self._harm = harm
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="ChaosProxy", daemon=True)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sender, _ = self._listening.accept()
            except OSError:
                return
            harm = self._harm(self.connections)
            self.connections += 1
            if harm.refuse:
                sender.close()
                continue
            try:
                receiver = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                sender.close()
                continue
            receiver.settimeout(None)
            self._open |= {sender, receiver}
            ends = (sender, receiver)
            for source, sink, limit in ((sender, receiver, harm.cut_after), (receiver, sender, harm.cut_after_back)):
                forth = source is sender
                threading.Thread(
                    target=self._pass_on, args=(source, sink, ends, harm, limit, forth), daemon=True
                ).start()

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        ends: tuple[socket.socket, socket.socket],
        harm: Harm,
        limit: int | None,
        forth: bool,
    ) -> None:
        """One direction of one connection until it ends or is ended."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(harm.slice_bytes):
                if limit is not None and passed + len(data) >= limit:
                    sink.sendall(data[: limit - passed])
                    time.sleep(0.01)  # what was passed on is to arrive before the end does
                    break
                passed += len(data)
                swallowed = harm.swallow_after is not None and (not forth or passed > harm.swallow_after)
                if not swallowed:
                    sink.sendall(data)
                if harm.pause_s and forth:
                    time.sleep(harm.pause_s)
        for end in ends:
            if limit is not None and harm.reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """End every connection and stop listening."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for end in list(self._open):
            end.close()
        self._thread.join(5)

    def start(self) -> None:
        """Accept from now on."""
        self._thread.start()


@contextmanager
def chaos(target: int, harm: Callable[[int], Harm]) -> Iterator[ChaosProxy]:
    """A running proxy; `harm` gets the number of the connection, from 0."""
    proxy = ChaosProxy(target, harm)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
