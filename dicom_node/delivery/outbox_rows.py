"""The outbox's rows: what an object, a delivery and its states are, and the conditions on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    Select,
    String,
    Table,
    UniqueConstraint,
    and_,
    exists,
    insert,
    select,
)

from dicom_node.database import metadata
from dicom_node.delivery.commitment_rows import (
    Commitment,
    CommitmentState,
    commitment_columns,
    commitment_of,
    commitment_rows,
)
from dicom_node.delivery.outcome import OutcomeKind


class DeliveryState(StrEnum):
    """WAITING: to be sent, now or later. DELIVERED: the receiver said so. STOPPED: dead letter, a person decides.

    NOT_SENT: the destination does not take this kind of object, or is not to get it; nothing is wrong.
    """

    WAITING = "waiting"
    DELIVERED = "delivered"
    STOPPED = "stopped"
    NOT_SENT = "not_sent"


class DeliveryStanding(StrEnum):
    """The state of a delivery together with its commitment, where one was asked for: what people are shown."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    AWAITING_COMMITMENT = "awaiting_commitment"
    COMMITTED = "committed"
    NOT_COMMITTED = "not_committed"
    STOPPED = "stopped"
    NOT_SENT = "not_sent"


_STANDING_OF: Final = {
    CommitmentState.AWAITED: DeliveryStanding.AWAITING_COMMITMENT,
    CommitmentState.COMMITTED: DeliveryStanding.COMMITTED,
    CommitmentState.NOT_COMMITTED: DeliveryStanding.NOT_COMMITTED,
}


@dataclass(frozen=True, kw_only=True)
class OutboxObject:
    """One encoded result: `data` is its complete Part 10 file, `kind` the word for logs and status ("SEG", "SR")."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class KeptObjects:
    """Objects whose files are durable, in the order of sending. `digests` names those that were not here before."""

    objects: tuple[OutboxObject, ...]
    digests: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One result that is in the outbox, without its bytes (`Outbox.read` gives them)."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One object on its way to one destination. Times are POSIX seconds.

    `commitment` is there once the object was delivered to a destination that is to vouch for keeping it.
    """

    delivery_id: int
    key: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    kind: str
    destination: str
    state: DeliveryState
    attempts: int
    queued_at: float
    next_attempt_at: float
    last_attempt_at: float | None
    last_status: int | None
    last_detail: str
    commitment: Commitment | None = None

    @property
    def standing(self) -> DeliveryStanding:
        """Where it stands in one word; what is on its way again is on its way, whatever was committed before."""
        if self.state is DeliveryState.DELIVERED and self.commitment is not None:
            return _STANDING_OF[self.commitment.state]
        return DeliveryStanding(self.state)


@dataclass(frozen=True, kw_only=True)
class DestinationBacklog:
    """How many deliveries of one destination are in one state; `oldest_queued_at` (POSIX seconds) of those waiting."""

    destination: str
    state: DeliveryState
    count: int
    oldest_queued_at: float | None


