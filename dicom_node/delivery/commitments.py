"""What receivers have to vouch for, in the state database: asked, answered, asked again, given up.

Written before it is sent: a Transaction UID and what it is about are durable before the request leaves, so that an
answer is known whenever it comes, by whichever association, and whichever process takes it. A kill between two steps
repeats the question under a new Transaction UID, which changes nothing at the receiver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from pydicom.uid import generate_uid
from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, exists, func, insert, select, update

from dicom_node.database import metadata, writing
from dicom_node.delivery.commitment_answers import AfterFailure, CommitmentReport, Reference, meaning_of
from dicom_node.delivery.commitment_rows import (
    CommitmentState,
    commitment_rows,
    reference_rows,
    transaction_rows,
)
from dicom_node.delivery.outbox import RetryPolicy
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows, fresh, object_rows, study_of
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.planned_times import ClockChange, move_commitments
from dicom_node.drift_rows import owe_points

MAX_SENT_AGAIN: Final = 3
"""A receiver that loses an object this often is broken; sending it once more would hide that from people."""

KEEP_TRANSACTIONS_S: Final = 30 * 86400.0
"""So long an answer to a request is recognized; no archive was heard of that takes longer."""

VOUCHED: Final = "the receiver vouches for keeping it"


@dataclass(frozen=True, kw_only=True)
class CommitmentRequest:
    """One question, already written down: the objects of one piece of work that went to one destination."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class ReportEffect:
    """What one report changed, in numbers of objects; `known` is False where we asked no such thing of that peer.

    `committed`, `failed`: taken over. `repeated`: answered before. `outdated`: about a copy that was sent again since.
    `not_asked`: named by the report only.
    """

    known: bool
    destination: str = ""
    committed: int = 0
    failed: int = 0
    repeated: int = 0
    outdated: int = 0
    not_asked: int = 0


