"""Tables of statuses and rejections: what the listener answers and when, what the sender makes of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dicom_node.conformance.tables import table
from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.delivery.peer_answers import C_STORE_STATUSES, StatusMeaning, outcome_of_rejection
from dicom_node.intake.admission import (
    LIMIT_OF_AE_REACHED,
    LIMIT_REACHED,
    Admission,
    AllowedPeer,
    AssociateRequest,
    Rejection,
)
from dicom_node.intake.wire_status import STATUS_OUT_OF_RESOURCES, STATUS_SUCCESS, WireReason

CONDITIONS: Final[Mapping[WireReason, str]] = {
    WireReason.WIRE_TRUNCATED: "The data set ends early.",
    WireReason.WIRE_UNREADABLE: "The bytes are no data set in the negotiated transfer syntax.",
    WireReason.TS_UNSUPPORTED: "The transfer syntax was not one of those accepted.",
    WireReason.UID_MISSING: "SOP Class, SOP Instance, Study or Series Instance UID is missing.",
    WireReason.UID_ILLEGAL: "One of these UIDs is no legal UID (PS3.5 9.1).",
    WireReason.SOP_MISMATCH: "Command and data set name different SOP classes or instances.",
    WireReason.DEPTH_LIMIT: "Sequences are nested deeper than any image needs.",
    WireReason.ELEMENT_LIMIT: "There are more elements than any image needs.",
    WireReason.SIZE_LIMIT: "The object is larger than `listener.max_instance_bytes`.",
    WireReason.NOT_AUTHORIZED: "The peer's entry in `listener.allowed` was changed or removed since the "
    "association was accepted. A second request aborts the association. C-ECHO is answered so as well.",
}
_FURTHER_MEANING: Final = {
    0x0124: "Refused: Not Authorized",
    0xA700: "Out of Resources",
    0xA900: "Data Set does not match SOP Class",
    0xC101: "Cannot Understand",
    0xC102: "Cannot Understand",
    0xC103: "Cannot Understand",
}
BEHAVIOR: Final[Mapping[OutcomeKind, str]] = {
    OutcomeKind.DELIVERED: "Delivered",
    OutcomeKind.NOT_TAKEN: "Noted as not sent, since the receiver does not take this kind of object",
    OutcomeKind.RETRY_LATER: "Sent again later",
    OutcomeKind.STOPPED: "Stopped until a person sends it again",
}


def answered_statuses() -> str:
    """C-STORE statuses of the listener (table N.7-43)."""
    rows = [
        (
            "Success",
            "Success",
            hexadecimal(STATUS_SUCCESS),
            "",
            "File and index row are durable. Also when the same content is there already, and when another content "
            "is there under the same UID: then both are kept.",
        ),
        (
            "Failure",
            "Out of Resources",
            hexadecimal(STATUS_OUT_OF_RESOURCES),
            "`OUT_OF_RESOURCES`",
            "Less than `listener.min_free_bytes` are free, or disk or database failed. Try again later.",
        ),
    ]
    rows += [
        ("Failure", _FURTHER_MEANING[one.status], hexadecimal(one.status), f"`{one.value}`", CONDITIONS[one])
        for one in sorted(WireReason, key=lambda one: one.status)
    ]
    columns = ("Service status", "Further meaning", "Status code", "Error Comment (0000,0902) begins with", "Condition")
    return table(columns, rows)


def understood_statuses() -> str:
    """What the sender makes of C-STORE statuses (table N.7-42)."""
    rows = [
        (_service_status(one), f"{one.words[:1].upper()}{one.words[1:]}", _range(one), BEHAVIOR[one.kind])
        for one in C_STORE_STATUSES
    ]
    rows.append(("-", "Anything else", "every other", BEHAVIOR[OutcomeKind.STOPPED]))
    return table(("Service status", "Further meaning", "Status code", "Behavior"), rows)


def rejections() -> tuple[Rejection, ...]:
    """Every A-ASSOCIATE-RJ that the listener sends, asked from the very object that judges."""
    judge = Admission(
        "HYDROPS",
        [
            AllowedPeer(ae_title="KNOWN", networks=("10.0.0.0/8",)),
            AllowedPeer(ae_title="BOUND", networks=("10.0.0.0/8",), certificate_sha256="0" * 64),
        ],
    )
    calls = (
        (None, "HYDROPS", "10.0.0.1"),
        ("STRANGER", "HYDROPS", "10.0.0.1"),
        ("KNOWN", "HYDROPS", "11.0.0.1"),
        ("BOUND", "HYDROPS", "10.0.0.1"),
        ("KNOWN", "OTHER", "10.0.0.1"),
    )
    found = [
        judge.judge(AssociateRequest(pdu=b"", called_ae=called, calling_ae=calling), address)
        for calling, called, address in calls
    ]
    return (*(one for one in found if one is not None), LIMIT_REACHED, LIMIT_OF_AE_REACHED)


def sent_rejections() -> str:
    """Rejections by the listener."""
    rows = [
        (str(one.result), str(one.source), str(one.reason), f"{one.words[:1].upper()}{one.words[1:]}.")
        for one in rejections()
    ]
    return table(("Result", "Source", "Reason", "Condition"), rows)


def understood_rejections() -> str:
    """What the sender makes of rejections."""
    rows = []
    for result, name in ((1, "1, permanent"), (2, "2, transient")):
        outcome = outcome_of_rejection(result, 1, 1, calling="", called="", name="")
        rows.append((name, BEHAVIOR[outcome.kind]))
    return table(("Result", "Behavior"), rows)


def hexadecimal(status: int) -> str:
    """A status as PS3.7 writes it."""
    return f"{status:04X}"


def _range(one: StatusMeaning) -> str:
    both = hexadecimal(one.first), hexadecimal(one.last)
    return both[0] if both[0] == both[1] else f"{both[0]}-{both[1]}"


def _service_status(one: StatusMeaning) -> str:
    """Success, Warning or Failure as PS3.7 annex C sorts the code, whatever we make of it."""
    if one.first == STATUS_SUCCESS:
        return "Success"
    return "Warning" if 0xB000 <= one.first <= 0xBFFF else "Failure"
