"""What a fault campaign is made of: faults, trials that a seed repeats, and what was seen from outside.

The ledger of what was acknowledged is kept by the tests' own sender, never by the node: a node that forgets an image
forgets that it ever said "success", too.
"""

from __future__ import annotations

import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Scale(StrEnum):
    """How many trials: seconds in every test run, an hour at night, a day before a release."""

    CI = "ci"
    NIGHTLY = "nightly"
    RELEASE = "release"


class NotHere(Exception):
    """This machine cannot inject the fault (no root, no strace ...); the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one trial came to. All but `injected`, `acknowledged` and `recovery_s` must be zero or empty.

    `injected`: how many faults one trial made.
    `lost`: acknowledged, and not there with the bytes that were sent. `doubled`: there twice, or two results for one
    input. `left_over`: temporary or unreferenced files after the start-up sweep. `recovery_s`: from the restart, or the
    end of the fault, until the node served again.
    """

    injected: int = 1
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    left_over: int = 0
    recovery_s: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.doubled or self.left_over or self.problems)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One injection: its own folder and its own source of chance, made from `seed`."""

    seed: int
    folder: Path

    @property
    def chance(self) -> random.Random:
        """The same draws each time it is asked for."""
        return random.Random(self.seed)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the campaign. `number` is that of the fault matrix; `promise` is what must hold whatever happens."""

    number: str
    title: str
    promise: str
    trials: Mapping[Scale, int]
    run: Callable[[Trial], Observation]
    requires: Callable[[], None] = lambda: None
    """Raises `NotHere` where the fault cannot be injected."""


@dataclass(kw_only=True)
class Tally:
    """All trials of one fault."""

    fault: Fault
    trials: int = 0
    injected: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    left_over: int = 0
    recovery_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the promise held in every trial."""
        return not (self.lost or self.doubled or self.left_over or self.failures)

    def add(self, trial: Trial, seen: Observation) -> None:
        """Count one trial."""
        self.trials += 1
        self.injected += seen.injected
        self.acknowledged += seen.acknowledged
        self.lost += seen.lost
        self.doubled += seen.doubled
        self.left_over += seen.left_over
        if seen.recovery_s is not None:
            self.recovery_s.append(seen.recovery_s)
        if not seen.good:
            what = "; ".join(seen.problems) or f"lost {seen.lost}, doubled {seen.doubled}, left over {seen.left_over}"
            self.failures.append(f"seed {trial.seed}: {what}")


def campaign(fault: Fault, trials: int, *, first_seed: int = 0) -> Iterator[Tally]:
    """The tally of one fault after each of so many trials; of a fault that cannot be injected here, once.

    A trial that raises is a failure with its seed, not an end.
    """
    tally = Tally(fault=fault)
    began = time.monotonic()
    try:
        fault.requires()
    except NotHere as missing:
        tally.skipped = str(missing)
        yield tally
        return
    for seed in range(first_seed, first_seed + trials):
        with tempfile.TemporaryDirectory(prefix="hydrops-fault-") as folder:
            trial = Trial(seed=seed, folder=Path(folder))
            try:
                seen = fault.run(trial)
            except Exception as error:  # noqa: BLE001 - whatever the node or the rig did, the next seed has its turn
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                seen = Observation(problems=(f"{type(error).__name__} at {place}: {error}",))
            tally.add(trial, seen)
        tally.seconds = time.monotonic() - began
        yield tally


def whole_campaign(fault: Fault, trials: int, *, first_seed: int = 0) -> Tally:
    """The tally after the last trial."""
    *_, last = campaign(fault, trials, first_seed=first_seed)
    return last
