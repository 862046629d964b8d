"""The TCP side of the listener: one thread per peer, which admits it and then serves its association.

A peer that stalls before its A-ASSOCIATE-RQ holds a waiting place, not an association; when all places are taken,
the peer that has waited longest loses its own. So 15 silent peers never keep out a good one.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socketserver import BaseRequestHandler, BaseServer
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import AddressInformation, ThreadedAssociationServer

from dicom_node.dicom_tls import ListenerTls, fingerprint
from dicom_node.intake.admission import (
    LIMIT_OF_AE_REACHED,
    LIMIT_REACHED,
    STOPPING,
    Admission,
    AssociateRequest,
    NoRequest,
    RejectedCaller,
    Rejection,
    read_request,
    refuse,
)
from dicom_node.intake.association import (
    AssociationBounds,
    IntakeAssociation,
    StoreAnswer,
    StoreRequest,
)
from dicom_node.intake.tally import IntakeTally

log = logging.getLogger(__name__)

# Some senders take the agreed maximum for the length of the data in a PDU and add its headers on top.
_PDU_SLACK_BYTES = 64
_ACCEPT_PAUSE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class ServerBounds:
    """Limits of the TCP side; lengths in bytes, times in seconds."""

    max_associations: int
    max_associations_per_ae: int
    max_waiting_peers: int
    max_pdu_bytes: int
    max_instance_bytes: int
    acse_timeout_s: float
    dimse_timeout_s: float
    network_timeout_s: float


class IntakeServer(ThreadedAssociationServer):
    """Accepts connections, admits peers, and knows every association that lives."""

    daemon_threads = True  # also: a thread that waits for a silent peer is not waited for at the end
    request_queue_size = 128

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        *,
        on_store: Callable[[StoreRequest], StoreAnswer],
        handlers: Sequence[tuple[evt.InterventionEvent, Callable[[evt.Event], Any]]],
        admission: Admission,
        bounds: ServerBounds,
        tls: ListenerTls | None,
        tally: IntakeTally,
        on_rejected: Callable[[RejectedCaller], None],
    ) -> None:
        self.admission = admission
        self.bounds = bounds
        self.tls = tls
        self.tally = tally
        self.on_rejected = on_rejected
        self.on_store = on_store
        self.handlers = handlers
        self._changed = threading.Condition()
        self._waiting: dict[int, socket.socket] = {}
        self._live: set[IntakeAssociation] = set()
        self._taken: Counter[str] = Counter()
        self._is_closing = self._is_aborting = False
        super().__init__(
            ae,
            address,
            ae.ae_title,
            ae.supported_contexts,
            request_handler=FrontDesk,
        )

    @property
    def live_associations(self) -> int:
        """Associations that hold one of the places."""
        with self._changed:
            return self._taken.total()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; no handshake here, so that no peer can hold up the others."""
        listening = cast(socket.socket, self.socket)
        try:
            connection, address = listening.accept()
        except OSError:
            time.sleep(_ACCEPT_PAUSE_S)  # out of file descriptors: the connection stays queued, do not spin on it
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Say which lines of code a connection's thread failed at; the connection is closed by the caller."""
        log.error("event=connection_failed address=%s", client_address[0], exc_info=True)

    def wait_here(self, place: int, connection: socket.socket) -> None:
        """Give a peer that has not asked for an association yet a waiting place."""
        with self._changed:
            self._waiting[place] = connection
            crowded = len(self._waiting) > self.bounds.max_waiting_peers
            oldest = self._waiting.pop(next(iter(self._waiting))) if crowded else None
        if oldest is not None:
            _hang_up(oldest)

    def leave_waiting(self, place: int) -> None:
        """Give the waiting place back."""
        with self._changed:
            self._waiting.pop(place, None)

    def take_place(self, calling_ae: str) -> Rejection | None:
        """Take one of the associations, or say which bound leaves none; one AE title never takes all of them."""
        with self._changed:
            if self._is_closing:
                return STOPPING
            if self._taken.total() >= self.bounds.max_associations:
                return LIMIT_REACHED
            if self._taken[calling_ae] >= self.bounds.max_associations_per_ae:
                return LIMIT_OF_AE_REACHED
            self._taken[calling_ae] += 1
            return None

    def begin(self, association: IntakeAssociation) -> None:
        """Know an association from now on; one that comes after the others were aborted is aborted, too."""
        with self._changed:
            self._live.add(association)
            if self._is_aborting:
                association.abort_now()

    def end(self, association: IntakeAssociation | None, calling_ae: str) -> None:
        """Give a place of this AE title back, and forget the association that had it."""
        with self._changed:
            self._live -= {association}
            self._taken[calling_ae] -= 1
            self._taken += Counter()  # drops titles without a place, so that none is remembered for ever
            self._changed.notify_all()

    def close(self) -> None:
        """Stop accepting, and hang up on peers that have not asked for an association yet."""
        with self._changed:
            self._is_closing = True
        BaseServer.shutdown(self)
        self.server_close()
        with self._changed:
            waiting = list(self._waiting.values())
        for connection in waiting:
            _hang_up(connection)

    def drain(self, *, drain_s: float) -> int:
        """Let live associations finish, then abort the rest; the number aborted."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken, timeout=drain_s)
            self._is_aborting = True
            left = list(self._live)
        for association in left:
            association.abort_now()
        with self._changed:
            self._changed.wait_for(lambda: not self._taken, timeout=self.bounds.acse_timeout_s)
        return len(left)


class FrontDesk(BaseRequestHandler):
    """One new connection: TLS, first PDU, judgment; then either a polite end or an association."""

    server: IntakeServer
    request: socket.socket

    def handle(self) -> None:
        """Admit the peer or send it away."""
        server, place = self.server, id(self)
        server.wait_here(place, self.request)
        try:
            connection = self._secured(place)
            request = read_request(connection, timeout_s=server.bounds.acse_timeout_s)
        except NoRequest as problem:
            log.info("event=connection_without_request address=%s reason=%s", self._address, problem.reason)
            self._send_away(problem.answer)
            return
        finally:
            server.leave_waiting(place)
        self._certificate = _shown_certificate(connection)
        title = request.calling_ae or ""
        self._admitted_by = server.admission
        judged = self._admitted_by.judge(request, self._address, certificate_sha256=self._certificate)
        rejection = judged or server.take_place(title)
        if rejection is not None:
            server.tally.add_rejection(rejection.code)
            self._log_rejection(request, rejection)
            self._send_away(rejection.encoded())
            if not rejection.is_transient:
                server.on_rejected(RejectedCaller(calling_ae=title, address=self._address, words=rejection.words))
            return
        try:
            association = self._association(connection, request)
            server.begin(association)
        except BaseException:
            server.end(None, title)
            raise
        association.serve(request.pdu)

    @property
    def _address(self) -> str:
        return str(self.client_address[0])

    def _secured(self, place: int) -> socket.socket:
        """The connection, after the TLS handshake when TLS is on; it runs in this peer's own thread."""
        if self.server.tls is None:
            return self.request
        self.request.settimeout(self.server.bounds.acse_timeout_s)
        try:
            context = self.server.tls.context()
            secured = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            self.request = secured
            self.server.wait_here(place, secured)
            secured.do_handshake()
        except ssl.SSLError as error:  # its reason tells an expired certificate from none at all
            raise NoRequest(f"tls_{(error.reason or type(error).__name__).lower()}") from None
        except OSError as error:  # TimeoutError is one
            raise NoRequest(f"tls_{type(error).__name__}") from None
        return self.request

    def _send_away(self, answer: bytes) -> None:
        if answer:
            refuse(self.request, answer)
        self.server.shutdown_request(self.request)

    def _log_rejection(self, request: AssociateRequest, rejection: Rejection) -> None:
        log.warning(
            'event=association_rejected code=%d/%d/%d reason="%s" calling=%r called=%r address=%s',
            rejection.result,
            rejection.source,
            rejection.reason,
            rejection.words,
            request.calling_ae,
            request.called_ae,
            self._address,
        )

    def _association(self, connection: socket.socket, request: AssociateRequest) -> IntakeAssociation:
        """What pynetdicom needs to serve the peer; it reads the request again from the bytes we have."""
        server, ae = self.server, self.server.ae
        bounds = AssociationBounds(
            max_pdu_bytes=server.bounds.max_pdu_bytes + _PDU_SLACK_BYTES,
            max_instance_bytes=server.bounds.max_instance_bytes,
            pdu_timeout_s=server.bounds.network_timeout_s,
            message_timeout_s=server.bounds.dimse_timeout_s,
            idle_timeout_s=server.bounds.network_timeout_s,
        )
        desk = _PeersDesk(
            server,
            request,
            address=self._address,
            certificate_sha256=self._certificate,
            admitted_by=self._admitted_by,
        )
        association = IntakeAssociation(ae, connection, bounds=bounds, desk=desk)
        association._server = server
        acceptor = association.acceptor
        acceptor.maximum_length = ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = AddressInformation.from_tuple(server.server_address)
        acceptor.implementation_class_uid = ae.implementation_class_uid
        acceptor.implementation_version_name = ae.implementation_version_name
        acceptor.supported_contexts = server.contexts  # read only: what is agreed on is made anew
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, handler in server.handlers:
            association.bind(event, handler)
        return association


