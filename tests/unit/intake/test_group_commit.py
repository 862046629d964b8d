"""Threads whose work is committed together: each gets its own result, and nobody's before it is durable."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE_S, wait_until

from dicom_node.intake.group_commit import GroupCommit


class Ledger:
    """Commits when it is let; remembers each group."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may_commit = threading.Event()
        self.has_begun = threading.Event()
        self.fails_on: int | None = None
        self.problem: BaseException = OSError(28, "No space left on device")
        self.leaves_out = 0

    def commit(self, items: Sequence[int]) -> list[int]:
        self.has_begun.set()
        assert self.may_commit.wait(PATIENCE_S)
        if self.fails_on in items:
            raise self.problem
        self.groups.append(list(items))
        return [item * 10 for item in items][self.leaves_out :]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def wait_for(together: GroupCommit[int, int], callers: Sequence[object]) -> None:
    """Wait until so many callers stand in line."""
    wait_until(lambda: len(together._waiting) == len(callers))


def test_a_caller_alone_is_served_at_once(ledger: Ledger) -> None:
    ledger.may_commit.set()
    together = GroupCommit(ledger.commit)
    assert [together(1), together(2)] == [10, 20]
    assert ledger.groups == [[1], [2]]


def test_what_comes_during_a_commit_is_committed_together_and_everybody_gets_his_own(ledger: Ledger) -> None:
    together = GroupCommit(ledger.commit)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(together, 1)
        assert ledger.has_begun.wait(PATIENCE_S)
        others = [pool.submit(together, item) for item in range(2, 10)]
        wait_for(together, others)
        assert not any(one.done() for one in (first, *others))
        ledger.may_commit.set()
        assert [one.result(PATIENCE_S) for one in (first, *others)] == [item * 10 for item in range(1, 10)]
    assert [sorted(group) for group in ledger.groups] == [[1], list(range(2, 10))]


def test_a_commit_waits_for_those_that_are_coming(ledger: Ledger) -> None:
    ledger.may_commit.set()
    together = GroupCommit(ledger.commit, let_come_s=PATIENCE_S)
    with ThreadPoolExecutor(2) as pool:
        with together.coming():
            both = [pool.submit(together, item) for item in (1, 2)]
            wait_for(together, both)
        assert [one.result(PATIENCE_S) for one in both] == [10, 20]
    assert [sorted(group) for group in ledger.groups] == [[1, 2]]


def test_who_said_he_is_coming_and_does_not_come_holds_nobody_up_for_long(ledger: Ledger) -> None:
    ledger.may_commit.set()
    together = GroupCommit(ledger.commit, let_come_s=0.01)
    with together.coming():
        assert together(1) == 10
    with pytest.raises(OSError, match="disk"), together.coming():
        raise OSError("disk")
    assert together._coming == 0


def test_a_commit_that_fails_fails_for_everybody_in_it_and_for_nobody_else(ledger: Ledger) -> None:
    together = GroupCommit(ledger.commit)
    ledger.fails_on = 3
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(together, 1)
        assert ledger.has_begun.wait(PATIENCE_S)
        others = [pool.submit(together, item) for item in (2, 3)]
        wait_for(together, others)
        ledger.may_commit.set()
        assert first.result(PATIENCE_S) == 10
        for one in others:
            with pytest.raises(OSError, match="No space left"):
                one.result(PATIENCE_S)
    assert together(4) == 40
    assert ledger.groups == [[1], [4]]


@pytest.mark.parametrize("how", ["interrupted", "without a result for each"])
def test_a_commit_that_does_not_come_to_its_end_promises_nothing_to_anybody(ledger: Ledger, how: str) -> None:
    together = GroupCommit(ledger.commit)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(together, 1)
        assert ledger.has_begun.wait(PATIENCE_S)
        others = [pool.submit(together, item) for item in (2, 3)]
        wait_for(together, others)
        failing = others
        if how == "interrupted":
            ledger.fails_on, ledger.problem = 3, KeyboardInterrupt()
        else:
            ledger.leaves_out = 1
            failing = [first, *others]
        ledger.may_commit.set()
        for one in failing:
            assert isinstance(one.exception(PATIENCE_S), KeyboardInterrupt | ValueError)
