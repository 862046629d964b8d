"""An association as requestor: opened for what is proposed and released at the end, or why there is none."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context

from dicom_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.peer_answers import outcome_of_rejection
from dicom_node.delivery.reactor_pause import hold_pauses
from dicom_node.dicom_tls import handshake_problem
from dicom_node.errors import ConfigError


@contextmanager
def open_association(
    destination: Destination,
    contexts: Sequence[tuple[str, str]],
    *,
    from_address: str = "",
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Iterator[Association | DeliveryOutcome]:
    """An open association, released at the end, or the outcome that tells why there is none.

    Parameters
    ----------
    destination
        A destination of kind "dicom".
    contexts
        SOP class and transfer syntax of each presentation context to propose.
    from_address
        One of this machine's; empty: any.
    handlers
        What else is to be told of events on the association, as pynetdicom takes them.
    """
    ae = AE(ae_title=destination.calling_ae)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = destination.timeout_s
    ae.network_timeout = None  # we never sit idle, and its abort would collide with that of a release without answer
    connected: list[bool] = []

    def on_connected(event: evt.Event) -> None:
        connected.append(True)
        wrapper = event.assoc.dul.socket
        if wrapper is not None and wrapper.socket is not None:
            _tune(wrapper.socket, destination.timeout_s)

    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=[build_context(*one) for one in contexts],
            ae_title=destination.called_ae,
            evt_handlers=[(evt.EVT_CONN_OPEN, on_connected), *handlers],
            tls_args=_tls_arguments(destination),
            bind_address=(from_address, 0),
        )
    except ConfigError as error:
        yield later(str(error))
        return
    except socket.gaierror as error:
        yield later(
            f"the name {destination.host!r} of destination {destination.name!r} has no address: {error.strerror}"
        )
        return
    if not association.is_established:
        yield _why_not(association, destination, contexts, connected=bool(connected))
        return
    hold_pauses(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _tls_arguments(destination: Destination) -> tuple[ssl.SSLContext, str] | None:
    """What pynetdicom needs to call by TLS; None for a plain connection."""
    if destination.tls is None:
        return None
    return destination.tls.context(), destination.tls.name or destination.host


def _tune(connection: socket.socket, timeout_s: float) -> None:
    """Make a connection fit for sending.

    pynetdicom leaves it without a time limit, so a receiver that stops reading would hold the sending thread for
    ever; and with Nagle's algorithm on, every object waits about 40 ms for the receiver's delayed acknowledgement.
    """
    connection.settimeout(timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _why_not(
    association: Association, destination: Destination, contexts: Sequence[tuple[str, str]], *, connected: bool
) -> DeliveryOutcome:
    """The outcome of an association that was not established."""
    where = address_of(destination)
    tls = _tls_arguments(destination)
    if tls is not None:
        patience_s = destination.timeout_s
        problem = handshake_problem(destination.host, destination.port, tls[0], name=tls[1], timeout_s=patience_s)
        if problem is not None:
            return later(f"no TLS connection to {where}: {problem}")
    if not connected:
        return later(f"no connection to {where}: is it running, and are host, port and firewall right?")
    # A receiver that rejects and hangs up at once can be gone before pynetdicom's requestor looks; its answer then
    # still lies in the queue.
    answer = association.acceptor.primitive or association.dul.receive_pdu(wait=False)
    if not isinstance(answer, A_ASSOCIATE):
        return later(f"{where} accepted the connection but gave no answer to the association request")
    if answer.result:
        return outcome_of_rejection(
            answer.result,
            answer.result_source or 0,
            answer.diagnostic or 0,
            calling=destination.calling_ae,
            called=destination.called_ae,
            name=destination.name,
        )
    return no_context(contexts, destination)


def no_context(contexts: Sequence[tuple[str, str]], destination: Destination) -> DeliveryOutcome:
    """The outcome of an association whose acceptor takes none of what we proposed."""
    wanted = "; ".join(f"{UID(sop_class).name} as {UID(syntax).name}" for sop_class, syntax in contexts)
    return DeliveryOutcome(
        kind=OutcomeKind.NOT_TAKEN,
        detail=f"{address_of(destination)} does not take {wanted}; let the receiver accept this kind of object",
    )


def later(detail: str) -> DeliveryOutcome:
    """The outcome of an attempt that nobody answered."""
    return DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail=detail)


def address_of(destination: Destination) -> str:
    """A receiver as people write it: AE@host:port."""
    return f"{destination.called_ae}@{destination.host}:{destination.port}"
