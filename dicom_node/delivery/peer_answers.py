"""What a receiver's answer means for the next step: delivered, try later, or stop and say why.

The tables follow PS3.8 9.3.4 (association rejects), PS3.4 B.2.3 and PS3.7 Annex C (C-STORE statuses). Only a status
that the standard calls success or warning counts as delivered: everything unknown stops, so that a person looks.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind

SUCCESS = 0x0000
_TRANSIENT_REJECT = 2


@dataclass(frozen=True, kw_only=True)
class StatusMeaning:
    """One line of the status table: the codes `first` to `last`, what to do, and the words for the operator."""

    first: int
    last: int
    kind: OutcomeKind
    words: str


def _line(first: int, last: int, kind: OutcomeKind, words: str) -> StatusMeaning:
    return StatusMeaning(first=first, last=last, kind=kind, words=words)


C_STORE_STATUSES: tuple[StatusMeaning, ...] = (
    _line(SUCCESS, SUCCESS, OutcomeKind.DELIVERED, "stored"),
    _line(0xB000, 0xB000, OutcomeKind.DELIVERED, "stored; the receiver changed some elements (coercion)"),
    _line(0xB006, 0xB006, OutcomeKind.DELIVERED, "stored; the receiver left out some elements"),
    _line(0xB007, 0xB007, OutcomeKind.DELIVERED, "stored; the receiver finds that the object does not fit its class"),
    _line(0x0111, 0x0111, OutcomeKind.DELIVERED, "the receiver already has this object"),
    _line(0xA700, 0xA7FF, OutcomeKind.RETRY_LATER, "the receiver is out of resources; free its disk or memory"),
    # The receiver broke while it worked (its database is down, say); that says nothing about our object.
    _line(0x0110, 0x0110, OutcomeKind.RETRY_LATER, "the receiver failed while processing; see its log"),
    _line(0x0213, 0x0213, OutcomeKind.RETRY_LATER, "the receiver is at a resource limit"),
    _line(0xA900, 0xA9FF, OutcomeKind.STOPPED, "the receiver says that the object does not match its class"),
    _line(0xC000, 0xCFFF, OutcomeKind.STOPPED, "the receiver cannot understand the object"),
    _line(0x0117, 0x0117, OutcomeKind.STOPPED, "the receiver calls the SOP Instance UID invalid"),
    _line(0x0122, 0x0122, OutcomeKind.NOT_TAKEN, "the receiver does not support this kind of object (SOP class)"),
    _line(0x0124, 0x0124, OutcomeKind.STOPPED, "the receiver does not allow us to store; allow our AE title there"),
    _line(0x0210, 0x0210, OutcomeKind.STOPPED, "the receiver saw our message number twice"),
    _line(0x0211, 0x0211, OutcomeKind.STOPPED, "the receiver does not know the C-STORE operation"),
    _line(0x0212, 0x0212, OutcomeKind.STOPPED, "the receiver calls an argument of our request mistyped"),
)

# (source, reason) of PS3.8 table 9-21, each with what the operator does next.
_REJECTIONS: dict[tuple[int, int], str] = {
    (1, 1): "no reason given; see the receiver's log",
    (1, 2): "application context not supported; is this port really a DICOM receiver?",
    (1, 3): "our calling AE title {calling!r} is not known there; add it to the receiver's list of known AE titles",
    (1, 7): "the called AE title {called!r} is not known there; correct called_ae of destination {name!r}",
    (2, 1): "no reason given by the receiver's association layer; see its log",
    (2, 2): "protocol version not supported; is this port really a DICOM receiver?",
    (3, 1): "the receiver is congested for a moment",
    (3, 2): "the receiver's limit of associations is reached",
}


def outcome_of_status(status: int, comment: str = "") -> DeliveryOutcome:
    """The outcome of one C-STORE response.

    Parameters
    ----------
    status
        Status (0000,0900).
    comment
        Error Comment (0000,0902) of the response, or an empty string.
    """
    said = f" (receiver's comment: {comment})" if comment else ""
    for meaning in C_STORE_STATUSES:
        if meaning.first <= status <= meaning.last:
            return DeliveryOutcome(
                kind=meaning.kind, detail=f"status {status:04X}H: {meaning.words}{said}", status=status
            )
    return DeliveryOutcome(
        kind=OutcomeKind.STOPPED,
        detail=f"status {status:04X}H: not a C-STORE status of the standard; look the object up at the receiver{said}",
        status=status,
    )


def outcome_of_rejection(
    result: int, source: int, reason: int, *, calling: str, called: str, name: str
) -> DeliveryOutcome:
    """The outcome of a rejected association request, in plain words and with the next step.

    Parameters
    ----------
    result, source, reason
        The three numbers of the A-ASSOCIATE-RJ PDU (PS3.8 table 9-21); result 1 is permanent, 2 transient.
    calling, called, name
        Our AE title, theirs, and the destination's name in the configuration.
    """
    transient = result == _TRANSIENT_REJECT
    words = _REJECTIONS.get((source, reason), "a reason that the standard does not define; see the receiver's log")
    return DeliveryOutcome(
        kind=OutcomeKind.RETRY_LATER if transient else OutcomeKind.STOPPED,
        detail=f"association rejected {'for now' if transient else 'for good'} ({result},{source},{reason}): "
        + words.format(calling=calling, called=called, name=name),
    )
