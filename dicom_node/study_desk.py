"""The desk between spool and outbox: looks at what arrived, decides, has it computed, hands the objects on.

No engine here: `workflow` makes `compute` durable and queued. Every method may be repeated after a crash: the ledger
knows what was decided, UIDs follow from the inputs, and the outbox keeps the first bytes of every object.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import pydicom
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.assembly.completeness import Completeness, CompletenessState, judge
from dicom_node.assembly.pairing import StudyAssembly
from dicom_node.casework import (
    Case,
    CaseOptions,
    CaseResult,
    InstanceFile,
    case_key,
    open_case,
    read_instance,
    refuse_case,
    work_case,
)
from dicom_node.delivery.outbox import Outbox
from dicom_node.errors import Reason, Refusal, TransientError
from dicom_node.intake.spool import Spool, SpooledInstance, StudyActivity
from dicom_node.ledger import Ledger, StudyEvent, StudyRecord, StudyState
from dicom_node.pipeline import StepTimer
from dicom_node.study_cards import StudyCard, StudyCards, card_of, ear_results
from dicom_node.views.pack import build_view_pack
from dicom_node.views.shelf import ViewShelf
from inference.segmentation import FluidSegmenter

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.5
"""A study is not examined while images come faster than this: its headers would be read again for each of them."""

HEADER_CACHE_SIZE: Final = 8192
"""Some 20 studies' headers, about 400 MB at the very most; typical headers are a tenth of that."""


UNDER_WAY: Final = (StudyState.QUEUED, StudyState.COMPUTING)
DECIDED: Final = (*UNDER_WAY, StudyState.COMPUTED, StudyState.REFUSED, StudyState.NOT_OURS)
"""States whose work id still holds; a failed study is examined anew, which queues it again."""


@dataclass(frozen=True, kw_only=True)
class DeskOptions:
    """When a study counts as complete, and what becomes of a refusal. Times in seconds."""

    quiet_s: float
    partner_wait_s: float
    send_not_computed: bool
    destinations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One piece of work, JSON-able: compute this study at this revision, or (with `refusal`) report the refusal.

    `work_id` names inputs, model and settings: the same work has the same id on any day.
    """

    work_id: str
    study_instance_uid: str
    revision: int
    refusal: tuple[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data for the ledger and the workflow engine."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Work:
        """The work that `as_json` wrote."""
        refusal = data["refusal"]
        return cls(
            work_id=data["work_id"],
            study_instance_uid=data["study_instance_uid"],
            revision=data["revision"],
            refusal=None if refusal is None else (refusal[0], refusal[1]),
        )


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What can be said about a study at one moment; `work` is None while it waits."""

    study_instance_uid: str
    verdict: Completeness
    decisions: tuple[Mapping[str, Any], ...]
    work: Work | None
    card: StudyCard


