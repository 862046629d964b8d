"""Fails when a benchmark has fallen behind its rival: a ratio more than 25 % below the committed one, three times.

    python bench/gate.py [--only NAME ...]     # what `make bench-gate` runs
    python bench/gate.py --keep                # commit today's ratios as those to hold

Ratios are compared, never seconds: both sides of a ratio run in turns on the same machine, and a slow machine is slow
for both. Only figures marked `gated` take part; docs/performance.md says which and why. A benchmark that fails is run
again, at most three times: what passes once was not slower, the machine was busier.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from run_bench import BENCHES
from suite import GATE_RESULTS, Measurement, Record

ALLOWED_LOSS: Final = 0.25
TRIES: Final = 3


def fallen(now: Record, before: Record) -> list[str]:
    """Every gated figure whose ratio has fallen too far, in words; also one that is not measured any more."""
    found = {one.what: one for one in now.measurements if one.gated}
    complaints = []
    for old in before.measurements:
        if not old.gated:
            continue
        new = found.get(old.what)
        if new is None:
            complaints.append(f"{before.benchmark}: '{old.what}' is not measured any more")
        elif _ratio(new) < (1.0 - ALLOWED_LOSS) * _ratio(old):
            complaints.append(
                f"{before.benchmark}: '{old.what}' is {_ratio(new):.2f} times as good as {old.rival}, "
                f"committed {_ratio(old):.2f}, allowed {(1.0 - ALLOWED_LOSS) * _ratio(old):.2f}"
            )
    return complaints


def _ratio(one: Measurement) -> float:
    return statistics.median(one.ratios)


def held(before: Record, measure: Callable[[], Record]) -> list[str]:
    """What is wrong after up to three runs; nothing once one run holds."""
    complaints: list[str] = []
    for number in range(1, TRIES + 1):
        complaints = fallen(measure(), before)
        if not complaints:
            return []
        print(*complaints, f"try {number} of {TRIES}", sep="\n", flush=True)
    return complaints


def run_gated(name: str, path: Path) -> Record:
    """The benchmark's gate run, its output as it comes.

    Raises
    ------
    CalledProcessError
        If it fails.
    """
    subprocess.run([sys.executable, str(BENCHES[name]), "--gate", "--json", str(path)], check=True)
    return Record.read(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or with --keep commit; 1 if something has fallen behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gated = sorted(path.stem for path in GATE_RESULTS.glob("*.json"))
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), metavar="NAME", help=", ".join(gated))
    parser.add_argument("--keep", action="store_true", help="write today's ratios instead of comparing")
    asked = parser.parse_args(arguments)
    complaints: list[str] = []
    for name in asked.only or gated:
        committed = GATE_RESULTS / f"{name}.json"
        if asked.keep:
            run_gated(name, committed)
            continue
        with tempfile.TemporaryDirectory(prefix="bench-gate-") as folder:
            path = Path(folder) / f"{name}.json"
            complaints += held(Record.read(committed), partial(run_gated, name, path))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