object_rows = Table(
    "outbox_object",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("key", String(128), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("send_order", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
)

delivery_rows = Table(
    "outbox_delivery",
    metadata,
    Column("delivery_id", Integer, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", ForeignKey(object_rows.c.sop_instance_uid), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("next_attempt_at", Float, nullable=False),
    Column("last_attempt_at", Float),
    Column("last_status", Integer),
    Column("last_detail", String, nullable=False),
    UniqueConstraint("sop_instance_uid", "destination"),
    Index("outbox_due", "destination", "state", "next_attempt_at"),
    Index("outbox_stopped", "state", "last_attempt_at"),
    sqlite_autoincrement=True,  # an attempt may end after its study was erased, and must not be noted at another's row
)

joined_rows = delivery_rows.join(object_rows, delivery_rows.c.sop_instance_uid == object_rows.c.sop_instance_uid)
_shown = (
    *delivery_rows.c,
    *(column for column in object_rows.c if column.name not in ("sop_instance_uid", "send_order", "sha256")),
)


def deliveries_where(
    connection: Connection, condition: ColumnElement[bool], *, order: Sequence[ColumnElement[Any]] = ()
) -> list[Delivery]:
    """Deliveries with what their receivers vouched for, in the order of queueing if no other is given."""
    rows = joined_rows.outerjoin(commitment_rows, commitment_rows.c.delivery_id == delivery_rows.c.delivery_id)
    query = select(*_shown, *commitment_columns).select_from(rows).where(condition)
    found = connection.execute(query.order_by(*(order or (delivery_rows.c.delivery_id,)))).mappings()
    return [
        Delivery(
            **{column.name: row[column.name] for column in _shown if column.name != "state"},
            state=DeliveryState(row["state"]),
            commitment=commitment_of({**row}),
        )
        for row in found
    ]


def fresh(at: float) -> dict[str, Any]:
    """A delivery with all its tries and time before it."""
    return {"state": DeliveryState.WAITING, "attempts": 0, "queued_at": at, "next_attempt_at": at}


STATE_AFTER = {
    OutcomeKind.DELIVERED: DeliveryState.DELIVERED,
    OutcomeKind.STOPPED: DeliveryState.STOPPED,
    OutcomeKind.RETRY_LATER: DeliveryState.WAITING,
    OutcomeKind.NOT_TAKEN: DeliveryState.NOT_SENT,
}


def sendable(destination: str) -> ColumnElement[bool]:
    """What waits for `destination` and is not held back by an earlier object of its key that waits too."""
    # One within the other: joined, SQLite goes through all that waits for each that waits, 3 s for a thousand studies.
    earlier, earlier_object = delivery_rows.alias(), object_rows.alias()
    waits = exists(
        select(earlier.c.delivery_id).where(
            earlier.c.sop_instance_uid == earlier_object.c.sop_instance_uid,
            earlier.c.destination == destination,
            earlier.c.state == DeliveryState.WAITING,
        )
    )
    held_back = exists(
        select(earlier_object.c.sop_instance_uid).where(
            earlier_object.c.key == object_rows.c.key,
            earlier_object.c.send_order < object_rows.c.send_order,
            waits,
        )
    )
    return and_(delivery_rows.c.destination == destination, delivery_rows.c.state == DeliveryState.WAITING, ~held_back)


def study_of(sop_instance_uid: str) -> Select[str]:
    """A query for the study that an object belongs to."""
    return select(object_rows.c.study_instance_uid).where(object_rows.c.sop_instance_uid == sop_instance_uid)


def digests_of(connection: Connection, sop_instance_uids: Sequence[str]) -> dict[str, str]:
    """SHA-256 by SOP Instance UID, of those that are here."""
    query = select(object_rows.c.sop_instance_uid, object_rows.c.sha256)
    rows = connection.execute(query.where(object_rows.c.sop_instance_uid.in_(list(sop_instance_uids))))
    return {row[0]: row[1] for row in rows}


def queue_rows(
    connection: Connection, sop_instance_uids: Sequence[str], destinations: Sequence[str], at: float
) -> None:
    """One waiting row for every object and destination that has none yet."""
    found = connection.execute(
        select(delivery_rows.c.sop_instance_uid, delivery_rows.c.destination).where(
            delivery_rows.c.sop_instance_uid.in_(list(sop_instance_uids))
        )
    )
    known = {(row[0], row[1]) for row in found}
    wanted = [(uid, destination) for uid in sop_instance_uids for destination in destinations]
    rows = [
        {
            "sop_instance_uid": uid,
            "destination": destination,
            "state": DeliveryState.WAITING,
            "attempts": 0,
            "queued_at": at,
            "next_attempt_at": at,
            "last_detail": "",
        }
        for uid, destination in dict.fromkeys(wanted)
        if (uid, destination) not in known
    ]
    if rows:
        connection.execute(insert(delivery_rows), rows)