class Commitments:
    """Requests for commitment and their answers. Safe to use from several threads and processes.

    Parameters
    ----------
    engine
        From `open_database`.
    policy
        When to ask again and when to give up, as for deliveries.
    random
        Draws the jitter.
    """

    def __init__(self, engine: Engine, *, policy: RetryPolicy, random: Random | None = None) -> None:
        self._engine = engine
        self._policy = policy
        self.longest_pause_s = policy.max_retry_s
        self._random = random or Random()
        with writing(engine) as connection:  # a database that was opened before this module was imported
            metadata.create_all(connection, tables=[commitment_rows, transaction_rows, reference_rows])

    def begin(self, destination: Destination, now: float) -> CommitmentRequest | None:
        """The next question to ask of a destination, written down as asked; None when there is none to ask now.

        It is about the objects of one piece of work. The time of the next question is set here already: whoever is
        killed after this line asks again then. What has been asked for too long is given up.
        """
        with writing(self._engine) as connection:
            due = []
            for one in _due(connection, destination.name, now):
                if now > one.owed_since + self._policy.give_up_after_s:
                    _set(connection, one.commitment_id, **self._gave_up(one, now))
                else:
                    due.append(one)
            if not due:
                return None
            chosen = [one for one in due if one.key == due[0].key]
            return self._asked(connection, destination, chosen, now)

    def _asked(
        self, connection: Connection, destination: Destination, chosen: list[Any], now: float
    ) -> CommitmentRequest:
        """Write down a question about these rows."""
        uid = str(generate_uid(prefix=None))  # 2.25 and 122 random bits: nobody guesses it
        connection.execute(
            insert(transaction_rows).values(
                transaction_uid=uid, destination=destination.name, called_ae=destination.called_ae, asked_at=now
            )
        )
        rows = [
            {"transaction_uid": uid, "commitment_id": one.commitment_id, "sent_again": one.sent_again} for one in chosen
        ]
        connection.execute(insert(reference_rows), rows)
        for one in chosen:
            pause_s = self._policy.delay_s(one.asked + 1, self._random.random())
            _set(connection, one.commitment_id, asked=one.asked + 1, next_ask_at=now + pause_s)
        return CommitmentRequest(
            transaction_uid=uid,
            references=tuple(
                Reference(sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid) for one in chosen
            ),
        )

    def _gave_up(self, row: Any, now: float) -> dict[str, Any]:
        hours = self._policy.give_up_after_s / 3600
        last = f"; the last thing heard: {row.last_detail}" if row.last_detail else ""
        detail = f"given up after {hours:g} h and {row.asked} requests without an answer that helps{last}"
        return {"state": CommitmentState.NOT_COMMITTED, "last_at": now, "last_detail": detail}

    def note(self, request: CommitmentRequest, outcome: DeliveryOutcome, now: float) -> None:
        """Keep what became of sending a request; one that the receiver refused for good is not asked again."""
        with writing(self._engine) as connection:
            for one in _referenced(connection, request.transaction_uid):
                if one.answer is not None or _is_outdated(one) or one.state != CommitmentState.AWAITED:
                    continue  # answered already, by this association or another
                change: dict[str, Any] = {"last_at": now, "last_reason": outcome.status, "last_detail": outcome.detail}
                if outcome.kind in (OutcomeKind.STOPPED, OutcomeKind.NOT_TAKEN):
                    change["state"] = CommitmentState.NOT_COMMITTED
                _set(connection, one.commitment_id, **change)

    def take(self, report: CommitmentReport, *, peer_ae: str, now: float) -> ReportEffect:
        """Take over what a receiver says, in one transaction; said twice it changes nothing the second time.

        A success counts also when it comes late, after other questions or after giving up: the receiver has the
        object. Nothing counts that comes from another AE title than the one that was asked.
        """
        with writing(self._engine) as connection:
            asked = connection.execute(
                select(transaction_rows).where(
                    transaction_rows.c.transaction_uid == report.transaction_uid,
                    transaction_rows.c.called_ae == peer_ae,
                )
            ).one_or_none()
            if asked is None:
                return ReportEffect(known=False)
            rows = {
                Reference(sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid): one
                for one in _referenced(connection, report.transaction_uid)
            }
            effects = Counter(
                self._take_one(connection, rows.get(reference), report.transaction_uid, answer, now)
                for reference, answer in report.answers.items()
            )
        return ReportEffect(known=True, destination=asked.destination, **effects)

    def _take_one(self, connection: Connection, row: Any, transaction_uid: str, answer: int, now: float) -> str:
        """Take over the answer about one object; the name of the count in `ReportEffect` that it belongs to."""
        if row is None:
            return "not_asked"
        if row.answer is not None:
            return "repeated"
        this = and_(
            reference_rows.c.transaction_uid == transaction_uid, reference_rows.c.commitment_id == row.commitment_id
        )
        connection.execute(update(reference_rows).where(this).values(answer=answer))
        if _is_outdated(row):
            return "outdated"
        if answer == 0:
            if row.state != CommitmentState.COMMITTED:
                change = {"state": CommitmentState.COMMITTED, "last_at": now, "last_reason": None}
                _set(connection, row.commitment_id, **change, last_detail=VOUCHED)
            return "committed"
        if row.state == CommitmentState.AWAITED:
            _failed(connection, row, answer, now)
        return "failed"

    def is_answered(self, transaction_uid: str) -> bool:
        """Whether every object of a question has its answer, by whichever association it came."""
        open_ones = select(reference_rows.c.commitment_id).where(
            reference_rows.c.transaction_uid == transaction_uid, reference_rows.c.answer.is_(None)
        )
        with self._engine.connect() as connection:
            return connection.execute(open_ones).first() is None

    def next_ask_at(self, destination: str) -> float | None:
        """When the next question to a destination is due; None when there is none to come."""
        soonest = select(func.min(commitment_rows.c.next_ask_at)).select_from(_WITH_OBJECT).where(_awaited(destination))
        with self._engine.connect() as connection:
            found: float | None = connection.scalar(soonest)
        return found

    def put_times_right(self, destination: str, change: ClockChange) -> None:
        """Have what a destination has to vouch for wait as if the clock had always been as it is now."""
        with writing(self._engine) as connection:
            move_commitments(connection, destination, change)

    def release(self, destinations: Collection[str]) -> int:
        """Ask no more of destinations that are not to commit any longer; returns how many objects that concerns."""
        theirs = select(delivery_rows.c.delivery_id).where(delivery_rows.c.destination.in_(list(destinations)))
        unfinished = commitment_rows.c.state != CommitmentState.COMMITTED
        with writing(self._engine) as connection:
            found = connection.execute(
                delete(commitment_rows).where(commitment_rows.c.delivery_id.in_(theirs), unfinished)
            )
            return int(found.rowcount)

    def sweep(self, now: float) -> int:
        """Forget questions that are so old that no answer to them comes; returns how many. Once at start."""
        old = transaction_rows.c.asked_at < now - KEEP_TRANSACTIONS_S
        with writing(self._engine) as connection:
            return int(connection.execute(delete(transaction_rows).where(old)).rowcount)


