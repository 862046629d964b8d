"""Every bench of this folder in turn: what `make bench` runs.

    python bench/run_bench.py [--only NAME ...] [--quick]

Each bench is a program of its own that says what it measures with --help. A bench that fails does not keep the next
one from running; the exit status tells.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from machine import machine_line

HERE = Path(__file__).resolve().parent
HELPERS = ("machine", "spoiled_studies", Path(__file__).stem)
BENCHES = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem not in HELPERS}
QUICK = {
    "dashboard": ["--studies", "1000", "--rounds", "3"],
    "cohort": ["--studies", "2", "--jobs", "2"],
    "intake": ["--images", "40", "--rounds", "1"],
    "localization": ["--heads", "8"],
    "networks": ["--only", "ear_unet", "--rounds", "2"],
    "orthanc_hook": ["3"],
    "refusals": ["--patients", "1", "--kinds", "swapped", "inverted", "clipped"],
    "registration": ["--seeds", "1", "--motions", "0", "2"],
    "summary_page": ["--rounds", "2"],
    "turnaround": ["--rounds", "1"],
    "viewer": ["--rounds", "1"],
    "views": ["--rounds", "2", "--studies", "1000"],
}
"""Arguments with which a bench shows in about a minute that it runs; its figures then mean little."""


def run(name: str, *, quick: bool) -> bool:
    """Run one bench, its output as it comes; whether it succeeded."""
    command = [sys.executable, str(BENCHES[name]), *(QUICK.get(name, []) if quick else [])]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Run what was asked for; 0 when all succeeded, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), metavar="NAME", help=", ".join(sorted(BENCHES)))
    parser.add_argument("--quick", action="store_true", help="about a minute each, to see that they run")
    asked = parser.parse_args()
    names = asked.only or sorted(BENCHES)
    print(machine_line(), flush=True)
    failed = []
    for number, name in enumerate(names, start=1):
        print(f"\n== {number}/{len(names)} {name}", flush=True)
        began = time.monotonic()
        if not run(name, quick=asked.quick):
            failed.append(name)
        print(f"   took {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
