"""docs/bad-input.md promises a reason and a test for each case; both must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_node.errors import Reason
from dicom_node.intake.wire_status import WireReason

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "bad-input.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ((?:B\d\d(?:, )?)*) ?\| (.+?) \| (.+?) \| ([\w/]+\.py)::(\w+) \|$", PAGE, re.MULTILINE)
CODES = {one.value for one in (*Reason, *WireReason)}


def test_every_row_of_the_page_can_be_read() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| Case")]
    assert len(rows) == len(ROWS) > 70


def test_every_test_that_the_page_names_exists() -> None:
    missing = [
        f"{file}::{test}"
        for *_, file, test in ROWS
        if not re.search(rf"^def {test}\(", _file(file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_every_case_of_the_list_is_on_the_page() -> None:
    shown = {case for cases, *_ in ROWS for case in cases.split(", ") if case}
    assert shown == {f"B{number:02}" for number in range(1, 69)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0] or 'other'}: {row[1][:40]}")
def test_every_refusal_has_exactly_one_code(row: tuple[str, str, str, str, str]) -> None:
    codes = re.findall(r"`([A-Z]+_?[A-Z_]+)`", row[2])
    assert set(codes) <= CODES
    if "waits" in row[2] or row[1].startswith("Image in Orthanc that is damaged, too large"):
        return  # one code for each thing that is waited for, or that the row lists
    assert len(codes) <= 1


def _file(name: str) -> Path:
    below = TESTS if name.split("/")[0] in ("integration", "crash", "story") else TESTS / "unit"
    return below / name
