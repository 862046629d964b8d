"""The desk between spool and outbox: looks at what arrived, decides, computes it, hands the objects on.

No engine here: `workflow` makes `compute` durable and queued. Every method may be repeated after a crash: the ledger
knows what was decided, UIDs follow from the inputs, and the outbox keeps the first bytes of every object.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dicom_node.arrival_times import ArrivalTimes
from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.case import CaseOptions
from dicom_node.claims import Claims, TakenOverError
from dicom_node.computation import Computation
from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.outbox import Outbox
from dicom_node.errors import TransientError, fault_in_words
from dicom_node.examination import Examination, Examiner, Work, write_decision
from dicom_node.failure_desk import FailureDesk
from dicom_node.intake.spool import Spool, StudyActivity
from dicom_node.ledger import Ledger, StudyRecord
from dicom_node.owed_failures import OwedFailures
from dicom_node.owed_pictures import OwedPictures
from dicom_node.picture_desk import PictureDesk
from dicom_node.pipeline import StepTimer
from dicom_node.publishing import Publisher
from dicom_node.request_desk import RequestDesk
from dicom_node.study_cards import StudyCard, StudyCards
from dicom_node.study_moves import UNDER_WAY, IllegalMoveError, OvertakenError, StudyEvent, StudyState
from dicom_node.study_requests import StudyRequests
from dicom_node.study_runs import RunDropped, StudyRuns, log_dropped
from dicom_node.unsettled import Unsettled
from dicom_node.urgency import Urgencies, place_in_queue
from dicom_node.views.shelf import ViewShelf
from inference.segmentation import FluidSegmenter

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.2
"""A study is not examined while images come faster than this: its roles would be given anew for each of them.
In one association 7 to 17 ms pass between two; a pause that was longer only costs one examination more."""

DECIDED: Final = (*UNDER_WAY, StudyState.COMPUTED, StudyState.REFUSED, StudyState.NOT_OURS)
"""States whose work id still holds; a failed study is examined anew, which queues it again."""

ENDED: Final = (StudyState.COMPUTED, StudyState.REFUSED, StudyState.NOT_OURS, StudyState.CANCELED)
"""States in which nothing more happens to a study unless images come or a person asks."""


@dataclass(frozen=True, kw_only=True)
class DeskOptions:
    """When a study counts as complete, whose go before others, what becomes of a refusal. Times in seconds."""

    quiet_s: float
    partner_wait_s: float
    send_not_computed: bool
    destinations: tuple[str, ...]
    urgent_from: tuple[str, ...] = ()


class StudyDesk:
    """Takes every study from the spool to the outbox. One thread calls `look_round`, one at a time `compute`."""

    def __init__(
        self,
        *,
        spool: Spool,
        ledger: Ledger,
        claims: Claims,
        cards: StudyCards,
        outbox: Outbox,
        views: ViewShelf,
        owed: OwedPictures,
        owed_failures: OwedFailures,
        requests: StudyRequests,
        urgencies: Urgencies,
        audit: AuditTrail,
        segmenter: FluidSegmenter,
        case_options: CaseOptions,
        options: DeskOptions,
        arrival_times: ArrivalTimes,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_published: Callable[[], None] = lambda: None,
        on_step_done: Callable[[str, float], None] = lambda _step, _seconds: None,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._settling = False
        self._faulted = False
        self._at_work = threading.Lock()
        self._broken_off = False
        self._unsettled = Unsettled(spool, ledger, clock)
        self._cards = cards
        self._urgencies = urgencies
        self._audit = audit
        self._arrival_times = arrival_times
        self._clock = clock
        self._monotonic = monotonic
        self._on_step_done = on_step_done
        self._examiner = Examiner(
            spool=spool,
            model=segmenter.identity,
            case_options=case_options,
            arrival_times=arrival_times,
            quiet_s=options.quiet_s,
            partner_wait_s=options.partner_wait_s,
            urgent_from=options.urgent_from,
        )
        self._failures = FailureDesk(
            owed=owed_failures,
            ledger=ledger,
            outbox=outbox,
            spool=spool,
            examiner=self._examiner,
            model=segmenter.identity,
            case_options=case_options,
            destinations=options.destinations,
            send_not_computed=options.send_not_computed,
            quiet_s=options.quiet_s,
            partner_wait_s=options.partner_wait_s,
            clock=clock,
            on_published=on_published,
        )
        self.runs = StudyRuns(ledger=ledger, claims=claims, clock=clock, on_failed=self._failures.owe)
        self._computation = Computation(
            spool=spool,
            examiner=self._examiner,
            cards=cards,
            segmenter=segmenter,
            case_options=case_options,
            clock=clock,
            monotonic=monotonic,
        )
        self._pictures = PictureDesk(
            owed=owed,
            ledger=ledger,
            outbox=outbox,
            views=views,
            destinations=options.destinations,
            clock=clock,
            on_published=on_published,
        )
        self._publisher = Publisher(
            ledger=ledger,
            claims=claims,
            cards=cards,
            outbox=outbox,
            pictures=self._pictures,
            destinations=options.destinations,
            send_not_computed=options.send_not_computed,
            on_published=on_published,
        )
        self._requests = RequestDesk(
            requests=requests,
            spool=spool,
            ledger=ledger,
            outbox=outbox,
            owed=owed,
            examiner=self._examiner,
            audit=audit,
            destinations=options.destinations,
            clock=clock,
            on_queued=on_published,
        )

    def look_round(self) -> list[Work]:
        """Do what people asked for, tell of failures, then examine every study that changed or is due.

        Returns the work that this made ready, already in the ledger.
        """
        self._arrival_times.look()
        asked_for = self._requests.carry_out()
        if self._at_work.acquire(blocking=False):
            try:
                self._tell_of_failures()
            finally:
                self._at_work.release()
        now = self._clock()
        self._settling = self._faulted = False
        ready = [self._look_at_or_fail(one, now) for one in self._unsettled.studies(now)]
        return asked_for + [work for work in ready if work is not None]

    @property
    def settling(self) -> bool:
        """Whether the last look round left a study alone because its images were still coming."""
        return self._settling

    @property
    def faulted(self) -> bool:
        """Whether the last look round left a study to a worker that begins anew, because of a fault of this one."""
        return self._faulted

    def unfinished(self) -> list[Work]:
        """Work that was queued or running when the node stopped; to be queued again under the same ids."""
        records = self._ledger.in_state(*UNDER_WAY)
        return [Work.from_json(record.work) for record in records if record.work]

    def place_in_queue(self, work: Work) -> int:
        """Where work that is queued now stands: the lower, the earlier it is computed."""
        return place_in_queue(self._urgencies.of_study(work.study_instance_uid).urgency, self._clock())

    def undrawn(self) -> list[Work]:
        """Work whose SEG and SR are out and whose page and pictures are owed."""
        return self._pictures.undrawn()

    def fault(self, work: Work, problem: str) -> Work | None:
        """Leave this work, or the drawing that it owes, to a worker that begins anew; None if it was left before.

        Then it has failed, or its page is given up.
        """
        self._broken_off = False
        if self._pictures.owes(work):
            return self._pictures.fault(work, problem)
        return self.runs.fault(work, problem)

    def fail(self, work: Work, problem: str) -> None:
        """Record that the node itself failed on this work, or on drawing what it owes, and will again."""
        self._broken_off = False
        if not (self._pictures.owes(work) and self._pictures.give_up(work, f"the node failed on it ({problem})")):
            self.runs.fail(work, problem)

    def give_up(self, work: Work, problem: str) -> None:
        """Record that this work, or the drawing that it owes, will not be done by any run that there is."""
        if not (self._pictures.owes(work) and self._pictures.give_up(work, problem)):
            self.runs.give_up(work, problem)

    def _look_at_or_fail(self, activity: StudyActivity, now: float) -> Work | None:
        """Examine one study; a fault of ours in doing so is kept with it and does not hold up the others."""
        study = activity.study_instance_uid
        record = self._ledger.get(study)
        try:
            try:
                return self._look_at(activity, record, now)
            except (TransientError, *DATABASE_AWAY, OvertakenError):
                raise
            except Exception as error:  # the net of looking round: it records, and leaves the study until it changes
                log.exception("event=examination_failed study=%s", study)
                with self._ledger.transaction_at(study, record) as connection:
                    if record is None or record.revision != activity.revision:
                        self._ledger.arrived(study, revision=activity.revision, at=now, within=connection)
                    left = self.runs.fault_at_looking(study, fault_in_words(error), within=connection)
                self._faulted |= left
        except OvertakenError:  # what the other one decided stands; if there is more to do, the next look finds it
            log.info("event=look_overtaken study=%s", study)
        return None

    def _look_at(self, activity: StudyActivity, record: StudyRecord | None, now: float) -> Work | None:
        """Examine one study if it changed or is due; the same work as before changes nothing.

        Raises
        ------
        OvertakenError
            If another worker has moved the study on while this one examined it.
        """
        study = activity.study_instance_uid
        changed = record is None or record.revision != activity.revision
        if changed and 0.0 <= now - activity.last_received_at < SETTLE_S:
            self._examiner.read_ahead(study)
            self._settling = True
            return None
        if not changed and record is not None and not _is_due(record, now):
            return None
        if record is not None and _stays_canceled(record, activity, now):
            self._ledger.seen(study, revision=activity.revision)
            return None
        if record is not None and record.state in ENDED and self._came_back(activity):
            self._ledger.seen(study, revision=activity.revision)
            return None
        examination = self._examiner.examine(activity, now, forced=_was_forced(record))
        if changed:
            if record is not None and record.state in DECIDED and record.work_id == _work_id(examination):
                with self._ledger.transaction_at(study, record) as connection:
                    self._cards.put(examination.card, within=connection)
                    self._ledger.seen(study, revision=activity.revision, within=connection)
                return None
            if _was_forced(record):  # what was asked for was another set of images: these are judged by themselves
                examination = self._examiner.examine(activity, now)
            self._audit_arrival(activity, examination.card)
        with self._ledger.transaction_at(study, record) as connection:
            # In here: a study that was erased while it was examined leaves no card of its patient behind.
            self._cards.put(examination.card, within=connection)
            if changed:
                self._ledger.arrived(study, revision=activity.revision, at=now, within=connection)
            return write_decision(self._ledger, examination, at=now, within=connection).work

    def _came_back(self, activity: StudyActivity) -> bool:
        """Whether what came of an ended study cannot change what was decided: its images had been erased here.

        The same images again are nothing new, as if they had never gone. Other images beside those that are gone can
        be examined only with the whole study, so what was decided stands until all of it has been sent again.
        """
        study = activity.study_instance_uid
        erased = self._spool.erased(study)
        if erased is None or not erased.nothing_to_decide:
            return False
        card = self._cards.get(study)
        if card is not None:
            self._audit_arrival(activity, card)
        log.info("event=erased_images_came_again study=%s missing=%d unseen=%d", study, erased.missing, erased.unseen)
        return True

    def _audit_arrival(self, activity: StudyActivity, card: StudyCard) -> None:
        """Write who sent what is there now. Before the ledger: an entry too many is better than one too few."""
        study = activity.study_instance_uid
        self._audit.record(
            AuditAction.IMAGES_RECEIVED,
            actor=", ".join(sorted({one.source for one in self._spool.instances(study)})),
            study_instance_uid=study,
            patient_id=card.patient_id,
            detail=f"{activity.instances} images of this study are here",
        )

    def compute(self, work: Work) -> None:
        """Do one piece of work: put SEG and SR into the outbox, then draw what follows them; tell of failures first.

        Nothing is published if new images came meanwhile. Work whose SEG and SR are out already is drawn only.

        Raises
        ------
        TakenOverError
            If another worker has taken the study over since this one began; nothing of what was done here is known.
        """
        with self._at_work:
            self._tell_of_failures()  # where studies stand in line, looking round never finds this process at leisure
            self._broken_off = True
            try:
                self._compute(work)
            except TakenOverError:  # it is another worker's now
                self._broken_off = False
                raise
            self._broken_off = False

    def _tell_of_failures(self) -> None:
        """Not beside a study, nor while one waits to be tried again: the end of this process would be blamed on it."""
        if not self._broken_off:
            self._failures.tell()

    def _compute(self, work: Work) -> None:
        try:
            if self._pictures.owes(work):
                self._draw(work)
                self._examiner.forget(work.study_instance_uid)
                return
            if self._superseded(work):
                return
            claim = self.runs.begin(work)
            if claim is None:
                return
            step = StepTimer(
                self._monotonic, on_step=lambda name: self.runs.note_step(work, claim, name), on_done=self._on_step_done
            )
            result = None
            while result is None:  # again where a damaged image that was set aside makes no other work of it
                result = self._computation.result(work, step)
                if self._superseded(work):
                    return
            self._publisher.publish(work, claim, result, at=self._clock())
            if result.drawing is not None:
                self._draw(work)
            self._examiner.forget(work.study_instance_uid)
        except (IllegalMoveError, RunDropped):
            log_dropped(work)
        except TakenOverError as error:
            log.warning("event=work_came_too_late study=%s reason=%s", work.study_instance_uid, error)
            raise

    def _draw(self, work: Work) -> None:
        """Draw what this work owes; the ledger has its outcome, so no step of it is noted there."""
        step = StepTimer(self._monotonic, on_done=self._on_step_done)
        self._pictures.draw(work, step, lambda said: self._computation.drawing(work, said))

    def _superseded(self, work: Work) -> bool:
        """True, and noted, if the inputs of the study are other ones by now, or somebody else finished the work."""
        study = work.study_instance_uid
        record = self._ledger.get(study)
        if record is None or not self.runs.is_at(work):
            log_dropped(work)
            return True
        activity = self._spool.study(study)
        if activity is None:  # damaged, every one of them: no look round would ever come to this study again
            self.runs.give_up(work, "no image of it is whole on this node's disk any more; send the study again")
            return True
        if activity.revision == record.revision:
            return False
        # Something arrived that the desk has not examined yet: is this still the work that it would decide on?
        examination = self._examiner.examine(activity, self._clock(), forced=bool(work.remark))
        if _work_id(examination) == work.work_id:
            return False
        detail = "other images came meanwhile"
        self._ledger.move(study, StudyEvent.SUPERSEDED, at=self._clock(), of_work=work.as_json(), detail=detail)
        log.info("event=work_superseded study=%s work=%s", study, work.work_id[:12])
        return True


def _stays_canceled(record: StudyRecord, activity: StudyActivity, now: float) -> bool:
    """Whether what changed about a canceled study is no new image: a count was stated, say.

    One that was canceled in the future (the clock was set back since) does not stay so: it may be a new image.
    """
    return record.state is StudyState.CANCELED and activity.last_received_at < record.updated_at <= now


def _was_forced(record: StudyRecord | None) -> bool:
    """Whether the work that a study is at, or that its outcome came from, took it as complete on request."""
    return record is not None and record.state in DECIDED and bool(record.work.get("remark"))


def _work_id(examination: Examination) -> str | None:
    return None if examination.work is None else examination.work.work_id


def _is_due(record: StudyRecord, now: float) -> bool:
    if record.state is not StudyState.WAITING:
        return False
    return record.look_again_at is None or now >= record.look_again_at or record.updated_at > now
