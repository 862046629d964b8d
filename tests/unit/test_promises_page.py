"""docs/promises.md and docs/threat-model.md name a test for each row; all of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


@pytest.mark.parametrize(("page", "at_least"), [("promises.md", 20), ("threat-model.md", 20)])
def test_every_test_that_the_page_names_exists(page: str, at_least: int) -> None:
    named = re.findall(r"\| ([\w/]+\.py)::(\w+)", (DOCS / page).read_text(encoding="utf-8"))
    assert len(named) >= at_least
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []
