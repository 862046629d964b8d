"""A port for a server that is started in a moment is not taken by anybody else before it starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from free_ports import EPHEMERAL, free_port

DEMO = Path(__file__).parents[2] / "demo"


def test_no_port_is_given_twice_and_none_that_the_kernel_may_give_to_a_connection() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < int(EPHEMERAL.read_text().split()[0])


def test_a_port_on_which_somebody_listens_is_passed_over() -> None:
    """On the loopback only, and so that a server that reuses addresses would have been let in beside it."""
    with listening_on_the_next() as following:
        assert free_port() != following


@contextmanager
def listening_on_the_next() -> Iterator[int]:
    """The port that would be given next, were nobody listening on it."""
    server = None
    while server is None:
        following = free_port() + 1
        with suppress(OSError):  # somebody else listens there
            server = socket.create_server(("127.0.0.1", following))
    with server:
        yield following


def test_two_processes_that_start_one_after_the_other_get_different_ports() -> None:
    ports: set[int] = set()
    for number in (70_001, 70_002):
        program = f"import os; os.getpid = lambda: {number}; from free_ports import free_port; "
        command = [sys.executable, "-c", f"{program}print(*[free_port() for _ in range(20)])"]
        told = subprocess.run(command, cwd=DEMO, capture_output=True, text=True, check=True).stdout
        ports |= {int(port) for port in told.split()}
    assert len(ports) == 40
