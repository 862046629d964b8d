"""The ledger's rows: the tables of studies, outcomes and events, and how one of them is read and written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    func,
    insert,
    select,
)

from dicom_node.database import metadata
from dicom_node.drift_rows import owe_point
from dicom_node.study_moves import StudyEvent, StudyState

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

ledger_results = Table(
    "ledger_results",
    metadata,
    Column("work_id", String(128), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("event", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("findings", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("ledger_results_by_end", "at"),  # drift looks at the last months, and the findings of a row are long
)

ledger_events = Table(
    "ledger_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("event", String(16), nullable=False),
    Column("detail", Text, nullable=False, default=""),
    sqlite_autoincrement=True,  # whoever reads on behind a number must not miss an event because others were erased
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


def record_of(row: Any) -> StudyRecord:
    """The record in one row of `ledger_studies`."""
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


def keep_result(
    connection: Connection, study_instance_uid: str, event: StudyEvent, values: Mapping[str, Any], at: float
) -> None:
    """Remember the first outcome of a piece of work; a repetition changes nothing."""
    work_id = (
        values.get("work_id")
        or connection.execute(
            select(ledger_studies.c.work_id).where(ledger_studies.c.study_instance_uid == study_instance_uid)
        ).scalar_one()
    )
    if connection.execute(select(ledger_results.c.work_id).where(ledger_results.c.work_id == work_id)).first() is None:
        connection.execute(
            insert(ledger_results).values(
                work_id=work_id,
                study_instance_uid=study_instance_uid,
                event=event.value,
                reason=values["reason"],
                detail=values["detail"],
                findings=values.get("findings", "{}"),
                at=at,
            )
        )
        owe_point(connection, study_instance_uid)


def log_event(connection: Connection, study_instance_uid: str, at: float, event: StudyEvent, detail: str) -> None:
    """Write one line into the history of a study."""
    connection.execute(
        insert(ledger_events).values(study_instance_uid=study_instance_uid, at=at, event=event.value, detail=detail)
    )


def times_since(
    connection: Connection, study_instance_uid: str, event: StudyEvent, opening: Collection[StudyEvent]
) -> int:
    """How often something happened to a study since the last of the `opening` events; ever, if none of them did."""
    of_study = ledger_events.c.study_instance_uid == study_instance_uid
    opened = select(func.coalesce(func.max(ledger_events.c.id), 0)).where(
        of_study, ledger_events.c.event.in_([one.value for one in opening])
    )
    since = ledger_events.c.id > opened.scalar_subquery()
    query = select(func.count()).where(of_study, ledger_events.c.event == event.value, since)
    return int(connection.execute(query).scalar_one())


def waits_for_us(now: float) -> ColumnElement[bool]:
    """Whether it is the desk that a study waits for, and not time or images."""
    columns = ledger_studies.c
    due = columns.look_again_at.is_(None) | (columns.look_again_at <= now) | (columns.updated_at > now)
    return (columns.state == StudyState.WAITING.value) & due
