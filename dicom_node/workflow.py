"""Durable steps and queues: the only module that imports the workflow engine (DBOS).

Rules that keep it safe, each paid for once: every process has its own stable executor id (two with the same id run
the same step twice); the application version is pinned (the engine leaves work of another one untouched for ever: here
it is begun anew once no worker of that version is left); arguments and results are JSON, not pickles; every step may
run again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, Final

from dbos import DBOS, DBOSConfiguredInstance, SetEnqueueOptions, SetWorkflowID
from dbos._dbos import _get_dbos_instance
from dbos._error import DBOSMaxStepRetriesExceeded
from dbos._serialization import DBOSPortableJSONSerializer

from dicom_node.claims import TakenOverError
from dicom_node.database import DATABASE_AWAY, bounded
from dicom_node.errors import TransientError, fault_in_words
from dicom_node.examination import Work
from dicom_node.look_pace import LookPace
from dicom_node.queue_watch import QueueWatch
from dicom_node.roster import BEAT_S, OnDuty, Roster
from dicom_node.study_desk import StudyDesk
from dicom_node.time_limit import TimeLimit

log = logging.getLogger(__name__)

APPLICATION_VERSION: Final = "2"
"""Raised only when the steps of `process_study` change; what is in flight is left to workers of the older number.
2: what is drawn follows SEG and SR, and a run that has let these out goes on with it."""

PASSING: Final = (TransientError, *DATABASE_AWAY)
"""Peer down, disk full, state database busy or restarting: the step is tried again, 8 times within four minutes."""

DID_NOT_PASS: Final = DBOSMaxStepRetriesExceeded.__name__
"""The problem of a study for which that took longer. It was foreseen: a worker that began anew now would meet a disk
that is still full, and end."""

QUEUE: Final = "studies"
LOOK_ROUND_S: Final = 0.25
DEQUEUE_S: Final = 0.1
"""The engine cannot be woken; a look into its queue costs some milliseconds, where it is not spared (`queue_watch`)."""
SETTLING_LOOK_S: Final = 0.05
"""While images come: the study is examined as soon as they pause."""
LOOK_AGAIN_S: Final = 5.0
"""After a look round that the disk or the database did not let end: what is being delivered goes on meanwhile."""

RUN_OVER: Final = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})
"""What the engine says of a run that it will not begin again under the same id."""

ACTIVE: Final = ("ENQUEUED", "PENDING")

RUNS_KEPT_S: Final = 30 * 86400.0
"""The engine keeps every run that it ever made; a month is as old as a backup may be that is put back."""

RUNS_AT_A_TIME: Final = 100
FORGET_EVERY_S: Final = 3600.0


@DBOS.dbos_class()
class StudyWorkflow(DBOSConfiguredInstance):
    """The durable run of one piece of work."""

    def __init__(
        self,
        desk: StudyDesk,
        gate: AbstractContextManager[object],
        time_limit: TimeLimit | None,
        on_fault: Callable[[], None],
    ) -> None:
        super().__init__("node")
        self._desk = desk
        self._gate = gate
        self._time_limit = time_limit
        self._on_fault = on_fault
        self._here = _ComputedHere()
        self.left = threading.Event()
        """Set when a run has left its work to another one, which nobody has queued yet."""

    @DBOS.workflow(name="process_study", max_recovery_attempts=1000)
    def process_study(self, work: dict[str, Any]) -> None:
        """Compute and publish one piece of work, or record that the node failed on it."""
        self._desk.runs.forget_claim()
        self._here.computed = False
        try:
            self.compute(work)
        except TakenOverError:  # the other worker's run has its own end
            raise
        except Exception as error:  # the one broad net: it records, then lets the error fly
            foreseen = type(error).__name__ == DID_NOT_PASS
            try:
                self.fail(work, fault_in_words(error), foreseen)
            finally:
                self._after_fault(foreseen)
            raise

    def _after_fault(self, foreseen: bool) -> None:
        """Tell who asked to be told of a fault, once its study is seen to, and only where it happened.

        A run that is begun again after its steps were noted, as when this worker began anew before the run's end was,
        repeats nothing of them: then the fault was that of another process.
        """
        self.left.set()
        if self._here.computed and not foreseen:
            self._on_fault()

    @DBOS.step(
        name="compute",
        retries_allowed=True,
        max_attempts=8,
        interval_seconds=2.0,
        backoff_rate=2.0,
        should_retry=lambda error: isinstance(error, PASSING),
    )
    def compute(self, work: dict[str, Any]) -> None:
        """From spool to outbox; repeating it changes nothing."""
        self._here.computed = True
        piece = Work.from_json(work)
        limited = nullcontext() if self._time_limit is None else self._time_limit.guard(piece.run_id)
        with self._gate, limited:
            self._desk.compute(piece)

    @DBOS.step(
        name="fail",
        retries_allowed=True,
        max_attempts=8,
        interval_seconds=2.0,
        should_retry=lambda error: isinstance(error, PASSING),
    )
    def fail(self, work: dict[str, Any], problem: str, foreseen: bool = False) -> None:
        """Note in the ledger that the work failed, or is left to a worker that begins anew."""
        log.error("event=work_failed study=%s problem=%s", work["study_instance_uid"], problem)
        if foreseen:
            self._desk.fail(Work.from_json(work), problem)
        else:
            self._desk.fault(Work.from_json(work), problem)


class _ComputedHere(threading.local):
    """Whether the run that a thread is at was computed by this process, or is only gone through once more."""

    computed = False


class StudyWorker:
    """One worker process: looks round for ready studies and computes them one at a time.

    Parameters
    ----------
    worker_id, host
        The id is unique among all processes on the same workflow database, and the same after every restart; where
        that is, is for people.
    roster
        Where this worker gives its signs of life, and finds those of the others.
    gate
        Every study is computed inside it: who holds a lock given here keeps the next study from beginning.
    time_limit
        Ends this process when a study takes too long; without it, none is too long.
    on_fault
        Called once a fault that nobody foresaw is noted with its study: what that did to this process, nobody knows.
        The study is tried once more, by the process that follows.
    pace
        When to look round.
    after_look
        Called after a look round that went well, for what nobody waits for; it takes a moment at the most, and says
        whether there is more to do.
    """

    def __init__(
        self,
        desk: StudyDesk,
        *,
        workflow_url: str,
        worker_id: str,
        roster: Roster,
        pace: LookPace,
        host: str = "",
        gate: AbstractContextManager[object] | None = None,
        time_limit: TimeLimit | None = None,
        on_fault: Callable[[], None] = lambda: None,
        after_look: Callable[[], int] = lambda: 0,
        beat_s: float = BEAT_S,
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._pace = pace
        self._worker_id = worker_id
        self._host = host
        self._beat_s = beat_s
        self._time_limit = time_limit
        self._on_fault = on_fault
        self._after_look = after_look
        self._after_look_at = 0.0
        self._forget_at = time.monotonic() + FORGET_EVERY_S
        self._gone: frozenset[str] = frozenset()
        DBOS(
            config={
                "name": "hydrops-node",
                "system_database_url": bounded(workflow_url),
                "executor_id": worker_id,
                "application_version": APPLICATION_VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "notification_coalesce_sec": 1.0,  # nobody here waits for the engine's notifications
                "enable_otlp": False,
                "log_level": "WARNING",
            }
        )
        self._workflow = StudyWorkflow(desk, gate or nullcontext(), time_limit, on_fault)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; work that a dead predecessor left is taken up first."""
        self._note_overrun()
        # Before the engine takes up what it held: a study that was canceled meanwhile must not be published.
        self._look_round()
        duty = OnDuty(
            self._roster,
            self._worker_id,
            self._host,
            APPLICATION_VERSION,
            take_over=self._take_over,
            on_place_lost=stop.set,
            beat_s=self._beat_s,
        )
        DBOS.launch()
        try:
            QueueWatch.watch(_get_dbos_instance()._sys_db)
            DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=DEQUEUE_S)
            duty.start()
            self._take_over_versions(())
            self._queue_unfinished()
            log.info("event=worker_ready")
            self._look_round_until(stop)
            self._note_stop()
        finally:
            duty.leave()
            DBOS.destroy(workflow_completion_timeout_sec=0)

    def _note_stop(self) -> None:
        """Note that this worker ends in order; where nothing can be noted now, it ends all the same."""
        try:
            self._desk.runs.stopped_in_order()
        except PASSING as error:  # what it leaves undone then counts as begun once more
            log.warning("event=stop_not_noted reason=%s", type(error).__name__)

    def _look_round_until(self, stop: threading.Event) -> None:
        """Look round and queue what that made ready, also over a time in which disk or database do not answer."""
        troubled = False
        while not stop.is_set():
            try:
                if troubled or self._desk.settling or self._workflow.left.is_set() or self._pace.is_due():
                    self._look_and_queue(left_over=troubled)
                self._forget_old_runs()
                troubled = False
            except PASSING as error:
                troubled = True
                log.warning("event=look_round_paused again_in_s=%g reason=%s", LOOK_AGAIN_S, type(error).__name__)
            stop.wait(LOOK_AGAIN_S if troubled else SETTLING_LOOK_S if self._desk.settling else LOOK_ROUND_S)

    def _look_and_queue(self, *, left_over: bool) -> None:
        """Look round, and queue what is ready; with `left_over` also what an earlier look may not have queued."""
        ready = self._look_round()
        if left_over or self._workflow.left.is_set():  # work that was made ready, and nobody queued
            self._workflow.left.clear()
            self._queue_unfinished()
        self._queue(ready)
        self._pace.looked()
        if time.monotonic() >= self._after_look_at and not self._do_what_nobody_waits_for():
            self._after_look_at = time.monotonic() + LOOK_AGAIN_S

    def _do_what_nobody_waits_for(self) -> int:
        """How much of it was done; a fault in it is told, and no study waits because of it."""
        try:
            return self._after_look()
        except PASSING:
            raise
        except Exception:
            log.exception("event=after_look_failed again_in_s=%g", LOOK_AGAIN_S)
            return 0

    def _look_round(self) -> list[Work]:
        """Look round; at the first look too, a study that was left to a worker that begins anew is told of."""
        ready = self._desk.look_round()
        if self._desk.faulted:
            self._on_fault()
        return ready

    def _queue_unfinished(self) -> None:
        """Queue what the ledger has under way; where the engine's run of it is over already, once as another run.

        That is so when the state database was away for so long that neither outcome nor failure could be noted. Queued
        under the same id it would never run again; failed in the end, a person can have it computed anew.
        """
        for work in _not_in_line(self._desk.unfinished()):
            self._queue([work])
            engine_id = _engine_id(work)
            run = None if engine_id is None else DBOS.get_workflow_status(engine_id)
            if run is not None and run.status in RUN_OVER:
                again = self._desk.runs.leave(work, f"its run ended ({run.status}) and left no outcome")
                self._queue([] if again is None else [again])
        self._queue_undrawn()

    def _queue_undrawn(self) -> None:
        """Queue work that owes its pictures; where the engine's run of it is over, under an id of its own, once.

        That is so when one of the two databases is that of an earlier moment.
        """
        for work in self._desk.undrawn():
            self._queue([work])
            engine_id = _engine_id(work)
            if engine_id is None or not _is_over(engine_id):
                continue
            self._enqueue(work, f"{engine_id}/pictures")
            if _is_over(f"{engine_id}/pictures"):
                self._desk.give_up(work, "the runs that were to draw them ended and left none")

    def _take_over(self, worker_ids: Sequence[str]) -> None:
        """Put what the workers of these ids were at back into the queue, for whoever is free.

        The engine names the worker in the very statement, so that of several workers that see the same silence one
        does it; and it drops what a former owner still reports.
        """
        for run in DBOS._recover_pending_workflows(list(worker_ids)):
            log.warning("event=work_up_for_take_over run=%s", run.workflow_id)
        if self._gone != frozenset(worker_ids):
            self._take_over_versions(worker_ids)
            self._queue_unfinished()  # also what they had decided on and did not live to queue
            self._gone = frozenset(worker_ids)

    def _take_over_versions(self, gone: Sequence[str]) -> None:
        """End runs of versions of which no worker is on duty any more: the engine leaves them for ever.

        `_queue_unfinished` begins their work anew.
        """
        versions = {one.version for one in self._roster.workers() if one.worker_id not in gone}
        left = [
            run
            for run in DBOS.list_workflows(status=list(ACTIVE), queue_name=QUEUE, load_input=False, load_output=False)
            if run.app_version not in versions | {APPLICATION_VERSION}
        ]
        for run in left:
            log.warning("event=work_of_other_version run=%s version=%s", run.workflow_id, run.app_version)
            DBOS.cancel_workflow(run.workflow_id)

    def _forget_old_runs(self) -> None:
        """Once an hour, or at once again where there are many, let the engine forget the oldest runs that are over."""
        now = time.monotonic()
        if now >= self._forget_at:
            many = forget_runs_before(time.time() - RUNS_KEPT_S) == RUNS_AT_A_TIME
            self._forget_at = now + (LOOK_AGAIN_S if many else FORGET_EVERY_S)

    def _note_overrun(self) -> None:
        """Tell the desk over which study a predecessor was ended, if it was: before that study begins again."""
        run_id = None if self._time_limit is None else self._time_limit.overran()
        if self._time_limit is None or run_id is None:
            return
        log.error("event=worker_overran trace=%s", self._time_limit.keep_trace())
        self._desk.runs.overran(run_id, self._time_limit.limit_s)

    def _queue(self, ready: Iterable[Work]) -> None:
        """Queue each piece of work under its own id: queued twice, it runs once."""
        for work in ready:
            engine_id = _engine_id(work)
            if engine_id is None:
                continue
            self._enqueue(work, engine_id)
            log.info("event=study_queued study=%s work=%s", work.study_instance_uid, work.work_id[:12])

    def _enqueue(self, work: Work, engine_id: str) -> None:
        """Have the engine run a piece of work under this id, if it has not done so yet."""
        place = self._desk.place_in_queue(work)
        with SetWorkflowID(engine_id), SetEnqueueOptions(priority=place):
            DBOS.enqueue_workflow(QUEUE, self._workflow.process_study, work.as_json())


