"""Plots as plain data: where lines, marks and letters stand. `plot.html` writes them as SVG, escaped like every page.

Nothing here needs JavaScript. Every mark carries a title, and every plot stands beside a table with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720.0
HEIGHT: Final = 260.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 44.0, 20.0, 34.0
"""Room for the axes' words."""

TICKS: Final = 5
MARK_RADIUS: Final = 4.5


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One value; `low` to `high` is drawn as a bar through it. `hollow` marks stand out from filled ones."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """Marks of one kind, joined; `kind` is a class of views.css, `name` stands in the legend."""

    name: str
    kind: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True)
class Upright:
    """A vertical line with a word: where something changed."""

    x: float
    word: str


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A mark in picture coordinates."""

    x: float
    y: float
    low: float | None
    high: float | None
    title: str
    hollow: bool


@dataclass(frozen=True, kw_only=True)
class DrawnLine:
    """A line in picture coordinates; `points` is what `<polyline>` takes."""

    name: str
    kind: str
    points: str
    marks: tuple[Placed, ...]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A place on an axis with its word."""

    at: float
    word: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A finished plot; `description` says in words what it shows."""

    title: str
    description: str
    lines: tuple[DrawnLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    uprights: tuple[Tick, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    radius: float = MARK_RADIUS


def plot(
    title: str,
    description: str,
    lines: Sequence[Line],
    *,
    x_ticks: Sequence[tuple[float, str]],
    unit: str,
    uprights: Sequence[Upright] = (),
    x_range: tuple[float, float] | None = None,
) -> Plot:
    """The plot of some lines. The y axis begins at zero, because a cut axis makes every change look large."""
    marks = [mark for line in lines for mark in line.marks]
    xs = [mark.x for mark in marks]
    low, high = x_range or (min(xs, default=0.0), max(xs, default=1.0))
    top = max((mark.y if mark.high is None else mark.high for mark in marks), default=1.0)
    step = tick_step(top)
    ceiling = step * max(1, math.ceil(top / step - 1e-9))

    def x_of(value: float) -> float:
        part = 0.5 if high == low else (value - low) / (high - low)
        return round(LEFT + 10 + part * (WIDTH - LEFT - RIGHT - 20), 2)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / ceiling * (HEIGHT - BOTTOM - TOP), 2)

    def placed(mark: Mark) -> Placed:
        low_end, high_end = (None if value is None else y_of(value) for value in (mark.low, mark.high))
        return Placed(x=x_of(mark.x), y=y_of(mark.y), low=low_end, high=high_end, title=mark.title, hollow=mark.hollow)

    count = round(ceiling / step)
    return Plot(
        title=title,
        description=description,
        lines=tuple(_drawn(line, [placed(mark) for mark in line.marks]) for line in lines),
        x_ticks=tuple(Tick(at=x_of(at), word=word) for at, word in x_ticks),
        y_ticks=tuple(Tick(at=y_of(n * step), word=f"{n * step:g} {unit}".strip()) for n in range(count + 1)),
        uprights=tuple(Tick(at=x_of(one.x), word=one.word) for one in uprights),
    )


def _drawn(line: Line, marks: Sequence[Placed]) -> DrawnLine:
    points = " ".join(f"{one.x},{one.y}" for one in marks)
    return DrawnLine(name=line.name, kind=line.kind, points=points, marks=tuple(marks))


def tick_step(top: float) -> float:
    """A round step (1, 2 or 5 times a power of ten) that makes about `TICKS` steps up to `top`."""
    if top <= 0:
        return 1.0
    raw = top / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return float(next(power * part for part in (1.0, 2.0, 5.0, 10.0) if power * part >= raw * (1 - 1e-9)))


def thinned(ticks: Sequence[tuple[float, str]], at_most: int = 8) -> list[tuple[float, str]]:
    """At most so many of the ticks, evenly chosen, so that their words do not run into each other."""
    every = max(1, math.ceil(len(ticks) / at_most))
    return list(ticks[::every])
