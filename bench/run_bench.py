"""Every benchmark of this folder in turn: what `make bench` runs.

    python bench/run_bench.py [--only NAME ...] [--quick] [--keep]

Each is a program of its own that says what it measures with --help. One that fails does not keep the next from
running; the exit status tells. Records go to build/bench; with --keep to bench/results, and docs/performance.md is
written from them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import performance_page
from machine import machine_line
from suite import HERE, RESULTS

BENCHES = {path.stem: path for path in sorted(HERE.glob("*.py")) if "\nBENCHMARK: Final = " in path.read_text()}
BUILD = HERE.parent / "build" / "bench"


def run(name: str, *, options: list[str], record: Path) -> bool:
    """Run one benchmark, its output as it comes; whether it succeeded."""
    command = [sys.executable, str(BENCHES[name]), *options, "--json", str(record)]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Run what was asked for; 0 when all succeeded, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), metavar="NAME", help=", ".join(sorted(BENCHES)))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about a minute each, to see that they run")
    size.add_argument("--keep", action="store_true", help="keep the records and write docs/performance.md")
    asked = parser.parse_args()
    names = asked.only or sorted(BENCHES)
    print(machine_line(), flush=True)
    failed = []
    for number, name in enumerate(names, start=1):
        print(f"\n== {number}/{len(names)} {name}", flush=True)
        began = time.monotonic()
        record = (RESULTS if asked.keep else BUILD) / f"{name}.json"
        if not run(name, options=["--quick"] if asked.quick else [], record=record):
            failed.append(name)
        print(f"   took {time.monotonic() - began:.0f} s", flush=True)
    if asked.keep:
        performance_page.main()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
