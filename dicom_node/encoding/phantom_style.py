"""How each series of a phantom study presents itself: numbers, names, timing, and image types by vendor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Vendor(StrEnum):
    """Whose way of storing pixels and naming image types is followed."""

    SIEMENS = "siemens"
    PHILIPS = "philips"
    GE = "ge"


@dataclass(frozen=True, kw_only=True)
class SeriesStyle:
    """What the header says about one role. `timing` names the sequence whose TR, TE and TI it states."""

    number: int
    description: str
    timing: str
    sequence_name: str
    minutes_after_start: int
    duration_s: float
    image_type: Mapping[Vendor, tuple[str, ...]]
    sources: tuple[str, ...] = ()


_MAGNITUDE: Final = {
    Vendor.SIEMENS: ("ORIGINAL", "PRIMARY", "M", "ND"),
    Vendor.PHILIPS: ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"),
    Vendor.GE: ("ORIGINAL", "PRIMARY", "OTHER"),
}
_INVERTED: Final = _MAGNITUDE | {Vendor.PHILIPS: ("ORIGINAL", "PRIMARY", "M_IR", "M", "IR")}
_REAL: Final = {
    Vendor.SIEMENS: ("ORIGINAL", "PRIMARY", "R", "ND"),
    Vendor.PHILIPS: ("ORIGINAL", "PRIMARY", "R_IR", "R", "IR"),
    Vendor.GE: ("ORIGINAL", "PRIMARY", "REAL"),
}
_SUBTRACTED: Final = {
    Vendor.SIEMENS: ("DERIVED", "PRIMARY", "M", "ND", "SUB"),
    Vendor.PHILIPS: ("DERIVED", "PRIMARY", "M_IR", "M", "SUBTRACTION"),
    Vendor.GE: ("DERIVED", "SECONDARY", "SUBTRACT"),
}
_MULTIPLIED: Final = dict.fromkeys(Vendor, ("DERIVED", "SECONDARY", "OTHER"))
"""Made off-line by a department's own program, which knows no better word."""

STYLES: Final = {
    "MRC": SeriesStyle(
        number=3,
        description="MRC t2_spc_tra_0.5",
        timing="MRC",
        sequence_name="*spc_200ns",
        minutes_after_start=4,
        duration_s=190.0,
        image_type=_MAGNITUDE,
    ),
    "PPI": SeriesStyle(
        number=4,
        description="PPI hT2 FLAIR 2250",
        timing="PPI",
        sequence_name="*spcir_200ns",
        minutes_after_start=9,
        duration_s=480.0,
        image_type=_INVERTED,
    ),
    "PEI": SeriesStyle(
        number=5,
        description="PEI hT2 IR 2050",
        timing="PEI",
        sequence_name="*spcir_200ns",
        minutes_after_start=18,
        duration_s=480.0,
        image_type=_INVERTED,
    ),
    "REAL_IR": SeriesStyle(
        number=6,
        description="3D real IR",
        timing="REAL_IR",
        sequence_name="*spcir_200ns",
        minutes_after_start=27,
        duration_s=590.0,
        image_type=_REAL,
    ),
    "HYDROPS": SeriesStyle(
        number=401,
        description="HYDROPS PPI-PEI",
        timing="PPI",
        sequence_name="*spcir_200ns",
        minutes_after_start=9,
        duration_s=480.0,
        image_type=_SUBTRACTED,
        sources=("PPI", "PEI"),
    ),
    "HYDROPS_MI2": SeriesStyle(
        number=402,
        description="HYDROPS-Mi2",
        timing="PPI",
        sequence_name="*spcir_200ns",
        minutes_after_start=9,
        duration_s=480.0,
        image_type=_MULTIPLIED,
        sources=("PPI", "PEI", "MRC"),
    ),
}

MANUFACTURER: Final = {
    Vendor.SIEMENS: "SIEMENS",
    Vendor.PHILIPS: "Philips Medical Systems",
    Vendor.GE: "GE MEDICAL SYSTEMS",
}
