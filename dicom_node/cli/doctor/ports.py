"""Ports that the node listens on: free while it is stopped, its own while it runs."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem
from dicom_node.cli.state_folder import listening_role, running_as
from dicom_node.cli.viewer_place import why_no_viewer

_LISTENING: Final = "0A"
"""TCP_LISTEN in /proc/net/tcp (Linux, include/net/tcp_states.h)."""


@dataclass(frozen=True, kw_only=True)
class WantedPort:
    """A port of the configuration: its key, where it is to listen, and what for."""

    key: str
    host: str
    port: int
    purpose: str


def check(site: Site) -> Iterator[Line]:
    """Every port that the node needs, one line each."""
    pid = running_as(site.loaded.state_dir, listening_role(site.loaded))
    for wanted in wanted_ports(site):
        yield _judge(wanted, pid)


def wanted_ports(site: Site) -> list[WantedPort]:
    """What this configuration wants to listen on."""
    settings = site.loaded.settings
    listener, web, viewer = settings.listener, settings.web, settings.viewer
    wanted = [WantedPort(key="web.port", host=web.host, port=web.port, purpose="dashboard and health")]
    if listener.enabled:
        wanted.insert(0, WantedPort(key="listener.port", host=listener.host, port=listener.port, purpose="DICOM"))
    if not why_no_viewer(site.loaded):
        wanted.append(WantedPort(key="viewer.port", host=viewer.host, port=viewer.port, purpose="viewer"))
    return wanted


def _judge(wanted: WantedPort, node_pid: int | None) -> Line:
    where = f"{wanted.purpose} port {wanted.port} on {wanted.host}"
    fault = _bind(wanted)
    if fault is None:
        if node_pid is None:
            return ok(f"{where} is free (the node is not running)")
        return problem(
            f"the node runs (process {node_pid}) but does not listen on its {where}",
            f"restart the node: it was started before {wanted.key} was changed, or look for event=listening in its log",
        )
    if fault == errno.EADDRINUSE:
        return _taken(wanted, where, node_pid)
    if fault == errno.EADDRNOTAVAIL:
        host_key = wanted.key.replace(".port", ".host")
        return problem(
            f"{wanted.host} is not an address of this machine",
            f"set {host_key} to one that `ip address` shows, or to 0.0.0.0 for all of them",
        )
    if fault == errno.EACCES:
        return problem(
            f"this user may not listen on {where}", f"choose a {wanted.key} above 1023 and tell the senders about it"
        )
    return problem(f"{where} cannot be used: {errno.errorcode.get(fault, fault)}", f"choose another {wanted.key}")


def _taken(wanted: WantedPort, where: str, node_pid: int | None) -> Line:
    holders = _holders(wanted.port)
    if node_pid is not None and (not holders or node_pid in holders):
        return ok(f"{where} is held by our running node (process {node_pid})")
    who = ", ".join(f"{_program(pid)} (process {pid})" for pid in sorted(holders)) or "another user's program"
    return problem(f"{where} is taken by {who}", f"stop that program, or choose another {wanted.key}")


def _bind(wanted: WantedPort) -> int | None:
    """The error number of listening there, or None when that works."""
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the node does: a port in TIME_WAIT is free
        try:
            probe.bind((wanted.host, wanted.port))
            probe.listen()
        except socket.gaierror:
            return errno.EADDRNOTAVAIL
        except OSError as error:
            return error.errno
    return None


def _holders(port: int) -> set[int]:
    """Processes that listen on `port`, as far as this user may see them."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening_inodes(table, port)}
    return {pid for pid, opened in _open_files() if opened in sockets}


def _listening_inodes(table: str, port: int) -> Iterator[str]:
    path = Path("/proc/net") / table
    if not path.exists():
        return
    for row in path.read_text().splitlines()[1:]:
        local, state, inode = row.split()[1], row.split()[3], row.split()[9]
        if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
            yield inode


def _open_files() -> Iterator[tuple[int, str]]:
    """Process and target of every file descriptor that this user may look at."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            for link in folder.iterdir():
                yield int(folder.parent.name), str(link.readlink())
        except OSError:  # another user's process, or it ended while we looked
            continue


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a program"
