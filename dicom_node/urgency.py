"""Which study is computed next: urgent ones go before the others, and nobody waits for ever.

A study's place in the queue is the time at which it was queued, less a head start that its urgency gives it. So an
urgent study goes before every ordinary one that was queued less than two hours before it, and behind those that have
waited longer. The place is drawn once and never changes: no clock has to run for the waiting to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Column, Connection, Engine, String, Table, Text, delete, insert, select

from dicom_node.database import metadata


class Urgency(StrEnum):
    """URGENT: the sender or the images say so. FIRST: a person has put it before all others."""

    ROUTINE = "routine"
    URGENT = "urgent"
    FIRST = "first"


HEAD_START_S: Final[Mapping[Urgency, float]] = {
    Urgency.ROUTINE: 0.0,
    Urgency.URGENT: 2 * 3600.0,
    Urgency.FIRST: 24 * 3600.0,
}
"""How much later than an ordinary study one may come and still go before it. A day is longer than any queue that a node
with enough workers ever has, so what a person puts first is first; and it is an end of being overtaken for all others.
"""

URGENT_PRIORITIES: Final = ("STAT", "HIGH")
"""Requested Procedure Priority (0040,1003), PS3.3 C.4.11; the other terms are ROUTINE, MEDIUM and LOW."""

_COUNTED_FROM: Final = 1_735_689_600.0
"""2025-01-01 in POSIX seconds: a place in the queue is a whole number of 31 bits, which then lasts until 2093."""

urgency_rows = Table(
    "study_urgency",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("urgency", String(8), nullable=False),
    Column("because", Text, nullable=False),
)
"""Only of studies that are no routine; a row is of the run that was queued last, or put before all others."""


@dataclass(frozen=True, kw_only=True)
class StudyUrgency:
    """How urgent a study is, and why as a clause for people ("EMERGENCY_MR sent it"); "" for routine."""

    urgency: Urgency = Urgency.ROUTINE
    because: str = ""

    @property
    def sentence(self) -> str:
        """For people; "" for routine."""
        return "" if self.urgency is Urgency.ROUTINE else f"{self.urgency}, because {self.because}"


ROUTINE: Final = StudyUrgency()


def place_in_queue(urgency: Urgency, queued_at: float) -> int:
    """The lower, the earlier: 1 to 2^31 - 1; `queued_at` in POSIX seconds."""
    return min(max(1, int(queued_at - HEAD_START_S[urgency] - _COUNTED_FROM)), 2**31 - 1)


def put_urgency(connection: Connection, study_instance_uid: str, urgency: StudyUrgency) -> None:
    """Say how urgent the run is that is queued in this transaction."""
    connection.execute(delete(urgency_rows).where(urgency_rows.c.study_instance_uid == study_instance_uid))
    if urgency.urgency is not Urgency.ROUTINE:
        connection.execute(
            insert(urgency_rows).values(
                study_instance_uid=study_instance_uid, urgency=urgency.urgency.value, because=urgency.because
            )
        )


class Urgencies:
    """How urgent studies are, on one state database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_study(self, study_instance_uid: str) -> StudyUrgency:
        """How urgent the last run of a study that was queued is."""
        return self.of_studies([study_instance_uid])[study_instance_uid]

    def of_studies(self, study_instance_uids: Iterable[str]) -> dict[str, StudyUrgency]:
        """The same for many, each by its Study Instance UID."""
        uids = list(study_instance_uids)
        query = select(urgency_rows).where(urgency_rows.c.study_instance_uid.in_(uids))
        with self._engine.connect() as connection:
            known = {
                row.study_instance_uid: StudyUrgency(urgency=Urgency(row.urgency), because=row.because)
                for row in connection.execute(query)
            }
        return {uid: known.get(uid, ROUTINE) for uid in uids}
