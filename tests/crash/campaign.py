"""The fault campaign: break the node in every way we can inject, and count what was lost.

    make campaign                      # the hour at night
    make campaign SCALE=ci             # seconds, as in every test run
    .venv/bin/python tests/crash/campaign.py --scale nightly --only F02 F10 --json campaign.json

Every line names what was injected and what was lost, doubled or left over; a failure names its seed, and
`--first-seed N --trials 1` repeats it. Exit status: 0 all promises kept, 1 not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from delivery_faults import FAULTS as DELIVERY  # noqa: E402
from fault import Fault, Scale, Tally, campaign  # noqa: E402
from receiving_faults import FAULTS as RECEIVING  # noqa: E402 - found only once the path above is known
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

FAULTS: tuple[Fault, ...] = (*RECEIVING, *DELIVERY)


def main() -> int:
    """Run what was asked for, with progress; print the table."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # the node under fault has much to say; here only what it lost counts
    chosen = [one for one in FAULTS if not arguments.only or one.number.split()[0] in arguments.only]
    console = Console(width=None if sys.stdout.isatty() else 150)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tallies = []
    with Progress(*columns, console=console) as progress:
        for fault in chosen:
            trials = arguments.trials or fault.trials[arguments.scale]
            task = progress.add_task(f"{fault.number}: {fault.title}", total=trials)
            told = lambda _tally, task=task: progress.advance(task)  # noqa: E731 - bound to this task
            tally = campaign(fault, trials, first_seed=arguments.first_seed, told=told)
            tallies.append(tally)
            for failure in tally.failures:
                progress.console.print(f"{fault.number}: {failure}", style="red", markup=False)
    console.print(as_table(tallies))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_document(tallies), indent=2) + "\n")
    if arguments.page is not None:
        arguments.page.write_text(as_page(tallies), encoding="utf-8")
    return 0 if all(one.kept for one in tallies) else 1


def as_table(tallies: Sequence[Tally]) -> Table:
    """For the terminal."""
    table = Table(expand=True)
    for heading in HEADINGS:
        words = heading in ("Fault", "Verdict")
        table.add_column(heading, justify="left" if words else "right", ratio=6 if heading == "Fault" else None)
    for one in tallies:
        table.add_row(*row(one))
    return table


HEADINGS = ("Fault", "Injected", "Acknowledged", "Lost", "Doubled", "Left over", "Longest recovery", "Verdict")


def row(one: Tally) -> tuple[str, ...]:
    """One fault's figures as text."""
    name = f"{one.fault.number} {one.fault.title}"
    if one.skipped:
        return (name, "0", "-", "-", "-", "-", "-", f"not run: {one.skipped}")
    recovery = f"{max(one.recovery_s):.1f} s" if one.recovery_s else "-"
    verdict = "kept" if one.kept else f"BROKEN in {len(one.failures)} trials"
    numbers = (one.trials, one.acknowledged, one.lost, one.doubled, one.left_over)
    return (name, *(f"{number:,}" for number in numbers), recovery, verdict)


def as_document(tallies: Sequence[Tally]) -> dict[str, Any]:
    """For programs."""
    return {
        **surroundings(),
        "faults": [
            {
                "number": one.fault.number,
                "title": one.fault.title,
                "promise": one.fault.promise,
                "injected": one.trials,
                "acknowledged": one.acknowledged,
                "lost": one.lost,
                "doubled": one.doubled,
                "left_over": one.left_over,
                "recovery_s": {"longest": max(one.recovery_s), "shortest": min(one.recovery_s)}
                if one.recovery_s
                else None,
                "seconds": round(one.seconds, 1),
                "not_run_because": one.skipped or None,
                "failures": one.failures,
            }
            for one in tallies
        ],
    }


def as_page(tallies: Sequence[Tally]) -> str:
    """For `docs/campaign.md`: the figures of one run with machine and commit."""
    told = surroundings()
    lines = [
        *(PREFACE, "", f"{told['date']}, commit {told['commit']}, {told['machine']}.", ""),
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *("| " + " | ".join(row(one)) + " |" for one in tallies),
        "",
        *("What each promises:", ""),
        *(f"- **{one.fault.number}**, {one.fault.title}: {one.fault.promise}." for one in tallies),
        "",
    ]
    return "\n".join(lines)


PREFACE = """# Fault campaign: what was broken, and what was lost

Made by `make campaign` (`tests/crash/campaign.py --page docs/campaign.md`); do not edit by hand. "Acknowledged" counts
the images for which the sender was told success, by the sender's own ledger. "Left over" are temporary or unreferenced
files after the start-up sweep. A power cut is simulated by copying the disk image of a running node: it shows what was
not flushed, it does not show a disk that lies about flushing."""


def surroundings() -> dict[str, str]:
    """When, where and on what."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    cores = len(os.sched_getaffinity(0))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip()[:12] + (" with changes" if changed.stdout.strip() else ""),
        "machine": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}, {cores} cores, "
        f"Python {platform.python_version()}",
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=Scale, choices=list(Scale), default=Scale.NIGHTLY, help="default: nightly")
    parser.add_argument("--trials", type=int, metavar="N", help="so many of each fault, instead of a scale")
    parser.add_argument("--only", nargs="*", metavar="F01", help="only these faults")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="where to begin (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write them as a page")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
