"""TCP ports that are taken before anything is started: a node without the pages it was told to have does not run."""

from __future__ import annotations

import socket

from dicom_node.errors import ConfigError


def taken_port(host: str, port: int, *, key: str) -> socket.socket:
    """A listening socket on this address, for whoever serves there.

    Raises
    ------
    ConfigError
        If somebody else has the port or the address is not ours; begins with `key`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"{key}: cannot listen on {host}:{port}: {error.strerror}; `hydrops-node doctor --only ports` names the "
            "program that has it"
        ) from None
