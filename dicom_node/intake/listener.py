"""The C-STORE SCP: takes MR images from listed peers, keeps them durably, and only then says success.

The data set is written as it came, without decoding. Every outcome is one status, one Error Comment and one line in
the log; none of them holds a value of the patient's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.events import Event

from dicom_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.dicom_tls import ListenerTls
from dicom_node.errors import TransientError
from dicom_node.intake.admission import Admission, AllowedPeer, RejectedCaller
from dicom_node.intake.association import StoreAnswer, StoreRequest
from dicom_node.intake.server import IntakeServer, ServerBounds
from dicom_node.intake.spool import Spool
from dicom_node.intake.tally import IntakeTally
from dicom_node.intake.wire_check import InstanceIdentity, UnstorableInstance, WireReason, check_command, check_dataset
from dicom_node.intake.wire_status import STATUS_OUT_OF_RESOURCES, STATUS_SUCCESS

__all__ = ["AllowedPeer", "Listener", "ListenerOptions"]

log = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
ENHANCED_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4.1"
STORED_SOP_CLASSES = (MR_IMAGE_STORAGE, ENHANCED_MR_IMAGE_STORAGE)

# Lossy ones are taken and judged later, so that nothing is lost. Not offered: deflated (a bomb), HTJ2K and private
# ones (no decoder here); their sender then chooses another one or is told so at once.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, process 14
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, process 14 SV1
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
REPORT_SYNTAXES = TRANSFER_SYNTAXES[:2]
STATUS_UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 annex C
_MAX_COMMENT_CHARACTERS = 64  # Error Comment (0000,0902) is LO


@dataclass(frozen=True, kw_only=True)
class ListenerOptions:
    """How the listener listens; lengths in bytes, times in seconds. `port` 0 takes a free one.

    The space to leave on disk belongs to the spool: `Spool(min_free_bytes=...)`.
    """

    ae_title: str
    host: str = "127.0.0.1"
    port: int = 11112
    allowed: tuple[AllowedPeer, ...] = ()
    max_associations: int = 10
    max_associations_per_ae: int = 5
    max_waiting_peers: int = 64
    max_pdu_bytes: int = 131072
    max_instance_bytes: int = 1073741824
    acse_timeout_s: float = 10.0
    dimse_timeout_s: float = 30.0
    network_timeout_s: float = 30.0
    tls: ListenerTls | None = None


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What is answered to one C-STORE; `code` and `detail` also go into the log."""

    status: int
    code: str
    detail: str = ""
    series_instance_uid: str = "-"

    def answer(self) -> StoreAnswer:
        """Status, and for a failure the Error Comment."""
        comment = f"{self.code}: {self.detail}" if self.status != STATUS_SUCCESS else ""
        return StoreAnswer(status=self.status, comment=comment[:_MAX_COMMENT_CHARACTERS])


def refuse_operation(_event: Event) -> tuple[int, None]:
    """The answer to a request that this node does not serve."""
    return STATUS_UNRECOGNIZED_OPERATION, None


