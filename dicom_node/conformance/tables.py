"""Tables and headings in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

WIDTH: Final = 120


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a cell may hold anything, a pipe or a line end in it does not break the row."""
    lines = [_row(columns), "|" + "---|" * len(columns), *(_row(row) for row in rows)]
    return "\n".join(lines)


def paragraphs(*parts: str) -> str:
    """Parts with an empty line between each two; plain sentences are broken into lines of this project's width."""
    return "\n\n".join(_wrapped(part.strip("\n")) for part in parts if part.strip())


def _wrapped(part: str) -> str:
    if "\n" in part or part.startswith(("|", "#", " ", "-")):
        return part
    return textwrap.fill(part, WIDTH, break_long_words=False, break_on_hyphens=False)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
