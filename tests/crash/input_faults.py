"""Damaged images by the thousand, and inputs that a fuzzer finds, through everything that reads a stranger's bytes."""

from __future__ import annotations

import resource
import time
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

from desk_parts import hydrops_study
from fault import Fault, NotHere, Observation, Scale, Trial
from fuzz import NAMES, fuzz, missing
from fuzzed_node import FuzzedNode
from mutants import mutant

MUTANTS_EACH: Final = 500
REPORT_EVERY: Final = 20
"""A report costs ten times as much as the rest."""

SLOWEST_S: Final = 10.0
"""Of processor time. A hang, not a speed: the slowest of 60,000 took 0.4 s."""

MOST_MEMORY_BYTES: Final = 512 * 1024**2
"""Growth of the process from its first trial on; the mutants themselves are a few kilobytes each."""

INPUTS_EACH: Final = 20_000


def mutants(trial: Trial) -> Observation:
    """Five hundred mutants, each in the place of the image that it was made from."""
    node = FuzzedNode(trial.folder, hydrops_study())
    stations: Counter[str] = Counter()
    problems = []
    before = _memory_at_the_start()
    try:
        for seed in range(trial.seed * MUTANTS_EACH, (trial.seed + 1) * MUTANTS_EACH):
            one = mutant(seed, node.originals)
            began = time.process_time()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    stations[node.swallow(one, with_report=seed % REPORT_EVERY == 0).station] += 1
            except Exception as error:  # noqa: BLE001 - exactly what must not come out
                problems.append(f"mutant {seed} ({', '.join(one.damage)}): {type(error).__name__}: {error}")
            if time.process_time() - began > SLOWEST_S:
                problems.append(f"mutant {seed} ({', '.join(one.damage)}) hangs")
    finally:
        node.close()
    if _memory_bytes() - before > MOST_MEMORY_BYTES:
        problems.append(f"the process grew from {before} to {_memory_bytes()} bytes")
    taken = stations.total() - stations["wire"]
    return Observation(injected=MUTANTS_EACH, acknowledged=taken, problems=tuple(problems))


@cache
def _memory_at_the_start() -> int:
    return _memory_bytes()


def _memory_bytes() -> int:
    """What the process has of the memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def fuzzed(trial: Trial) -> Observation:
    """One entrance after the other, each seed a run of its own."""
    entrance = NAMES[trial.seed % len(NAMES)]
    done = fuzz(entrance, trial.folder, seed=trial.seed, inputs=INPUTS_EACH)
    problems = (f"{entrance}: {done.finding}",) if done.finding else ()
    return Observation(injected=done.inputs, problems=problems)


def _needs_atheris() -> None:
    if lacking := missing():
        raise NotHere(lacking)


FAULTS: Final = (
    Fault(
        number="B68",
        title="images damaged by element, length, nesting, character set, byte",
        promise="each gets a status on the wire or a reason; no fault, no hang, no growth",
        trials={Scale.CI: 1, Scale.NIGHTLY: 200, Scale.RELEASE: 2000},
        run=mutants,
    ),
    Fault(
        number="B68 fuzz",
        title="inputs that a fuzzer guided by coverage makes",
        promise="the same, at each entrance for a stranger's bytes by itself",
        trials={Scale.CI: 0, Scale.NIGHTLY: 40, Scale.RELEASE: 1000},
        run=fuzzed,
        requires=_needs_atheris,
    ),
)
