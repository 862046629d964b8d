"""The form of every benchmark: rounds in turns, ratios that mean the same for seconds and for rates, records."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from suite import Benchmark, Better, Found, Measurement, Record, in_turns, run


def test_contenders_are_measured_in_turns_within_every_round() -> None:
    order: list[str] = []

    def contender(name: str, value: float) -> float:
        order.append(name)
        return value

    values = in_turns(2, {"ours": lambda: contender("ours", 1.0), "theirs": lambda: contender("theirs", 2.0)})
    assert order == ["ours", "theirs", "ours", "theirs"]
    assert values == {"ours": (1.0, 1.0), "theirs": (2.0, 2.0)}


@pytest.mark.parametrize(("better", "ours", "theirs"), [(Better.LOWER, 2.0, 6.0), (Better.HIGHER, 6.0, 2.0)])
def test_a_ratio_above_one_is_ahead_of_the_rival_for_seconds_and_for_rates(
    better: Better, ours: float, theirs: float
) -> None:
    one = Measurement(what="w", unit="u", better=better, values=(ours,), rival="Peer 1", rival_values=(theirs,))
    assert one.ratios == (3.0,)


@pytest.mark.parametrize(("better", "met"), [(Better.LOWER, True), (Better.HIGHER, False)])
def test_the_median_meets_a_goal_from_the_better_side(better: Better, met: bool) -> None:
    assert Measurement(what="w", unit="s", better=better, values=(9.0, 4.0, 1.0), goal=5.0).meets_goal is met


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": ()},
        {"values": (1.0,), "rival": "Peer 1"},
        {"values": (1.0, 2.0), "rival": "Peer 1", "rival_values": (1.0,)},
        {"values": (1.0,), "gated": True},
        {"values": (0.0,), "rival": "Peer 1", "rival_values": (1.0,)},
    ],
    ids=["no rounds", "a rival without values", "rounds that differ", "a gate without a rival", "no time at all"],
)
def test_a_measurement_that_compares_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^w: "):
        Measurement(**{"what": "w", "unit": "s", "better": Better.LOWER, **wrong})  # type: ignore[arg-type]


def _measured(asked: argparse.Namespace) -> Found:
    values = tuple(float(n) for n in range(1, asked.rounds + 1))
    one = Measurement(
        what="case", unit="s", better=Better.LOWER, values=values, rival="Peer 1", rival_values=values, gated=True
    )
    return Found(measurements=(one,), details={"rounds": asked.rounds})


SMALL = Benchmark(
    name="small",
    question="Does it run?",
    measure=_measured,
    add_options=lambda parser: parser.add_argument("--rounds", type=int, default=4),
    quick=("--rounds", "1"),
    gate=("--rounds", "2"),
)


@pytest.mark.parametrize(
    ("words", "rounds", "command"),
    [
        ([], 4, "python bench/small.py"),
        (["--quick"], 1, "python bench/small.py --rounds 1"),
        (["--gate"], 2, "python bench/small.py --rounds 2"),
        (["--rounds", "3"], 3, "python bench/small.py --rounds 3"),
    ],
)
def test_a_record_says_how_and_where_it_was_made_and_reads_back_as_it_was(
    tmp_path: Path, words: list[str], rounds: int, command: str
) -> None:
    path = tmp_path / "results" / "small.json"
    record = run(SMALL, [*words, "--json", str(path)])
    assert Record.read(path) == record
    assert record.command == command
    assert len(record.measurements[0].values) == rounds
    assert {"cores", "processor", "python", "commit", "load"} <= record.machine.keys()
    assert json.loads(path.read_text())["details"] == {"rounds": rounds}


def test_a_benchmark_without_a_stable_figure_has_no_gate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(Benchmark(name="small", question="?", measure=_measured), ["--gate"])
    assert "no figure that is stable enough" in capsys.readouterr().err
