"""Who works at what now: the roster and the claims side by side, for people and for monitoring."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, select

from dicom_node.claims import claim_rows
from dicom_node.ledger import StudyState, ledger_studies
from dicom_node.roster import Roster, Worker


@dataclass(frozen=True, kw_only=True)
class Duty:
    """A worker and the study that it is at; empty where it is at none.

    `since` is when it began it (POSIX seconds by the database's clock); `taken_from` is the worker that had it before,
    if that was another one.
    """

    worker: Worker
    study_instance_uid: str = ""
    step: str = ""
    since: float | None = None
    taken_from: str = ""


def duties(engine: Engine) -> list[Duty]:
    """Every worker of the roster, by its id, with the study that it was the last to begin and that has no end yet."""
    query = (
        select(
            claim_rows.c.worker_id,
            claim_rows.c.study_instance_uid,
            claim_rows.c.claimed_at,
            claim_rows.c.taken_from,
            ledger_studies.c.step,
        )
        .join(ledger_studies, ledger_studies.c.study_instance_uid == claim_rows.c.study_instance_uid)
        .where(ledger_studies.c.state == StudyState.COMPUTING.value)
        .order_by(claim_rows.c.claimed_at)
    )
    workers = Roster(engine).workers()
    with engine.connect() as connection:
        at_work = {row.worker_id: row for row in connection.execute(query)}
    found = []
    for worker in workers:
        row = at_work.get(worker.worker_id)
        if row is None:
            found.append(Duty(worker=worker))
            continue
        found.append(
            Duty(
                worker=worker,
                study_instance_uid=row.study_instance_uid,
                step=row.step,
                since=row.claimed_at,
                taken_from=row.taken_from,
            )
        )
    return found
