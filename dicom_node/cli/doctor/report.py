"""Prints findings as they come: for people on a terminal, or as one JSON document at the end."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.status import Status
from rich.text import Text

from dicom_node import __version__
from dicom_node.cli.doctor.checkup import Level, Line

STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
WORD_COLUMNS: Final = 9
"""Two more than the longest level: the texts stand under each other."""

MARGIN: Final = " " * (2 + WORD_COLUMNS + len("-> "))


class Report:
    """Findings in order. Lines go to standard output; what is being done right now goes to a terminal only."""

    def __init__(self, *, as_json: bool, console: Console | None = None) -> None:
        self.problems = 0
        self.warnings = 0
        self._as_json = as_json
        self._document: list[dict[str, Any]] = []
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._name = ""
        self._began_at = time.time()

    def begin(self, name: str) -> None:
        """Announce the check that runs now."""
        self._name = name
        self.progress("")

    def progress(self, doing: str) -> None:
        """Show what the check does; on a terminal it is overwritten, elsewhere it is not shown."""
        text = f"{self._name}: {doing}" if doing else self._name
        if self._as_json or not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def add(self, name: str, lines: Iterable[Line]) -> None:
        """Print each finding of one check as soon as it is known."""
        if not self._as_json:
            self._console.print(Text(name, style="bold"))
        for line in lines:
            self.problems += line.level is Level.PROBLEM
            self.warnings += line.level is Level.WARNING
            self._document.append({"check": name, **asdict(line)})
            if not self._as_json:
                self._print(line)

    def close(self) -> None:
        """Print the document, or the closing sentence."""
        if self._status is not None:
            self._status.stop()
        if not self._as_json:
            self._console.print(Text(self._summary(), style="bold"))
            return
        document = {
            "version": __version__,
            "examined_at": self._began_at,
            "problems": self.problems,
            "warnings": self.warnings,
            "findings": self._document,
        }
        print(json.dumps(document, indent=2))

    def _print(self, line: Line) -> None:
        level = f"  {line.level.value:<{WORD_COLUMNS}}"
        row = Text(self._wrapped(line.text, first=level, further=" " * len(level)))
        row.stylize(STYLES[line.level], 0, len(level))
        self._console.print(row)
        if line.next_step:
            self._console.print(Text(self._wrapped(f"-> {line.next_step}", first=" " * len(level), further=MARGIN)))

    def _wrapped(self, text: str, *, first: str, further: str) -> str:
        """Under its own beginning on a terminal; in a file every finding stays one line."""
        if not self._console.is_terminal:
            return first + text
        return textwrap.fill(
            text,
            self._console.width,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _summary(self) -> str:
        if not self.problems and not self.warnings:
            return "All is well."
        return f"{_count(self.problems, 'problem')}, {_count(self.warnings, 'warning')}."


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
