"""pynetdicom's association with bounds: on one PDU in bytes and time, on one object, on what waits in memory.

pynetdicom 3.0.4 reads a PDU of any announced length, waits for its last byte without a limit of its own, collects an
object of any size, and queues objects as fast as a peer sends them.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicom_node.intake.admission import Rejection
from dicom_node.intake.wire_check import is_legal_uid
from dicom_node.intake.wire_status import WireReason

# A command set has a dozen short elements.
MAX_COMMAND_BYTES = 65536
# One operation at a time was negotiated; a second may already be on its way when we answer the first.
MAX_WAITING_MESSAGES = 2
_ABORT_SENT = ("Sta13", "Sta1")  # PS3.8 9.2.1: waiting for the connection to close, idle
_COMMAND_END = 3  # message control header: command, last fragment (PS3.8 E.2)
# What pydicom and pynetdicom raise on a command set that is none.
_BAD_MESSAGE = (AttributeError, EOFError, LookupError, TypeError, ValueError, struct.error)

log = logging.getLogger(__name__)


class _BoundOverstepped(Exception):
    """The peer sends more than it may."""


class OversizedDataset(BytesIO):
    """Stands for a data set that grew beyond the bound; what came after the bound was not kept."""


class BoundedSocket(AssociationSocket):
    """Socket that starts with bytes read before, and closes on a peer that oversteps a bound.

    Parameters
    ----------
    head
        What was read from the connection already; it is read again first.
    max_pdu_bytes
        Most that one PDU may hold.
    pdu_timeout_s
        Longest that the rest of a PDU may take to come once its header is here.
    """

    def __init__(
        self,
        association: Association,
        connection: socket.socket,
        *,
        head: bytes,
        max_pdu_bytes: int,
        pdu_timeout_s: float,
    ) -> None:
        super().__init__(association, client_socket=connection)
        self._head = memoryview(head)
        self._max_pdu_bytes = max(max_pdu_bytes, len(head))
        self._pdu_timeout_s = pdu_timeout_s

    @property
    def ready(self) -> bool:
        """Whether a read would return something at once."""
        return bool(self._head) or bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer when the peer closed.

        Raises
        ------
        OSError
            More than the bound is asked for, or it did not come in time.
        """
        if nr_bytes > self._max_pdu_bytes:
            raise OSError(f"PDU of {nr_bytes} bytes announced, at most {self._max_pdu_bytes} agreed")
        if self._head:
            taken, self._head = bytearray(self._head[:nr_bytes]), self._head[nr_bytes:]
            return taken
        return self._receive(nr_bytes)

    def _receive(self, nr_bytes: int) -> bytearray:
        if self.socket is None:
            raise OSError("connection closed")
        received = bytearray(nr_bytes)
        view, filled = memoryview(received), 0
        deadline = time.monotonic() + self._pdu_timeout_s
        while filled < nr_bytes:
            count = self.socket.recv_into(view[filled:])
            filled += count
            if count == 0:
                break
            if filled < nr_bytes and time.monotonic() > deadline:
                raise TimeoutError(f"{filled} of {nr_bytes} bytes of a PDU after {self._pdu_timeout_s} s")
        view.release()
        del received[filled:]
        return received


class BoundedDimse(DIMSEServiceProvider):
    """Puts messages together, but never holds more of an object than `max_instance_bytes`."""

    def __init__(self, association: Association, *, max_instance_bytes: int) -> None:
        super().__init__(association)
        self._max_instance_bytes = max_instance_bytes
        self._command_bytes = 0
        self._dataset_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA, one after the other; nonsense ends the association."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._take(context_id, fragment)
        except (*_BAD_MESSAGE, _BoundOverstepped) as problem:
            log.warning("event=message_refused error=%s", type(problem).__name__)
            self.dul.event_queue.put("Evt19")  # "invalid PDU": the state machine aborts

    def _take(self, context_id: int, fragment: bytes) -> None:
        if self.message is None:
            self._command_bytes = self._dataset_bytes = 0
        one = P_DATA()
        pair: Any = [context_id, self._bounded(fragment)]  # annotated as a tuple upstream, checked to be a list
        one.presentation_data_value_list = [pair]
        super().receive_primitive(one)
        if fragment[0] & 3 == _COMMAND_END and self.message is not None:
            self._disarm_command(self.message.command_set)

    @staticmethod
    def _disarm_command(command: Dataset) -> None:
        """Empty a SOP Instance UID that is none: pynetdicom would abort on it, an empty one can be answered."""
        uid = command.get("AffectedSOPInstanceUID")
        if uid is not None and not is_legal_uid(str(uid).encode("ascii", "replace")):
            command.AffectedSOPInstanceUID = ""

    def _bounded(self, fragment: bytes) -> bytes:
        """The fragment; only its header byte once the data set has outgrown the bound."""
        if self.msg_queue.qsize() > MAX_WAITING_MESSAGES:
            raise _BoundOverstepped
        if fragment[0] & 1:
            self._command_bytes += len(fragment)
            if self._command_bytes > MAX_COMMAND_BYTES:
                raise _BoundOverstepped
            return fragment
        self._dataset_bytes += len(fragment) - 1
        if self._dataset_bytes <= self._max_instance_bytes or self.message is None:
            return fragment
        if not isinstance(self.message.data_set, OversizedDataset):
            self.message.data_set = OversizedDataset()
        return fragment[:1]


