"""What the node's own words mean to a person: states, events, roles and steps, without a code name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dicom_node.assembly.headers import SeriesRole
from dicom_node.delivery.outbox import DeliveryStanding
from dicom_node.errors import Reason
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.reviews import Verdict
from dicom_node.urgency import Urgency


@dataclass(frozen=True, kw_only=True)
class Words:
    """A word, its tone (good, busy, wait, bad, none: a color) and its icon, so that color never stands alone."""

    label: str
    tone: str
    icon: str
    sentence: str = ""


STATES: Final[Mapping[StudyState, Words]] = {
    StudyState.WAITING: Words(
        label="Waiting for images",
        tone="wait",
        icon="clock",
        sentence="The study is not complete yet, or images came so recently that more may follow.",
    ),
    StudyState.QUEUED: Words(
        label="In line", tone="busy", icon="queue", sentence="The study is complete and stands in line."
    ),
    StudyState.COMPUTING: Words(label="Measuring", tone="busy", icon="gear", sentence="Both ears are being measured."),
    StudyState.COMPUTED: Words(label="Measured", tone="good", icon="check", sentence="The result is below."),
    StudyState.REFUSED: Words(label="Not measured", tone="bad", icon="stop", sentence="No number could be trusted."),
    StudyState.NOT_OURS: Words(
        label="Other examination",
        tone="none",
        icon="dash",
        sentence="This is no inner-ear hydrops examination; nothing is measured or sent.",
    ),
    StudyState.FAILED: Words(
        label="Node failed",
        tone="bad",
        icon="alert",
        sentence="The node itself failed. The images are kept; an administrator can have it measured again.",
    ),
    StudyState.CANCELED: Words(label="Canceled", tone="none", icon="dash", sentence="A person stopped this study."),
}

URGENCIES: Final[Mapping[Urgency, Words]] = {
    Urgency.URGENT: Words(label="Urgent", tone="wait", icon="alert"),
    Urgency.FIRST: Words(label="Put first", tone="wait", icon="alert"),
}
"""Shown while a study stands in line or is measured; what is routine says nothing."""

EVENTS: Final[Mapping[StudyEvent, str]] = {
    StudyEvent.ARRIVED: "Images arrived",
    StudyEvent.COMPLETED: "The study is complete and stands in line",
    StudyEvent.STARTED: "Measuring began",
    StudyEvent.COMPUTED: "Measured",
    StudyEvent.REFUSED: "Not measured",
    StudyEvent.NOT_OURS: "Recognized as another examination",
    StudyEvent.SUPERSEDED: "Begun work was dropped",
    StudyEvent.FAILED: "The node failed",
    StudyEvent.FAULTED: "The node failed, and tries once more",
    StudyEvent.OVERRAN: "Measuring took too long and was ended",
    StudyEvent.WORKER_DIED: "The worker that measured it ended",
    StudyEvent.TAKEN_OVER: "Another worker went on with it",
    StudyEvent.ERASED: "Images erased here",
    StudyEvent.NOT_DRAWN: "Summary page and pictures were not drawn",
    StudyEvent.NOT_TOLD: "The report that the node failed was not made",
    StudyEvent.RETRIED: "To be measured again",
    StudyEvent.REPLAYED: "To be examined again, as things are today",
    StudyEvent.FORCED: "Taken as complete",
    StudyEvent.CANCELED: "Canceled",
    StudyEvent.PUT_FIRST: "Put first in line",
    StudyEvent.RESENT: "Results sent again",
    StudyEvent.DECLINED: "A request did not fit any more",
}

ROLES: Final[Mapping[str, str]] = {
    SeriesRole.MRC.value: "MR cisternography (MRC)",
    SeriesRole.HYDROPS_MI2.value: "HYDROPS-Mi2",
    SeriesRole.HYDROPS.value: "HYDROPS subtraction",
    SeriesRole.PPI.value: "Positive perilymph image (PPI)",
    SeriesRole.PEI.value: "Positive endolymph image (PEI)",
    SeriesRole.REAL_IR.value: "Real inversion recovery",
    SeriesRole.OTHER.value: "Something else",
}

USED: Final = {
    True: Words(label="Used", tone="good", icon="check"),
    False: Words(label="Left out", tone="none", icon="dash"),
}

DELIVERIES: Final[Mapping[DeliveryStanding, Words]] = {
    DeliveryStanding.WAITING: Words(label="On its way", tone="wait", icon="clock"),
    DeliveryStanding.DELIVERED: Words(label="Delivered", tone="good", icon="check"),
    DeliveryStanding.AWAITING_COMMITMENT: Words(label="Delivered, not committed yet", tone="wait", icon="clock"),
    DeliveryStanding.COMMITTED: Words(label="Committed", tone="good", icon="check"),
    DeliveryStanding.NOT_COMMITTED: Words(label="Not committed", tone="bad", icon="stop"),
    DeliveryStanding.STOPPED: Words(label="Stopped", tone="bad", icon="stop"),
    DeliveryStanding.NOT_SENT: Words(label="Not sent", tone="none", icon="dash"),
}

VERDICTS: Final[Mapping[Verdict, Words]] = {
    Verdict.ACCEPTED: Words(label="Accepted", tone="good", icon="check"),
    Verdict.REJECTED: Words(label="Rejected", tone="bad", icon="stop"),
    Verdict.COMMENTED: Words(label="Comment", tone="none", icon="note"),
}

OBJECTS: Final[Mapping[str, str]] = {
    "SEG": "Segmentation",
    "SR": "Structured report",
    "SC": "Summary image",
    "PDF": "Summary as PDF",
}

_SHORT_ROLES: Final = {"HYDROPS_MI2": "HYDROPS-Mi2", "REAL_IR": "real inversion recovery"}
_CODE: Final = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_LEADING_CODE: Final = re.compile(r"^([A-Z][A-Z0-9_]+)(?:: |$)")


def plain(text: str) -> str:
    """A sentence of ours without code names: a leading reason code is dropped or said, roles are named as people do."""
    code = _LEADING_CODE.match(text)
    if code and code[1] in Reason.__members__:
        text = text[code.end() :] or Reason[code[1]].sentence
    return _CODE.sub(_said, text)


def _said(code: re.Match[str]) -> str:
    word = code[0]
    if word in _SHORT_ROLES:
        return _SHORT_ROLES[word]
    return Reason[word].sentence.rstrip(".").lower() if word in Reason.__members__ else word


def reason_sentence(code: str) -> str:
    """What a reason's code says; empty if it is none (a waiting study has a word of its own)."""
    return Reason[code].sentence if code in Reason.__members__ else ""
