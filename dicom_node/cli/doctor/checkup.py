"""What a check is: it looks at one thing of a site and yields lines, each with the next step where one is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dicom_node.settings import LoadedSettings


class Level(StrEnum):
    """OK: works. WARNING: works, but somebody should know. PROBLEM: does not work, or is not safe."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finding in plain words; `next_step` says what to do about it, empty where nothing has to be done.

    Neither ever holds a secret or a value of a patient's.
    """

    level: Level
    text: str
    next_step: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """The installation under examination.

    `through`: test objects may go to real archives. `orthanc_config`: Orthanc's own file, if we were given one.
    `say` shows what is being done right now.
    """

    loaded: LoadedSettings
    config: Path
    through: bool
    orthanc_config: Path | None
    say: Callable[[str], None]


Check = Callable[[Site], Iterator[Line]]


def ok(text: str) -> Line:
    """Nothing to do."""
    return Line(level=Level.OK, text=text)


def warning(text: str, next_step: str) -> Line:
    """It works, with something to know."""
    return Line(level=Level.WARNING, text=text, next_step=next_step)


def problem(text: str, next_step: str) -> Line:
    """It does not work, or it is not safe."""
    return Line(level=Level.PROBLEM, text=text, next_step=next_step)
