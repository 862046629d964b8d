"""What is still to be drawn: the summary page and the dashboard's pictures of results that are out already.

SEG and SR leave the node before anything is drawn. The row that says what is owed is written in the transaction that
lets them out, and goes in the one that lets the page out. Whoever deletes it has drawn; everybody else comes too late.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    Select,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from dicom_node.database import metadata, writing

MAX_BEGINNINGS: Final = 3
"""A page that ended two workers is not tried by a fourth: the numbers are out, and other studies wait."""

owed_rows = Table(
    "owed_pictures",
    metadata,
    Column("work_id", String(128), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("work", Text, nullable=False),
    Column("owed_since", Float, nullable=False),
    Column("beginnings", Integer, nullable=False),
    Column("given_up", Text, nullable=False),
)


class PicturesLostError(Exception):
    """What would have to be drawn cannot be computed once more: the images are other ones by now, or gone."""


@dataclass(frozen=True, kw_only=True)
class OwedPicture:
    """Page and pictures of one piece of work that are not there. Times are POSIX seconds.

    `work` is what the worker was asked to do, `given_up` why nobody draws them any more, "" while somebody will.
    """

    work_id: str
    work: Mapping[str, Any]
    owed_since: float
    beginnings: int
    given_up: str


class OwedPictures:
    """The list on one state database; every method is one transaction, or part of the one given as `within`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def owe(
        self, work_id: str, study_instance_uid: str, work: Mapping[str, Any], *, at: float, within: Connection
    ) -> None:
        """Write down that the results of this work go out, and its page and pictures are begun."""
        within.execute(delete(owed_rows).where(owed_rows.c.work_id == work_id))
        within.execute(
            insert(owed_rows).values(
                work_id=work_id,
                study_instance_uid=study_instance_uid,
                work=json.dumps(work),
                owed_since=at,
                beginnings=1,
                given_up="",
            )
        )

    def owe_again(self, work_id: str, work: Mapping[str, Any], *, at: float, within: Connection) -> bool:
        """Have what was given up drawn by a new run, `work`; False if nothing was given up."""
        given_up = (owed_rows.c.work_id == work_id) & (owed_rows.c.given_up != "")
        fresh = {"work": json.dumps(work), "owed_since": at, "beginnings": 0, "given_up": ""}
        return within.execute(update(owed_rows).where(given_up).values(**fresh)).rowcount > 0

    def leave(self, work_id: str, work: Mapping[str, Any], *, within: Connection) -> bool:
        """Leave it to another run, `work`; False if it was begun so often that it is to be given up."""
        still = _open(work_id) & (owed_rows.c.beginnings < MAX_BEGINNINGS)
        return within.execute(update(owed_rows).where(still).values(work=json.dumps(work))).rowcount > 0

    def of_work(self, work_id: str) -> OwedPicture | None:
        """What is owed of this work; None if all of it is drawn, or nothing of it was ever let out."""
        with self._engine.connect() as connection:
            row = connection.execute(select(owed_rows).where(owed_rows.c.work_id == work_id)).one_or_none()
        return None if row is None else _owed(row)

    def open(self) -> list[OwedPicture]:
        """Everything that somebody is still to draw, the longest owed first."""
        query = select(owed_rows).where(owed_rows.c.given_up == "").order_by(owed_rows.c.owed_since)
        with self._engine.connect() as connection:
            return [_owed(row) for row in connection.execute(query)]

    def begin(self, work_id: str) -> bool:
        """Count one more beginning; False if it was begun so often that it is to be given up."""
        with writing(self._engine) as connection:
            still = _open(work_id) & (owed_rows.c.beginnings < MAX_BEGINNINGS)
            counted = update(owed_rows).where(still).values(beginnings=owed_rows.c.beginnings + 1)
            return connection.execute(counted).rowcount > 0

    def settle(self, work_id: str, *, within: Connection) -> bool:
        """Strike it off, in the transaction that lets the page out; False if it is not open any more."""
        return within.execute(delete(owed_rows).where(_open(work_id))).rowcount > 0

    def give_up(self, work_id: str, why: str, *, within: Connection) -> bool:
        """Say that nobody draws it any more; False if it is not open any more."""
        return within.execute(update(owed_rows).where(_open(work_id)).values(given_up=why)).rowcount > 0


def owed_of(study_instance_uid: str) -> Select[str]:
    """A query for the work of a study whose page and pictures somebody is still to draw: it needs the images."""
    of_study = owed_rows.c.study_instance_uid == study_instance_uid
    return select(owed_rows.c.work_id).where(of_study, owed_rows.c.given_up == "")


def _open(work_id: str) -> Any:
    return (owed_rows.c.work_id == work_id) & (owed_rows.c.given_up == "")


def _owed(row: Any) -> OwedPicture:
    return OwedPicture(
        work_id=row.work_id,
        work=json.loads(row.work),
        owed_since=row.owed_since,
        beginnings=row.beginnings,
        given_up=row.given_up,
    )