def forget_runs_before(at: float) -> int:
    """Have the engine forget runs that are over and were begun before `at` (POSIX seconds), a few of them; how many.

    The ledger has their outcome. Work that is queued again after that, by a study or an older database, runs again and
    finds it there, or the objects under the UIDs that they had.
    """
    before = datetime.fromtimestamp(at, UTC).isoformat()
    old = DBOS.list_workflows(
        status=sorted(RUN_OVER), end_time=before, limit=RUNS_AT_A_TIME, load_input=False, load_output=False
    )
    if old:
        DBOS.delete_workflows([run.workflow_id for run in old])
        log.info("event=old_runs_forgotten runs=%d", len(old))
    return len(old)


def _is_over(engine_id: str) -> bool:
    """Whether the engine will not go on with the run of this id."""
    run = DBOS.get_workflow_status(engine_id)
    return run is not None and run.status in RUN_OVER


def _not_in_line(unfinished: Iterable[Work]) -> list[Work]:
    """What the engine has neither in line nor in hand; one question, so that a thousand in line hold up nobody."""
    active = DBOS.list_workflows(status=list(ACTIVE), queue_name=QUEUE, load_input=False, load_output=False)
    held = {run.workflow_id for run in active}
    return [work for work in unfinished if held.isdisjoint((work.run_id, f"{work.run_id}@{APPLICATION_VERSION}"))]


def _engine_id(work: Work) -> str | None:
    """Under which id this version runs a piece of work; None while a worker of another version may be at it."""
    run = DBOS.get_workflow_status(work.run_id)
    if run is None or run.app_version == APPLICATION_VERSION:
        return work.run_id
    return None if run.status in ACTIVE else f"{work.run_id}@{APPLICATION_VERSION}"
