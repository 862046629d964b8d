"""How a run of a study begins, goes on and ends badly: the ledger's line and the claim, always in one transaction.

How it ends well is `publishing`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from dicom_node.claims import MAX_DEATHS, Claim, Claims
from dicom_node.errors import Reason, left_by
from dicom_node.examination import Work
from dicom_node.ledger import Ledger
from dicom_node.study_moves import UNDER_WAY, IllegalMoveError, StudyEvent, StudyState

log = logging.getLogger(__name__)

MAX_OVERRUNS: Final = 2
"""Once may have been a busy machine; a study that hangs twice would take the worker from all others for ever."""

NOT_AGAIN: Final = "it is not tried again unless somebody asks for a retry"


class OnFailed(Protocol):
    """Hears of a study that fails; `at` is POSIX seconds."""

    def __call__(self, study_instance_uid: str, *, at: float, within: Connection) -> None:
        """The study fails in this transaction."""
        ...


class RunDropped(Exception):
    """The study is not at this work any more: somebody canceled it, or other images came."""


class _Claimed(threading.local):
    """What a thread has claimed in the run that it is at."""

    in_this_run: Claim | None = None


class StudyRuns:
    """The runs of one worker.

    `on_failed` is called with each study that fails, in the transaction in which it does.
    """

    def __init__(self, *, ledger: Ledger, claims: Claims, clock: Callable[[], float], on_failed: OnFailed) -> None:
        self._ledger = ledger
        self._claims = claims
        self._clock = clock
        self._on_failed = on_failed
        self._last: Claim | None = None
        self._claimed = _Claimed()

    def forget_claim(self) -> None:
        """Say that the calling thread comes to a new run; within one, `begin` may be repeated and keeps its claim."""
        self._claimed.in_this_run = None

    def begin(self, work: Work) -> Claim | None:
        """Claim the study and say that it is being computed; None, and failed, if it ends every worker that does.

        Raises
        ------
        TakenOverError
            If another worker has taken over the run that this thread is at.
        IllegalMoveError
            If the study is not at this work any more.
        """
        study, now = work.study_instance_uid, self._clock()
        with self._ledger.transaction() as connection:
            before = self._claimed.in_this_run
            claim = self._claims.take(study, work.run_id, after=before, faults=work.faults, within=connection)
            self._ledger.move(study, StudyEvent.STARTED, at=now, within=connection, of_work=work.as_json())
            if claim.taken_from:
                sentence = f"{claim.worker_id} took it over from {claim.taken_from}"
                self._ledger.note(study, StudyEvent.TAKEN_OVER, sentence, at=now, within=connection)
                log.warning("event=work_taken_over study=%s taken_from=%s", study, claim.taken_from)
            if claim.ends_workers:
                problem = f"{claim.ends_workers}; {NOT_AGAIN}"
                self.failed(study, problem, of_work=work.as_json(), within=connection)
                log.error("event=study_ends_workers study=%s beginnings=%d", study, claim.beginnings)
                return None
        self._last = self._claimed.in_this_run = claim
        return claim

    def note_step(self, work: Work, claim: Claim, name: str) -> None:
        """Tell which step is running.

        Raises
        ------
        RunDropped
            If the study was canceled or re-opened meanwhile.
        TakenOverError
            If another worker has taken it over.
        """
        with self._ledger.transaction() as connection:
            self._claims.require(claim, within=connection)
            at = self._clock()
            if not self._ledger.step(work.study_instance_uid, name, work=work.as_json(), at=at, within=connection):
                raise RunDropped

    def stopped_in_order(self) -> None:
        """Say that this worker ends because it was told to: a study that it leaves undone is not to blame."""
        if self._last is not None:
            with self._ledger.transaction() as connection:
                self._claims.give_back(self._last, within=connection)

    def overran(self, run_id: str, limit_s: float) -> None:
        """Note that a worker was ended because this run took too long; after `MAX_OVERRUNS` the study is FAILED."""
        for record in self._ledger.in_state(StudyState.COMPUTING):
            work = Work.from_json(record.work)
            if work.run_id != run_id:
                continue
            study, now = work.study_instance_uid, self._clock()
            sentence = f"computing took longer than {limit_s:g} s (processing.time_limit_s)"
            with self._ledger.transaction() as connection:
                self._ledger.note(study, StudyEvent.OVERRAN, sentence, at=now, within=connection)
                if self._ledger.overruns(study, within=connection) >= MAX_OVERRUNS:
                    problem = f"{sentence} {MAX_OVERRUNS} times; {NOT_AGAIN}"
                    self.failed(study, problem, of_work=work.as_json(), within=connection)
            log.error("event=study_overran study=%s limit_s=%g", study, limit_s)

    def fail(self, work: Work, problem: str) -> None:
        """Record that the node itself failed on this work; the study stays and can be repeated.

        Another worker's run of it is not touched: that one has its own end. Nobody begins a run between the question
        whose it is and the answer.
        """
        with self._ledger.transaction() as connection:
            if self._claims.is_anothers(work.study_instance_uid, work.run_id, within=connection):
                log_dropped(work)
            else:
                self.give_up(work, problem, within=connection)

    def fault(self, work: Work, problem: str) -> Work | None:
        """Leave work to a worker that begins anew, because this one came upon a fault that nobody foresaw.

        What was wrong may be this process and not the study: memory that another one took, a library that is broken
        since. Another worker's run of it is not touched, as in `fail`; the rest is `leave`.
        """
        with self._ledger.transaction() as connection:
            if self._claims.is_anothers(work.study_instance_uid, work.run_id, within=connection):
                log_dropped(work)
                return None
            return self.leave(work, problem, within=connection)

    def leave(self, work: Work, problem: str, *, within: Connection | None = None) -> Work | None:
        """Have work tried by another run, once; after a second one that ended badly the study is FAILED.

        Returns
        -------
        Work
            The run to queue; None if it failed, or the study is not at this work any more.
        """
        study = work.study_instance_uid
        again = replace(work, faults=work.faults + 1)
        with self._ledger.transaction(within) as connection:
            lost = max(work.faults, self._claims.deaths(study, work.run_id, within=connection)) + 1
            if lost >= MAX_DEATHS:
                self.give_up(work, f"{left_by(MAX_DEATHS, problem)}; {NOT_AGAIN}", within=connection)
                return None
            try:
                self._note_fault(study, problem, within=connection, of_work=work.as_json(), work=again.as_json())
            except IllegalMoveError:
                log_dropped(work)
                return None
        return again

    def fault_at_looking(self, study_instance_uid: str, problem: str, *, within: Connection) -> bool:
        """Note such a fault over a study that waits to be looked at; False, and FAILED, if it is not the first one."""
        if self._ledger.faulted(study_instance_uid, within=within):
            self.failed(study_instance_uid, f"{left_by(MAX_DEATHS, problem)}; {NOT_AGAIN}", within=within)
            return False
        self._note_fault(study_instance_uid, problem, within=within)
        return True

    def _note_fault(self, study_instance_uid: str, problem: str, *, within: Connection, **notes: Any) -> None:
        detail = f"the node failed on it ({problem}); a worker that begins anew tries it once more"
        self._ledger.move(
            study_instance_uid, StudyEvent.FAULTED, at=self._clock(), within=within, detail=detail, **notes
        )
        log.error("event=study_left_to_fresh_worker study=%s problem=%s", study_instance_uid, problem)

    def give_up(self, work: Work, problem: str, *, within: Connection | None = None) -> None:
        """Record that this work has failed, whoever had it last; nothing if the study is not at it any more."""
        try:
            self.failed(work.study_instance_uid, problem, of_work=work.as_json(), within=within)
        except IllegalMoveError:
            log_dropped(work)

    def failed(
        self,
        study_instance_uid: str,
        problem: str,
        *,
        of_work: Mapping[str, Any] | None = None,
        within: Connection | None = None,
    ) -> None:
        """Say in the ledger that the node failed on a study.

        Raises
        ------
        IllegalMoveError
            If that cannot happen in its state, or it is at other work.
        """
        now = self._clock()
        with self._ledger.transaction(within) as connection:
            self._ledger.move(
                study_instance_uid,
                StudyEvent.FAILED,
                at=now,
                within=connection,
                of_work=of_work,
                reason=Reason.INTERNAL.value,
                detail=problem,
            )
            self._on_failed(study_instance_uid, at=now, within=connection)

    def is_at(self, work: Work) -> bool:
        """Whether the study is still at this piece of work, in this run of it."""
        record = self._ledger.get(work.study_instance_uid)
        return record is not None and record.state in UNDER_WAY and Work.from_json(record.work) == work


def log_dropped(work: Work) -> None:
    """Say that work is left because the study is not at it any more."""
    log.info("event=work_dropped study=%s work=%s", work.study_instance_uid, work.work_id[:12])