class _PeersDesk:
    """What one admitted peer's association asks of the server."""

    def __init__(
        self,
        server: IntakeServer,
        request: AssociateRequest,
        *,
        address: str,
        certificate_sha256: str,
        admitted_by: Admission,
    ) -> None:
        self._server = server
        self._request = request
        self._address = address
        self._certificate_sha256 = certificate_sha256
        self._admitted_by = admitted_by

    @property
    def _title(self) -> str:
        return self._request.calling_ae or ""

    def store(self, request: StoreRequest) -> StoreAnswer:
        """Keep an object."""
        return self._server.on_store(request)

    def judge(self) -> Rejection | None:
        """What today's list says about this peer; nothing new while it is the list that let it in."""
        admission = self._server.admission
        if admission is self._admitted_by:
            return None
        rejection = admission.judge(self._request, self._address, certificate_sha256=self._certificate_sha256)
        if rejection is None:
            self._admitted_by = admission
        return rejection

    def withdrawn(self, rejection: Rejection) -> None:
        """Log and audit a peer that lost its entry in mid-association."""
        log.warning(
            'event=authority_withdrawn reason="%s" calling=%r address=%s', rejection.words, self._title, self._address
        )
        self._server.on_rejected(RejectedCaller(calling_ae=self._title, address=self._address, words=rejection.words))

    def ended(self, association: IntakeAssociation) -> None:
        """Give the place back."""
        self._server.end(association, self._title)


def _shown_certificate(connection: socket.socket) -> str:
    """The fingerprint of the certificate that the peer showed in the handshake, or an empty string."""
    shown = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    return fingerprint(shown) if shown else ""


def _hang_up(connection: socket.socket) -> None:
    """Wake the thread that reads from this connection; it then closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
