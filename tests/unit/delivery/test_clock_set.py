"""The clock is set while results wait: they go on their way, nothing is given up early, nobody has to send again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from queued_results import put
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from dicom_node.database import open_database, writing
from dicom_node.delivery.commitment_rows import CommitmentState
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import Delivery, DeliveryState, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.planned_times import Planned, PlannedTimes

STUDY: Final = "2.25.100"
A_DAY_S: Final = 86_400.0
NOON: Final = 1_800_000_000.0
POLICY: Final = RetryPolicy(jitter=0.0)
PACS: Final = Destination(name="pacs", kind="dicom", called_ae="PACS")
AWAY: Final = DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail="nobody there")
TAKEN: Final = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="stored", status=0)


class Clock:
    """Wall time that a test sets, beside time that only passes."""

    def __init__(self) -> None:
        self.now, self.steady = NOON, 5.0

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.steady += seconds

    def times_of(self, plans: Planned) -> PlannedTimes:
        """What minds the clock for "pacs", after its first look."""
        times = PlannedTimes(
            plans, "pacs", longest_s=POLICY.max_retry_s, clock=lambda: self.now, monotonic=lambda: self.steady
        )
        times.look()
        return times


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(f"sqlite:///{tmp_path / 'node.db'}")


@pytest.fixture
def outbox(tmp_path: Path, engine: Engine) -> Outbox:
    outbox = Outbox(tmp_path / "outbox", engine)
    one = OutboxObject(
        kind="SR",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.301",
        series_instance_uid="2.25.300",
        data=b"report",
    )
    put(outbox, "key", STUDY, [one], ["pacs", "archive"], at=NOON)
    return outbox


def to(outbox: Outbox, destination: str) -> Delivery:
    """The delivery to a destination."""
    return next(one for one in outbox.deliveries(STUDY) if one.destination == destination)


def attempt(outbox: Outbox, clock: Clock, outcome: DeliveryOutcome = AWAY) -> Delivery:
    """Try what is due for "pacs", with this outcome."""
    (due,) = outbox.due("pacs", clock.now)
    after = outbox.record(due.delivery_id, outcome, clock.now, POLICY, to_commit=True)
    assert after is not None
    return after


@pytest.mark.parametrize("by_s", [-A_DAY_S, A_DAY_S, -NOON + 100.0], ids=["back", "forward", "to 1970"])
def test_f28_after_the_clock_was_set_what_waits_goes_at_once(outbox: Outbox, clock: Clock, by_s: float) -> None:
    times = clock.times_of(outbox)
    for _ in range(6):  # so often that the next try is ten minutes away
        clock.pass_(POLICY.max_retry_s)
        attempt(outbox, clock)
    clock.pass_(1.0)
    assert outbox.due("pacs", clock.now) == []
    clock.now += by_s
    assert times.look()
    assert attempt(outbox, clock, TAKEN).state is DeliveryState.DELIVERED


def test_f28_a_clock_set_back_while_nothing_ran_delays_nothing(outbox: Outbox, clock: Clock) -> None:
    clock.pass_(60.0)
    attempt(outbox, clock)
    clock.now -= A_DAY_S
    clock.times_of(outbox)  # the first look of a worker that starts
    assert attempt(outbox, clock, TAKEN).state is DeliveryState.DELIVERED


def test_f28_a_restart_without_a_change_of_the_clock_keeps_the_pauses(outbox: Outbox, clock: Clock) -> None:
    attempt(outbox, clock)
    before = to(outbox, "pacs")
    clock.pass_(1.0)
    clock.times_of(outbox)
    assert to(outbox, "pacs") == before


@pytest.mark.parametrize("days", [5.0, 3650.0])
def test_f28_a_clock_put_forward_gives_nothing_up(outbox: Outbox, clock: Clock, days: float) -> None:
    times = clock.times_of(outbox)
    clock.pass_(60.0)
    attempt(outbox, clock)
    clock.now += days * A_DAY_S
    times.look()
    assert attempt(outbox, clock).state is DeliveryState.WAITING


def test_f28_a_database_that_is_away_when_the_clock_is_put_forward_gives_nothing_up_later(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    impatient = open_database(f"sqlite:///{tmp_path / 'node.db'}", busy_timeout_s=0.0)
    times = clock.times_of(Outbox(tmp_path / "outbox", impatient))
    clock.now += 5 * A_DAY_S
    with writing(open_database(f"sqlite:///{tmp_path / 'node.db'}")), pytest.raises(OperationalError):
        times.look()
    assert times.look()
    assert attempt(outbox, clock).state is DeliveryState.WAITING
    assert not times.look()


def test_f28_72_hours_are_counted_from_queueing_whatever_the_clock_said_meanwhile(outbox: Outbox, clock: Clock) -> None:
    times = clock.times_of(outbox)
    clock.pass_(40 * 3600.0)
    clock.now += 5 * A_DAY_S
    times.look()
    clock.pass_(31 * 3600.0)
    assert attempt(outbox, clock).state is DeliveryState.WAITING
    clock.pass_(2 * 3600.0)
    assert attempt(outbox, clock).state is DeliveryState.STOPPED


def test_f28_the_clock_is_minded_by_each_destination_for_itself(outbox: Outbox, clock: Clock) -> None:
    before = to(outbox, "archive")
    times = clock.times_of(outbox)
    clock.now += 5 * A_DAY_S
    times.look()
    assert to(outbox, "archive") == before
    assert to(outbox, "pacs").queued_at == before.queued_at + 5 * A_DAY_S


@pytest.mark.parametrize("by_s", [-A_DAY_S, 5 * A_DAY_S], ids=["back", "forward"])
def test_f28_after_the_clock_was_set_a_commitment_is_asked_for_again_and_not_given_up(
    engine: Engine, outbox: Outbox, clock: Clock, by_s: float
) -> None:
    commitments = Commitments(engine, policy=POLICY)
    attempt(outbox, clock, TAKEN)
    times = clock.times_of(commitments)
    assert commitments.begin(PACS, clock.now) is not None
    clock.pass_(1.0)
    assert commitments.begin(PACS, clock.now) is None
    clock.now += by_s
    times.look()
    assert commitments.begin(PACS, clock.now) is not None
    word = to(outbox, "pacs").commitment
    assert word is not None
    assert (word.state, word.asked) == (CommitmentState.AWAITED, 2)
