"""What waits to be sent, or to be vouched for, after the clock was set: it goes on waiting as if it never had been.

Both are planned in wall time, because waiting has to go on over a restart. A clock that was put forward by days would
have everything given up at its next try; one that was put back would have nothing tried again until the old time has
come round. So whoever notices (`clock_watch`) has the times of what still waits moved along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, and_, case, select, update

from dicom_node.clock_watch import ClockWatch
from dicom_node.delivery.commitment_rows import CommitmentState, commitment_rows
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows


@dataclass(frozen=True, kw_only=True)
class ClockChange:
    """The clock says `now` (POSIX seconds) and was put forward `by_s` (negative: back; 0.0: while nobody looked).

    What is planned for later than `longest_s` from now is done now: no plan of ours reaches further.
    """

    now: float
    by_s: float
    longest_s: float

    def began(self, column: ColumnElement[float]) -> ColumnElement[float]:
        """Since when something waits, by the clock as it is now; never the future."""
        moved = column + max(self.by_s, 0.0)
        return case((moved > self.now, self.now), else_=moved)

    def due(self, column: ColumnElement[float]) -> ColumnElement[float]:
        """When something is to be tried next."""
        return case((column > self.now + self.longest_s, self.now), else_=column)


class Planned(Protocol):
    """Keeps plans in wall time, by destination."""

    def put_times_right(self, destination: str, change: ClockChange) -> None:
        """Have what waits for a destination wait as if the clock had always been as it is now."""
        ...


class PlannedTimes:
    """Sees to it for the plans of one destination; for the one thread that serves it.

    Parameters
    ----------
    plans
        Where they are kept.
    longest_s
        The longest pause that is ever planned.
    clock, monotonic
        POSIX seconds, and seconds that nobody sets.
    """

    def __init__(
        self,
        plans: Planned,
        destination: str,
        *,
        longest_s: float,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._plans = plans
        self._destination = destination
        self._longest_s = longest_s
        self._clock = clock
        self._watch = ClockWatch(clock, monotonic)
        self._set_by_s = 0.0
        self._looked = False

    def look(self) -> bool:
        """Put right what is to be put right; True if the clock was set since the last look.

        The first look finds what was planned before the clock was put back while nothing ran. Afterwards a change is
        seen when it happens, and then everything that waits is tried at once. A database that is away at that moment,
        as after a machine was asleep, has it put right at the next look.
        """
        self._set_by_s += self._watch.set_by_s()
        by_s = self._set_by_s
        if by_s or not self._looked:
            longest_s = 0.0 if by_s else self._longest_s
            self._plans.put_times_right(
                self._destination, ClockChange(now=self._clock(), by_s=by_s, longest_s=longest_s)
            )
        self._looked, self._set_by_s = True, 0.0
        return bool(by_s)


def move_deliveries(connection: Connection, destination: str, change: ClockChange) -> None:
    """Move the times of the deliveries that wait for a destination."""
    columns = delivery_rows.c
    waiting = and_(columns.destination == destination, columns.state == DeliveryState.WAITING)
    values: dict[str, Any] = {
        "queued_at": change.began(columns.queued_at),
        "next_attempt_at": change.due(columns.next_attempt_at),
    }
    connection.execute(update(delivery_rows).where(waiting).values(**values))


def move_commitments(connection: Connection, destination: str, change: ClockChange) -> None:
    """Move the times of the objects that a destination has still to vouch for."""
    columns = commitment_rows.c
    theirs = select(delivery_rows.c.delivery_id).where(delivery_rows.c.destination == destination)
    awaited = and_(columns.state == CommitmentState.AWAITED, columns.delivery_id.in_(theirs))
    values: dict[str, Any] = {
        "owed_since": change.began(columns.owed_since),
        "next_ask_at": change.due(columns.next_ask_at),
    }
    connection.execute(update(commitment_rows).where(awaited).values(**values))
