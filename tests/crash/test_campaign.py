"""The fault campaign at its smallest scale; `make campaign` runs it at larger ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from campaign import FAULTS
from campaign_report import added_up, as_document, as_page, with_figures
from fault import Fault, Observation, Scale, Trial, whole_campaign
from fault_matrix import INVARIANTS, MATRIX


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


def test_runs_done_in_pieces_add_up_with_their_seeds_and_failures() -> None:
    good = _fault(lambda _trial: Observation(acknowledged=5, recovery_s=1.5))
    bad = _fault(lambda _trial: Observation(injected=10, acknowledged=5, lost=1, recovery_s=4.0))
    runs = [
        as_document([whole_campaign(good, 3)], first_seed=0),
        as_document([whole_campaign(bad, 2, first_seed=7)], first_seed=7),
    ]
    (sum_,) = added_up(runs, [good])
    assert (sum_.injected, sum_.acknowledged, sum_.lost, sum_.longest_recovery_s) == (23, 25, 2, 4.0)
    assert sum_.seeds == [(0, 2), (7, 8)]
    assert not sum_.kept
    page = as_page([sum_], runs, FAULTS)
    assert "| F00 none | 23 | 25 | 2 | 0 | 0 | 4.0 s | BROKEN in 2 trials |" in page
    assert "Seeds 0 to 2, 7 to 8." in page


def test_the_page_of_promises_gets_the_last_figures_of_its_rows_and_keeps_the_others() -> None:
    runs = [as_document([whole_campaign(_fault(lambda _trial: Observation(recovery_s=1.5)), 3)], first_seed=0)]
    figures = added_up(runs, [_fault(lambda _trial: Observation())])
    page = (
        "| P1 | kept | crash/test_campaign.py::test_x (F00) | - |\n"
        "| P2 | kept | campaign: F00 | - |\n"
        "| P3 | kept | unit/test_x.py::test_x | each test run |\n"
        "| P4 | kept | crash/test_campaign.py::test_x (F00 named) | - |\n"
    )
    first, second, *others = with_figures(page, figures).splitlines(keepends=True)
    assert first.endswith("(F00) | 3 injected: 0 lost, 0 doubled, 0 left over; longest recovery 1.5 s |\n")
    assert second.endswith("campaign: F00 | 3 injected: 0 lost, 0 doubled, 0 left over; longest recovery 1.5 s |\n")
    assert others == page.splitlines(keepends=True)[2:]


def test_every_fault_of_the_matrix_is_a_row_of_the_campaign_or_has_tests_that_exist() -> None:
    assert list(MATRIX) == [f"F{number:02}" for number in range(1, 33)]
    assert list(INVARIANTS) == [f"I{number}" for number in range(1, 9)]
    rows = {one.number.split()[0] for one in FAULTS}
    assert [number for number, row in MATRIX.items() if number not in rows and not row.tests] == []
    tests = Path(__file__).parents[1]
    named = [test.split("::") for row in (*MATRIX.values(), *INVARIANTS.values()) for test in row.tests]
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (tests / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def _fault(run) -> Fault:
    return Fault(number="F00", title="none", promise="none", trials={Scale.CI: 3}, run=run)
