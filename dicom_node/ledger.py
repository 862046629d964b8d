"""What became of every study: one row per study, one line per event, in the state database.

The legal moves are the table of `study_moves`; every other move raises. The worker writes, `status` and the dashboard
read. Nothing here decides: decisions come from `assembly` and `pipeline`. Methods with a `within` can be part of a
larger transaction (`transaction`), so that a decision and what it sets going are there together or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)

from dicom_node.database import metadata, writing
from dicom_node.study_moves import REOPENING, TRANSITIONS, IllegalMoveError, StudyEvent, StudyState, next_state

__all__ = [
    "TRANSITIONS",
    "FinishedWork",
    "IllegalMoveError",
    "Ledger",
    "StudyEvent",
    "StudyEventRecord",
    "StudyRecord",
    "StudyState",
    "ledger_studies",
    "next_state",
]


ledger_studies = Table(
    "ledger_studies",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("look_again_at", Float),
    Column("step", String(64), nullable=False, default=""),
    Column("reason", String(64), nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),
    Column("work_id", String(128), nullable=False, default=""),
    Column("work", Text, nullable=False, default="{}"),
    Column("decisions", Text, nullable=False, default="[]"),
    Column("findings", Text, nullable=False, default=""),
    Column("first_seen_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False, index=True),
)

Index("ledger_studies_by_state", ledger_studies.c.state)  # counting needs only this, not the rows with their findings

_results = Table(
    "ledger_results",
    metadata,
    Column("work_id", String(128), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("event", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("findings", Text, nullable=False),
    Column("at", Float, nullable=False),
)

_events = Table(
    "ledger_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("event", String(16), nullable=False),
    Column("detail", Text, nullable=False, default=""),
)


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One study as the ledger knows it. Times are POSIX seconds.

    `revision` is the spool's revision that was last examined; `work_id` names the piece of work (inputs, model,
    settings) and `work` is what the worker was asked to do; `decisions` lists per series role, rule, reason and
    whether it was used; `findings` is the content of findings.json once there is one.
    """

    study_instance_uid: str
    state: StudyState
    revision: int
    look_again_at: float | None
    step: str
    reason: str
    detail: str
    work_id: str
    work: Mapping[str, Any]
    decisions: Sequence[Mapping[str, Any]]
    findings: Mapping[str, Any] | None
    first_seen_at: float
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class FinishedWork:
    """The outcome of one piece of work: COMPUTED or REFUSED, and its findings.json."""

    work_id: str
    event: StudyEvent
    reason: str
    detail: str
    findings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """When a piece of work ended and how long it had taken; times are POSIX seconds.

    `arrived_at` is when images of the study were last seen to come before that.
    """

    work_id: str
    study_instance_uid: str
    refused: bool
    arrived_at: float
    finished_at: float


@dataclass(frozen=True, kw_only=True)
class StudyHappening:
    """One event of any study; `number` grows with every event of the ledger."""

    number: int
    study_instance_uid: str
    at: float
    event: StudyEvent


@dataclass(frozen=True, kw_only=True)
class StudyEventRecord:
    """One line of a study's history."""

    at: float
    event: StudyEvent
    detail: str