class Listener:
    """C-ECHO, C-STORE for MR Image and Enhanced MR Image Storage, and reports about storage commitment.

    Parameters
    ----------
    options
        How to listen.
    spool
        Where instances are kept.
    clock
        Time of receipt, POSIX seconds.
    on_rejected
        Called after a caller was turned away, in the thread of its connection.
    on_report
        Answers an N-EVENT-REPORT about storage commitment: the status, and no Event Reply.
    """

    def __init__(
        self,
        options: ListenerOptions,
        spool: Spool,
        clock: Callable[[], float] = time.time,
        *,
        on_rejected: Callable[[RejectedCaller], None] = lambda _caller: None,
        on_report: Callable[[Event], tuple[int, None]] = refuse_operation,
    ) -> None:
        self._options = options
        self._on_report = on_report
        self._on_rejected = on_rejected
        self._spool = spool
        self._clock = clock
        self.tally = IntakeTally()
        self._server: IntakeServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on, once started."""
        return int(self._running().server_address[1])

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._server is not None

    @property
    def live_associations(self) -> int:
        """How many associations are open."""
        return self._running().live_associations

    def start(self) -> None:
        """Listen from now on; returns once peers can connect.

        Raises
        ------
        OSError
            The address is not ours or the port is taken.
        """
        options = self._options
        server = IntakeServer(
            application_entity(options),
            (options.host, options.port),
            on_store=self._on_store,
            handlers=(
                (evt.EVT_N_EVENT_REPORT, self._on_report),
                (evt.EVT_N_ACTION, refuse_operation),
            ),
            admission=Admission(options.ae_title, options.allowed),
            bounds=ServerBounds(
                max_associations=options.max_associations,
                max_associations_per_ae=options.max_associations_per_ae,
                max_waiting_peers=options.max_waiting_peers,
                max_pdu_bytes=options.max_pdu_bytes,
                max_instance_bytes=options.max_instance_bytes,
                acse_timeout_s=options.acse_timeout_s,
                dimse_timeout_s=options.dimse_timeout_s,
                network_timeout_s=options.network_timeout_s,
            ),
            tls=options.tls,
            tally=self.tally,
            on_rejected=self._on_rejected,
        )
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="Listener", daemon=True)
        self._thread.start()
        log.info("event=listening ae=%s address=%s port=%d", options.ae_title, options.host, self.port)

    def admit(self, allowed: tuple[AllowedPeer, ...]) -> None:
        """Let these peers call from now on, and nobody else.

        Associations that are open are judged anew at their next operation: whoever is not listed any more is answered
        0124H (not authorized), and aborted when it asks again.
        """
        self._options = replace(self._options, allowed=allowed)
        if self._server is not None:
            self._server.admission = Admission(self._options.ae_title, allowed)

    def stop(self, drain_s: float = 30.0) -> int:
        """Stop accepting at once, let live associations finish for `drain_s`, abort the rest; the number aborted."""
        server = self._running()
        server.close()
        aborted = server.drain(drain_s=drain_s)
        if self._thread is not None:
            self._thread.join()
        self._server = self._thread = None
        log.info("event=listener_stopped aborted=%d", aborted)
        return aborted

    def _running(self) -> IntakeServer:
        if self._server is None:
            raise RuntimeError("the listener is not running")
        return self._server

    def _on_store(self, request: StoreRequest) -> StoreAnswer:
        """Answer one C-STORE-RQ."""
        started_s = time.monotonic()
        outcome = self._keep(request)
        self.tally.add_image(outcome.code)
        log.log(
            logging.INFO if outcome.status == STATUS_SUCCESS else logging.WARNING,
            'event=instance_received status=0x%04X outcome=%s source=%r series=%s sop=%s bytes=%d ms=%d detail="%s"',
            outcome.status,
            outcome.code,
            request.calling_ae,
            outcome.series_instance_uid,
            _printable_uid(request.sop_instance_uid),
            len(request.dataset or b""),
            (time.monotonic() - started_s) * 1000,
            outcome.detail,
        )
        return outcome.answer()

    def _keep(self, request: StoreRequest) -> _Outcome:
        try:
            dataset, identity = self._check(request)
            stored = self._spool.store_dataset(
                dataset,
                request.transfer_syntax_uid,
                source=request.calling_ae,
                at=self._clock(),
                identity=identity,
            )
        except UnstorableInstance as problem:
            return _Outcome(status=problem.reason.status, code=problem.reason, detail=problem.detail)
        except TransientError as problem:
            return _Outcome(status=STATUS_OUT_OF_RESOURCES, code="OUT_OF_RESOURCES", detail=str(problem))
        return _Outcome(
            status=STATUS_SUCCESS,
            code=stored.kind,
            detail=" ".join(identity.warnings),
            series_instance_uid=identity.series_instance_uid,
        )

    def _check(self, request: StoreRequest) -> tuple[bytes | bytearray, InstanceIdentity]:
        """Data set and identity of an object that can be kept and that is what its command says."""
        if request.dataset is None:
            limit = self._options.max_instance_bytes
            raise UnstorableInstance(WireReason.SIZE_LIMIT, f"data set has more than {limit} bytes")
        identity = check_dataset(request.dataset, request.transfer_syntax_uid, limits=self._spool.limits)
        check_command(identity, sop_class_uid=request.sop_class_uid, sop_instance_uid=request.sop_instance_uid)
        return request.dataset, identity


def application_entity(options: ListenerOptions) -> ApplicationEntity:
    """pynetdicom's view of us; who may call is judged before it, so its own lists stay empty."""
    entity = ApplicationEntity(options.ae_title)
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = options.acse_timeout_s
    entity.dimse_timeout = options.dimse_timeout_s
    entity.network_timeout = options.network_timeout_s
    entity.maximum_pdu_size = options.max_pdu_bytes
    entity.maximum_associations = options.max_associations + 1  # ours is counted at the front desk
    entity.add_supported_context(VERIFICATION)
    # A receiver of our results calls to say what it vouches for: as SCP of storage commitment, which it has to
    # negotiate (PS3.4 J.3.3). One that leaves the negotiation out is heard, too; who asks us to commit is refused.
    entity.add_supported_context(STORAGE_COMMITMENT, list(REPORT_SYNTAXES), scu_role=False, scp_role=True)
    for sop_class in STORED_SOP_CLASSES:
        entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
    return entity


def _printable_uid(uid: object) -> str:
    """The UID for a log line, or a note that it is none: text from the wire must not forge a second line."""
    text = str(uid)
    return text if text.replace(".", "").isdecimal() and len(text) <= 64 else "not-a-uid"
