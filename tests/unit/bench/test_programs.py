"""Benchmarks are programs of their own: each finds what it imports without the paths that pytest knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"
REACHING_OUT = sorted(
    path.stem for path in BENCH.glob("*.py") if "argparse" in (text := path.read_text()) and "sys.path" in text
)
"""Those that use the demo's or the tests' helpers; the others import what is installed, which the linters see."""


@pytest.mark.parametrize("name", REACHING_OUT)
def test_a_benchmark_begins_by_itself(name: str) -> None:
    told = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--help"], capture_output=True, text=True, check=False, timeout=120
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert f"python bench/{name}.py" in told.stdout
