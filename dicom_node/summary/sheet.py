"""A sheet of 1024 x 1024 units to write and draw on, and its two prints: pixels for a PACS, a PDF with real text.

The same drawing gives both; only the colors differ, light on black for a monitor and dark on white for paper. Every
text that was written is remembered with its place, so that it can be read back without reading pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dicom_node.summary.lettering import families_for

SIZE: Final = 1024
"""Rows and columns of the picture; every viewer shows as many without scaling."""

DPI: Final = 128
"""So that the page is 8 inches wide: printed on A4 or Letter it keeps its size."""

POINTS_PER_UNIT: Final = 72.0 / DPI


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colors of one print: names or (r, g, b), and the gray 0..1 behind everything."""

    background: float
    text: str
    quiet: str
    line: str
    warning: str
    total_fluid: str
    endolymph: str


MONITOR: Final = Theme(
    background=0.0,
    text="#f2f2f2",
    quiet="#b8b8b8",
    line="#4a4a4a",
    warning="#ffd24a",
    total_fluid="#56b4e9",
    endolymph="#e69f00",
)
PAPER: Final = Theme(
    background=1.0,
    text="#111111",
    quiet="#4d4d4d",
    line="#b0b0b0",
    warning="#8a4b00",
    total_fluid="#0072b2",
    endolymph="#b36b00",
)


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """One text on the sheet as it was passed to `write`, and its `box` (left, top, right, bottom) in units."""

    text: str
    x: float
    y: float
    size: float
    bold: bool
    align: str
    anchor: str
    box: tuple[float, float, float, float]


