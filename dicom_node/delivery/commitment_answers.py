"""What is said in a storage commitment: our request, the receiver's report, and what each of its words means.

PS3.4 annex J: N-ACTION asks (J.3.2), N-EVENT-REPORT answers (J.3.3). Nothing here knows a network or a database.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.delivery.peer_answers import SUCCESS, StatusMeaning

STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
WELL_KNOWN_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""The one instance of that class (PS3.4 J.3.5)."""
REQUEST_ACTION: Final = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs of the report (PS3.4 table J.3-2)."""

MAX_REPORT_BYTES: Final = 1_048_576
"""A report names what we asked about, at most a few objects of one study; an archive may add some of its own."""


class AfterFailure(StrEnum):
    """What the node does about an object that the receiver does not vouch for."""

    ASK_AGAIN = "ask again"
    SEND_AGAIN = "send again"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class FailureMeaning:
    """One Failure Reason (0008,1197) of a report (PS3.3 C.14)."""

    reason: int
    name: str
    then: AfterFailure
    words: str


FAILURE_REASONS: Final[tuple[FailureMeaning, ...]] = (
    FailureMeaning(
        reason=0x0110,
        name="Processing failure",
        then=AfterFailure.ASK_AGAIN,
        words="the receiver failed while it looked for the object; see its log",
    ),
    FailureMeaning(
        reason=0x0112,
        name="No such object instance",
        then=AfterFailure.SEND_AGAIN,
        words="the receiver took the object and does not have it: it was lost there",
    ),
    FailureMeaning(
        reason=0x0119,
        name="Class/Instance conflict",
        then=AfterFailure.STOP,
        words="the receiver has another kind of object under this UID; look it up there",
    ),
    FailureMeaning(
        reason=0x0122,
        name="Referenced SOP Class not supported",
        then=AfterFailure.STOP,
        words='the receiver does not vouch for this kind of object; let it, or set done = "sent"',
    ),
    FailureMeaning(
        reason=0x0131,
        name="Duplicate transaction UID",
        then=AfterFailure.ASK_AGAIN,
        words="the receiver calls the Transaction UID used; it is asked with a new one",
    ),
    FailureMeaning(
        reason=0x0213,
        name="Resource limitation",
        then=AfterFailure.ASK_AGAIN,
        words="the receiver is at a resource limit",
    ),
)


def meaning_of(reason: int) -> FailureMeaning:
    """What a Failure Reason means; one that the standard does not define stops, so that a person looks."""
    for one in FAILURE_REASONS:
        if one.reason == reason:
            return one
    words = "a reason that the standard does not define; look the object up at the receiver"
    return FailureMeaning(reason=reason, name="unknown", then=AfterFailure.STOP, words=words)


def _line(status: int, kind: OutcomeKind, words: str) -> StatusMeaning:
    return StatusMeaning(first=status, last=status, kind=kind, words=words)


REQUEST_STATUSES: Final[tuple[StatusMeaning, ...]] = (
    _line(SUCCESS, OutcomeKind.DELIVERED, "the receiver has taken the request to commit"),
    # The receiver broke or is full; the same question may be answered later.
    _line(0x0110, OutcomeKind.RETRY_LATER, "the receiver failed while processing; see its log"),
    _line(0x0213, OutcomeKind.RETRY_LATER, "the receiver is at a resource limit"),
    _line(0x0112, OutcomeKind.STOPPED, "the receiver does not know the well-known instance of storage commitment"),
    _line(0x0114, OutcomeKind.STOPPED, "the receiver misses an argument of our request"),
    _line(0x0115, OutcomeKind.STOPPED, "the receiver calls a value of our request invalid"),
    _line(0x0117, OutcomeKind.STOPPED, "the receiver calls the SOP Instance UID invalid"),
    _line(0x0118, OutcomeKind.STOPPED, "the receiver does not know the SOP class of storage commitment"),
    _line(0x0119, OutcomeKind.STOPPED, "the receiver finds that class and instance do not fit"),
    _line(0x0123, OutcomeKind.STOPPED, "the receiver does not know the action"),
    _line(0x0124, OutcomeKind.STOPPED, "the receiver does not allow us to ask; allow our AE title there"),
    _line(0x0210, OutcomeKind.STOPPED, "the receiver saw our message number twice"),
    _line(0x0211, OutcomeKind.STOPPED, "the receiver does not know the N-ACTION operation"),
    _line(0x0212, OutcomeKind.STOPPED, "the receiver calls an argument of our request mistyped"),
)
"""Statuses of an N-ACTION response (PS3.7 10.1.4.1.10). DELIVERED: the answer will come as a report."""


def outcome_of_request(status: int) -> DeliveryOutcome:
    """What the response to our N-ACTION means."""
    for one in REQUEST_STATUSES:
        if one.first == status:
            return DeliveryOutcome(kind=one.kind, detail=f"status {status:04X}H: {one.words}", status=status)
    words = "not an N-ACTION status of the standard; see the receiver's log"
    return DeliveryOutcome(kind=OutcomeKind.STOPPED, detail=f"status {status:04X}H: {words}", status=status)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One object by its two UIDs."""

    sop_class_uid: str
    sop_instance_uid: str


