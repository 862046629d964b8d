"""Tolerant reading of attributes: an illegal value becomes a named problem, never an exception.

pydicom hands back what stands in the file, such as '512' for a number of rows, 'abc' for a spacing or five
direction cosines, and raises only when a value is looked at that cannot be converted (1e400 as a whole number).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

from dicom_node.errors import Reason

CONVERSION_ERRORS = (
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,  # a sequence whose bytes end too early; the file itself has been read before
    OverflowError,
    RecursionError,  # sequences nested hundreds deep (B04)
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises while it turns the bytes of one element into a value."""

SHOWN_CHARACTERS = 40
"""How much of an illegal value goes into a message."""


class AttributeReader:
    """Reads attributes from several nested data sets as if they were one; the first that has the keyword wins.

    A classic image is one data set. A frame of an enhanced image is looked up in its own functional groups, then in
    the shared ones, then at the top (PS3.3 C.7.6.16).

    Attributes
    ----------
    problem
        (Reason value, detail) of the first illegal value met, or None.
    """

    def __init__(self, places: Sequence[Dataset], problem: tuple[str, str] | None = None) -> None:
        self._places = places
        self.problem = problem

    def number(self, keyword: str) -> float | None:
        """One finite number, or None if it is missing or illegal."""
        values = self.numbers(keyword, 1)
        return values[0] if values else None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers, or None if they are missing or illegal."""
        values = self._values(keyword)
        if not values:
            return None
        if len(values) != count:
            self._illegal(keyword, f"expected {count} values, found {len(values)}")
            return None
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            self._illegal(keyword, f"expected numbers, found {_shown(values)}")
            return None
        if not all(math.isfinite(value) for value in values):
            self._illegal(keyword, f"expected finite numbers, found {_shown(values)}", Reason.GEOM_NONFINITE)
            return None
        return tuple(float(value) for value in values)

    def integer(self, keyword: str) -> int | None:
        """One whole number, or None if it is missing or illegal; a decimal string where a number belongs is illegal."""
        values = self._values(keyword)
        if not values:
            return None
        if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], int):
            self._illegal(keyword, f"expected one whole number, found {_shown(values)}")
            return None
        return int(values[0])

    def text(self, keyword: str) -> str:
        """The value as trimmed text, several values joined by a backslash; '' if missing or unreadable."""
        return "\\".join(self.texts(keyword))

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Every value as trimmed text; () if missing or unreadable."""
        return tuple(str(value).strip(" \0") for value in self._values(keyword))

    def items(self, keyword: str) -> tuple[Dataset, ...]:
        """The items of a sequence; () if it is missing or no sequence."""
        return tuple(item for item in self._values(keyword) if isinstance(item, Dataset))

    def moment(self, keyword: str) -> datetime | None:
        """A DT value (0008,002A and the like) as naive local time, or None if missing or illegal."""
        return parse_moment(self.text(keyword))

    def date_and_time(self, date_keyword: str, time_keyword: str) -> datetime | None:
        """A DA and a TM value together, or None if one is missing or illegal."""
        date, time = self.text(date_keyword), self.text(time_keyword)
        return parse_moment(date + time) if len(date) == 8 and time else None

    def _values(self, keyword: str) -> tuple[Any, ...]:
        for place in self._places:
            if keyword not in place:
                continue
            try:
                value = place[keyword].value
            except OverflowError as error:
                self._illegal(keyword, str(error), Reason.GEOM_NONFINITE)
                return ()
            except CONVERSION_ERRORS as error:
                self._illegal(keyword, f"unreadable: {type(error).__name__}")
                return ()
            if value is None or (isinstance(value, str | bytes) and not value):
                return ()
            return tuple(value) if isinstance(value, list | tuple | MultiValue | DicomSequence) else (value,)
        return ()

    def _illegal(self, keyword: str, detail: str, reason: Reason = Reason.TAG_INVALID) -> None:
        if self.problem is None:
            tag = Tag(tag_for_keyword(keyword) or 0)
            self.problem = (reason.value, f"{keyword} ({tag.group:04X},{tag.element:04X}): {detail}")


def parse_moment(text: str) -> datetime | None:
    """The naive local time of a DICOM DT value (YYYYMMDDHHMMSS.FFFFFF&ZZXX); None if it is not a legal one."""
    digits, _, rest = text.partition(".")
    digits = digits.partition("+")[0].partition("-")[0]
    fraction = rest.partition("+")[0].partition("-")[0][:6]
    formats = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    if len(digits) not in formats or not digits.isdigit() or (fraction and not fraction.isdigit()):
        return None
    try:
        moment = datetime.strptime(digits, formats[len(digits)])  # noqa: DTZ007 - scanner times carry no zone
    except ValueError:
        return None
    return moment.replace(microsecond=int(fraction.ljust(6, "0"))) if fraction else moment


def _shown(values: Sequence[Any]) -> str:
    return ", ".join(repr(str(value)) for value in values)[:SHOWN_CHARACTERS]
