"""A port for a server that is started in a moment is not taken by anybody else before it starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from free_ports import EPHEMERAL, free_port

DEMO = Path(__file__).parents[2] / "demo"


def test_no_port_is_given_twice_and_none_that_the_kernel_may_give_to_a_connection() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < int(EPHEMERAL.read_text().split()[0])


def test_a_port_on_which_somebody_listens_is_passed_over() -> None:
    """On the loopback only, and so that a server that reuses addresses would have been let in beside it."""
    following = free_port() + 1
    with socket.create_server(("127.0.0.1", following)):
        assert free_port() != following


def test_another_process_gets_other_ports_at_the_same_time() -> None:
    program = "from free_ports import free_port; print(*[free_port() for _ in range(20)])"
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, cwd=DEMO, capture_output=True, text=True, check=True).stdout
    assert not {int(port) for port in told.split()} & {free_port() for _ in range(20)}
