"""What the dashboard and the command line call to have something done to a study.

Nothing is done here: a request that fits the study's state is written down for the worker, one that does not fit is
answered with a sentence at once. Either way the audit trail knows who asked. No torch: the web process uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicom_node.audit import AuditAction, AuditOutcome, AuditTrail
from dicom_node.delivery.outbox import Outbox
from dicom_node.intake.erased_images import ErasedImages
from dicom_node.ledger import Ledger, StudyRecord
from dicom_node.owed_failures import failure_key
from dicom_node.study_moves import TRANSITIONS, StudyEvent, StudyState
from dicom_node.study_requests import StudyAction, StudyRequests

EVENTS: Final[Mapping[StudyAction, StudyEvent]] = {
    StudyAction.RETRY: StudyEvent.RETRIED,
    StudyAction.REPLAY: StudyEvent.REPLAYED,
    StudyAction.FORCE: StudyEvent.FORCED,
    StudyAction.FIRST: StudyEvent.PUT_FIRST,
    StudyAction.CANCEL: StudyEvent.CANCELED,
    StudyAction.RESEND: StudyEvent.RESENT,
}
"""What an action is in the table of legal moves: it fits exactly where that table has its event."""

AUDIT: Final[Mapping[StudyAction, AuditAction]] = {
    StudyAction.RETRY: AuditAction.STUDY_RETRY,
    StudyAction.REPLAY: AuditAction.STUDY_REPLAY,
    StudyAction.FORCE: AuditAction.STUDY_FORCE,
    StudyAction.FIRST: AuditAction.STUDY_FIRST,
    StudyAction.CANCEL: AuditAction.STUDY_CANCEL,
    StudyAction.RESEND: AuditAction.STUDY_RESEND,
}

_STANDING: Final[Mapping[StudyState, str]] = {
    StudyState.WAITING: "it waits for images",
    StudyState.QUEUED: "it is about to be computed",
    StudyState.COMPUTING: "it is being computed",
    StudyState.COMPUTED: "it is computed",
    StudyState.REFUSED: "it was refused",
    StudyState.NOT_OURS: "it is no hydrops study",
    StudyState.FAILED: "the node failed on it",
    StudyState.CANCELED: "it was canceled",
}
_NEEDS_IMAGES: Final = (StudyAction.RETRY, StudyAction.REPLAY, StudyAction.FORCE)
_MOVES: Final = (StudyAction.RETRY, StudyAction.REPLAY, StudyAction.FORCE, StudyAction.FIRST, StudyAction.CANCEL)


@dataclass(frozen=True, kw_only=True)
class ActionOutcome:
    """Whether a request was accepted, and a sentence for the person who asked."""

    accepted: bool
    sentence: str


def sent_key(record: StudyRecord, outbox: Outbox) -> str:
    """Under which the outbox has what was sent of a study as it stands: its results, or that the node failed."""
    failed = failure_key(record.study_instance_uid)
    return failed if record.state is StudyState.FAILED and outbox.holds(failed) else record.work_id


def fitting(state: StudyState, erased: ErasedImages | None = None) -> tuple[StudyAction, ...]:
    """The actions that fit a study in this state; RESEND, which needs results, is not among them.

    Of a study that lacks images because they were erased, nothing can be examined.
    """
    possible = [action for action in _MOVES if (state, EVENTS[action]) in TRANSITIONS]
    lacking = erased is not None and erased.missing > 0
    return tuple(action for action in possible if not (lacking and action in _NEEDS_IMAGES))


def objection(action: StudyAction, state: StudyState) -> str:
    """Why an action does not fit a study in this state, and what would; an empty string when it fits."""
    if (state, EVENTS[action]) in TRANSITIONS:
        return ""
    others = " or ".join(fitting(state)) or "nothing"
    return f"{action} does not fit this study: {_STANDING[state]}; what fits now is {others}"


class StudyActions:
    """Takes requests about studies.

    Parameters
    ----------
    destinations
        Names of the configured destinations.
    erased
        What was erased of a study, if anything was.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        requests: StudyRequests,
        outbox: Outbox,
        audit: AuditTrail,
        destinations: Sequence[str],
        erased: Callable[[str], ErasedImages | None] = lambda _study: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._requests = requests
        self._outbox = outbox
        self._audit = audit
        self._destinations = tuple(destinations)
        self._erased = erased
        self._clock = clock

    def retry(self, study_instance_uid: str, actor: str) -> ActionOutcome:
        """Have a failed study computed again."""
        return self._ask(StudyAction.RETRY, study_instance_uid, actor)

    def replay(self, study_instance_uid: str, actor: str) -> ActionOutcome:
        """Have an ended study examined again, from the images that are kept, as rules, model and settings are today."""
        return self._ask(StudyAction.REPLAY, study_instance_uid, actor)

    def force(self, study_instance_uid: str, actor: str) -> ActionOutcome:
        """Have a waiting study taken as complete, with what is there."""
        return self._ask(StudyAction.FORCE, study_instance_uid, actor)

    def first(self, study_instance_uid: str, actor: str) -> ActionOutcome:
        """Have a study that stands in line computed before all others."""
        return self._ask(StudyAction.FIRST, study_instance_uid, actor)

    def cancel(self, study_instance_uid: str, actor: str) -> ActionOutcome:
        """Have a study stopped before it is published."""
        return self._ask(StudyAction.CANCEL, study_instance_uid, actor)

    def resend(self, study_instance_uid: str, destination: str, actor: str) -> ActionOutcome:
        """Have a study's results sent to one destination again, as the same bytes."""
        return self._ask(StudyAction.RESEND, study_instance_uid, actor, destination)

    def _ask(self, action: StudyAction, study: str, actor: str, destination: str = "") -> ActionOutcome:
        problem = self._problem(action, self._ledger.get(study), destination)
        self._audit.record(
            AUDIT[action],
            actor=actor,
            study_instance_uid=study,
            detail=problem or (f"to destination {destination}" if destination else ""),
            outcome=AuditOutcome.MINOR_FAILURE if problem else AuditOutcome.SUCCESS,
        )
        if problem:
            return ActionOutcome(accepted=False, sentence=problem)
        asked = self._requests.ask(study, action, destination=destination, actor=actor, at=self._clock())
        sentence = f"{action} is asked for" if asked else f"{action} was asked for already"
        return ActionOutcome(accepted=True, sentence=f"{sentence}; the worker sees to it on its next round")

    def _lack(self, action: StudyAction, study: str) -> str:
        """Why what fits the study's state cannot be done: images that it needs were erased."""
        erased = self._erased(study) if action in _NEEDS_IMAGES else None
        return "" if erased is None else erased.sentence

    def _problem(self, action: StudyAction, record: StudyRecord | None, destination: str) -> str:
        if record is None:
            return "this study is unknown here, or its first images have only just come"
        if action is not StudyAction.RESEND:
            return objection(action, record.state) or self._lack(action, record.study_instance_uid)
        if destination not in self._destinations:
            known = ", ".join(self._destinations) or "none is configured"
            return f"there is no destination {destination!r}; known: {known}"
        if not self._outbox.holds(sent_key(record, self._outbox)):
            return f"this study has no results to send; {_STANDING[record.state]}"
        return ""
