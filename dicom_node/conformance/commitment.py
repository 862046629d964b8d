"""What the statement says about storage commitment: the service, its associations, every status of both messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dicom_node.conformance.tables import paragraphs, table
from dicom_node.delivery.commitment_answers import (
    ALL_COMMITTED,
    FAILURE_REASONS,
    INVALID_VALUE,
    MAX_REPORT_BYTES,
    NO_SUCH_ARGUMENT,
    NO_SUCH_EVENT_TYPE,
    PROCESSING_FAILURE,
    REQUEST_ACTION,
    REQUEST_STATUSES,
    RESOURCE_LIMITATION,
    SOME_FAILED,
    STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    AfterFailure,
)
from dicom_node.delivery.commitment_scu import CONTEXT, STAY_S
from dicom_node.delivery.commitments import MAX_SENT_AGAIN
from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.delivery.peer_answers import SUCCESS
from dicom_node.settings.sections import DeliverySettings

REPORT_STATUSES: Final[Mapping[int, tuple[str, str]]] = {
    SUCCESS: ("Success", "What the report says is durable; also when it was said before."),
    PROCESSING_FAILURE: ("Processing failure", "The node's database does not answer now."),
    NO_SUCH_EVENT_TYPE: ("No such event type", f"The event type is neither {ALL_COMMITTED} nor {SOME_FAILED}."),
    NO_SUCH_ARGUMENT: ("No such argument", "There is no Transaction UID."),
    INVALID_VALUE: (
        "Invalid argument value",
        "The Event Information is no data set, or the Transaction UID is none that this AE title was asked under.",
    ),
    RESOURCE_LIMITATION: ("Resource limitation", f"The Event Information has more than {MAX_REPORT_BYTES} bytes."),
}
"""What the node answers to an N-EVENT-REPORT, and when."""

_REQUEST_BEHAVIOR: Final[Mapping[OutcomeKind, str]] = {
    OutcomeKind.DELIVERED: "The report is awaited",
    OutcomeKind.RETRY_LATER: "Asked again later",
    OutcomeKind.STOPPED: "Not committed, until a person sends the objects again",
}
REASON_BEHAVIOR: Final[Mapping[AfterFailure, str]] = {
    AfterFailure.ASK_AGAIN: "Asked again later",
    AfterFailure.SEND_AGAIN: f"Sent again, at most {MAX_SENT_AGAIN} times, and asked about again",
    AfterFailure.STOP: "Not committed, until a person sends the object again",
}


def commitment_service() -> str:
    """Section 5.2.6."""
    delivery = DeliverySettings()
    return paragraphs(
        "#### 5.2.6 Storage Commitment service",
        "##### 5.2.6.1 SCU of the Storage Commitment Push Model SOP class",
        'For destinations with `done = "committed"`. When each object of a study has been tried once, the sender asks '
        f"about those that were delivered: N-ACTION, Action Type {REQUEST_ACTION}, on an association of its own, with "
        "a new Transaction UID (2.25) for each request. The well-known SOP Instance is " + WELL_KNOWN_INSTANCE + ".",
        f"The association stays open for {STAY_S:g} s for the N-EVENT-REPORT. The report may as well come on an "
        "association that the receiver opens to the listener, proposing itself as SCP by role selection; one that "
        "leaves role selection out is heard, too. The listener admits it like any caller (`listener.allowed`), and "
        "its AE title has to be the one that was asked.",
        f"An object that no report has named is asked about again after {delivery.first_retry_s:g} s; the pause "
        f"doubles up to {delivery.max_retry_s:g} s, and {delivery.give_up_after_h:g} h after the delivery it ends as "
        "not committed. "
        "A success counts also when it comes about an earlier request or after that end; requests are remembered for "
        "30 days. Not counted are a second report about the same object and request, a report about a copy that was "
        "sent again since, objects that were not asked about, and the right instance under another SOP class.",
        "Event type 1 commits what its Referenced SOP Sequence lists; event type 2 likewise, and fails what its Failed "
        "SOP Sequence lists. An object that is in both has failed.",
        "No referenced file-set and no retrieve AE title are used. Not supported as SCP: an N-ACTION "
        "to the listener is answered with 0211.",
    )


def commitment_statuses() -> str:
    """Section 7.3.2.6 (tables N.7-44 and following)."""
    requests = [
        (
            "Success" if one.first == SUCCESS else "Failure",
            _sentence(one.words),
            f"{one.first:04X}",
            _REQUEST_BEHAVIOR[one.kind],
        )
        for one in REQUEST_STATUSES
    ]
    requests.append(("-", "Anything else", "every other", _REQUEST_BEHAVIOR[OutcomeKind.STOPPED]))
    reasons = [
        (one.name, f"{one.reason:04X}", _sentence(one.words), REASON_BEHAVIOR[one.then]) for one in FAILURE_REASONS
    ]
    reasons.append(
        (
            "Anything else",
            "every other",
            "A reason that the standard does not define",
            REASON_BEHAVIOR[AfterFailure.STOP],
        )
    )
    reports = [
        ("Success" if status == SUCCESS else "Failure", meaning, f"{status:04X}", condition)
        for status, (meaning, condition) in REPORT_STATUSES.items()
    ]
    return paragraphs(
        "##### 7.3.2.6 Storage Commitment service",
        "###### 7.3.2.6.1 SCU: statuses of the N-ACTION response",
        table(("Service status", "Further meaning", "Status code", "Behavior"), requests),
        'No answer, no connection and a transient rejection are taken as "asked again later", a permanent rejection as '
        '"not committed". A receiver that does not accept the '
        f"presentation context ({STORAGE_COMMITMENT}, transfer syntax {CONTEXT[1]}) is asked no more about these "
        "objects.",
        "###### 7.3.2.6.2 SCU: Failure Reason (0008,1197) in the N-EVENT-REPORT",
        table(("Failure reason", "Code", "Meaning", "Behavior"), reasons),
        "###### 7.3.2.6.3 SCU: statuses that the N-EVENT-REPORT is answered with",
        table(("Service status", "Further meaning", "Status code", "Condition"), reports),
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"