_JOINED: Final = commitment_rows.join(delivery_rows, delivery_rows.c.delivery_id == commitment_rows.c.delivery_id)
_WITH_OBJECT: Final = _JOINED.join(object_rows, object_rows.c.sop_instance_uid == delivery_rows.c.sop_instance_uid)


def _awaited(destination: str) -> ColumnElement[bool]:
    """Of this destination, delivered and not vouched for; what is on its way again is asked about later.

    The objects of one piece of work are asked about together: not before each of them has been tried once.
    """
    other, other_object = delivery_rows.alias(), object_rows.alias()
    untried = exists(
        select(other.c.delivery_id)
        .join(other_object, other.c.sop_instance_uid == other_object.c.sop_instance_uid)
        .where(
            other.c.destination == destination,
            other.c.state == DeliveryState.WAITING,
            other.c.attempts == 0,
            other_object.c.key == object_rows.c.key,
        )
    )
    return and_(
        ~untried,
        delivery_rows.c.destination == destination,
        delivery_rows.c.state == DeliveryState.DELIVERED,
        commitment_rows.c.state == CommitmentState.AWAITED,
    )


def _due(connection: Connection, destination: str, now: float) -> list[Any]:
    """Rows to ask about now, those that waited longest first; another worker on PostgreSQL takes other ones."""
    query = (
        select(commitment_rows, object_rows.c.key, object_rows.c.sop_class_uid, object_rows.c.sop_instance_uid)
        .select_from(_WITH_OBJECT)
        .where(_awaited(destination), commitment_rows.c.next_ask_at <= now)
        .order_by(commitment_rows.c.next_ask_at, commitment_rows.c.commitment_id)
        .with_for_update(of=commitment_rows, skip_locked=True)
    )
    return [*connection.execute(query)]


def _referenced(connection: Connection, transaction_uid: str) -> list[Any]:
    """What one transaction asked about, beside where it stands now; locked until the end of our transaction."""
    query = (
        select(
            commitment_rows,
            reference_rows.c.answer,
            reference_rows.c.sent_again.label("asked_about"),
            object_rows.c.sop_class_uid,
            object_rows.c.sop_instance_uid,
        )
        .select_from(
            _WITH_OBJECT.join(reference_rows, reference_rows.c.commitment_id == commitment_rows.c.commitment_id)
        )
        .where(reference_rows.c.transaction_uid == transaction_uid)
        .order_by(commitment_rows.c.commitment_id)
        .with_for_update(of=[commitment_rows, reference_rows])
    )
    return [*connection.execute(query)]


def _is_outdated(row: Any) -> bool:
    """Whether the object has been sent again since this was asked."""
    return bool(row.asked_about != row.sent_again)


def _failed(connection: Connection, row: Any, reason: int, now: float) -> None:
    """Do what a Failure Reason asks for."""
    meaning = meaning_of(reason)
    change: dict[str, Any] = {
        "last_at": now,
        "last_reason": reason,
        "last_detail": f"not vouched for ({reason:04X}H): {meaning.words}",
    }
    if meaning.then is AfterFailure.SEND_AGAIN and row.sent_again < MAX_SENT_AGAIN:
        # From here on it is as good as never sent; `owe` begins anew when it has been delivered once more.
        change["sent_again"] = row.sent_again + 1
        again = update(delivery_rows).where(delivery_rows.c.delivery_id == row.delivery_id)
        connection.execute(again.values(**fresh(now), last_detail=f"sent again: {meaning.words}"))
        owe_points(connection, study_of(row.sop_instance_uid))
    elif meaning.then is AfterFailure.SEND_AGAIN:
        change["state"] = CommitmentState.NOT_COMMITTED
        change["last_detail"] += f"; {row.sent_again + 1} copies were lost, no further one is sent"
    elif meaning.then is AfterFailure.STOP:
        change["state"] = CommitmentState.NOT_COMMITTED
    _set(connection, row.commitment_id, **change)


def _set(connection: Connection, commitment_id: int, **values: Any) -> None:
    of_this = commitment_rows.c.commitment_id == commitment_id
    connection.execute(update(commitment_rows).where(of_this).values(**values))
