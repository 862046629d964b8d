"""What became of every study: one row per study, one line per event, in the state database.

The legal moves are the table of `study_moves`; every other move raises. The worker writes, `status` and the dashboard
read. Nothing here decides: decisions come from `assembly` and `pipeline`. Methods with a `within` can be part of a
larger transaction (`transaction`), so that a decision and what it sets going are there together or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.database import writing
from dicom_node.ledger_rows import (
    FinishedStudy,
    FinishedWork,
    StudyEventRecord,
    StudyHappening,
    StudyRecord,
    keep_result,
    ledger_events,
    ledger_results,
    ledger_studies,
    log_event,
    record_of,
    times_since,
    waits_for_us,
)
from dicom_node.study_moves import (
    OUTCOMES,
    REOPENING,
    TRANSITIONS,
    UNDER_WAY,
    IllegalMoveError,
    OvertakenError,
    StudyEvent,
    StudyState,
    next_state,
)

__all__ = [
    "TRANSITIONS",
    "FinishedStudy",
    "FinishedWork",
    "IllegalMoveError",
    "Ledger",
    "OvertakenError",
    "StudyEvent",
    "StudyEventRecord",
    "StudyHappening",
    "StudyRecord",
    "StudyState",
    "ledger_studies",
    "next_state",
]


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
        return None if row is None else record_of(row)

    def recent(self, *, limit: int = 1000) -> list[StudyRecord]:
        """The studies that changed last, newest first."""
        query = select(ledger_studies).order_by(ledger_studies.c.updated_at.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [record_of(row) for row in connection.execute(query).mappings()]

    def in_state(self, *states: StudyState) -> list[StudyRecord]:
        """The studies in one of these states, the longest waiting first."""
        query = select(ledger_studies).where(ledger_studies.c.state.in_([state.value for state in states]))
        with self._engine.connect() as connection:
            return [
                record_of(row) for row in connection.execute(query.order_by(ledger_studies.c.updated_at)).mappings()
            ]

    def settled(self, now: float) -> Select[tuple[str, int]]:
        """A query for studies and their revisions: those that nothing is to be decided about, unless they change.

        One that was looked at in the future is due at once: the clock was set back, and what was planned then counts
        no more.
        """
        return select(ledger_studies.c.study_instance_uid, ledger_studies.c.revision).where(~waits_for_us(now))

    def due(self, now: float) -> Select[str]:
        """A query for the studies that wait to be looked at now, whether they changed or not."""
        return select(ledger_studies.c.study_instance_uid).where(waits_for_us(now))

    def counts(self) -> Mapping[StudyState, int]:
        """How many studies are in each state; reads the index only, so it stays quick with 100,000 studies."""
        counted = select(ledger_studies.c.state, func.count()).group_by(ledger_studies.c.state)
        with self._engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(counted)}
        return {state: found.get(state.value, 0) for state in StudyState}

    def finished(self, work_id: str) -> FinishedWork | None:
        """The outcome of this piece of work if it was done before."""
        query = select(ledger_results).where(ledger_results.c.work_id == work_id)
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

    def finished_of(self, study_instance_uids: Sequence[str], *, within: Connection) -> list[FinishedStudy]:
        """Every piece of work of these studies that was computed or refused, in the order in which it ended."""
        came_before = (
            ledger_events.c.study_instance_uid == ledger_results.c.study_instance_uid,
            ledger_events.c.event == StudyEvent.ARRIVED.value,
            ledger_events.c.at <= ledger_results.c.at,
        )
        arrival = select(func.max(ledger_events.c.at)).where(*came_before).scalar_subquery()
        wanted = (
            ledger_results.c.work_id,
            ledger_results.c.study_instance_uid,
            ledger_results.c.event,
            ledger_results.c.at,
        )
        query = select(*wanted, arrival.label("arrived_at"))
        query = query.where(ledger_results.c.study_instance_uid.in_(study_instance_uids))
        return [
            FinishedStudy(
                work_id=row.work_id,
                study_instance_uid=row.study_instance_uid,
                refused=row.event == StudyEvent.REFUSED.value,
                arrived_at=row.arrived_at,
                finished_at=row.at,
            )
            for row in within.execute(query.order_by(ledger_results.c.at, ledger_results.c.work_id))
            if row.arrived_at is not None
        ]

    def last_event_number(self) -> int:
        """The number of the last thing that happened to any study; 0 before the first."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.max(ledger_events.c.id))) or 0

    def happened_after(self, number: int, events: Sequence[StudyEvent]) -> list[StudyHappening]:
        """What of these kinds happened to any study after event `number`, in order."""
        query = (
            select(ledger_events)
            .where(ledger_events.c.id > number, ledger_events.c.event.in_([event.value for event in events]))
            .order_by(ledger_events.c.id)
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
        query = (
            select(ledger_events)
            .where(ledger_events.c.study_instance_uid == study_instance_uid)
            .order_by(ledger_events.c.id)
        )
        with self._engine.connect() as connection:
            return [
                StudyEventRecord(at=row["at"], event=StudyEvent(row["event"]), detail=row["detail"])
                for row in connection.execute(query).mappings()
            ]

    def runs(self, study_instance_uid: str, *, within: Connection | None = None) -> int:
        """How often a person opened or stopped this study: part of the id of its next run."""
        query = select(func.count()).where(
            ledger_events.c.study_instance_uid == study_instance_uid,
            ledger_events.c.event.in_([event.value for event in REOPENING]),
        )
        if within is not None:
            return int(within.execute(query).scalar_one())
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def overruns(self, study_instance_uid: str, *, within: Connection) -> int:
        """How often a worker was ended over this study since it was queued last."""
        return times_since(within, study_instance_uid, StudyEvent.OVERRAN, (StudyEvent.COMPLETED,))

    def faulted(self, study_instance_uid: str, *, within: Connection) -> bool:
        """Whether a worker came upon a fault of its own over this study since it was queued, or opened, last."""
        opening = (StudyEvent.COMPLETED, *REOPENING)
        return times_since(within, study_instance_uid, StudyEvent.FAULTED, opening) > 0

    def is_put_first(self, study_instance_uid: str, *, within: Connection) -> bool:
        """Whether a person has put this study before all others, and nothing has come of it since."""
        return times_since(within, study_instance_uid, StudyEvent.PUT_FIRST, OUTCOMES) > 0

    @contextmanager
    def transaction_at(self, study_instance_uid: str, seen: StudyRecord | None) -> Iterator[Connection]:
        """A writing transaction for what was decided from `seen`; nothing in it happens if the study moved on.

        Raises
        ------
        OvertakenError
            If somebody else has moved the study since `seen` was read, be it to the same end.
        """
        columns = ledger_studies.c
        query = select(columns.state, columns.revision, columns.look_again_at, columns.work)
        with self.transaction() as connection:
            row = connection.execute(
                query.where(columns.study_instance_uid == study_instance_uid).with_for_update()
            ).one_or_none()
            now = None if row is None else (row.state, row.revision, row.look_again_at, json.loads(row.work))
            if now != (None if seen is None else (seen.state, seen.revision, seen.look_again_at, seen.work)):
                raise OvertakenError(study_instance_uid)
            yield connection

    def arrived(self, study_instance_uid: str, *, revision: int, at: float, within: Connection | None = None) -> None:
        """Images of this study came; it waits (again) to be examined at this revision.

        Raises
        ------
        OvertakenError
            If another process makes the study known at this moment (PostgreSQL; SQLite has one writer at a time).
        """
        with self.transaction(within) as connection:
            known = connection.execute(
                select(ledger_studies.c.state).where(ledger_studies.c.study_instance_uid == study_instance_uid)
            ).scalar_one_or_none()
            if known is None:
                first = insert(ledger_studies).values(
                    study_instance_uid=study_instance_uid,
                    state=StudyState.WAITING.value,
                    revision=revision,
                    first_seen_at=at,
                    updated_at=at,
                )
                try:
                    connection.execute(first)
                except IntegrityError:
                    raise OvertakenError(study_instance_uid) from None
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
            log_event(connection, study_instance_uid, at, StudyEvent.ARRIVED, f"revision {revision}")

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

    def step(
        self,
        study_instance_uid: str,
        step: str,
        *,
        work: Mapping[str, Any],
        at: float,
        within: Connection | None = None,
    ) -> bool:
        """Note which named step of `work` is running; False if the study is not computing that work any more."""
        this_work = (
            ledger_studies.c.study_instance_uid == study_instance_uid,
            ledger_studies.c.state == StudyState.COMPUTING,
            ledger_studies.c.work == json.dumps(work),
        )
        with self.transaction(within) as connection:
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
            log_event(connection, study_instance_uid, at, event, sentence)

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
                keep_result(connection, study_instance_uid, event, values, at)
            log_event(connection, study_instance_uid, at, event, values["detail"] or values["reason"])
        return after


def _state(connection: Connection, study_instance_uid: str, of_work: Mapping[str, Any] | None = None) -> StudyState:
    """The state of a known study, read for a change of it."""
    query = select(ledger_studies.c.state, ledger_studies.c.work).where(
        ledger_studies.c.study_instance_uid == study_instance_uid
    )
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise IllegalMoveError("the study is not known, or not any more")
    if of_work is not None and (json.loads(row.work) != of_work or row.state not in UNDER_WAY):
        raise IllegalMoveError("the study is at other work by now, or at none")
    return StudyState(row.state)
