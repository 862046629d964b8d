"""Moves what waits in the outbox: one thread for each destination, so a dead one never delays another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.capabilities import FormChoice
from dicom_node.delivery.lane import Lane, Lanes
from dicom_node.delivery.outbox import Delivery, DeliveryState, Outbox, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.planned_times import PlannedTimes
from dicom_node.errors import OutputMismatch

LOGGER = logging.getLogger(__name__)

Sender = Callable[[bytes, Destination], DeliveryOutcome]

# Another process may put results without being able to wake us; so we look this often in any case.
LOOK_EVERY_S = 10.0


class DeliveryPump(Lanes):
    """Sends due deliveries and records their outcomes until stopped.

    A kill between sending and recording repeats the delivery: the same bytes under the same SOP Instance UID, which
    a receiver takes for what it already has.

    Parameters
    ----------
    outbox
        Where the deliveries wait.
    destinations
        One thread is run for each.
    senders
        By `Destination.kind`: how to send one object. A sender returns an outcome; it does not raise because of a peer.
    policy
        When to try again and when to give up.
    clock, monotonic
        POSIX seconds, and seconds that nobody sets.
    choice
        What goes where; without it everything is tried.
    on_delivered
        Called after a delivery was confirmed and recorded.
    """

    def __init__(
        self,
        outbox: Outbox,
        destinations: Sequence[Destination],
        senders: Mapping[str, Sender],
        *,
        policy: RetryPolicy,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        choice: FormChoice | None = None,
        on_delivered: Callable[[Delivery], None] = lambda _delivery: None,
    ) -> None:
        lanes = [
            _DeliveryLane(
                outbox,
                one,
                senders[one.kind],
                policy=policy,
                clock=clock,
                monotonic=monotonic,
                choice=choice,
                on_delivered=on_delivered,
            )
            for one in destinations
        ]
        super().__init__(lanes)


class _DeliveryLane(Lane):
    """The thread that sends to one destination."""

    def __init__(
        self,
        outbox: Outbox,
        destination: Destination,
        sender: Sender,
        *,
        policy: RetryPolicy,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        choice: FormChoice | None,
        on_delivered: Callable[[Delivery], None],
    ) -> None:
        super().__init__("delivery", destination)
        self._outbox = outbox
        self._sender = sender
        self._policy = policy
        self._clock = clock
        self._choice = choice
        self._on_delivered = on_delivered
        self._away_until: float | None = None
        self._times = PlannedTimes(
            outbox, destination.name, longest_s=policy.max_retry_s, clock=clock, monotonic=monotonic
        )

    def work(self) -> float:
        self._mind_the_clock()
        self._ask_daily()
        self._send_what_is_due()
        return self._pause_s()

    def _send_what_is_due(self) -> None:
        """Send until nothing is due. The outbox is asked anew after each, because a report waits for its SEG."""
        while not self.stopping and not self._is_away():
            due = self._outbox.due(self.destination.name, self._clock())
            if not due:
                return
            self._deliver(due[0])

    def _deliver(self, delivery: Delivery) -> None:
        outcome = self._attempt(delivery)
        self._mind_the_clock()  # before it is judged whether this was tried for long enough
        after = self._outbox.record(
            delivery.delivery_id, outcome, self._clock(), self._policy, to_commit=self.destination.to_commit
        )
        if after is None:
            LOGGER.info("event=delivery_of_erased_study sop_instance=%s", delivery.sop_instance_uid)
            if outcome.kind is OutcomeKind.DELIVERED:
                self._on_delivered(delivery)
            return
        _log(outcome, after)
        if outcome.kind is OutcomeKind.DELIVERED:
            self._on_delivered(after)
        if outcome.kind is OutcomeKind.RETRY_LATER and outcome.status is None:
            # Nobody answered: the next object would only wait for the same silence. One knock per first delay.
            self._away_until = self._clock() + self._policy.first_retry_s
        elif outcome.kind is not OutcomeKind.RETRY_LATER and self._away_until is not None:
            self._away_until = None
            self._outbox.hurry(self.destination.name, self._clock())

    def _mind_the_clock(self) -> None:
        if self._times.look():
            self._away_until = None

    def _attempt(self, delivery: Delivery) -> DeliveryOutcome:
        try:
            data = self._outbox.read(delivery.sop_instance_uid)
        except OutputMismatch as damage:
            return DeliveryOutcome(kind=OutcomeKind.STOPPED, detail=f"not sent: {damage}")
        except OSError as error:
            return DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail=f"our disk does not answer: {error.strerror}")
        try:
            return self._send(delivery, data)
        except Exception as error:  # the net of this worker: one object must not end the thread of all others
            LOGGER.exception(
                "event=sender_failed destination=%s sop_instance=%s", delivery.destination, delivery.sop_instance_uid
            )
            return DeliveryOutcome(
                kind=OutcomeKind.RETRY_LATER,
                detail=f"this node failed to send it ({type(error).__name__}); see its log",
            )

    def _send(self, delivery: Delivery, data: bytes) -> DeliveryOutcome:
        """Send one object, unless its destination does not take its kind; a receiver that refuses is asked anew."""
        if self._choice is None:
            return self._sender(data, self.destination)
        objection = self._choice.objection(self.destination, delivery.kind, queued_at=delivery.queued_at)
        if objection is not None:
            return objection
        outcome = self._sender(data, self.destination)
        if outcome.kind is OutcomeKind.NOT_TAKEN:
            self._choice.refused(self.destination, delivery.kind)
        return outcome

    def _ask_daily(self) -> None:
        """Learn what the destination takes, so that people see it before a study depends on it."""
        if self._choice is None:
            return
        try:
            self._choice.look_daily(self.destination)
        except DATABASE_AWAY:
            raise
        except Exception:  # the net of this worker: what could not be asked is tried when there is something to send
            LOGGER.exception("event=asking_failed destination=%s", self.destination.name)

    def _is_away(self) -> bool:
        return self._away_until is not None and self._clock() < self._away_until

    def _pause_s(self) -> float:
        """Seconds until there may be something to do, unless somebody wakes us."""
        now = self._clock()
        soonest = self._outbox.next_attempt_at(self.destination.name)
        waits = [LOOK_EVERY_S]
        if self._is_away() and self._away_until is not None:
            waits.append(self._away_until - now)
        elif soonest is not None and soonest > now:
            waits.append(soonest - now)
        return max(0.0, min(waits))


def _log(outcome: DeliveryOutcome, after: Delivery) -> None:
    # A receiver's comment may name the patient, so an answer is logged by its number and our own words by themselves.
    LOGGER.log(
        logging.WARNING if after.state is DeliveryState.STOPPED else logging.INFO,
        "event=delivery destination=%s kind=%s sop_instance=%s outcome=%s state=%s attempts=%d answer=%s",
        after.destination,
        after.kind,
        after.sop_instance_uid,
        outcome.kind,
        after.state,
        after.attempts,
        repr(outcome.detail) if outcome.status is None else f"{outcome.status:04X}H",
    )
