"""An association as acceptor, in one thread: pynetdicom negotiates it, then we read, keep and answer.

pynetdicom 3.0.4 serves an association by two threads that poll once a millisecond and a queue between them, reads a PDU
of any announced length, collects an object of any size, and makes a data set and an object of every command. Its
negotiation is therefore asked without its threads, and images (C-STORE) and C-ECHO are served here, by a thread that
waits in the kernel; everything else (reports about storage commitment) is handed to pynetdicom, message by message.
"""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA

from dicom_node.assembly.attributes import CONVERSION_ERRORS
from dicom_node.intake.admission import Rejection, refuse
from dicom_node.intake.messages import (
    COMMAND_LAST,
    DATA_LAST,
    BrokenMessage,
    Message,
    MessageAssembler,
    Operation,
    written_response,
)
from dicom_node.intake.pdu_stream import (
    BrokenPdu,
    Pdu,
    PduKind,
    PduStream,
    PeerGone,
    abort,
    data_pdu,
    release_response,
    values_of,
)
from dicom_node.intake.wire_check import is_legal_uid
from dicom_node.intake.wire_status import STATUS_SUCCESS, WireReason

_ACCEPTED: Final = 0
_PROVIDER, _USER, _UNEXPECTED_PDU, _INVALID_VALUE = 2, 0, 2, 6
# What pydicom and pynetdicom raise on a message, or on an A-ASSOCIATE-RQ, that is none.
_BAD_MESSAGE = (AttributeError, LookupError, *CONVERSION_ERRORS)
_BAD_REQUEST = (AssertionError, *_BAD_MESSAGE)
_NOBODYS: Final = "a message that nobody here serves"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoreRequest:
    """A C-STORE-RQ whose command is sound. `dataset` None: it had more bytes than an object may have."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: bytes | bytearray | None
    calling_ae: str


@dataclass(frozen=True, kw_only=True)
class StoreAnswer:
    """Status (0000,0900), and for a failure the Error Comment (0000,0902)."""

    status: int
    comment: str = ""


class Desk(Protocol):
    """Whom an association asks."""

    def store(self, request: StoreRequest) -> StoreAnswer:
        """Keep an object and say how that ended."""
        ...

    def judge(self) -> Rejection | None:
        """Why the peer is not welcome any more, or None; asked before each operation."""
        ...

    def withdrawn(self, rejection: Rejection) -> None:
        """Told once that the peer was turned away in mid-association."""
        ...

    def ended(self, association: IntakeAssociation) -> None:
        """Told once, when the connection is closed."""
        ...


@dataclass(frozen=True, kw_only=True)
class AssociationBounds:
    """Limits of one association; lengths in bytes, times in seconds.

    `message_timeout_s` is the longest silence inside a message, `idle_timeout_s` that between two, `pdu_timeout_s` how
    long a PDU may take that has begun.
    """

    max_pdu_bytes: int
    max_instance_bytes: int
    pdu_timeout_s: float
    message_timeout_s: float
    idle_timeout_s: float


class _Aborted(Exception):
    """We end the association by an A-ABORT."""


class IntakeAssociation(Association):
    """An association as acceptor, with bounds, that says when it is over.

    Parameters
    ----------
    connection
        To the peer; closed at the end.
    bounds
        What a peer may send, and how slowly.
    desk
        Whom to ask.
    """

    def __init__(
        self, ae: ApplicationEntity, connection: socket.socket, *, bounds: AssociationBounds, desk: Desk
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._connection = connection
        self._bounds = bounds
        self._desk = desk
        self._is_unwelcome = False
        self._answers = 0
        self._abort_asked = threading.Event()
        self._stream = PduStream(
            connection,
            max_pdu_bytes=bounds.max_pdu_bytes,
            pdu_timeout_s=bounds.pdu_timeout_s,
            is_stopped=self._abort_asked.is_set,
        )
        self.dul.send_pdu = self._send_primitive  # type: ignore[method-assign]  # its threads never run

    def serve(self, request: bytes) -> None:
        """Answer an A-ASSOCIATE-RQ, and serve the peer until it leaves or is dropped, in the caller's thread."""
        try:
            self._serve_or_say_why(request)
        finally:
            if self._server is not None:
                self._server.shutdown_request(self._connection)
            self._desk.ended(self)

    def abort_now(self) -> None:
        """Have the association aborted by its own thread, which alone writes to the connection."""
        self._abort_asked.set()

    def _abort_blocking(self, block: bool = True) -> None:  # noqa: ARG002 - pynetdicom's signature
        """What every abort of pynetdicom's comes to, on a message that it cannot serve."""
        self._abort_asked.set()

    def _serve_or_say_why(self, request: bytes) -> None:
        """Serve; a peer that is dropped is told so."""
        connection = self._connection
        try:
            if self._is_agreed_on(request):
                self._serve(self._stream, MessageAssembler(max_instance_bytes=self._bounds.max_instance_bytes))
        except PeerGone as gone:
            if self._abort_asked.is_set():
                refuse(connection, abort(source=_USER, reason=0))
            else:
                log.info("event=association_lost reason=%s", gone)
        except _Aborted as why:
            log.warning('event=association_aborted reason="%s"', why)
            refuse(connection, abort(source=_USER, reason=0))
        except BrokenPdu as broken:
            log.warning('event=association_aborted reason="%s"', broken)
            refuse(connection, abort(source=_PROVIDER, reason=broken.reason))
        except BrokenMessage as broken:
            log.warning('event=message_refused reason="%s"', broken)
            refuse(connection, abort(source=_PROVIDER, reason=_INVALID_VALUE))
        except BaseException:  # a fault of ours, which ends this thread and stands in the log: the peer need not wait
            refuse(connection, abort(source=_PROVIDER, reason=0))
            raise
        self.is_established = False

    def _is_agreed_on(self, request: bytes) -> bool:
        """Have pynetdicom negotiate: its answer has been sent, and it is yes."""
        proposed = A_ASSOCIATE_RQ()
        try:
            proposed.decode(request)
            self.requestor.primitive = proposed.to_primitive()
        except _BAD_REQUEST as problem:
            raise BrokenPdu(f"an A-ASSOCIATE-RQ that cannot be read: {type(problem).__name__}") from None
        contexts = self.requestor.primitive.presentation_context_definition_list
        if not all(context.abstract_syntax and all(context.transfer_syntax or [""]) for context in contexts):
            raise BrokenPdu("an A-ASSOCIATE-RQ with a presentation context that lacks a syntax")
        self.acse.negotiate_association()
        return self.is_established

    def _serve(self, stream: PduStream, assembler: MessageAssembler) -> None:
        """Take one PDU after the other until the peer releases."""
        while True:
            within_s = self._bounds.message_timeout_s if assembler.is_waiting else self._bounds.idle_timeout_s
            pdu = stream.read(within_s=within_s)
            if pdu is None:
                raise _Aborted(f"silent for {within_s:g} s")
            if pdu.kind == PduKind.RELEASE_REQUEST:
                stream.send(release_response())
                self._await_close(stream)
                return
            if pdu.kind == PduKind.ABORT:
                raise PeerGone("aborted by the peer")
            if pdu.kind != PduKind.DATA:
                raise BrokenPdu(f"PDU of kind {pdu.kind:#04x} in an association", reason=_UNEXPECTED_PDU)
            self._take(pdu, assembler)

    def _take(self, pdu: Pdu, assembler: MessageAssembler) -> None:
        for context_id, control, fragment in values_of(pdu):
            message = assembler.take(context_id, control, fragment)
            if message is not None:
                self._answer(message)
                if self._abort_asked.is_set():
                    raise PeerGone("stopped")

    @staticmethod
    def _await_close(stream: PduStream, *, patience_s: float = 1.0) -> None:
        """Leave closing to the peer, which asked for the release (PS3.8 9.2.3, AR-3)."""
        try:
            stream.read(within_s=patience_s)
        except (PeerGone, BrokenPdu):
            return

    def _answer(self, message: Message) -> None:
        """Serve one message."""
        rejection = self._desk.judge()
        if rejection is not None:
            self._turn_away(message, rejection)
            return
        context = self._accepted_cx.get(message.context_id)
        command = message.command
        if context is None or command.message_id is None:
            raise _Aborted("a message in a context that was not accepted, or without a Message ID")
        if command.field == Operation.C_ECHO:
            self._respond(message, STATUS_SUCCESS)
        elif command.field == Operation.C_STORE:
            self._store(message, str(context.abstract_syntax), str(context.transfer_syntax[0]))
        else:
            self._serve_by_pynetdicom(message)

    def _store(self, message: Message, abstract_syntax: str, transfer_syntax: str) -> None:
        reason = refusal_of(message, abstract_syntax)
        if reason is not None:
            log.warning("event=instance_received status=0x%04X outcome=%s", reason.status, reason)
            self._respond(message, reason.status, str(reason))
            return
        answer = self._desk.store(
            StoreRequest(
                sop_class_uid=message.command.sop_class_uid,
                sop_instance_uid=message.command.sop_instance_uid,
                transfer_syntax_uid=transfer_syntax,
                dataset=message.dataset,
                calling_ae=str(self.requestor.ae_title),
            )
        )
        self._respond(message, answer.status, answer.comment)

    def _turn_away(self, message: Message, rejection: Rejection) -> None:
        """Answer 0124H to a peer whose entry is gone, so that it reads the reason; abort when it asks again."""
        known = message.command.field in (Operation.C_STORE, Operation.C_ECHO)
        if self._is_unwelcome or not known or message.command.message_id is None:
            raise _Aborted(rejection.words)
        self._is_unwelcome = True
        self._desk.withdrawn(rejection)
        reason = WireReason.NOT_AUTHORIZED
        log.warning("event=instance_received status=0x%04X outcome=%s", reason.status, reason)
        self._respond(message, reason.status, str(reason))

    def _respond(self, message: Message, status: int, comment: str = "") -> None:
        response = written_response(message.command, status=status, comment=comment)
        self._stream.send(data_pdu(message.context_id, COMMAND_LAST, response))

    def _send_primitive(self, primitive: Any) -> None:
        """Send what pynetdicom answers: to the A-ASSOCIATE-RQ, or to a message that it serves."""
        pdu: P_DATA_TF | A_ASSOCIATE_AC | A_ASSOCIATE_RJ
        if isinstance(primitive, P_DATA):
            self._answers += 1
            pdu = P_DATA_TF()
        elif isinstance(primitive, A_ASSOCIATE):
            pdu = A_ASSOCIATE_AC() if primitive.result == _ACCEPTED else A_ASSOCIATE_RJ()
        else:
            return
        pdu.from_primitive(primitive)
        if isinstance(pdu, A_ASSOCIATE_RJ):
            refuse(self._connection, pdu.encode())
        else:
            self._stream.send(pdu.encode())

    def _serve_by_pynetdicom(self, message: Message) -> None:
        """Let pynetdicom decode and answer a message, by the handlers that are bound."""
        whole = DIMSEMessage()
        fragments = [(COMMAND_LAST, message.command_set), (DATA_LAST, message.dataset)]
        try:
            for control, content in fragments:
                if content is not None:
                    one = P_DATA()
                    pair: Any = [message.context_id, bytes((control,)) + content]  # a tuple upstream, checked as a list
                    one.presentation_data_value_list = [pair]
                    whole.decode_msg(one)
            # Not by the provider of pynetdicom, which serves an N-EVENT-REPORT in another thread than ours.
            request = whole.message_to_primitive()
        except _BAD_MESSAGE as problem:
            raise BrokenMessage(type(problem).__name__) from None
        if isinstance(request, C_CANCEL):
            raise _Aborted(_NOBODYS)
        answered = self._answers
        self._serve_request(request, message.context_id)
        if self._answers == answered:  # pynetdicom only logs some of them, and their sender would wait in vain
            raise _Aborted(_NOBODYS)

    def _bind_defaults(self) -> None:
        # Without pynetdicom's own logging handlers: they format every PDU and know patients' names.
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


def refusal_of(message: Message, abstract_syntax: str) -> WireReason | None:
    """Why a C-STORE cannot be served for its command alone, or None."""
    command = message.command
    if not is_legal_uid(command.sop_instance_uid.encode("latin-1")) or not command.sop_class_uid:
        return WireReason.UID_MISSING
    if command.sop_class_uid != abstract_syntax:
        return WireReason.SOP_MISMATCH
    if message.dataset is None and not message.is_oversized:
        return WireReason.WIRE_TRUNCATED
    return None
