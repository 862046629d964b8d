"""What a campaign came to: a table for the terminal, JSON for programs, a page for `docs/`.

Runs may be done in pieces, on several machines and with several ranges of seeds: their JSON is added up.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fault import Fault, Tally
from fault_matrix import matrix_page
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]

HEADINGS = ("Fault", "Injected", "Acknowledged", "Lost", "Doubled", "Left over", "Longest recovery", "Verdict")

PREFACE = """# Fault campaign: what was broken, and what was lost

Made by `make campaign PAGE=1` (`tests/crash/campaign.py --page docs/campaign.md`); do not edit by hand. "Acknowledged"
counts the images for which the sender was told success, by the sender's own ledger. "Left over" are temporary or
unreferenced files after the start-up sweep. "Recovery" is from the start of a process to its first answer, or from the
end of the fault to the last delivery. A power cut is simulated by copying the disk image of a running node: it shows
what was not flushed, it does not show a disk that lies about flushing."""


@dataclass(kw_only=True)
class Figures:
    """One fault's figures over all runs that are shown together; `seeds` are ranges, the last seed included."""

    fault: Fault
    injected: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    left_over: int = 0
    longest_recovery_s: float | None = None
    seconds: float = 0.0
    seeds: list[tuple[int, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    not_run_because: str = ""

    @property
    def kept(self) -> bool:
        """Whether the promise held in every trial."""
        return not (self.lost or self.doubled or self.left_over or self.failures)


def figures_of(tally: Tally, first_seed: int) -> dict[str, Any]:
    """One tally as JSON."""
    return {
        "number": tally.fault.number,
        "title": tally.fault.title,
        "promise": tally.fault.promise,
        "injected": tally.injected,
        "acknowledged": tally.acknowledged,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "left_over": tally.left_over,
        "longest_recovery_s": round(max(tally.recovery_s), 2) if tally.recovery_s else None,
        "seconds": round(tally.seconds, 1),
        "seeds": [[first_seed, first_seed + tally.trials - 1]] if tally.trials else [],
        "not_run_because": tally.skipped,
        "failures": tally.failures,
    }


def as_document(tallies: Sequence[Tally], *, first_seed: int) -> dict[str, Any]:
    """One run: when, where, on what, and what it came to."""
    return {**surroundings(), "faults": [figures_of(one, first_seed) for one in tallies]}


def added_up(documents: Iterable[Mapping[str, Any]], faults: Sequence[Fault]) -> list[Figures]:
    """The figures of several runs by fault, in the campaign's order; a fault that no run had is left out."""
    found: dict[str, Figures] = {}
    for row in (row for document in documents for row in document["faults"]):
        fault = next(one for one in faults if one.number == row["number"])
        sum_ = found.setdefault(fault.number, Figures(fault=fault))
        for name in ("injected", "acknowledged", "lost", "doubled", "left_over", "seconds"):
            setattr(sum_, name, getattr(sum_, name) + row[name])
        sum_.seeds += [(first, last) for first, last in row["seeds"]]
        sum_.failures += row["failures"]
        sum_.not_run_because = row["not_run_because"]
        if row["longest_recovery_s"] is not None:
            sum_.longest_recovery_s = max(row["longest_recovery_s"], sum_.longest_recovery_s or 0.0)
    return [found[one.number] for one in faults if one.number in found]


def row_of(one: Figures) -> tuple[str, ...]:
    """One fault's figures as text."""
    name = f"{one.fault.number} {one.fault.title}"
    if one.not_run_because and not one.injected:
        return (name, "0", "-", "-", "-", "-", "-", f"not run: {one.not_run_because}")
    recovery = "-" if one.longest_recovery_s is None else f"{one.longest_recovery_s:.1f} s"
    verdict = "kept" if one.kept else f"BROKEN in {len(one.failures)} trials"
    numbers = (one.injected, one.acknowledged, one.lost, one.doubled, one.left_over)
    return (name, *(f"{number:,}" for number in numbers), recovery, verdict)


def as_table(figures: Sequence[Figures]) -> Table:
    """For the terminal."""
    table = Table(expand=True)
    for heading in HEADINGS:
        words = heading in ("Fault", "Verdict")
        table.add_column(heading, justify="left" if words else "right", ratio=6 if heading == "Fault" else None)
    for one in figures:
        table.add_row(*row_of(one))
    return table


def as_page(figures: Sequence[Figures], runs: Sequence[Mapping[str, Any]], faults: Sequence[Fault]) -> str:
    """For `docs/campaign.md`: the figures with machine, commit and seeds."""
    told = dict.fromkeys(f"{run['date']}, commit {run['commit']}, {run['machine']}." for run in runs)
    load = sorted(run["load"] for run in runs)
    lines = [
        *(PREFACE, "", *told, ""),
        *(f"Load of the machine meanwhile: {load[0]:.0f} to {load[-1]:.0f} processes at a time.", ""),
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *("| " + " | ".join(row_of(one)) + " |" for one in figures),
        "",
        *("What each promises, and the seeds that were run:", ""),
        *(f"- **{one.fault.number}**, {one.fault.title}: {one.fault.promise}. {_seeds(one)}" for one in figures),
        *("", "## Every fault, and what shows that the node stands it", ""),
        *("Tests are named as `file::test` below `tests/`.", ""),
        *matrix_page(faults),
        "",
    ]
    return "\n".join(lines)


def with_figures(promises: str, figures: Sequence[Figures]) -> str:
    """`docs/promises.md` with the last figures of the campaign in the last cell of each row that it shows."""
    last = {one.fault.number: _in_a_cell(one) for one in figures if one.injected}
    lines = []
    for line in promises.splitlines(keepends=True):
        cells = line.split(" | ")
        shown = _SHOWN_BY.search(cells[2]) if len(cells) == CELLS_OF_A_PROMISE else None
        if shown is not None and shown[1] in last:
            line = " | ".join([*cells[:3], f"{last[shown[1]]} |\n"])
        lines.append(line)
    return "".join(lines)


CELLS_OF_A_PROMISE = 4
_SHOWN_BY = re.compile(r"[(:] ?([FP]\d\d[a-z ]*?)\)?$")
"""A campaign's row at the end of a cell: "... (F02)", "campaign: F21"."""


def _in_a_cell(one: Figures) -> str:
    """One fault's figures in a few words."""
    recovery = "" if one.longest_recovery_s is None else f"; longest recovery {one.longest_recovery_s:.1f} s"
    said = f"{one.injected:,} injected: {one.lost} lost, {one.doubled} doubled, {one.left_over} left over{recovery}"
    return said if one.kept else f"{said}; BROKEN in {len(one.failures)} trials"


def _seeds(one: Figures) -> str:
    return "Seeds " + ", ".join(f"{first} to {last}" for first, last in sorted(one.seeds)) + "."


def surroundings() -> dict[str, Any]:
    """When, where and on what."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    cores = len(os.sched_getaffinity(0))
    return {
        "load": os.getloadavg()[2],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip()[:12] + (" with changes" if changed.stdout.strip() else ""),
        "machine": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}, {cores} cores, "
        f"Python {platform.python_version()}",
    }
