"""Who may open an association: judged on the first PDU, before any DICOM machinery is started for the peer.

A peer that says nothing, sends one byte, or announces a PDU of 4 GiB never gets further than this: reading is bounded
in time and in bytes, and only a complete A-ASSOCIATE-RQ from a listed caller leads to an association.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

ASSOCIATE_REQUEST = 0x01
# An association carries at most 128 presentation contexts: their IDs are the odd numbers of one byte (PS3.8 9.3.2.2).
MAX_CONTEXTS = 128
# So many contexts with 40 transfer syntaxes each stay below this.
MAX_REQUEST_BYTES = 512 * 1024
_PDU_HEADER = struct.Struct(">BxI")
_VERSION_BYTE = 7
_CALLED_AE, _CALLING_AE = slice(10, 26), slice(26, 42)
_FIXED_BYTES = 74
_ITEM_HEADER = struct.Struct(">BxH")
_CONTEXT_ITEM = 0x20
_ABORT_UNEXPECTED_PDU = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 2, 2))
_ABORT_INVALID_PARAMETER = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 2, 6))


class NoRequest(Exception):
    """The peer sent no usable A-ASSOCIATE-RQ; `reason` is a code for the log."""

    def __init__(self, reason: str, *, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class AllowedPeer:
    """One system that may send to us: its calling AE title, exactly, and the networks it may call from.

    `certificate_sha256` binds the title to one TLS certificate (SHA-256 of its DER form, lower-case hex); empty: any.
    """

    ae_title: str
    networks: tuple[str, ...]
    certificate_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class AssociateRequest:
    """The first PDU as received, and the two AE titles in it without padding; None where not printable ASCII.

    `is_version_1`: the peer speaks the one version of the protocol there is (PS3.8 table 9-11: bit 0 alone counts).
    """

    pdu: bytes
    called_ae: str | None
    calling_ae: str | None
    is_version_1: bool = True


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source, reason of PS3.8 table 9-21, and the same in words for the operator."""

    result: int
    source: int
    reason: int
    words: str

    @property
    def code(self) -> str:
        """Result, source and reason as the log writes them: "1/1/3"."""
        return f"{self.result}/{self.source}/{self.reason}"

    @property
    def is_transient(self) -> bool:
        """Whether the same call may be welcome later: no fault of the caller's."""
        return self.result == 2

    def encoded(self) -> bytes:
        """The PDU (PS3.8 9.3.4)."""
        return bytes((0x03, 0, 0, 0, 0, 4, 0, self.result, self.source, self.reason))


@dataclass(frozen=True, kw_only=True)
class RejectedCaller:
    """Who was turned away and why, for the audit trail; `calling_ae` is empty where none was legible."""

    calling_ae: str
    address: str
    words: str


# PS3.8 table 9-21: rejected-transient, by the presentation layer, local-limit-exceeded.
LIMIT_REACHED = Rejection(result=2, source=3, reason=2, words="all associations of this node are in use, try later")
LIMIT_OF_AE_REACHED = Rejection(
    result=2, source=3, reason=2, words="all associations that this AE title may have are in use, try later"
)
# The same, temporary congestion: who calls back finds the node that is started next.
STOPPING = Rejection(result=2, source=3, reason=1, words="this node is stopping, try later")


class Admission:
    """The list of allowed peers.

    Parameters
    ----------
    ae_title
        Our own title; a peer must call exactly this.
    allowed
        Peers that may send; a title that stands there twice may call from the networks of both entries.
    """

    def __init__(self, ae_title: str, allowed: Sequence[AllowedPeer]) -> None:
        self._ae_title = ae_title
        entries: dict[str, list[_Entry]] = {}
        for peer in allowed:
            networks = tuple(ip_network(text) for text in peer.networks)
            entries.setdefault(peer.ae_title, []).append((networks, peer.certificate_sha256))
        self._entries: Mapping[str, list[_Entry]] = entries

    def judge(self, request: AssociateRequest, address: str, *, certificate_sha256: str = "") -> Rejection | None:
        """None when the peer is welcome. Who calls is asked first: a stranger learns nothing about our own name.

        `certificate_sha256` is that of the TLS certificate the peer showed; empty when it showed none.
        """
        if not request.calling_ae:
            return _caller_unknown("calling AE title is empty or not printable ASCII")
        entries = self._entries.get(request.calling_ae)
        if entries is None:
            return _caller_unknown("calling AE title is not in listener.allowed")
        caller = _plain(address)
        bound = [certificate for networks, certificate in entries if any(caller in network for network in networks)]
        if not bound:
            return _caller_unknown("address is not in the networks that listener.allowed gives for this AE title")
        if not any(certificate in ("", certificate_sha256) for certificate in bound):
            return _caller_unknown("its TLS certificate is not the one that listener.allowed gives for this AE title")
        if request.called_ae != self._ae_title:
            return Rejection(result=1, source=1, reason=7, words="called AE title is not this node's node.ae_title")
        if not request.is_version_1:
            return Rejection(result=1, source=2, reason=2, words="protocol version of the upper layer is not 1")
        return None


