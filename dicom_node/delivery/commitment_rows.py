"""The rows of storage commitment: what is to be vouched for, what was asked, and what came back (PS3.4 annex J).

A row of `commitment` exists from the moment on in which a delivery to a destination that is to commit was confirmed;
both are written in one transaction. No row: that delivery was not to be committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Column, Connection, Float, ForeignKey, Index, Integer, String, Table, delete
from sqlalchemy.dialects import postgresql, sqlite

from dicom_node.database import metadata


class CommitmentState(StrEnum):
    """AWAITED: the receiver has not vouched for the object yet. COMMITTED: it has. NOT_COMMITTED: a person decides."""

    AWAITED = "awaited"
    COMMITTED = "committed"
    NOT_COMMITTED = "not_committed"


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """Where a receiver's word for one delivered object stands. Times are POSIX seconds.

    `asked` counts the requests since the object was delivered last, `sent_again` how often it was lost there and went
    once more. `last_reason` is the Failure Reason (0008,1197) or the status of the last refusal.
    """

    state: CommitmentState
    owed_since: float
    asked: int
    next_ask_at: float
    sent_again: int
    last_at: float | None
    last_reason: int | None
    last_detail: str


commitment_rows = Table(
    "commitment",
    metadata,
    Column("commitment_id", Integer, primary_key=True, autoincrement=True),
    Column("delivery_id", ForeignKey("outbox_delivery.delivery_id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("owed_since", Float, nullable=False),
    Column("asked", Integer, nullable=False),
    Column("next_ask_at", Float, nullable=False),
    Column("sent_again", Integer, nullable=False),
    Column("last_at", Float),
    Column("last_reason", Integer),
    Column("last_detail", String, nullable=False),
)
"""`asked`: requests since the last delivery. `sent_again`: how often the object was lost there and went once more."""

transaction_rows = Table(
    "commitment_transaction",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("asked_at", Float, nullable=False, index=True),
)

reference_rows = Table(
    "commitment_reference",
    metadata,
    Column(
        "transaction_uid", ForeignKey("commitment_transaction.transaction_uid", ondelete="CASCADE"), primary_key=True
    ),
    Column("commitment_id", ForeignKey("commitment.commitment_id", ondelete="CASCADE"), primary_key=True),
    Column("sent_again", Integer, nullable=False),
    Column("answer", Integer),
    Index("commitment_reference_of", "commitment_id"),
)
"""`sent_again` as it was when asked: an answer about an earlier copy says nothing about the one that is there now.

`answer`: 0 vouched for, else the Failure Reason (0008,1197); None until it came.
"""


_FIELDS: Final = tuple(name for name in Commitment.__dataclass_fields__)
commitment_columns: Final = tuple(commitment_rows.c[name].label(f"commitment_{name}") for name in _FIELDS)
"""To select beside a delivery; `commitment_of` reads them."""


def commitment_of(row: Mapping[str, Any]) -> Commitment | None:
    """The commitment in a row that was selected with `commitment_columns`; None if none was asked for."""
    values = {name: row[f"commitment_{name}"] for name in _FIELDS}
    return None if values["state"] is None else Commitment(**{**values, "state": CommitmentState(values["state"])})


def owe(connection: Connection, delivery_id: int, *, at: float) -> None:
    """From now on the receiver has to vouch for the object of this delivery, which it has just confirmed."""
    values: dict[str, Any] = {
        "delivery_id": delivery_id,
        "state": CommitmentState.AWAITED,
        "owed_since": at,
        "asked": 0,
        "next_ask_at": at,
        "sent_again": 0,
        "last_detail": "",
    }
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    anew = {name: values[name] for name in ("state", "owed_since", "asked", "next_ask_at")}
    connection.execute(
        insert(commitment_rows).values(**values).on_conflict_do_update(index_elements=["delivery_id"], set_=anew)
    )


def forget(connection: Connection, delivery_ids: Any) -> None:
    """Nothing is owed for these deliveries any more, and answers about them count no longer; a list or a query."""
    connection.execute(delete(commitment_rows).where(commitment_rows.c.delivery_id.in_(delivery_ids)))
