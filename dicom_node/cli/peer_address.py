"""How a DICOM peer is written on the command line: AE@host:port."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

# AE titles (PS3.5 6.2): 1 to 16 printable characters without backslash; an IPv6 host stands in brackets.
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_PEER = re.compile(r"(?P<ae_title>.+)@(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
DEFAULT_CALLING_AE = "HYDROPS"
EXAMPLE = "ORTHANC@127.0.0.1:4242"


@dataclass(frozen=True, kw_only=True)
class PeerAddress:
    """AE title, host and TCP port of one DICOM application."""

    ae_title: str
    host: str
    port: int


def peer_address(text: str) -> PeerAddress:
    """The parts of ``AE@host:port``, for argparse.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not written that way, the AE title is not legal or the port is not 1 to 65535.
    """
    match = _PEER.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected AE@host:port like {EXAMPLE}, found {text!r}")
    port = int(match["port"])
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, found {port}")
    return PeerAddress(ae_title=ae_title(match["ae_title"]), host=match["host"].strip("[]"), port=port)


def ae_title(text: str) -> str:
    """A legal AE title, for argparse.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is longer than 16 characters, empty or holds a backslash or a character outside ASCII.
    """
    if not _AE_TITLE.fullmatch(text) or text != text.strip():
        raise argparse.ArgumentTypeError(f"expected an AE title of 1 to 16 printable characters, found {text!r}")
    return text


def add_calling_ae(parser: argparse.ArgumentParser) -> None:
    """Add ``--calling`` and ``--timeout``, which every command that calls a peer has."""
    parser.add_argument(
        "--calling",
        type=ae_title,
        default=DEFAULT_CALLING_AE,
        metavar="AE",
        help="the AE title we call ourselves (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds to wait for each of the peer's answers (default: %(default)g)",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"expected more than 0 and at most 3600 seconds, found {text!r}")
    return value
