"""The one place that turns a measured number into printed digits; `measurements` gives them to every rendering.

A ratio is 0..1 inside the node and per cent wherever a person reads it. Viewers round what they show, and 0.271
shown as "0.27" next to a unit invites reading it as 0.27 %; so 0.271 is always written as 27.1 with unit ``%``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

_TENTH: Final = Decimal("0.1")
"""Reproducibility of a ratio is about 4 per cent points and of a volume several mm3; more digits would pretend."""

PERCENT: Final = "%"
MM3: Final = "mm3"
MM2: Final = "mm2"
POINTS: Final = "percentage points"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number as everybody sees it: rounded once, with its unit. `value` has one decimal."""

    value: float
    unit: str

    @property
    def text(self) -> str:
        """Digits and unit, as people read them: "27.1 %"; a difference carries its sign."""
        sign = "+" if self.unit == POINTS else ""
        return f"{self.value:{sign}.1f} {self.unit}"


def percent(ratio: float) -> float:
    """A 0..1 ratio in per cent with one decimal, halves rounded away from zero: 0.271 -> 27.1.

    Raises
    ------
    ValueError
        If `ratio` is not a finite number in 0..1.
    """
    if not (math.isfinite(ratio) and 0.0 <= ratio <= 1.0):
        raise ValueError(f"a ratio lies in 0..1, found {ratio}")
    return float(_rounded(Decimal(str(ratio)) * 100))


def volume_mm3(volume: float) -> float:
    """A volume in mm3 with one decimal.

    Raises
    ------
    ValueError
        If `volume` is negative or not finite.
    """
    return _amount("volume", volume, MM3)


def area_mm2(area: float) -> float:
    """An area in mm2 with one decimal.

    Raises
    ------
    ValueError
        If `area` is negative or not finite.
    """
    return _amount("area", area, MM2)


def ratio_figure(ratio: float) -> Figure:
    """A 0..1 ratio as it is printed."""
    return Figure(value=percent(ratio), unit=PERCENT)


def volume_figure(volume: float) -> Figure:
    """A volume as it is printed."""
    return Figure(value=volume_mm3(volume), unit=MM3)


def area_figure(area: float) -> Figure:
    """An area as it is printed."""
    return Figure(value=area_mm2(area), unit=MM2)


def change_figure(now: Figure, before: Figure) -> Figure:
    """The difference of two printed ratios, from their printed digits: what the reader gets who subtracts them."""
    return Figure(value=float(Decimal(str(now.value)) - Decimal(str(before.value))), unit=POINTS)


def percent_text(ratio: float) -> str:
    """`percent` with its unit, as people read it: "27.1 %"."""
    return ratio_figure(ratio).text


def volume_text(volume: float) -> str:
    """`volume_mm3` with its unit, as people read it: "183.4 mm3"."""
    return volume_figure(volume).text


def _amount(what: str, value: float, unit: str) -> float:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"a {what} is finite and not negative, found {value} {unit}")
    return float(_rounded(Decimal(str(value))))


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_TENTH, rounding=ROUND_HALF_UP)
