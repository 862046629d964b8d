"""The ratio gate: what falls by more than a quarter three times fails, and seconds alone never do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import pytest
from gate import ALLOWED_LOSS, TRIES, fallen, held
from run_bench import BENCHES
from suite import GATE_RESULTS, Better, Measurement, Record


def record(ratio: float, *, what: str = "case", slower_machine: float = 1.0) -> Record:
    one = Measurement(
        what=what,
        unit="s",
        better=Better.LOWER,
        values=(slower_machine,) * 3,
        rival="Peer 1",
        rival_values=(slower_machine * ratio,) * 3,
        gated=True,
    )
    return Record(
        benchmark="b", question="?", command="python bench/b.py", measured_at="", machine={}, measurements=(one,)
    )


@pytest.mark.parametrize(("now", "complains"), [(4.0, False), (3.01, False), (2.99, True)])
def test_a_ratio_may_fall_by_a_quarter_and_no_more(now: float, complains: bool) -> None:
    assert ALLOWED_LOSS == 0.25
    assert bool(fallen(record(now), record(4.0))) is complains


def test_a_machine_ten_times_as_slow_passes() -> None:
    assert fallen(record(4.0, slower_machine=10.0), record(4.0)) == []


def test_a_gated_figure_cannot_vanish() -> None:
    assert "not measured any more" in fallen(record(4.0, what="another"), record(4.0))[0]


@pytest.mark.parametrize(
    ("ratios", "runs", "passes"), [((4.0,), 1, True), ((1.0, 4.0), 2, True), ((1.0, 1.0, 1.0), TRIES, False)]
)
def test_one_good_run_of_three_is_enough(ratios: tuple[float, ...], runs: int, passes: bool) -> None:
    made: list[Record] = []
    values: Iterator[float] = iter((*ratios, *repeat(4.0, TRIES)))

    def measure() -> Record:
        made.append(record(next(values)))
        return made[-1]

    assert (held(record(4.0), measure) == []) is passes
    assert len(made) == runs


def test_every_committed_gate_record_belongs_to_a_benchmark_and_holds_a_gated_figure() -> None:
    kept = list(GATE_RESULTS.glob("*.json"))
    assert kept
    for path in kept:
        assert path.stem in BENCHES
        assert any(one.gated for one in Record.read(path).measurements)
