"""How numbers and names are written in report, charts and model card."""

from __future__ import annotations

from typing import Final

NOTICE: Final = (
    "Research use only. Not for diagnostic use. Not a medical device. Output must be reviewed by a qualified reader."
)

UNDEFINED: Final = "–"

_INPUT_SETS: Final = {
    "PPI_PEI": "MRC + PPI + PEI",
    "HYDROPS": "MRC + HYDROPS",
    "HYDROPS_MI2": "MRC + HYDROPS-Mi2",
    "REAL_IR": "MRC + 3D-real IR",
}


def number_text(value: float | None, digits: int, *, sign: bool = False) -> str:
    """`value` with that many decimals, a dash if it is undefined."""
    if value is None:
        return UNDEFINED
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def percent_text(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A part 0..1 in per cent, a dash if it is undefined."""
    return UNDEFINED if value is None else f"{number_text(100.0 * value, digits, sign=sign)} %"


def range_text(low: float | None, high: float | None, digits: int, *, sign: bool = False) -> str:
    """`low` to `high`, a dash if either is undefined."""
    if low is None or high is None:
        return UNDEFINED
    return f"{number_text(low, digits, sign=sign)} to {number_text(high, digits, sign=sign)}"


def input_set_text(name: str) -> str:
    """An input set as a radiologist would name it."""
    return _INPUT_SETS.get(name, name)
