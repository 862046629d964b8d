"""The outbox: results encoded once, kept durably, and resent as they are until every destination has them.

Order of writing: the file (fsync, rename, fsync of its folder), then the rows in one transaction. A crash between
the two leaves a file without a row, which `sweep` removes; never a row without its file. Encoding an object twice
gives other bytes (dates of creation), so the first bytes under a SOP Instance UID are the only ones ever sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, func, insert, select, update

from dicom_node.database import writing
from dicom_node.delivery.commitment_rows import CommitmentState, commitment_rows, forget, owe
from dicom_node.delivery.object_files import ObjectFiles
from dicom_node.delivery.outbox_rows import (
    STATE_AFTER,
    Delivery,
    DeliveryStanding,
    DeliveryState,
    DestinationBacklog,
    KeptObjects,
    OutboxObject,
    StoredObject,
    deliveries_where,
    delivery_rows,
    digests_of,
    fresh,
    joined_rows,
    object_rows,
    queue_rows,
    sendable,
    study_of,
)
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.delivery.planned_times import ClockChange, move_deliveries
from dicom_node.drift_rows import owe_point, owe_points
from dicom_node.errors import OutputMismatch

__all__ = [
    "Delivery",
    "DeliveryStanding",
    "DeliveryState",
    "DestinationBacklog",
    "KeptObjects",
    "Outbox",
    "OutboxObject",
    "RetryPolicy",
    "StoredObject",
]

# Structured reports of every class (PS3.4 annex B.5) begin with this root. A report refers to the segmentation, so
# it goes last: a viewer that opens it must find what it points at.
_REPORT_CLASSES = "1.2.840.10008.5.1.4.1.1.88."


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Delays double from `first_retry_s` up to `max_retry_s`; `give_up_after_s` after queueing it is a dead letter.

    `jitter` (0..1) is the share by which a delay may be shortened at random, so that many nodes or objects do not
    come back at the same second.
    """

    first_retry_s: float = 30.0
    max_retry_s: float = 600.0
    give_up_after_s: float = 72 * 3600.0
    jitter: float = 0.2

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds until the next attempt after `failures` (1 or more) failed ones; `chance` is random in 0..1."""
        # The exponent is bounded: 2.0 ** 1024 raises, and the cap is reached long before.
        full_s = min(self.max_retry_s, self.first_retry_s * 2.0 ** min(failures - 1, 60))
        return full_s * (1.0 - self.jitter * chance)


class Outbox:
    """Results and their deliveries. Safe to use from several threads; each call is one transaction of its own.

    Parameters
    ----------
    directory
        Where the encoded objects lie, one file each, named by SHA-256; made when missing.
    engine
        From `open_database`.
    random
        Draws the jitter of retries.
    """

    def __init__(self, directory: Path, engine: Engine, *, random: Random | None = None) -> None:
        self._files = ObjectFiles(directory)
        self._engine = engine
        self._random = random or Random()

    def keep(self, objects: Sequence[OutboxObject]) -> KeptObjects:
        """Make the files of a study's results durable; without `queue` nobody sends them.

        Raises
        ------
        OSError
            If the disk does not take them.
        """
        ordered = sorted(objects, key=lambda one: one.sop_class_uid.startswith(_REPORT_CLASSES))
        uids = [one.sop_instance_uid for one in ordered]
        with self._engine.connect() as connection:
            first = digests_of(connection, uids)
        # A retried step may have encoded the same object anew: those bytes are not even written.
        digests = {
            one.sop_instance_uid: self._files.keep(one.sop_instance_uid, one.data)
            for one in ordered
            if one.sop_instance_uid not in first
        }
        return KeptObjects(objects=tuple(ordered), digests=digests)

    def queue(
        self,
        key: str,
        study_instance_uid: str,
        kept: KeptObjects,
        destinations: Sequence[str],
        *,
        at: float,
        within: Connection | None = None,
    ) -> None:
        """Queue each of these objects for each destination; the same call again changes nothing.

        An object whose SOP Instance UID is already here keeps its first bytes, whatever `kept` says now.

        Parameters
        ----------
        key
            The input key: results of one input set, settings and model share it.
        study_instance_uid
            The study that the results belong to.
        kept
            From `keep`, in the order in which they should arrive.
        destinations
            Names from the configuration.
        at
            POSIX seconds; the clock of giving up starts here.
        within
            The transaction that this is a part of; one of its own without it.
        """
        uids = [one.sop_instance_uid for one in kept.objects]
        with nullcontext(within) if within is not None else writing(self._engine) as connection:
            known = digests_of(connection, uids)
            rows = [
                {
                    "sop_instance_uid": one.sop_instance_uid,
                    "key": key,
                    "study_instance_uid": study_instance_uid,
                    "series_instance_uid": one.series_instance_uid,
                    "sop_class_uid": one.sop_class_uid,
                    "kind": one.kind,
                    "send_order": order,
                    "sha256": kept.digests[one.sop_instance_uid],
                }
                for order, one in enumerate(kept.objects)
                if one.sop_instance_uid not in known
            ]
            if rows:
                connection.execute(insert(object_rows), rows)
            queue_rows(connection, uids, destinations, at)
            owe_point(connection, study_instance_uid)

    def clear_others(self, kept: KeptObjects) -> None:
        """Remove files of these objects that hold other bytes than those queued; what is not queued is left alone."""
        with self._engine.connect() as connection:
            queued = digests_of(connection, [one.sop_instance_uid for one in kept.objects])
        for uid, digest in queued.items():
            self._files.keep_only(uid, digest)

    def objects(self, key: str) -> list[StoredObject]:
        """The objects of one input key, in the order of sending."""
        query = select(*(object_rows.c[name] for name in ("kind", "sop_class_uid", "sop_instance_uid")))
        query = query.where(object_rows.c.key == key).order_by(object_rows.c.send_order, object_rows.c.sop_instance_uid)
        with self._engine.connect() as connection:
            return [StoredObject(**row) for row in connection.execute(query).mappings()]

    def holds(self, key: str) -> bool:
        """Whether there are objects of this input key."""
        with self._engine.connect() as connection:
            return connection.execute(select(object_rows.c.kind).where(object_rows.c.key == key)).first() is not None

    def send_again(self, key: str, destinations: Sequence[str], *, at: float, within: Connection | None = None) -> int:
        """Queue the objects of one input key again, as the bytes they are, also for destinations new to them.

        Returns
        -------
        int
            How many deliveries are now waiting because of it; 0 when there are no objects of this key.
        """
        with nullcontext(within) if within is not None else writing(self._engine) as connection:
            found = connection.scalars(
                select(object_rows.c.sop_instance_uid)
                .where(object_rows.c.key == key)
                .order_by(object_rows.c.send_order)
            )
            uids = list(found)
            known = and_(
                delivery_rows.c.sop_instance_uid.in_(uids), delivery_rows.c.destination.in_(list(destinations))
            )
            forget(connection, select(delivery_rows.c.delivery_id).where(known))
            connection.execute(update(delivery_rows).where(known).values(**fresh(at)))
            queue_rows(connection, uids, destinations, at)
            owe_points(connection, select(object_rows.c.study_instance_uid).where(object_rows.c.key == key).distinct())
        return len(uids) * len(set(destinations))

    def due(self, destination: str, now: float) -> list[Delivery]:
        """Deliveries to attempt now, those that waited longest first.

        An object is held back while an earlier one of the same key still waits for the same destination, so the
        report never arrives before its segmentation. One that was stopped holds nothing back.
        """
        ready = and_(sendable(destination), delivery_rows.c.next_attempt_at <= now)
        return self._select(ready, order=(delivery_rows.c.next_attempt_at, delivery_rows.c.delivery_id))

    def next_attempt_at(self, destination: str) -> float | None:
        """When the next delivery to `destination` is due, or None when nothing waits."""
        soonest = (
            select(func.min(delivery_rows.c.next_attempt_at)).select_from(joined_rows).where(sendable(destination))
        )
        with self._engine.connect() as connection:
            found: float | None = connection.scalar(soonest)
        return found

    def read(self, sop_instance_uid: str) -> bytes:
        """The bytes of one object, exactly as they were put.

        Raises
        ------
        OutputMismatch
            If the file is missing or its SHA-256 is no longer the recorded one: it must not leave the node.
        OSError
            If the disk does not let us read it now.
        """
        with self._engine.connect() as connection:
            expected = digests_of(connection, [sop_instance_uid]).get(sop_instance_uid)
        if expected is None:
            raise OutputMismatch(f"{sop_instance_uid}: not in the outbox")
        try:
            data, found = self._files.read(sop_instance_uid, expected)
        except FileNotFoundError:
            raise OutputMismatch(f"{sop_instance_uid}: its file is missing from the outbox") from None
        if found != expected:
            raise OutputMismatch(f"{sop_instance_uid}: damaged on disk; expected SHA-256 {expected}, found {found}")
        return data

    def record(
        self, delivery_id: int, outcome: DeliveryOutcome, now: float, policy: RetryPolicy, *, to_commit: bool = False
    ) -> Delivery | None:
        """Note what one attempt came to, and plan the next one if there is to be one; None if its study was erased.

        What another worker's attempt has delivered meanwhile stays delivered, whatever became of this one. With
        `to_commit`, the receiver that took the object has to vouch for it from the same transaction on.
        """
        with writing(self._engine) as connection:
            of_this = delivery_rows.c.delivery_id == delivery_id
            row = connection.execute(select(delivery_rows).where(of_this).with_for_update()).one_or_none()
            if row is None:
                return None
            if row.state != DeliveryState.DELIVERED or outcome.kind is OutcomeKind.DELIVERED:
                change = self._change(row, outcome, now, policy)
                connection.execute(update(delivery_rows).where(of_this).values(**change))
                if change["state"] != DeliveryState.WAITING:  # a try that failed changes no latency
                    owe_points(connection, study_of(row.sop_instance_uid))
                if to_commit and outcome.kind is OutcomeKind.DELIVERED and row.state != DeliveryState.DELIVERED:
                    owe(connection, delivery_id, at=now)
        return next(iter(self._select(delivery_rows.c.delivery_id == delivery_id)), None)

    def _change(self, row: Any, outcome: DeliveryOutcome, now: float, policy: RetryPolicy) -> dict[str, Any]:
        """What an attempt makes of the row of its delivery."""
        tries = row.attempts + 1
        change: dict[str, Any] = {
            "attempts": tries,
            "last_attempt_at": now,
            "last_status": outcome.status,
            "last_detail": outcome.detail,
            "state": STATE_AFTER[outcome.kind],
        }
        if outcome.kind is OutcomeKind.RETRY_LATER:
            change["next_attempt_at"] = now + policy.delay_s(tries, self._random.random())
            if change["next_attempt_at"] > row.queued_at + policy.give_up_after_s:
                hours = policy.give_up_after_s / 3600
                change["state"] = DeliveryState.STOPPED
                change["last_detail"] = f"given up after {hours:g} h and {tries} tries: {outcome.detail}"
        return change

    def deliveries(self, study_instance_uid: str) -> list[Delivery]:
        """Every delivery of one study, in the order of queueing."""
        return self._select(object_rows.c.study_instance_uid == study_instance_uid)

    def dead_letters(self) -> list[Delivery]:
        """Every delivery that was stopped and waits for a person."""
        return self._select(delivery_rows.c.state == DeliveryState.STOPPED)

    def stopped_since(self, at: float) -> list[Delivery]:
        """Deliveries that were stopped after `at` (POSIX seconds) and are still."""
        stopped = delivery_rows.c.state == DeliveryState.STOPPED
        return self._select(and_(stopped, delivery_rows.c.last_attempt_at > at))

    def not_committed_since(self, at: float) -> list[Delivery]:
        """Deliveries whose receiver has been given up as a keeper after `at` (POSIX seconds), and still is."""
        ended = commitment_rows.c.state == CommitmentState.NOT_COMMITTED
        return self._select(and_(ended, commitment_rows.c.last_at > at))

    def counts(self) -> Mapping[DeliveryState, int]:
        """How many deliveries are in each state."""
        counted = select(delivery_rows.c.state, func.count()).group_by(delivery_rows.c.state)
        with self._engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(counted)}
        return {state: found.get(state, 0) for state in DeliveryState}

    def backlog(self) -> list[DestinationBacklog]:
        """Every destination's deliveries by state, and since when its oldest waits; by destination and state."""
        # Two queries: the first reads the index only, the second only the rows that wait.
        group = (delivery_rows.c.destination, delivery_rows.c.state)
        counted = select(*group, func.count()).group_by(*group).order_by(*group)
        waiting = (
            select(*group, func.min(delivery_rows.c.queued_at))
            .where(delivery_rows.c.state == DeliveryState.WAITING)
            .group_by(*group)
        )
        with self._engine.connect() as connection:
            oldest = {(row[0], row[1]): row[2] for row in connection.execute(waiting)}
            return [
                DestinationBacklog(
                    destination=row[0],
                    state=DeliveryState(row[1]),
                    count=int(row[2]),
                    oldest_queued_at=oldest.get((row[0], row[1])),
                )
                for row in connection.execute(counted)
            ]

    def delivered(self, keys: Sequence[str], *, within: Connection) -> dict[str, float]:
        """By key: when the last object of a piece of work was confirmed, if all that is to be sent was."""
        missing = func.sum(
            case((delivery_rows.c.state.in_([DeliveryState.WAITING, DeliveryState.STOPPED]), 1), else_=0)
        )
        confirmed = delivery_rows.c.state == DeliveryState.DELIVERED
        last = func.max(case((confirmed, delivery_rows.c.last_attempt_at)))
        query = select(object_rows.c.key, last).select_from(joined_rows).where(object_rows.c.key.in_(keys))
        query = query.group_by(object_rows.c.key).having(missing == 0, last.is_not(None))
        return {key: float(at) for key, at in within.execute(query)}

    def hurry(self, destination: str, now: float) -> None:
        """Let everything that waits for `destination` be due now: it was away and has come back."""
        waiting = and_(delivery_rows.c.destination == destination, delivery_rows.c.state == DeliveryState.WAITING)
        with writing(self._engine) as connection:
            connection.execute(
                update(delivery_rows).where(waiting, delivery_rows.c.next_attempt_at > now).values(next_attempt_at=now)
            )

    def put_times_right(self, destination: str, change: ClockChange) -> None:
        """Have what waits for `destination` wait as if the clock had always been as it is now."""
        with writing(self._engine) as connection:
            move_deliveries(connection, destination, change)

    def sweep(self, now: float) -> int:
        """Remove files that a crash left half written, and old ones without a row; returns how many. Once at start."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(object_rows.c.sop_instance_uid, object_rows.c.sha256))
            return self._files.sweep({row.sop_instance_uid: row.sha256 for row in rows}, now)

    def _select(self, condition: Any, *, order: Sequence[Any] = ()) -> list[Delivery]:
        with self._engine.connect() as connection:
            return deliveries_where(connection, condition, order=order)