class Ledger:
    """The ledger on one state database; every method is one transaction, or part of the one given as `within`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self, within: Connection | None = None) -> Iterator[Connection]:
        """A writing transaction: `within` if there is one, else one of its own, committed at the end."""
        if within is not None:
            yield within
            return
        with writing(self._engine) as connection:
            yield connection

    def get(self, study_instance_uid: str) -> StudyRecord | None:
        """The record of one study, or None if it was never examined."""
        query = select(ledger_studies).where(ledger_studies.c.study_instance_uid == study_instance_uid)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _record(row)

    def recent(self, *, limit: int = 1000) -> list[StudyRecord]:
        """The studies that changed last, newest first."""
        query = select(ledger_studies).order_by(ledger_studies.c.updated_at.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def in_state(self, *states: StudyState) -> list[StudyRecord]:
        """The studies in one of these states, the longest waiting first."""
        query = select(ledger_studies).where(ledger_studies.c.state.in_([state.value for state in states]))
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query.order_by(ledger_studies.c.updated_at)).mappings()]

    def counts(self) -> Mapping[StudyState, int]:
        """How many studies are in each state; reads the index only, so it stays quick with 100,000 studies."""
        counted = select(ledger_studies.c.state, func.count()).group_by(ledger_studies.c.state)
        with self._engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(counted)}
        return {state: found.get(state.value, 0) for state in StudyState}

    def finished(self, work_id: str) -> FinishedWork | None:
        """The outcome of this piece of work if it was done before."""
        query = select(_results).where(_results.c.work_id == work_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return FinishedWork(
            work_id=work_id,
            event=StudyEvent(row["event"]),
            reason=row["reason"],
            detail=row["detail"],
            findings=json.loads(row["findings"]),
        )

    def finished_since(self, at: float) -> list[FinishedStudy]:
        """Every piece of work that was computed or refused at `at` or later, in the order in which it ended."""
        arrival = func.max(_events.c.at).label("arrived_at")
        before = _results.join(
            _events,
            (_events.c.study_instance_uid == _results.c.study_instance_uid)
            & (_events.c.event == StudyEvent.ARRIVED.value)
            & (_events.c.at <= _results.c.at),
        )
        wanted = (_results.c.work_id, _results.c.study_instance_uid, _results.c.event, _results.c.at)
        query = select(*wanted, arrival).select_from(before).where(_results.c.at >= at)
        query = query.group_by(*wanted).order_by(_results.c.at, _results.c.work_id)
        with self._engine.connect() as connection:
            return [
                FinishedStudy(
                    work_id=row.work_id,
                    study_instance_uid=row.study_instance_uid,
                    refused=row.event == StudyEvent.REFUSED.value,
                    arrived_at=row.arrived_at,
                    finished_at=row.at,
                )
                for row in connection.execute(query)
            ]

    def last_event_number(self) -> int:
        """The number of the last thing that happened to any study; 0 before the first."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.max(_events.c.id))) or 0

    def happened_after(self, number: int, events: Sequence[StudyEvent]) -> list[StudyHappening]:
        """What of these kinds happened to any study after event `number`, in order."""
        query = (
            select(_events)
            .where(_events.c.id > number, _events.c.event.in_([event.value for event in events]))
            .order_by(_events.c.id)
        )
        with self._engine.connect() as connection:
            return [
                StudyHappening(
                    number=row["id"],
                    study_instance_uid=row["study_instance_uid"],
                    at=row["at"],
                    event=StudyEvent(row["event"]),
                )
                for row in connection.execute(query).mappings()
            ]

    def history(self, study_instance_uid: str) -> list[StudyEventRecord]:
        """Everything that happened to one study, oldest first."""
        query = select(_events).where(_events.c.study_instance_uid == study_instance_uid).order_by(_events.c.id)
        with self._engine.connect() as connection:
            return [
                StudyEventRecord(at=row["at"], event=StudyEvent(row["event"]), detail=row["detail"])
                for row in connection.execute(query).mappings()
            ]

    def runs(self, study_instance_uid: str, *, within: Connection | None = None) -> int:
        """How often a person opened or stopped this study: part of the id of its next run."""
        query = select(func.count()).where(
            _events.c.study_instance_uid == study_instance_uid,
            _events.c.event.in_([event.value for event in REOPENING]),
        )
        if within is not None:
            return int(within.execute(query).scalar_one())
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def overruns(self, study_instance_uid: str, *, within: Connection) -> int:
        """How often a worker was ended over this study since it was queued last."""
        of_study = _events.c.study_instance_uid == study_instance_uid
        queued = select(func.max(_events.c.id)).where(of_study, _events.c.event == StudyEvent.COMPLETED.value)
        since = _events.c.id > queued.scalar_subquery()
        query = select(func.count()).where(of_study, _events.c.event == StudyEvent.OVERRAN.value, since)
        return int(within.execute(query).scalar_one())

    def arrived(self, study_instance_uid: str, *, revision: int, at: float, within: Connection | None = None) -> None:
        """Images of this study came; it waits (again) to be examined at this revision."""
        with self.transaction(within) as connection:
            known = connection.execute(
                select(ledger_studies.c.state).where(ledger_studies.c.study_instance_uid == study_instance_uid)
            ).scalar_one_or_none()
            if known is None:
                connection.execute(
                    insert(ledger_studies).values(
                        study_instance_uid=study_instance_uid,
                        state=StudyState.WAITING.value,
                        revision=revision,
                        first_seen_at=at,
                        updated_at=at,
                    )
                )
            else:
                connection.execute(
                    update(ledger_studies)
                    .where(ledger_studies.c.study_instance_uid == study_instance_uid)
                    .values(
                        state=next_state(StudyState(known), StudyEvent.ARRIVED).value,
                        revision=revision,
                        look_again_at=None,
                        updated_at=at,
                    )
                )
            _log(connection, study_instance_uid, at, StudyEvent.ARRIVED, f"revision {revision}")

    def seen(self, study_instance_uid: str, *, revision: int, within: Connection | None = None) -> None:
        """The spool's revision changed but the work did not (a count was stated, an unused series came)."""
        with self.transaction(within) as connection:
            connection.execute(
                update(ledger_studies)
                .where(ledger_studies.c.study_instance_uid == study_instance_uid)
                .values(revision=revision)
            )

    def waiting(
        self,
        study_instance_uid: str,
        *,
        reason: str,
        detail: str,
        look_again_at: float | None,
        decisions: Sequence[Mapping[str, Any]],
        at: float,
        within: Connection | None = None,
    ) -> None:
        """Note what a waiting study waits for; no change of state."""
        with self.transaction(within) as connection:
            connection.execute(
                update(ledger_studies)
                .where(
                    ledger_studies.c.study_instance_uid == study_instance_uid,
                    ledger_studies.c.state == StudyState.WAITING,
                )
                .values(
                    reason=reason,
                    detail=detail,
                    look_again_at=look_again_at,
                    decisions=json.dumps(list(decisions)),
                    updated_at=at,
                )
            )

    def step(self, study_instance_uid: str, step: str, *, work: Mapping[str, Any], at: float) -> bool:
        """Note which named step of `work` is running; False if the study is not computing that work any more."""
        this_work = (
            ledger_studies.c.study_instance_uid == study_instance_uid,
            ledger_studies.c.state == StudyState.COMPUTING,
            ledger_studies.c.work == json.dumps(work),
        )
        with writing(self._engine) as connection:
            noted = connection.execute(update(ledger_studies).where(*this_work).values(step=step, updated_at=at))
        return noted.rowcount > 0

    def note(
        self, study_instance_uid: str, event: StudyEvent, sentence: str, *, at: float, within: Connection | None = None
    ) -> None:
        """Write an event that leaves the study as it is into its history.

        Raises
        ------
        IllegalMoveError
            If the event would change the study's state, or cannot happen in it.
        """
        with self.transaction(within) as connection:
            state = _state(connection, study_instance_uid)
            if next_state(state, event) is not state:
                raise IllegalMoveError(f"{event} of a study that is {state} is more than a note")
            _log(connection, study_instance_uid, at, event, sentence)

    def move(
        self,
        study_instance_uid: str,
        event: StudyEvent,
        *,
        at: float,
        within: Connection | None = None,
        of_work: Mapping[str, Any] | None = None,
        **notes: Any,
    ) -> StudyState:
        """Apply one event and keep `notes`: any of reason, detail, work_id, work, revision, decisions, findings.

        COMPUTED and REFUSED also keep the outcome under its work id, for `finished`. With `of_work` the event is one
        of that piece of work and happens only while the study is at it.

        Raises
        ------
        IllegalMoveError
            If the study is not in a state in which this can happen, or is at other work.
        """
        values: dict[str, Any] = {"reason": "", "detail": "", "step": "", "look_again_at": None, "updated_at": at}
        values.update(notes)
        for name in ("work", "decisions", "findings"):
            if name in values:
                values[name] = json.dumps(values[name])
        with self.transaction(within) as connection:
            after = next_state(_state(connection, study_instance_uid, of_work), event)
            connection.execute(
                update(ledger_studies)
                .where(ledger_studies.c.study_instance_uid == study_instance_uid)
                .values(state=after.value, **values)
            )
            if event in (StudyEvent.COMPUTED, StudyEvent.REFUSED):
                _keep_result(connection, study_instance_uid, event, values, at)
            _log(connection, study_instance_uid, at, event, values["detail"] or values["reason"])
        return after


