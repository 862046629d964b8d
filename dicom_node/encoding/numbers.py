"""The one place that turns a measured number into printed digits: SR, findings text and messages all come here.

A ratio is 0..1 inside the node and per cent wherever a person reads it. Viewers round what they show, and 0.271
shown as "0.27" next to a unit invites reading it as 0.27 %; so 0.271 is always written as 27.1 with unit ``%``.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

_TENTH: Final = Decimal("0.1")
"""Reproducibility of a ratio is about 4 per cent points and of a volume several mm3; more digits would pretend."""


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
    if not (math.isfinite(volume) and volume >= 0.0):
        raise ValueError(f"a volume is finite and not negative, found {volume} mm3")
    return float(_rounded(Decimal(str(volume))))


def percent_text(ratio: float) -> str:
    """`percent` with its unit, as people read it: "27.1 %"."""
    return f"{percent(ratio):.1f} %"


def volume_text(volume: float) -> str:
    """`volume_mm3` with its unit, as people read it: "183.4 mm3"."""
    return f"{volume_mm3(volume):.1f} mm3"


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_TENTH, rounding=ROUND_HALF_UP)
