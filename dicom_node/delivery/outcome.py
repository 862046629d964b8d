"""What one attempt to deliver one object to one destination came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.dicom_tls import SenderTls


class OutcomeKind(StrEnum):
    """DELIVERED: it is there. RETRY_LATER: it may work later. STOPPED: trying again would not help.

    NOT_TAKEN: the destination does not accept this kind of object; that is how it is made, not a failure.
    """

    DELIVERED = "delivered"
    NOT_TAKEN = "not_taken"
    RETRY_LATER = "retry_later"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class DeliveryOutcome:
    """`status` is the DIMSE status or HTTP code where there was one; `detail` a sentence for the operator."""

    kind: OutcomeKind
    detail: str
    status: int | None = None


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where results go. `kind` is "dicom" (C-STORE SCU) or "orthanc" (REST).

    DICOM needs `host`, `port`, `called_ae`, `calling_ae`, and `tls` where the receiver expects it; Orthanc needs `url`
    and perhaps `username`/`password`. `send` lists the kinds of objects that go there; empty: all that it takes.
    `to_commit`: what it took is done only when it has vouched for keeping it (DICOM only; storage commitment).
    """

    name: str
    kind: str
    host: str = ""
    port: int = 0
    called_ae: str = ""
    calling_ae: str = "HYDROPS"
    url: str = ""
    username: str = ""
    password: str = ""
    timeout_s: float = 30.0
    tls: SenderTls | None = None
    send: tuple[str, ...] = ()
    to_commit: bool = False
