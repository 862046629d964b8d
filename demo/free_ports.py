"""A TCP port for a server that is started in a moment, which nobody takes in between."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path
from typing import Final

FIRST: Final = 10_000
LAST: Final = 32_767
FEWEST: Final = 2_000
EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
APART: Final = 211  # so many ports lie between the places where two processes of neighboring numbers begin

_taken = itertools.count()


def free_port() -> int:
    """A TCP port that nobody on this machine listens on, and that this process was not given lately.

    Asking the kernel for any port and closing it again leaves a moment in which every connection that is opened
    anywhere on the machine may get that very number. So these lie below the range that the kernel gives away, and
    each process walks through them from a place of its own.

    Raises
    ------
    OSError
        If every one of them is in use.
    """
    ports = range(FIRST, _end() + 1)
    for _ in ports:
        port = ports[(os.getpid() * APART + next(_taken)) % len(ports)]
        with socket.socket() as probe:
            try:
                probe.bind(("", port))  # every address, because Orthanc binds every address
            except OSError:
                continue
            return port
    raise OSError(f"no TCP port from {ports[0]} to {ports[-1]} is free; end what listens there")


def _end() -> int:
    """The last port below those that the kernel gives to whoever opens a connection."""
    if not EPHEMERAL.exists():
        return LAST
    below = int(EPHEMERAL.read_text().split()[0]) - 1
    return min(below, LAST) if below - FIRST >= FEWEST else LAST