class Sheet:
    """A page under way. Coordinates are units from the upper left corner, x to the right and y downward."""

    def __init__(self, theme: Theme) -> None:
        self.theme = theme
        gray = (theme.background,) * 3
        self._figure = Figure(figsize=(SIZE / DPI, SIZE / DPI), dpi=DPI, facecolor=gray)
        self._texts: list[tuple[Any, dict[str, Any]]] = []

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 15.0,
        color: str | None = None,
        bold: bool = False,
        align: str = "left",
        anchor: str = "top",
        on_picture: bool = False,
    ) -> None:
        """One line of text, `size` units high; `$` and backslashes in it mean nothing.

        `on_picture` darkens what lies behind it, so that white letters stay legible over bright fluid.
        """
        artist = self._figure.text(
            x / SIZE,
            1.0 - y / SIZE,
            text,
            color=color or self.theme.text,
            ha=align,
            va=anchor,
            bbox={"facecolor": "black", "alpha": 0.55, "pad": 1.0, "linewidth": 0.0} if on_picture else None,
            **_face(text, size, bold=bold),
        )
        self._texts.append((artist, {"x": x, "y": y, "size": size, "bold": bold, "align": align, "anchor": anchor}))

    def width_of(self, text: str, *, size: float = 15.0, bold: bool = False) -> float:
        """How wide a line of text would be, in units."""
        return _text_width(text, size, bold)

    def fitting(self, text: str, width: float, *, size: float = 15.0, bold: bool = False) -> str:
        """As much of a line as fits; what is left out is shown by an ellipsis."""
        if self.width_of(text, size=size, bold=bold) <= width:
            return text
        kept = text
        while kept and self.width_of(f"{kept}…", size=size, bold=bold) > width:
            kept = kept[: -max(1, len(kept) // 20)]
        return f"{kept.rstrip()}…"

    def wrapped(self, text: str, width: float, *, size: float = 15.0) -> list[str]:
        """The text in lines that fit; a word wider than a line is cut."""
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width_of(longer, size=size) <= width:
                lines[-1] = longer
            else:
                lines.append(self.fitting(word, width, size=size))
        return lines

    def line(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A thin rule."""
        self._figure.add_artist(
            Line2D(
                [x / SIZE, to_x / SIZE],
                [1.0 - y / SIZE, 1.0 - to_y / SIZE],
                color=self.theme.line,
                linewidth=1.0,
                transform=self._figure.transFigure,
            )
        )

    def swatch(self, x: float, y: float, color: str, *, size: float = 13.0) -> None:
        """A small square of a legend."""
        self._figure.add_artist(
            Rectangle(
                (x / SIZE, 1.0 - (y + size) / SIZE),
                size / SIZE,
                size / SIZE,
                color=color,
                transform=self._figure.transFigure,
            )
        )

    def picture(
        self,
        box: tuple[float, float, float, float],
        pixels: NDArray[np.float64],
        *,
        size_mm: tuple[float, float] | None = None,
        outlines: Sequence[tuple[NDArray[np.bool_], str]] = (),
    ) -> tuple[float, float, float, float]:
        """A gray (rows, columns) or color (rows, columns, 3) picture 0..1, as large as fits into (x, y, width, height).

        `outlines` are masks of the same rows and columns with the color of their rim. Returns the box that was filled.
        """
        height_mm, width_mm = size_mm or (float(pixels.shape[0]), float(pixels.shape[1]))
        scale = min(box[2] / width_mm, box[3] / height_mm)
        width, height = width_mm * scale, height_mm * scale
        x, y = box[0] + 0.5 * (box[2] - width), box[1] + 0.5 * (box[3] - height)
        axes = self._figure.add_axes((x / SIZE, 1.0 - (y + height) / SIZE, width / SIZE, height / SIZE))
        axes.set_axis_off()
        rows, columns = pixels.shape[:2]
        axes.imshow(
            pixels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="bilinear", aspect="auto", interpolation_stage="data"
        )
        for mask, color in outlines:
            if mask.any():
                axes.contour(mask.astype(float), levels=[0.5], colors=[color], linewidths=1.1)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        return x, y, width, height

    def pixels(self) -> NDArray[np.uint8]:
        """(1024, 1024, 3) uint8 RGB."""
        canvas: Any = FigureCanvasAgg(self._figure)
        canvas.draw()
        rgba = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)
        return np.ascontiguousarray(rgba[..., :3])

    def pdf(self, *, title: str, at: datetime) -> bytes:
        """One page of 8 x 8 inches with text as text; equal drawings at one moment give equal bytes."""
        buffer = BytesIO()
        canvas: Any = FigureCanvasPdf(self._figure)
        canvas.print_pdf(
            buffer,
            metadata={"Title": title, "Creator": "Hydrops Node", "Producer": "Hydrops Node", "CreationDate": at},
        )
        return buffer.getvalue()

    def written(self) -> tuple[WrittenText, ...]:
        """Every text on the sheet with its place, in the order of writing."""
        canvas: Any = FigureCanvasAgg(self._figure)
        renderer = canvas.get_renderer()
        return tuple(_written(artist, renderer, how) for artist, how in self._texts)


def _written(artist: Any, renderer: Any, how: dict[str, Any]) -> WrittenText:
    box = artist.get_window_extent(renderer)
    places = (float(box.x0), float(SIZE - box.y1), float(box.x1), float(SIZE - box.y0))
    return WrittenText(text=artist.get_text(), box=places, **how)


def _face(text: str, size: float, *, bold: bool) -> dict[str, Any]:
    """How a text is set; only the base family has a bold face."""
    families = families_for(text)
    return {
        "family": list(families),
        "fontweight": "bold" if bold and len(families) == 1 else "normal",
        "fontsize": size * POINTS_PER_UNIT,
        "parse_math": False,
    }


@lru_cache(maxsize=2048)
def _text_width(text: str, size: float, bold: bool) -> float:
    renderer, artist = _measuring()
    artist.set(text=text, **_face(text, size, bold=bold))
    return float(artist.get_window_extent(renderer).width)


_of_thread = threading.local()


def _measuring() -> tuple[Any, Any]:
    """A renderer and a text of this thread's own, to measure with: a figure for each word took most of a page."""
    if not hasattr(_of_thread, "measuring"):
        figure = Figure(figsize=(1, 1), dpi=DPI)
        canvas: Any = FigureCanvasAgg(figure)
        _of_thread.measuring = (canvas.get_renderer(), figure.text(0, 0, ""))
    measuring: tuple[Any, Any] = _of_thread.measuring
    return measuring
