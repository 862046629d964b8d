"""The form of every benchmark: what it asks, whom it measures itself against, and the figures that it brings back.

A benchmark is a file of this folder with one `BENCHMARK`, a program of its own:

    python bench/intake.py [its own options] [--quick | --gate] [--json FILE]

Who is compared is measured in turns within one run (A B A B, `in_turns`): a shared machine changes its mind from
minute to minute, and then only ratios mean something. What a run brings back is a `Record`; `performance_page.py`
makes the tables of docs/performance.md from the records in `results/`, and `gate.py` compares ratios with them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from machine import machine, machine_line

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE / "results"
GATE_RESULTS: Final = RESULTS / "gate"
"""Records of runs with --gate: smaller than the real ones, so their ratios are compared with their own kind only."""


class Better(StrEnum):
    """Which way a figure should go."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure, a value for each round, beside the same rounds of a rival if there is one.

    Attributes
    ----------
    what
        The case, in words that stay the same from run to run: the gate finds its figure by them.
    unit
        Of all values, such as "s" or "images/s".
    values
        This node's, one for each round, in order.
    rival
        Name with version; empty where there is nobody to compare with. Two rivals are two measurements.
    rival_values
        The rival's, of the same rounds.
    goal
        What the median is to reach; None where none was set.
    limit, limit_from
        What this machine's arithmetic, memory or disk allows at best, and how that was reckoned.
    gated
        Whether the ratio is stable enough that falling behind the committed one is a fault, not the weather.
    """

    what: str
    unit: str
    better: Better
    values: tuple[float, ...]
    rival: str = ""
    rival_values: tuple[float, ...] = ()
    goal: float | None = None
    limit: float | None = None
    limit_from: str = ""
    gated: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.what}: no value was measured")
        if bool(self.rival) != bool(self.rival_values):
            raise ValueError(f"{self.what}: a rival has a name and values, or neither")
        if self.rival and len(self.rival_values) != len(self.values):
            raise ValueError(
                f"{self.what}: {len(self.values)} rounds of this node, {len(self.rival_values)} of {self.rival}"
            )
        if self.rival and min(*self.values, *self.rival_values) <= 0.0:
            raise ValueError(f"{self.what}: there is no ratio to nothing, found {self.values} and {self.rival_values}")
        if self.gated and not self.rival:
            raise ValueError(f"{self.what}: only a ratio to a rival can be gated, seconds depend on the machine")

    @property
    def median(self) -> float:
        """This node's middle value."""
        return statistics.median(self.values)

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as good as the rival this node was in each round: above 1 is ahead, whatever the unit."""
        pairs = zip(self.values, self.rival_values, strict=True) if self.rival else ()
        return tuple(theirs / ours if self.better is Better.LOWER else ours / theirs for ours, theirs in pairs)

    @property
    def meets_goal(self) -> bool | None:
        """Whether the median reaches the goal; None without a goal."""
        if self.goal is None:
            return None
        return self.median <= self.goal if self.better is Better.LOWER else self.median >= self.goal


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run measured. `details` is everything else worth keeping, such as every trial, as JSON."""

    measurements: tuple[Measurement, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes
    ----------
    name
        Name of its file, and of its record.
    question
        What it answers, in one sentence; the heading of its table.
    measure
        From its options to what it found; it may print while it goes.
    add_options
        Declares its own options; every one has a default, with which the committed figures are made.
    quick
        Options with which it shows in about a minute that it runs; the figures then mean little.
    gate
        Options of the run that the ratio gate makes; None where no figure is stable enough.
    """

    name: str
    question: str
    measure: Callable[[argparse.Namespace], Found]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _parser: None
    quick: tuple[str, ...] = ()
    gate: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A benchmark's run as it is kept: what was asked for, when and where, and what came of it."""

    benchmark: str
    question: str
    command: str
    measured_at: str
    machine: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file.

        Raises
        ------
        ValueError
            If its measurements are none: a rival without values, no rounds.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        measurements = tuple(
            Measurement(
                **{
                    **one,
                    "better": Better(one["better"]),
                    "values": tuple(one["values"]),
                    "rival_values": tuple(one["rival_values"]),
                }
            )
            for one in content["measurements"]
        )
        return cls(**{**content, "measurements": measurements})


def in_turns(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, tuple[float, ...]]:
    """One value of every contender a round, in turns A B A B, by name."""
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, run in contenders.items():
            values[name].append(run())
        told = ", ".join(f"{name} {of_all[-1]:.3g}" for name, of_all in values.items())
        print(f"  round {number}/{rounds}: {told}", flush=True)
    return {name: tuple(of_all) for name, of_all in values.items()}


def seconds(task: Callable[[], object]) -> float:
    """How long a call takes by the clock."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def spread(values: tuple[float, ...]) -> str:
    """Median, with the least and the most in brackets."""
    middle = figure(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({figure(min(values))} to {figure(max(values))})"


def figure(value: float) -> str:
    """Three digits that mean something, and no powers of ten for people."""
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.3g}"


def table(measurements: tuple[Measurement, ...]) -> str:
    """What was measured, for people: one line each, the ratio last."""
    lines = []
    for one in measurements:
        line = f"{one.what}: {spread(one.values)} {one.unit}"
        if one.rival:
            line += f"; {one.rival}: {spread(one.rival_values)}; {spread(one.ratios)} times as good"
        if one.limit is not None:
            line += f"; limit {figure(one.limit)}"
        if one.goal is not None:
            line += f"; goal {one.goal:g} {'met' if one.meets_goal else 'NOT met'}"
        lines.append(line)
    return "\n".join(lines)


def run(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> Record:
    """Run a benchmark as its command line says: print, and write its record when asked."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    size = common.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about a minute, to see that it runs")
    size.add_argument("--gate", action="store_true", help="the run that the ratio gate makes")
    common.add_argument("--json", type=Path, metavar="FILE", help="also write the record here")
    text = sys.modules[benchmark.measure.__module__].__doc__ or benchmark.question
    parser = argparse.ArgumentParser(
        description=text, parents=[common], formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    benchmark.add_options(parser)
    given = sys.argv[1:] if arguments is None else list(arguments)
    chosen, own = common.parse_known_args(given)
    if chosen.gate and benchmark.gate is None:
        parser.error(f"{benchmark.name} has no figure that is stable enough for the gate")
    preset = benchmark.quick if chosen.quick else benchmark.gate or () if chosen.gate else ()
    asked = parser.parse_args([*preset, *given])
    print(machine_line(), flush=True)
    began, where = datetime.now(UTC), machine()
    found = benchmark.measure(asked)
    record = Record(
        benchmark=benchmark.name,
        question=benchmark.question,
        command=" ".join(["python", f"bench/{benchmark.name}.py", *preset, *own]),
        measured_at=began.isoformat(timespec="seconds"),
        machine=where,
        measurements=found.measurements,
        details=found.details,
    )
    if chosen.json:
        record.write(chosen.json)
    print(table(record.measurements), flush=True)
    return record
