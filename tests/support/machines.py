"""Machines of a small network, each a network namespace of this one: they can be cut off, or lose their power.

What they share as storage is the file system of this machine, which a cut does not touch.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from patience import wait_until


@dataclass(frozen=True, kw_only=True)
class Network:
    """Machines, and the address at which they reach this one: where PACS and database are."""

    gateway: str
    machines: Sequence[Machine]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine by the name of its namespace and of its cable's end here."""

    name: str
    address: str

    @property
    def cable(self) -> str:
        """The interface on this side."""
        return f"v{self.name}"

    def run(self, command: Sequence[str], *, environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program on it."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def cut_off(self) -> None:
        """Pull its cable: packets are lost, nobody is told."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self.cable, "up")

    def lose_power(self) -> None:
        """Kill every process on it at once."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """Processes on it."""
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]


def missing() -> str:
    """What this computer lacks to have machines; empty if nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs the ip command (iproute2)"
    name = f"hy{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        return "needs the right to make network namespaces"
    _ip("netns", "del", name)
    return ""


@contextmanager
def network(count: int) -> Iterator[Network]:
    """So many machines on one network with this one; another run beside this one has another network."""
    tag = secrets.token_hex(2)
    bridge, prefix = f"hybr{tag}", f"10.213.{1 + secrets.randbelow(254)}"
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{prefix}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        machines = [Machine(name=f"hy{tag}{n}", address=f"{prefix}.{10 + n}") for n in range(count)]
        for one in machines:
            _ip("netns", "add", one.name)
            stack.callback(_remove, one)
            _ip("link", "add", one.cable, "type", "veth", "peer", "name", "eth0", "netns", one.name)
            _ip("link", "set", one.cable, "master", bridge, "up")
            for words in (("link", "set", "lo", "up"), ("addr", "add", f"{one.address}/24", "dev", "eth0")):
                _ip("-n", one.name, *words)
            _ip("-n", one.name, "link", "set", "eth0", "up")
        yield Network(gateway=f"{prefix}.1", machines=machines)


def _remove(machine: Machine) -> None:
    machine.lose_power()
    wait_until(lambda: not machine.pids())
    _ip("netns", "del", machine.name)


def _ip(*words: str) -> str:
    done: Any = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return str(done.stdout)
