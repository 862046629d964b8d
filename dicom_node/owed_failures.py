"""Which failed studies still owe their PACS a word: a "not computed" report that says that the node failed.

The row is written in the transaction in which a study fails, and goes in the one that lets the report out. One worker
at a time is at it: who begins has `LEASE_S`, and whoever comes after that takes its owner for ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import Column, Connection, Engine, Float, Integer, String, Table, delete, insert, select, update

from dicom_node.database import metadata, writing

MAX_BEGINNINGS: Final = 2
"""What made the node fail may end whoever reports it, too: a third worker leaves it, and other studies go on."""

LEASE_S: Final = 60.0
"""A report is made within a second or two. After a trouble that passes, this is also the pause."""

owed_failure_rows = Table(
    "owed_failures",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("failed_at", Float, nullable=False),
    Column("begun_at", Float),
    Column("beginnings", Integer, nullable=False),
)


def failure_key(study_instance_uid: str) -> str:
    """Under which the outbox has what says that the node failed on this study.

    It is no result of the study's work, which may be tried again and come to one.
    """
    return f"{study_instance_uid}-failed"


class Turn(Enum):
    """What a worker that wants to tell of a failure is to do: make the report, leave it to another, or give it up."""

    OURS = "ours"
    ANOTHERS = "another's"
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class OwedFailure:
    """One failure that nobody outside knows of; `failed_at`, POSIX seconds, tells it from a later one of the study."""

    study_instance_uid: str
    failed_at: float


class OwedFailures:
    """The list on one state database; every method is one transaction, or part of the one given as `within`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def owe(self, study_instance_uid: str, *, at: float, within: Connection) -> None:
        """Write down that this study failed; an earlier failure of it is told with this one."""
        self.forget(study_instance_uid, within=within)
        within.execute(
            insert(owed_failure_rows).values(study_instance_uid=study_instance_uid, failed_at=at, beginnings=0)
        )

    def forget(self, study_instance_uid: str, *, within: Connection) -> None:
        """Owe nothing for any failure of this study."""
        rows = owed_failure_rows
        within.execute(delete(rows).where(rows.c.study_instance_uid == study_instance_uid))

    def open(self) -> list[OwedFailure]:
        """Everything that is still to be told, the longest owed first."""
        columns = owed_failure_rows.c
        query = select(columns.study_instance_uid, columns.failed_at).order_by(columns.failed_at)
        with self._engine.connect() as connection:
            return [OwedFailure(**row) for row in connection.execute(query).mappings()]

    def owes(self, study_instance_uid: str) -> bool:
        """Whether a failure of this study is still to be told."""
        return any(one.study_instance_uid == study_instance_uid for one in self.open())

    def begin(self, owed: OwedFailure, *, at: float) -> Turn:
        """Count one more beginning, if nobody else is at it now."""
        columns = owed_failure_rows.c
        # A beginning a while ahead is one of before the clock was set back. Just ahead lies that of another worker that
        # was faster, although it read its clock later.
        away = (columns.begun_at <= at - LEASE_S) | (columns.begun_at >= at + LEASE_S)
        free = columns.begun_at.is_(None) | away
        counted = {"beginnings": columns.beginnings + 1, "begun_at": at}
        with writing(self._engine) as connection:
            ours = update(owed_failure_rows).where(_same(owed), free, columns.beginnings < MAX_BEGINNINGS)
            if connection.execute(ours.values(**counted)).rowcount:
                return Turn.OURS
            over = select(columns.failed_at).where(_same(owed), free)
            return Turn.ANOTHERS if connection.execute(over).first() is None else Turn.OVER

    def not_begun(self, owed: OwedFailure) -> None:
        """Take a beginning back, which ended in order: a disk was full, say. The next one has to wait all the same."""
        with writing(self._engine) as connection:
            counted = update(owed_failure_rows).where(_same(owed)).values(beginnings=owed_failure_rows.c.beginnings - 1)
            connection.execute(counted)

    def settle(self, owed: OwedFailure, *, within: Connection | None = None) -> bool:
        """Strike it off; False if somebody else has."""
        if within is not None:
            return within.execute(delete(owed_failure_rows).where(_same(owed))).rowcount > 0
        with writing(self._engine) as connection:
            return self.settle(owed, within=connection)


def _same(owed: OwedFailure) -> Any:
    columns = owed_failure_rows.c
    return (columns.study_instance_uid == owed.study_instance_uid) & (columns.failed_at == owed.failed_at)