class StudyDesk:
    """Takes every study from the spool to the outbox. One thread calls `look_round`, one at a time `compute`."""

    def __init__(
        self,
        *,
        spool: Spool,
        ledger: Ledger,
        cards: StudyCards,
        outbox: Outbox,
        views: ViewShelf,
        segmenter: FluidSegmenter,
        case_options: CaseOptions,
        options: DeskOptions,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_published: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._cards = cards
        self._outbox = outbox
        self._views = views
        self._segmenter = segmenter
        self._case_options = case_options
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._on_published = on_published
        self._headers: OrderedDict[str, InstanceFile] = OrderedDict()
        self._headers_lock = threading.Lock()

    def look_round(self) -> list[Work]:
        """Examine every study that changed or is due; returns the work that this made ready, already in the ledger."""
        now = self._clock()
        ready = [self._look_at_or_fail(activity, now) for activity in self._spool.studies()]
        return [work for work in ready if work is not None]

    def unfinished(self) -> list[Work]:
        """Work that was queued or running when the node stopped; to be queued again under the same ids."""
        records = self._ledger.in_state(*UNDER_WAY)
        return [Work.from_json(record.work) for record in records if record.work]

    def _look_at_or_fail(self, activity: StudyActivity, now: float) -> Work | None:
        """Examine one study; a fault of ours in doing so is kept with it and does not hold up the others."""
        try:
            return self._look_at(activity, now)
        except (TransientError, SQLAlchemyError):
            raise
        except Exception as error:  # the net of looking round: it records, and leaves the study until it changes
            log.exception("event=examination_failed study=%s", activity.study_instance_uid)
            self._ledger.arrived(activity.study_instance_uid, revision=activity.revision, at=now)
            self._fail(activity.study_instance_uid, type(error).__name__)
            return None

    def _look_at(self, activity: StudyActivity, now: float) -> Work | None:
        """Examine one study if it changed or is due; the same work as before changes nothing."""
        record = self._ledger.get(activity.study_instance_uid)
        changed = record is None or record.revision != activity.revision
        if changed and now - activity.last_received_at < SETTLE_S:
            return None
        if not changed and record is not None and not _is_due(record, now):
            return None
        examination = self._examine(activity, now)
        self._cards.put(examination.card)
        if changed:
            if record is not None and record.state in DECIDED and record.work_id == _work_id(examination):
                self._ledger.seen(activity.study_instance_uid, revision=activity.revision)
                return None
            self._ledger.arrived(activity.study_instance_uid, revision=activity.revision, at=now)
        return self._decide(examination, now)

    def _examine(self, activity: StudyActivity, now: float) -> Examination:
        """What can be said about a study now; no side effects."""
        case = self._open(activity.study_instance_uid)
        verdict = judge(
            case.assembly,
            list(case.headers.values()),
            self._spool.arrivals(activity.study_instance_uid),
            now=now,
            quiet_s=self._options.quiet_s,
            partner_wait_s=self._options.partner_wait_s,
        )
        work = self._work(case, activity, verdict) if verdict.state is not CompletenessState.WAITING else None
        log.info(
            "event=study_examined study=%s state=%s evidence=%s",
            activity.study_instance_uid,
            verdict.state,
            verdict.evidence,
        )
        return Examination(
            study_instance_uid=activity.study_instance_uid,
            verdict=verdict,
            decisions=tuple(decision_rows(case.assembly)),
            work=work,
            card=case_card(case),
        )

    def _work(self, case: Case, activity: StudyActivity, verdict: Completeness) -> Work:
        digest = case_key(case, self._segmenter.identity, self._case_options).digest
        refusal = verdict.refusal
        return Work(
            work_id=digest if refusal is None else f"{digest}-{refusal.reason.value}",
            study_instance_uid=activity.study_instance_uid,
            revision=activity.revision,
            refusal=None if refusal is None else (refusal.reason.value, refusal.detail),
        )

    def _decide(self, examination: Examination, now: float) -> Work | None:
        """Write into the ledger what the examination says; the work to queue, if there is any."""
        study, verdict, work = examination.study_instance_uid, examination.verdict, examination.work
        decisions = examination.decisions
        if work is None:
            reason = verdict.refusal.reason.value if verdict.refusal else "WAITING"
            self._ledger.waiting(
                study,
                reason=reason,
                detail=verdict.reason,
                look_again_at=verdict.look_again_at,
                decisions=decisions,
                at=now,
            )
            return None
        if verdict.refusal is not None and verdict.refusal.reason is Reason.NO_HYDROPS_STUDY:
            reason, detail = verdict.refusal.reason.value, verdict.refusal.detail
            self._ledger.move(
                study,
                StudyEvent.NOT_OURS,
                at=now,
                reason=reason,
                detail=detail,
                decisions=decisions,
                work_id=work.work_id,
            )
            return None
        known = self._ledger.finished(work.work_id)
        if known is not None:
            self._ledger.move(
                study,
                known.event,
                at=now,
                work_id=known.work_id,
                reason=known.reason,
                detail=known.detail,
                findings=known.findings,
                decisions=decisions,
            )
            return None
        self._ledger.move(
            study,
            StudyEvent.COMPLETED,
            at=now,
            work_id=work.work_id,
            work=work.as_json(),
            detail=verdict.reason,
            decisions=decisions,
        )
        return work

    def compute(self, work: Work) -> None:
        """Do one piece of work and put its objects into the outbox; publish nothing if new images came meanwhile."""
        study = work.study_instance_uid
        if self._superseded(work):
            return
        self._ledger.move(study, StudyEvent.STARTED, at=self._clock())
        step = StepTimer(self._monotonic, on_step=lambda name: self._ledger.step(study, name, at=self._clock()))
        result = self._result(work, step)
        if self._superseded(work):
            return
        self._publish(work, result)

    def fail(self, work: Work, problem: str) -> None:
        """Record that the node itself failed on this work; the study stays and can be repeated."""
        record = self._ledger.get(work.study_instance_uid)
        if record is not None and record.state in UNDER_WAY and record.work_id == work.work_id:
            self._fail(work.study_instance_uid, problem)

    def _fail(self, study_instance_uid: str, problem: str) -> None:
        self._ledger.move(
            study_instance_uid, StudyEvent.FAILED, at=self._clock(), reason=Reason.INTERNAL.value, detail=problem
        )

    def _result(self, work: Work, step: StepTimer) -> CaseResult:
        with step("read headers"):
            case = self._open(work.study_instance_uid)
        now = datetime.fromtimestamp(self._clock()).astimezone()
        if work.refusal is not None:
            reason, detail = work.refusal
            return refuse_case(
                case,
                (Refusal(reason=Reason(reason), detail=detail),),
                model=self._segmenter.identity,
                options=self._case_options,
                step=step,
                at=now,
            )
        return work_case(case, segmenter=self._segmenter, options=self._case_options, step=step, encoded_at=now)

    def _publish(self, work: Work, result: CaseResult) -> None:
        study = work.study_instance_uid
        now = self._clock()
        if result.findings is not None or self._options.send_not_computed:
            try:
                self._outbox.put(work.work_id, study, result.objects, self._options.destinations, at=now)
            except OSError as error:
                raise TransientError(f"outbox on disk: {error.strerror}") from error
            self._on_published()
        self._keep_views(work, result)
        if result.findings is not None:
            card = self._cards.get(study)
            assert card is not None, "a study is examined, and so has its card, before it is computed"
            self._cards.put_results(ear_results(work.work_id, card, result.findings, at=now))
        first = result.refusals[0] if result.refusals else None
        self._ledger.move(
            study,
            StudyEvent.COMPUTED if first is None else StudyEvent.REFUSED,
            at=now,
            reason="" if first is None else first.reason.value,
            detail="" if first is None else first.detail,
            findings=result.document,
        )
        log.info("event=study_finished study=%s reason=%s", study, "" if first is None else first.reason.value)

    def _keep_views(self, work: Work, result: CaseResult) -> None:
        """Draw and keep what people look at; after the results are on their way, before the study counts as computed.

        A worker that is killed in between computes again and puts the same objects, so no computed study lacks views.
        """
        if result.findings is None or result.mrc_grid is None:
            return
        pack = build_view_pack(result.findings, result.mrc_grid)
        try:
            self._views.put(work.work_id, pack.files)
        except OSError as error:
            raise TransientError(f"views on disk: {error.strerror}") from error

    def _superseded(self, work: Work) -> bool:
        """True, and noted, if the inputs of the study are other ones by now, or somebody else finished the work."""
        study = work.study_instance_uid
        record = self._ledger.get(study)
        if record is None or record.work_id != work.work_id or record.state not in UNDER_WAY:
            log.info("event=work_dropped study=%s work=%s", study, work.work_id[:12])
            return True
        activity = next((one for one in self._spool.studies() if one.study_instance_uid == study), None)
        if activity is not None and activity.revision == record.revision:
            return False
        # Something arrived that the desk has not examined yet: is this still the work that it would decide on?
        if activity is not None and _work_id(self._examine(activity, self._clock())) == work.work_id:
            return False
        self._ledger.move(study, StudyEvent.SUPERSEDED, at=self._clock(), detail="other images came meanwhile")
        log.info("event=work_superseded study=%s work=%s", study, work.work_id[:12])
        return True

    def _open(self, study_instance_uid: str) -> Case:
        instances = self._spool.instances(study_instance_uid)
        files = [self._file(instance) for instance in instances]
        return open_case(
            study_instance_uid,
            [file for file in files if file is not None],
            self._case_options,
            known_refusals=[*_conflicts(instances), *self._spool.refusals(study_instance_uid)],
        )

    def _file(self, instance: SpooledInstance) -> InstanceFile | None:
        """One instance's header, read once (spool files never change); called from two threads."""
        name = instance.path.name
        with self._headers_lock:
            known = self._headers.get(name)
        if known is not None:
            return known
        file = read_instance(instance.path, instance.sha256)
        if file is None:
            log.error("event=header_unreadable sop=%s", instance.sop_instance_uid)
            return None
        with self._headers_lock:
            self._headers[name] = file
            if len(self._headers) > HEADER_CACHE_SIZE:
                self._headers.popitem(last=False)
        return file


def _conflicts(instances: Sequence[SpooledInstance]) -> list[Refusal]:
    """Images whose SOP Instance UID the spool holds with another content as well, be it in another study."""
    return [
        Refusal(
            reason=Reason.CONFLICT,
            detail=f"SOP Instance UID {one.sop_instance_uid} was received with more than one content; "
            f"here SHA-256 {one.sha256[:12]}...",
        )
        for one in instances
        if one.conflict
    ]


def _work_id(examination: Examination) -> str | None:
    return None if examination.work is None else examination.work.work_id


def _is_due(record: StudyRecord, now: float) -> bool:
    if record.state is not StudyState.WAITING:
        return False
    return record.look_again_at is None or now >= record.look_again_at


def case_card(case: Case) -> StudyCard:
    """The card of a case, read from the cisternogram where there is one and from any other image where there is not."""
    chosen = case.assembly.chosen
    first = chosen.mrc.sop_instance_uids[0] if chosen else next(iter(case.files), None)
    header = pydicom.Dataset() if first is None else case.files[first].header
    return card_of(case.study_instance_uid, header)


def decision_rows(assembly: StudyAssembly) -> list[dict[str, Any]]:
    """Role, rule and reason of every series, and whether it was used; for ledger, `status` and findings.json."""
    used = {header.series_instance_uid for header in assembly.chosen.series.values()} if assembly.chosen else set()
    left_out = {one.series_instance_uid: one.reason for one in assembly.left_out}
    return [
        {
            "series_instance_uid": decision.series_instance_uid,
            "role": decision.role.value,
            "rule": decision.rule,
            "reason": decision.reason,
            "used": decision.series_instance_uid in used,
            "left_out_because": left_out.get(decision.series_instance_uid, ""),
        }
        for decision in assembly.decisions
    ]
