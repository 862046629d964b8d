"""When a study's results are where they belong: all of them delivered, and committed where that was asked for.

This is the question of whoever erases something: before it is answered with a time, the node's copy is the only one
that is sure to exist.
"""

from __future__ import annotations

from contextlib import nullcontext

from sqlalchemy import ColumnElement, Connection, Engine, and_, case, func, select

from dicom_node.delivery.commitment_rows import CommitmentState, commitment_rows
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows, object_rows


def done_at(engine: Engine, study_instance_uid: str, *, within: Connection | None = None) -> float | None:
    """Since when everything of this study is delivered, and committed where its destination is to commit.

    Whoever acts on the answer asks `within` the transaction in which it acts.

    Returns
    -------
    float or None
        POSIX seconds of the last confirmation; None while a single object waits, was stopped, awaits its commitment or
        was refused it, and None if nothing was ever sent (no destination, or none that takes any of the objects).
    """
    of_study = object_rows.c.study_instance_uid == study_instance_uid
    return _done(engine, of_study, within=within).get(study_instance_uid)


def done_before(engine: Engine, at: float) -> dict[str, float]:
    """The studies for which `done_at` gives a time before `at` (POSIX seconds), each with that time."""
    return {study: when for study, when in _done(engine).items() if when < at}


def commitment_counts(engine: Engine) -> dict[tuple[str, CommitmentState], int]:
    """How many delivered objects are in each state of commitment, by destination and state."""
    group = (delivery_rows.c.destination, commitment_rows.c.state)
    rows = commitment_rows.join(delivery_rows, delivery_rows.c.delivery_id == commitment_rows.c.delivery_id)
    query = select(*group, func.count()).select_from(rows).group_by(*group).order_by(*group)
    with engine.connect() as connection:
        delivered = connection.execute(query.where(delivery_rows.c.state == DeliveryState.DELIVERED))
        return {(row[0], CommitmentState(row[1])): int(row[2]) for row in delivered}


def _done(engine: Engine, *conditions: ColumnElement[bool], within: Connection | None = None) -> dict[str, float]:
    """By study: the time of its last confirmation, of those that lack none."""
    open_delivery = delivery_rows.c.state.in_([DeliveryState.WAITING, DeliveryState.STOPPED])
    open_commitment = and_(commitment_rows.c.state.is_not(None), commitment_rows.c.state != CommitmentState.COMMITTED)
    missing = func.sum(case((open_delivery | open_commitment, 1), else_=0))
    delivered = delivery_rows.c.state == DeliveryState.DELIVERED
    confirmed = func.max(case((delivered, func.coalesce(commitment_rows.c.last_at, delivery_rows.c.last_attempt_at))))
    query = (
        select(object_rows.c.study_instance_uid, confirmed)
        .select_from(
            object_rows.join(
                delivery_rows, delivery_rows.c.sop_instance_uid == object_rows.c.sop_instance_uid
            ).outerjoin(commitment_rows, commitment_rows.c.delivery_id == delivery_rows.c.delivery_id)
        )
        .where(*conditions)
        .group_by(object_rows.c.study_instance_uid)
        .having(missing == 0, confirmed.is_not(None))
    )
    with engine.connect() if within is None else nullcontext(within) as connection:
        return {study: float(when) for study, when in connection.execute(query)}
