"""docs/bad-input.md promises a reason and a test for each case; both must exist."""

from __future__ import annotations

import re
from pathlib import Path

from dicom_node.errors import Reason

TESTS = Path(__file__).parent
PAGE = (TESTS.parents[1] / "docs" / "bad-input.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"\| ([\w/]+\.py)::(\w+) \|", PAGE)
    assert len(named) > 40
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_every_code_on_the_page_is_a_reason():
    codes = set(re.findall(r"`([A-Z]+_?[A-Z_]+)`", PAGE))
    assert len(codes) > 20
    assert codes <= {reason.value for reason in Reason}
