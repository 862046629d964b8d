"""What can be said about a study now: its roles, whether it is complete, and the piece of work that follows.

`Examiner` looks and changes nothing; `write_decision` is how the ledger says it. Both entrances to the desk use them:
the look-round over the spool, and what people ask for.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pydicom
from sqlalchemy import Connection

from dicom_node.arrival_times import ArrivalTimes
from dicom_node.assembly.completeness import Completeness, CompletenessState, judge
from dicom_node.assembly.headers import SeriesHeader, group_series
from dicom_node.case import Case, CaseOptions, case_key, open_case
from dicom_node.errors import Reason, Refusal
from dicom_node.instance_files import InstanceFile, read_instance
from dicom_node.intake.spool import Spool, SpooledInstance, StudyActivity
from dicom_node.ledger import FinishedWork, Ledger
from dicom_node.series_reader import SeriesReader
from dicom_node.study_cards import StudyCard, card_of, inert_text, readable_text
from dicom_node.study_moves import StudyEvent
from dicom_node.urgency import ROUTINE, URGENT_PRIORITIES, StudyUrgency, Urgency, put_urgency
from inference.findings import ModelIdentity

log = logging.getLogger(__name__)

HEADER_CACHE_SIZE: Final = 8192
"""Some 20 studies' headers, about 400 MB at the very most; typical headers are a tenth of that."""

BY_REQUEST: Final = "a person's request"
"""The evidence of a study that was taken as complete because somebody asked for it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One piece of work, JSON-able: compute this study at this revision, or (with `refusal`) report the refusal.

    `work_id` names inputs, model and settings: the same work has the same id on any day. `run` counts how often a
    person had opened or stopped the study before: the same work may run once for each. `remark` is what the node
    was still waiting for when somebody had it begin; the report says so. `faults` counts the workers that came upon a
    fault of ours in this run, and left it to the next one.
    """

    work_id: str
    study_instance_uid: str
    revision: int
    refusal: tuple[str, str] | None = None
    run: int = 0
    remark: str = ""
    faults: int = 0

    @property
    def run_id(self) -> str:
        """What the workflow engine knows it by: given twice, it runs once."""
        run = f":{self.run}" if self.run else ""
        again = f"+{self.faults}" if self.faults else ""
        return f"{self.study_instance_uid}:{self.work_id}:{self.revision}{run}{again}"

    def as_json(self) -> dict[str, Any]:
        """Plain data for the ledger and the workflow engine; what is not set is left out."""
        data: dict[str, Any] = {
            "work_id": self.work_id,
            "study_instance_uid": self.study_instance_uid,
            "revision": self.revision,
            "refusal": None if self.refusal is None else list(self.refusal),
        }
        return data | {name: set_to for name in ("run", "remark", "faults") if (set_to := getattr(self, name))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Work:
        """The work that `as_json` wrote."""
        refusal = data["refusal"]
        return cls(
            work_id=data["work_id"],
            study_instance_uid=data["study_instance_uid"],
            revision=data["revision"],
            refusal=None if refusal is None else (refusal[0], refusal[1]),
            run=data.get("run", 0),
            remark=data.get("remark", ""),
            faults=data.get("faults", 0),
        )


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What can be said about a study at one moment; `work` is None while it waits, and then it is not urgent either."""

    study_instance_uid: str
    verdict: Completeness
    decisions: tuple[Mapping[str, Any], ...]
    work: Work | None
    card: StudyCard
    urgency: StudyUrgency


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an examination came to: work to queue, an earlier outcome that was recalled, or neither."""

    work: Work | None = None
    recalled: FinishedWork | None = None


_Version = tuple[int, int]
"""One version of a file: its inode and when it was written. One that was damaged and came again has the same name."""

_Opened = tuple[str, tuple[tuple[str, _Version | None], ...], tuple[Refusal, ...]]
"""What a case was made from: study, names and versions of its files, what the intake holds against it."""


class Examiner:
    """Looks at studies in the spool. Times in seconds; safe with two threads."""

    def __init__(
        self,
        *,
        spool: Spool,
        model: ModelIdentity,
        case_options: CaseOptions,
        arrival_times: ArrivalTimes,
        quiet_s: float,
        partner_wait_s: float,
        urgent_from: Collection[str] = (),
    ) -> None:
        self._spool = spool
        self._urgent_from = frozenset(urgent_from)
        self._arrival_times = arrival_times
        self._model = model
        self._case_options = case_options
        self._quiet_s = quiet_s
        self._partner_wait_s = partner_wait_s
        self._headers: OrderedDict[str, tuple[_Version | None, InstanceFile]] = OrderedDict()
        self._headers_lock = threading.Lock()
        self._series = SeriesReader()
        self._last_opened: tuple[_Opened, Case] | None = None

    def examine(self, activity: StudyActivity, now: float, *, forced: bool = False) -> Examination:
        """What can be said about a study now; no side effects.

        With `forced`, a set that is there but still waits for more is taken as complete. A study that lacks a set is
        judged as ever: nothing can be computed of it.
        """
        case = self.open(activity.study_instance_uid)
        verdict = judge(
            case.assembly,
            list(case.headers.values()),
            self._arrival_times.as_of(self._spool.arrivals(activity.study_instance_uid), now),
            now=now,
            quiet_s=self._quiet_s,
            partner_wait_s=self._partner_wait_s,
        )
        remark = ""
        if forced and verdict.state is CompletenessState.WAITING and case.assembly.chosen is not None:
            remark = f"The node was still waiting: {verdict.reason}."
            reason = f"taken as complete on request; before that: {verdict.reason}"
            verdict = Completeness(state=CompletenessState.COMPLETE, evidence=BY_REQUEST, reason=reason)
        work = None
        if verdict.state is not CompletenessState.WAITING:
            work = replace(self._work(case, activity, verdict), remark=remark)
        log.info(
            "event=study_examined study=%s state=%s evidence=%s",
            activity.study_instance_uid,
            verdict.state,
            verdict.evidence,
        )
        return Examination(
            study_instance_uid=activity.study_instance_uid,
            verdict=verdict,
            decisions=tuple(decision_rows(case)),
            work=work,
            card=case_card(case),
            urgency=ROUTINE if work is None else self._urgency(case),
        )

    def open(self, study_instance_uid: str) -> Case:
        """The case of a study as it lies in the spool; the last is kept, for what was examined is computed next."""
        instances = self._spool.instances(study_instance_uid)
        refusals = (*_conflicts(instances), *self._spool.refusals(study_instance_uid))
        names = tuple((instance.path.name, _version(instance.path)) for instance in instances)
        opened = (study_instance_uid, names, refusals)
        last = self._last_opened
        if last is not None and last[0] == opened:
            return last[1]
        files = [self._file(instance) for instance in instances]
        case = open_case(
            study_instance_uid,
            [file for file in files if file is not None],
            self._case_options,
            known_refusals=refusals,
            read_series=self._series.read,
        )
        if None not in files:
            self._last_opened = (opened, case)
        return case

    def read_ahead(self, study_instance_uid: str) -> None:
        """Read the headers that are here already, while the other images of the study still come."""
        files = [self._file(instance) for instance in self._spool.instances(study_instance_uid)]
        for datasets in group_series([file.header for file in files if file is not None]).values():
            self._series.read_if_still(datasets)

    def forget(self, study_instance_uid: str) -> None:
        """Let go of what was read of a study that is done: 40 KB an image. Who opens it again reads it again."""
        if self._last_opened is not None and self._last_opened[0][0] == study_instance_uid:
            self._last_opened = None
        self._series.forget(study_instance_uid)
        with self._headers_lock:
            done = [
                name
                for name, (_, file) in self._headers.items()
                if file.header.get("StudyInstanceUID") == study_instance_uid
            ]
            for name in done:
                del self._headers[name]

    def _urgency(self, case: Case) -> StudyUrgency:
        """Whether a study goes before others: by who sent it, or by what its images say (PS3.3 C.4.11)."""
        if self._urgent_from:
            senders = {one.source for one in self._spool.instances(case.study_instance_uid)} & self._urgent_from
            if senders:
                return StudyUrgency(urgency=Urgency.URGENT, because=f"{', '.join(sorted(senders))} sent it")
        for header in case.headers.values():
            image = case.files[header.sop_instance_uids[0]].header
            priority = readable_text(image, "RequestedProcedurePriority").upper()
            if priority in URGENT_PRIORITIES:
                because = f"its images say {priority} (Requested Procedure Priority)"
                return StudyUrgency(urgency=Urgency.URGENT, because=because)
        return ROUTINE

    def _work(self, case: Case, activity: StudyActivity, verdict: Completeness) -> Work:
        digest = case_key(case, self._model, self._case_options).digest
        refusal = verdict.refusal
        return Work(
            work_id=digest if refusal is None else f"{digest}-{refusal.reason.value}",
            study_instance_uid=activity.study_instance_uid,
            revision=activity.revision,
            refusal=None if refusal is None else (refusal.reason.value, refusal.detail),
        )

    def _file(self, instance: SpooledInstance) -> InstanceFile | None:
        """One instance's header, read once from each version of its file; called from two threads.

        That of a file which is gone is still known: what is missing is found before computing, like what is damaged.
        """
        name, version = instance.path.name, _version(instance.path)
        with self._headers_lock:
            known = self._headers.get(name)
        if known is not None and version in (known[0], None):
            return known[1]
        file = read_instance(instance.path, instance.sha256)
        if file is None:
            log.error("event=header_unreadable sop=%s", instance.sop_instance_uid)
            return None
        with self._headers_lock:
            self._headers[name] = (version, file)
            if len(self._headers) > HEADER_CACHE_SIZE:
                self._headers.popitem(last=False)
        return file


def _version(path: Path) -> _Version | None:
    """Which version of a file is there; None if none is."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def write_decision(
    ledger: Ledger, examination: Examination, *, at: float, within: Connection | None = None
) -> Decision:
    """Say in the ledger what an examination of a waiting study came to: wait, not ours, recalled, or queued."""
    study, verdict, work = examination.study_instance_uid, examination.verdict, examination.work
    decisions = examination.decisions
    with ledger.transaction(within) as connection:
        if work is None:
            ledger.waiting(
                study,
                reason=verdict.refusal.reason.value if verdict.refusal else "WAITING",
                detail=verdict.reason,
                look_again_at=verdict.look_again_at,
                decisions=decisions,
                at=at,
                within=connection,
            )
            return Decision()
        if verdict.refusal is not None and verdict.refusal.reason is Reason.NO_HYDROPS_STUDY:
            said: dict[str, Any] = {
                "reason": verdict.refusal.reason.value,
                "detail": verdict.refusal.detail,
                "work_id": work.work_id,
            }
            ledger.move(study, StudyEvent.NOT_OURS, at=at, within=connection, decisions=decisions, **said)
            return Decision()
        known = ledger.finished(work.work_id)
        if known is not None:
            outcome: dict[str, Any] = {
                name: getattr(known, name) for name in ("work_id", "reason", "detail", "findings")
            }
            ledger.move(study, known.event, at=at, within=connection, decisions=decisions, **outcome)
            return Decision(recalled=known)
        work = replace(work, run=ledger.runs(study, within=connection))
        queued: dict[str, Any] = {"work_id": work.work_id, "work": work.as_json(), "detail": verdict.reason}
        ledger.move(study, StudyEvent.COMPLETED, at=at, within=connection, decisions=decisions, **queued)
        if not ledger.is_put_first(study, within=connection):  # an image that came late takes no wish back
            put_urgency(connection, study, examination.urgency)
    return Decision(work=work)


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


def case_card(case: Case) -> StudyCard:
    """The card of a case, read from the cisternogram where there is one and from any other image where there is not."""
    chosen = case.assembly.chosen
    first = chosen.mrc.sop_instance_uids[0] if chosen else next(iter(case.files), None)
    header = pydicom.Dataset() if first is None else case.files[first].header
    return card_of(case.study_instance_uid, header)


def decision_rows(case: Case) -> list[dict[str, Any]]:
    """Role, rule and reason of every series, whether it was used, and what a PACS lists it by; for the ledger."""
    assembly = case.assembly
    used = {header.series_instance_uid for header in assembly.chosen.series.values()} if assembly.chosen else set()
    left_out = {one.series_instance_uid: one.reason for one in assembly.left_out}
    return [
        {
            "series_instance_uid": decision.series_instance_uid,
            **_listed_by(case.headers.get(decision.series_instance_uid)),
            "role": decision.role.value,
            "rule": decision.rule,
            "reason": decision.reason,
            "used": decision.series_instance_uid in used,
            "left_out_because": left_out.get(decision.series_instance_uid, ""),
        }
        for decision in assembly.decisions
    ]


def _listed_by(header: SeriesHeader | None) -> dict[str, Any]:
    """Number and description of a series; None and "" where its images do not say them."""
    if header is None:
        return {"series_number": None, "series_description": ""}
    return {"series_number": header.series_number, "series_description": inert_text(header.series_description)}