def _state(connection: Connection, study_instance_uid: str, of_work: Mapping[str, Any] | None = None) -> StudyState:
    """The state of a known study, read for a change of it."""
    query = select(ledger_studies.c.state, ledger_studies.c.work).where(
        ledger_studies.c.study_instance_uid == study_instance_uid
    )
    row = connection.execute(query.with_for_update()).one()
    if of_work is not None and json.loads(row.work) != of_work:
        raise IllegalMoveError("the study is at other work by now")
    return StudyState(row.state)


def _keep_result(
    connection: Connection, study_instance_uid: str, event: StudyEvent, values: Mapping[str, Any], at: float
) -> None:
    """Remember the first outcome of a piece of work; a repetition changes nothing."""
    work_id = (
        values.get("work_id")
        or connection.execute(
            select(ledger_studies.c.work_id).where(ledger_studies.c.study_instance_uid == study_instance_uid)
        ).scalar_one()
    )
    if connection.execute(select(_results.c.work_id).where(_results.c.work_id == work_id)).first() is None:
        connection.execute(
            insert(_results).values(
                work_id=work_id,
                study_instance_uid=study_instance_uid,
                event=event.value,
                reason=values["reason"],
                detail=values["detail"],
                findings=values.get("findings", "{}"),
                at=at,
            )
        )


def _log(connection: Connection, study_instance_uid: str, at: float, event: StudyEvent, detail: str) -> None:
    connection.execute(
        insert(_events).values(study_instance_uid=study_instance_uid, at=at, event=event.value, detail=detail)
    )


def _record(row: Any) -> StudyRecord:
    return StudyRecord(
        study_instance_uid=row["study_instance_uid"],
        state=StudyState(row["state"]),
        revision=row["revision"],
        look_again_at=row["look_again_at"],
        step=row["step"],
        reason=row["reason"],
        detail=row["detail"],
        work_id=row["work_id"],
        work=json.loads(row["work"]),
        decisions=json.loads(row["decisions"]),
        findings=json.loads(row["findings"]) if row["findings"] else None,
        first_seen_at=row["first_seen_at"],
        updated_at=row["updated_at"],
    )
