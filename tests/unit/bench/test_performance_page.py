"""docs/performance.md: every table is what the committed records give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from performance_page import BLOCK, PAGE, record_table, with_tables
from suite import HERE, RESULTS, Better, Measurement, Record

BENCHES = {path.stem for path in HERE.glob("*.py") if "\nBENCHMARK: Final = " in path.read_text()}


def test_the_performance_page_equals_what_its_generator_makes_of_the_committed_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, RESULTS) == page


def test_every_committed_record_is_on_the_page_and_every_table_belongs_to_a_benchmark() -> None:
    kept = {path.stem for path in RESULTS.glob("*.json")}
    shown = {block["name"] for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}
    assert kept
    assert kept <= shown <= BENCHES


def test_where_no_record_is_kept_the_page_says_how_to_make_one(tmp_path: Path) -> None:
    page = "before\n<!-- measured: intake -->\nold figures\n<!-- end -->\nafter"
    told = "*No record is kept; `make bench ONLY=intake KEEP=1` makes one.*"
    assert with_tables(page, tmp_path) == f"before\n<!-- measured: intake -->\n{told}\n<!-- end -->\nafter"


def test_a_changed_figure_changes_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    first = next(BLOCK.finditer(page))
    spoiled = page[: first.start()] + re.sub(r"\d", "7", first.group()) + page[first.end() :]
    assert spoiled != page
    assert with_tables(spoiled, RESULTS) == page


def _record(*measurements: Measurement) -> Record:
    facts = {"cores": "2", "processor": "P", "load": "0.1", "commit": "abc", "python": "3.11"}
    facts |= {"torch": "2", "SimpleITK": "2", "pynetdicom": "3"}
    return Record(
        benchmark="b",
        question="?",
        command="python bench/b.py",
        measured_at="2026-11-22T13:00:00+00:00",
        machine=facts,
        measurements=measurements,
    )


@pytest.mark.parametrize(("theirs", "told"), [(6.0, "**3**"), (1.0, "**0.5**")])
def test_a_table_names_the_rival_and_says_how_many_times_as_good_the_node_is(theirs: float, told: str) -> None:
    one = Measurement(
        what="case", unit="s", better=Better.LOWER, values=(2.0,), rival="Peer 1", rival_values=(theirs,), goal=3.0
    )
    row = record_table(_record(one)).splitlines()[2]
    assert row == f"| case | 2 s | Peer 1 | {theirs:g} s | {told} | 3 s, met |"


def test_a_table_says_what_bounds_a_figure() -> None:
    one = Measurement(
        what="read", unit="s", better=Better.LOWER, values=(2.0, 1.0, 3.0), limit=0.5, limit_from="10 MB at 20 MB/s"
    )
    row = record_table(_record(one)).splitlines()[2]
    assert row == "| read | 2 (1 to 3) s | 0.5 s | 10 MB at 20 MB/s |"