def request(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """The Action Information of a request (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in references]
    return information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


class UnusableReport(Exception):
    """A report that says nothing we can use; `status` is what it is answered with (PS3.7 10.1.1.1.8)."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


NO_SUCH_EVENT_TYPE: Final = 0x0113
NO_SUCH_ARGUMENT: Final = 0x0114
INVALID_VALUE: Final = 0x0115
PROCESSING_FAILURE: Final = 0x0110
RESOURCE_LIMITATION: Final = 0x0213


@dataclass(frozen=True, kw_only=True)
class CommitmentReport:
    """What a receiver says about one transaction: 0 for what it vouches for, else the Failure Reason."""

    transaction_uid: str
    answers: Mapping[Reference, int]


def read_report(event_type: int, encoded: bytes, transfer_syntax: str) -> CommitmentReport:
    """The Event Information of a report (PS3.4 table J.3-2).

    Parameters
    ----------
    event_type
        Event Type ID (0000,1002).
    encoded
        The data set as it came.
    transfer_syntax
        What it is encoded in.

    Notes
    -----
    An object that is listed as committed and as failed counts as failed. An item without both UIDs says nothing.

    Raises
    ------
    UnusableReport
        If the event type is neither 1 nor 2, it is too long or no data set, or there is no Transaction UID.
    """
    if len(encoded) > MAX_REPORT_BYTES:
        raise UnusableReport(RESOURCE_LIMITATION, f"the report has more than {MAX_REPORT_BYTES} bytes")
    syntax = UID(transfer_syntax)
    try:
        information = decode(BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian)
        return _said(event_type, information)
    except _NO_DATA_SET as problem:
        raise UnusableReport(INVALID_VALUE, f"the report is no data set ({type(problem).__name__})") from None


# What pydicom raises on bytes that are no data set, or on values that do not fit their VR.
_NO_DATA_SET: Final = (
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


def _said(event_type: int, information: Dataset) -> CommitmentReport:
    if event_type not in (ALL_COMMITTED, SOME_FAILED):
        raise UnusableReport(NO_SUCH_EVENT_TYPE, f"event type {event_type} is not one of storage commitment")
    transaction_uid = str(information.get("TransactionUID", "") or "")
    if not UID(transaction_uid).is_valid:
        raise UnusableReport(NO_SUCH_ARGUMENT, "the report has no Transaction UID")
    answers = dict.fromkeys((one for one, _ in _items(information, "ReferencedSOPSequence")), 0)
    for one, item in _items(information, "FailedSOPSequence"):
        reason = item.get("FailureReason")
        answers[one] = reason if isinstance(reason, int) and reason else PROCESSING_FAILURE
    return CommitmentReport(transaction_uid=transaction_uid, answers=answers)


def _items(information: Dataset, keyword: str) -> Iterator[tuple[Reference, Dataset]]:
    for item in information.get(keyword) or ():
        uids = [str(item.get(name, "") or "") for name in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")]
        if all(uids):
            yield Reference(sop_class_uid=uids[0], sop_instance_uid=uids[1]), item
