"""Carries out what people asked for: one transaction for each request, with its answer and its line of history.

Killed before the commit, nothing has happened and the request is still open; killed after it, all of it has. What a
request makes ready to compute stands in the ledger as queued, under an id of its own, before the engine hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.audit import AuditOutcome, AuditTrail
from dicom_node.delivery.outbox import DeliveryState, Outbox
from dicom_node.errors import Reason, TransientError
from dicom_node.examination import Decision, Examination, Examiner, Work, write_decision
from dicom_node.intake.spool import Spool, StudyActivity
from dicom_node.ledger import Ledger, StudyRecord
from dicom_node.owed_failures import failure_key
from dicom_node.owed_pictures import OwedPictures
from dicom_node.study_actions import AUDIT, objection, sent_key
from dicom_node.study_moves import IllegalMoveError, StudyEvent, StudyState
from dicom_node.study_requests import RequestState, StudyAction, StudyRequest, StudyRequests
from dicom_node.urgency import StudyUrgency, Urgency, put_urgency

log = logging.getLogger(__name__)

NO_IMAGES: Final = "none of its images are kept here any more; send the study again"


class _Declined(Exception):
    """The request does not fit now; the text is the sentence for who asked."""


class _AlreadyAnswered(Exception):
    """Another worker was faster."""


class RequestDesk:
    """The worker's side of `StudyActions`.

    Parameters
    ----------
    destinations
        Names of the configured destinations: where recalled results go again.
    on_queued
        Called when something waits in the outbox because of a request.
    """

    def __init__(
        self,
        *,
        requests: StudyRequests,
        spool: Spool,
        ledger: Ledger,
        outbox: Outbox,
        owed: OwedPictures,
        examiner: Examiner,
        audit: AuditTrail,
        destinations: Sequence[str],
        clock: Callable[[], float],
        on_queued: Callable[[], None] = lambda: None,
    ) -> None:
        self._requests = requests
        self._spool = spool
        self._ledger = ledger
        self._outbox = outbox
        self._owed = owed
        self._examiner = examiner
        self._audit = audit
        self._destinations = tuple(destinations)
        self._clock = clock
        self._on_queued = on_queued

    def carry_out(self) -> list[Work]:
        """See to every open request; returns the work that they made ready, already in the ledger."""
        ready = [self._carry_out_one(request) for request in self._requests.open()]
        return [work for work in ready if work is not None]

    def _carry_out_one(self, request: StudyRequest) -> Work | None:
        study = request.study_instance_uid
        acts = {
            StudyAction.RETRY: self._retry,
            StudyAction.REPLAY: self._replay,
            StudyAction.FORCE: self._force,
            StudyAction.FIRST: self._put_first,
            StudyAction.CANCEL: self._cancel,
            StudyAction.RESEND: self._resend,
        }
        try:
            work = acts[request.action](request, self._clock())
        except _AlreadyAnswered:
            return None
        except _Declined as problem:
            self._decline(request, str(problem))
            return None
        except IllegalMoveError:
            record = self._ledger.get(study)
            state = StudyState.WAITING if record is None else record.state
            self._decline(request, objection(request.action, state) or "the study has changed meanwhile")
            return None
        except (TransientError, SQLAlchemyError):
            raise
        except Exception as error:  # a fault of ours in one request must not stop the others, nor come back for ever
            log.exception("event=request_failed study=%s action=%s", study, request.action)
            self._decline(request, f"the node failed on it ({type(error).__name__}); its log says more")
            return None
        log.info("event=request_done study=%s action=%s", study, request.action)
        return work

    def _retry(self, request: StudyRequest, now: float) -> Work | None:
        """FAILED becomes WAITING; the look-round that follows examines it."""
        self._require_activity(request.study_instance_uid)
        with self._ledger.transaction() as connection:
            self._ledger.move(
                request.study_instance_uid,
                StudyEvent.RETRIED,
                at=now,
                within=connection,
                detail=f"{request.actor} asked for it to be computed again",
            )
            self._done(request, "it is computed again", now, connection)
        return None

    def _cancel(self, request: StudyRequest, now: float) -> Work | None:
        """Stop the study; what is being computed finds that out at its next step, and at the latest on publishing."""
        activity = self._spool.study(request.study_instance_uid)
        # Images that had come by now are canceled with the rest, whether the desk had seen them or not.
        seen: dict[str, Any] = {} if activity is None else {"revision": activity.revision}
        with self._ledger.transaction() as connection:
            self._ledger.move(
                request.study_instance_uid,
                StudyEvent.CANCELED,
                at=now,
                within=connection,
                reason=Reason.CANCELED.value,
                detail=f"canceled by {request.actor}",
                **seen,
            )
            self._done(request, "canceled; only new images or a replay open it again", now, connection)
        return None

    def _put_first(self, request: StudyRequest, now: float) -> Work | None:
        """Queue the study's work anew, as a run that goes before all others; the run that stood in line is dropped."""
        study = request.study_instance_uid
        record = self._ledger.get(study)
        if record is None or record.state is not StudyState.QUEUED:
            raise IllegalMoveError
        with self._ledger.transaction() as connection:
            work = replace(Work.from_json(record.work), run=self._ledger.runs(study, within=connection) + 1)
            self._ledger.move(
                study,
                StudyEvent.PUT_FIRST,
                at=now,
                within=connection,
                of_work=record.work,
                detail=f"{request.actor} asked for it to be computed before all others",
                work=work.as_json(),
            )
            because = f"{request.actor} asked for it"
            put_urgency(connection, study, StudyUrgency(urgency=Urgency.FIRST, because=because))
            self._done(request, "it is computed next", now, connection)
        return work

    def _force(self, request: StudyRequest, now: float) -> Work | None:
        examination = self._examination(request, now, forced=True)
        work, refusal = examination.work, examination.verdict.refusal
        if work is None or refusal is not None:
            sentence = examination.verdict.reason if refusal is None else refusal.reason.sentence
            raise _Declined(f"it cannot be computed with what is there: {sentence}")
        with self._ledger.transaction() as connection:
            self._ledger.note(
                request.study_instance_uid,
                StudyEvent.FORCED,
                f"{request.actor} asked for it to be taken as complete",
                at=now,
                within=connection,
            )
            decision = write_decision(self._ledger, examination, at=now, within=connection)
            self._ledger.seen(request.study_instance_uid, revision=work.revision, within=connection)
            self._done(request, "taken as complete with what is there; its report says so", now, connection)
        return decision.work

    def _replay(self, request: StudyRequest, now: float) -> Work | None:
        study = request.study_instance_uid
        examination = self._examination(request, now, forced=self._came_of_force(study))
        revision = self._require_activity(study).revision if examination.work is None else examination.work.revision
        with self._ledger.transaction() as connection:
            self._ledger.move(
                study,
                StudyEvent.REPLAYED,
                at=now,
                within=connection,
                detail=f"{request.actor} asked for it to be examined again",
                revision=revision,
            )
            decision = write_decision(self._ledger, examination, at=now, within=connection)
            to_draw = self._pictures_again(examination.work, decision, now, connection)
            sentence = self._after_replay(decision, examination, now, connection)
            self._done(request, sentence + (", and its page is drawn" if to_draw else ""), now, connection)
        if decision.recalled is not None:
            self._on_queued()
        return to_draw or decision.work

    def _pictures_again(self, work: Work | None, decision: Decision, now: float, connection: Connection) -> Work | None:
        """The run that draws what a recalled outcome lacks: its page and pictures had been given up."""
        if work is None or decision.recalled is None:
            return None
        again = replace(work, run=self._ledger.runs(work.study_instance_uid, within=connection))
        owed = self._owed.owe_again(again.work_id, again.as_json(), at=now, within=connection)
        return again if owed else None

    def _came_of_force(self, study_instance_uid: str) -> bool:
        """Whether the outcome that stands was forced: then a replay takes the study as complete as well."""
        record = self._ledger.get(study_instance_uid)
        ended = record is not None and record.state in (StudyState.COMPUTED, StudyState.REFUSED)
        return record is not None and ended and bool(record.work.get("remark"))

    def _after_replay(self, decision: Decision, examination: Examination, now: float, connection: Connection) -> str:
        """What the replay came to, in a sentence; a recalled outcome has its objects queued again."""
        if decision.work is not None:
            return "rules, model, settings or images differ from the earlier result: it is computed again"
        if decision.recalled is None:
            return f"examined again: {examination.verdict.reason}"
        count = self._outbox.send_again(decision.recalled.work_id, self._destinations, at=now, within=connection)
        return f"nothing that a result depends on has changed: the earlier outcome stands, {count} deliveries go again"

    def _resend(self, request: StudyRequest, now: float) -> Work | None:
        study, destination = request.study_instance_uid, request.destination
        record = self._ledger.get(study)
        if destination not in self._destinations:
            raise _Declined(f"there is no destination {destination!r} any more")
        with self._ledger.transaction() as connection:
            keys = [] if record is None else self._keys_to_resend(record, destination)
            count = sum(self._outbox.send_again(key, [destination], at=now, within=connection) for key in keys)
            if not count:
                raise _Declined("this study has no results to send")
            sentence = f"{request.actor} asked for its results to be sent to {destination} again"
            self._ledger.note(study, StudyEvent.RESENT, sentence, at=now, within=connection)
            self._done(request, f"{count} objects go to {destination} again, as the same bytes", now, connection)
        self._on_queued()
        return None

    def _keys_to_resend(self, record: StudyRecord, destination: str) -> list[str]:
        """What was sent of the study as it stands, and of results and failures what was stopped on its way."""
        study = record.study_instance_uid
        stopped = {
            one.sop_instance_uid
            for one in self._outbox.deliveries(study)
            if one.state is DeliveryState.STOPPED and one.destination == destination
        }
        lacking = [
            key
            for key in (record.work_id, failure_key(study))
            if stopped.intersection(one.sop_instance_uid for one in self._outbox.objects(key))
        ]
        return list(dict.fromkeys([sent_key(record, self._outbox), *lacking]))

    def _examination(self, request: StudyRequest, now: float, *, forced: bool) -> Examination:
        return self._examiner.examine(self._require_activity(request.study_instance_uid), now, forced=forced)

    def _require_activity(self, study_instance_uid: str) -> StudyActivity:
        erased = self._spool.erased(study_instance_uid)
        if erased is not None and erased.missing:
            raise _Declined(erased.sentence)
        activity = self._spool.study(study_instance_uid)
        if activity is None:
            raise _Declined(NO_IMAGES)
        return activity

    def _done(self, request: StudyRequest, sentence: str, now: float, connection: Connection) -> None:
        """Close the request within the transaction that did what it asked for."""
        if not self._requests.answer(request, RequestState.DONE, sentence, at=now, within=connection):
            raise _AlreadyAnswered

    def _decline(self, request: StudyRequest, sentence: str) -> None:
        """Close a request that was accepted but no longer fits: in the study's history, and for the auditor."""
        study, now = request.study_instance_uid, self._clock()
        with self._ledger.transaction() as connection:
            if not self._requests.answer(request, RequestState.DECLINED, sentence, at=now, within=connection):
                return
            line = f"{request.action} asked for by {request.actor}: {sentence}"
            self._ledger.note(study, StudyEvent.DECLINED, line, at=now, within=connection)
        self._audit.record(
            AUDIT[request.action],
            actor=request.actor,
            study_instance_uid=study,
            detail=sentence,
            outcome=AuditOutcome.MINOR_FAILURE,
        )
        log.info("event=request_declined study=%s action=%s", study, request.action)
