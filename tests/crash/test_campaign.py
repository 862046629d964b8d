"""The fault campaign at its smallest scale; `make campaign` runs it at larger ones."""

from __future__ import annotations

import pytest
from campaign import FAULTS
from fault import Fault, Observation, Scale, Trial, whole_campaign


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault", [one for one in FAULTS if one.trials[Scale.CI]], ids=lambda fault: fault.number.replace(" ", "_")
)
def test_the_promise_holds_under_the_fault(fault: Fault) -> None:
    tally = whole_campaign(fault, fault.trials[Scale.CI])
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.trials == fault.trials[Scale.CI]
    assert tally.failures == []
    assert tally.kept


@pytest.mark.parametrize(
    "seen",
    [
        Observation(acknowledged=3, lost=1),
        Observation(acknowledged=3, doubled=1),
        Observation(acknowledged=3, left_over=1),
        Observation(problems=("it did not answer",)),
    ],
)
def test_a_broken_promise_is_counted_with_the_seed_of_its_trial(seen: Observation) -> None:
    fault = _fault(lambda trial: seen if trial.seed == 12 else Observation(acknowledged=3))
    tally = whole_campaign(fault, 3, first_seed=11)
    assert not tally.kept
    assert [line.partition(":")[0] for line in tally.failures] == ["seed 12"]


def test_a_trial_that_raises_is_a_failure_and_the_next_one_has_its_turn() -> None:
    def run(trial: Trial) -> Observation:
        if trial.seed == 0:
            raise OSError("the rig broke")
        return Observation(acknowledged=5)

    tally = whole_campaign(_fault(run), 3)
    assert (tally.trials, tally.acknowledged, tally.kept) == (3, 10, False)
    assert "the rig broke" in tally.failures[0]


def _fault(run) -> Fault:
    return Fault(number="F00", title="none", promise="none", trials={Scale.CI: 3}, run=run)