class IntakeAssociation(Association):
    """An association as acceptor, with bounds, that says when it is over.

    Parameters
    ----------
    max_instance_bytes
        Most that one object may hold.
    authority
        Asked before each operation: why the peer is not welcome any more, or None.
    on_unwelcome
        Told of that, once.
    on_end
        Called once, with this association, when its connection is closed.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        *,
        max_instance_bytes: int,
        authority: Callable[[], Rejection | None],
        on_unwelcome: Callable[[Rejection], None],
        on_end: Callable[[IntakeAssociation], None],
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dimse = BoundedDimse(self, max_instance_bytes=max_instance_bytes)
        self._authority = authority
        self._on_unwelcome = on_unwelcome
        self._is_unwelcome = False
        self._on_end = on_end

    def run_reactor(self) -> None:
        """Serve the peer until it leaves or is dropped."""
        try:
            super().run_reactor()
        finally:
            self._on_end(self)

    def abort_now(self, *, patience_s: float = 1.0) -> None:
        """Abort, and close once the A-ABORT is on its way; pynetdicom's own abort may close first and lose it."""
        self.abort(block=False)
        deadline = time.monotonic() + patience_s
        while self.dul.state_machine.current_state not in _ABORT_SENT and time.monotonic() < deadline:
            time.sleep(0.005)
        self.kill()

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        rejection = self._authority()
        if rejection is not None:
            self._turn_away(msg, context_id, rejection)
            return
        if isinstance(msg, C_STORE) and msg.MessageID is not None:
            if msg.Priority is None:
                msg.Priority = 2  # low; nothing here depends on it, and without it the request would go unanswered
            context = self._accepted_cx.get(context_id)
            reason = None if context is None else _refusal_of(msg, str(context.abstract_syntax))
            if reason is not None:
                self._answer(msg, context_id, reason)
                return
        super()._serve_request(msg, context_id)

    def _turn_away(self, msg: DimseServiceType, context_id: int, rejection: Rejection) -> None:
        """Answer 0124H to a peer whose entry is gone, so that it reads the reason; abort when it asks again."""
        if self._is_unwelcome or not isinstance(msg, C_STORE | C_ECHO) or msg.MessageID is None:
            self.abort_now()
            return
        self._is_unwelcome = True
        self._on_unwelcome(rejection)
        self._answer(msg, context_id, WireReason.NOT_AUTHORIZED)

    def _answer(self, request: C_STORE | C_ECHO, context_id: int, reason: WireReason) -> None:
        """Refuse a request that pynetdicom would serve, leave without an answer or abort on."""
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.Status = reason.status
        response.ErrorComment = str(reason)  # type: ignore[assignment]  # set per instance upstream, declared None
        log.warning("event=instance_received status=0x%04X outcome=%s", reason.status, reason)
        self.dimse.send_msg(response, context_id)

    def _bind_defaults(self) -> None:
        # Without pynetdicom's own logging handlers: they format every PDU and know patients' names.
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


def _refusal_of(request: C_STORE, abstract_syntax: str) -> WireReason | None:
    """Why the command alone cannot be served, or None."""
    if not request.AffectedSOPInstanceUID or not request.AffectedSOPClassUID:
        return WireReason.UID_MISSING
    if request.AffectedSOPClassUID != abstract_syntax:
        return WireReason.SOP_MISMATCH
    return WireReason.WIRE_TRUNCATED if request.DataSet is None else None
