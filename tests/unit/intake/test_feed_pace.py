"""How soon an Orthanc is looked at again: seldom, often while images come, and later and later while it fails."""

from __future__ import annotations

import pytest

from dicom_node.intake.feed_pace import ARRIVING_LOOK_S, ARRIVING_S, LONGEST_S, FeedPace


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def look(pace: FeedPace, clock: Clock, *, taken: int = 0, takes_s: float = 0.0) -> tuple[bool, float]:
    """Whether it was one at everything, and the pause after it; the clock then stands at the next one."""
    at_all = pace.begin()
    clock.now += takes_s
    pause_s = pace.end(taken, at_all=at_all)
    clock.now += pause_s
    return at_all, pause_s


def test_where_nothing_comes_everything_is_looked_at_once_an_interval() -> None:
    clock = Clock()
    pace = FeedPace(interval_s=5.0, clock=clock)
    assert [look(pace, clock) for _ in range(3)] == [(True, 5.0)] * 3


def test_while_images_come_and_a_little_longer_it_is_looked_at_often_and_at_everything_as_seldom_as_ever() -> None:
    clock = Clock()
    pace = FeedPace(interval_s=5.0, clock=clock)
    began = clock.now
    looks = [look(pace, clock, taken=1)]
    while looks[-1][1] == ARRIVING_LOOK_S:
        looks.append(look(pace, clock))
    assert ARRIVING_S <= clock.now - 5.0 - began <= ARRIVING_S + 2 * ARRIVING_LOOK_S
    assert sum(at_all for at_all, _ in looks) == 3


def test_a_look_that_was_long_because_it_fetched_is_followed_at_once() -> None:
    clock = Clock()
    pace = FeedPace(interval_s=5.0, clock=clock)
    assert look(pace, clock, taken=50, takes_s=ARRIVING_LOOK_S) == (True, 0.0)
    assert look(pace, clock, taken=0, takes_s=ARRIVING_LOOK_S / 2) == (False, pytest.approx(ARRIVING_LOOK_S / 2))


def test_an_interval_that_is_shorter_still_counts() -> None:
    clock = Clock()
    pace = FeedPace(interval_s=0.1, clock=clock)
    assert look(pace, clock, taken=1) == (True, 0.1)


def test_failures_are_waited_out_longer_and_longer_until_one_look_succeeds() -> None:
    clock = Clock()
    pace = FeedPace(interval_s=5.0, clock=clock)
    pace.begin()
    assert [pace.fail() for _ in range(6)] == [5.0, 10.0, 20.0, 40.0, LONGEST_S, LONGEST_S]
    assert look(pace, clock)[0]  # what failed was none at everything
    assert pace.fail() == 5.0