_Entry = tuple[tuple[IPv4Network | IPv6Network, ...], str]
"""Networks, and the certificate's SHA-256 or an empty string."""


def _caller_unknown(words: str) -> Rejection:
    return Rejection(result=1, source=1, reason=3, words=words)


def _plain(address: str) -> object:
    """The address; an IPv4 peer on an IPv6 socket counts as what it is. A scope such as %eth0 is not part of it."""
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def read_request(connection: socket.socket, *, timeout_s: float) -> AssociateRequest:
    """The peer's A-ASSOCIATE-RQ, read within `timeout_s` in all, however slowly its bytes come.

    Raises
    ------
    NoRequest
        Nothing came, it came too late, it was something else, it announces more than `MAX_REQUEST_BYTES`, or it
        proposes more than `MAX_CONTEXTS`.
    """
    deadline = time.monotonic() + timeout_s
    header = _read_exactly(connection, _PDU_HEADER.size, deadline)
    kind, length = _PDU_HEADER.unpack(header)
    if kind != ASSOCIATE_REQUEST:
        raise NoRequest("not_an_association_request", answer=_ABORT_UNEXPECTED_PDU)
    if not _FIXED_BYTES - _PDU_HEADER.size <= length <= MAX_REQUEST_BYTES:
        raise NoRequest("association_request_length", answer=_ABORT_UNEXPECTED_PDU)
    pdu = header + _read_exactly(connection, length, deadline)
    if _proposed_contexts(pdu) > MAX_CONTEXTS:
        raise NoRequest("too_many_presentation_contexts", answer=_ABORT_INVALID_PARAMETER)
    called, calling = _ae_title(pdu[_CALLED_AE]), _ae_title(pdu[_CALLING_AE])
    return AssociateRequest(
        pdu=_with_blanks(pdu), called_ae=called, calling_ae=calling, is_version_1=bool(pdu[_VERSION_BYTE] & 1)
    )


def _proposed_contexts(pdu: bytes) -> int:
    """How many presentation contexts a request proposes, as far as its items can be told apart."""
    count, position = 0, _FIXED_BYTES
    while position + _ITEM_HEADER.size <= len(pdu):
        kind, length = _ITEM_HEADER.unpack_from(pdu, position)
        count += kind == _CONTEXT_ITEM
        position += _ITEM_HEADER.size + length
    return count


def _read_exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < count:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise NoRequest("silent_peer")
        connection.settimeout(left_s)
        try:
            chunk = connection.recv(min(count - len(received), 65536))
        except TimeoutError:
            raise NoRequest("silent_peer") from None
        except OSError:
            raise NoRequest("connection_lost") from None
        if not chunk:
            raise NoRequest("closed_by_peer")
        received += chunk
    return bytes(received)


def _ae_title(field: bytes) -> str | None:
    """The title without padding; some senders pad with NUL instead of spaces. Case matters (PS3.5 6.2)."""
    text = field.rstrip(b"\0").decode("latin-1").strip(" ")
    return text if text.isascii() and text.isprintable() else None


def _with_blanks(pdu: bytes) -> bytes:
    """The PDU with NUL padding of both titles turned into spaces, as every later reader expects."""
    titles = b"".join(pdu[field].rstrip(b"\0").ljust(16) for field in (_CALLED_AE, _CALLING_AE))
    return pdu[: _CALLED_AE.start] + titles + pdu[_CALLING_AE.stop :]


def refuse(connection: socket.socket, answer: bytes, *, linger_s: float = 1.0) -> None:
    """Send a last PDU and give the peer `linger_s` to read it; closing at once could overtake it (RST)."""
    deadline = time.monotonic() + linger_s
    try:
        connection.settimeout(linger_s)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv(4096):
                return
    except OSError:
        return
