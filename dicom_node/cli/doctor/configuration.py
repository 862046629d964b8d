"""The configuration itself: what `hydrops-node check-config` says, line by line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dicom_node.cli.check_config import all_problems
from dicom_node.cli.doctor.checkup import Line, ok, problem


def problems(path: Path) -> list[str]:
    """Everything that is wrong with the file and with what it names."""
    return all_problems(path, os.environ)


def lines(path: Path, found: list[str]) -> Iterator[Line]:
    """One line for each sentence of `problems`."""
    for sentence in found:
        yield problem(sentence, f"correct it in {path}; every key is explained in docs/configuration.md")
    if not found:
        yield ok(f"{path} says nothing that is wrong")
