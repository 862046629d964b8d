"""Writes the tables of docs/performance.md from the records in bench/results; the words around them are people's.

    python bench/performance_page.py          # after `make bench KEEP=1`

A table stands between `<!-- measured: NAME -->` and `<!-- end -->`, or, without a record, how to make one. A test holds
the page against what this makes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from suite import HERE, RESULTS, Measurement, Record, figure, spread

PAGE: Final = HERE.parent / "docs" / "performance.md"
NO_RECORD: Final = "*No record is kept; `make bench ONLY={name} KEEP=1` makes one.*"
BLOCK: Final = re.compile(r"<!-- measured: (?P<name>[a-z_]+) -->\n.*?<!-- end -->", re.DOTALL)


def with_tables(page: str, results: Path) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda block: _block(block["name"], results / f"{block['name']}.json"), page)


def _block(name: str, kept: Path) -> str:
    told = record_table(Record.read(kept)) if kept.exists() else NO_RECORD.format(name=name)
    return f"<!-- measured: {name} -->\n{told}\n<!-- end -->"


def record_table(record: Record) -> str:
    """A record as a Markdown table, with what it was measured on below it."""
    rivals, limits = any(one.rival for one in record.measurements), any(one.limit for one in record.measurements)
    goals = any(one.goal is not None for one in record.measurements)
    heads = ["What", "This node"]
    heads += ["Rival", "The rival's", "Times as good"] if rivals else []
    heads += ["Limit", "Reckoned from"] if limits else []
    heads += ["Goal"] if goals else []
    lines = [_row(heads), "|" + "---|" * len(heads)]
    for one in record.measurements:
        cells = [one.what, f"{spread(one.values)} {one.unit}"]
        cells += _rival_cells(one) if rivals else []
        cells += (
            ["–" if one.limit is None else f"{figure(one.limit)} {one.unit}", one.limit_from or "–"] if limits else []
        )
        cells += [_goal_cell(one)] if goals else []
        lines.append(_row(cells))
    told = record.machine
    where = f"{told['cores']} cores of {told['processor']}, load {told['load']}, commit {told['commit']}"
    versions = ", ".join(f"{name} {told[name]}" for name in ("python", "torch", "SimpleITK", "pynetdicom"))
    lines += ["", f"`{record.command}`, {record.measured_at[:10]}: {where}; {versions}. Median (least to most)."]
    return "\n".join(lines)


def _rival_cells(one: Measurement) -> list[str]:
    if not one.rival:
        return ["–", "–", "–"]
    return [one.rival, f"{spread(one.rival_values)} {one.unit}", f"**{spread(one.ratios)}**"]


def _limit_cells(one: Measurement) -> list[str]:
    if one.limit is None:
        return ["–", "–"]
    return [f"{figure(one.limit)} {one.unit}", one.limit_from or "–"]


def _goal_cell(one: Measurement) -> str:
    if one.goal is None:
        return "–"
    return f"{one.goal:g} {one.unit}, {'met' if one.meets_goal else '**not met**'}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Write the page."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
