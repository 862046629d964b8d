"""The summary of a study that was not computed: that it was looked at, why there is no number, and what to do.

Written for a reader who has never heard of this program: sentences, no code names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicom_node.errors import Reason, Refusal
from dicom_node.summary.heading import FOOT_TOP, HEAD_HEIGHT, MARGIN, PageIdentity, draw_foot, draw_head, writable
from dicom_node.summary.page import TITLE
from dicom_node.summary.sheet import SIZE, Sheet, Theme

HEADLINE: Final = "Not computed"
NOT_NORMAL: Final = "There is no number for this study. This is neither zero nor normal."

WIDTH: Final = SIZE - 2 * MARGIN - 40.0

PLAIN_NAMES: Final[Mapping[str, str]] = {
    "HYDROPS_MI2": "HYDROPS-Mi2",
    "REAL_IR": "real inversion recovery",
    "MRC": "MR cisternography",
    **{reason.value: reason.value.replace("_", " ").lower() for reason in Reason if "_" in reason.value},
}
"""Words of the program that may stand in a detail, as people say them."""

_CODE_NAME: Final = re.compile(r"\b(" + "|".join(sorted(PLAIN_NAMES, key=len, reverse=True)) + r")\b")


@dataclass(frozen=True, kw_only=True)
class UnderstoodSeries:
    """One series of the study as the sender describes it, and what the node took it as (a `SeriesRole` value)."""

    number: int | None
    description: str
    role: str

    @property
    def sentence(self) -> str:
        """One line for people."""
        numbered = "Series" if self.number is None else f"Series {self.number}"
        taken = "not used" if self.role == "OTHER" else f"taken as {PLAIN_NAMES.get(self.role, self.role)}"
        return f"{numbered} “{self.description or 'without description'}”: {taken}"


def draw_refusal(
    refusals: Sequence[Refusal],
    understood: Sequence[UnderstoodSeries],
    identity: PageIdentity,
    model: str,
    theme: Theme,
) -> Sheet:
    """The sheet of a study without a result.

    Raises
    ------
    ValueError
        If there is no reason.
    """
    if not refusals:
        raise ValueError("a page of no result needs a reason")
    sheet = Sheet(theme)
    draw_head(sheet, identity, TITLE)
    sheet.write(SIZE / 2, 150, HEADLINE, size=44, bold=True, align="center", color=theme.warning)
    sheet.write(SIZE / 2, 212, NOT_NORMAL, size=20, align="center")
    y = HEAD_HEIGHT + 190.0
    groups = _by_reason(refusals)
    for number, (reason, details) in enumerate(groups.items()):
        needed = _height(sheet, reason, details)
        if y + needed > FOOT_TOP - 50:
            sheet.write(MARGIN + 20, y, f"{len(groups) - number} more reasons stand in the report (SR).", size=17)
            break
        y = _draw_reason(sheet, reason, details, y)
    _draw_understood(sheet, understood, y)
    draw_foot(sheet, model)
    return sheet


def plain(detail: str) -> str:
    """A detail in which the program's own words are replaced by people's."""
    return _CODE_NAME.sub(lambda found: PLAIN_NAMES[found.group()], detail)


def _by_reason(refusals: Sequence[Refusal]) -> dict[Reason, list[str]]:
    groups: dict[Reason, list[str]] = {}
    for refusal in refusals:
        details = groups.setdefault(refusal.reason, [])
        if refusal.detail and refusal.detail != refusal.reason.sentence and refusal.detail not in details:
            details.append(refusal.detail)
    return groups


DETAIL_LINES: Final = 4
SERIES_STEP: Final = 21.0


def _draw_understood(sheet: Sheet, understood: Sequence[UnderstoodSeries], y: float) -> None:
    """Which series there were, at the foot of the page, as many as there is room for."""
    x = MARGIN + 20
    room = int((FOOT_TOP - 40 - y) / SERIES_STEP) - 1
    lines = [writable(one.sentence) for one in understood]
    if room < 1 or not lines:
        return
    if len(lines) > room:
        lines = [*lines[: room - 1], f"{len(lines) - room + 1} more series"]
    y = FOOT_TOP - 24 - SERIES_STEP * len(lines)
    sheet.write(x, y - 26, "What the node received:", size=16, color=sheet.theme.quiet)
    for line in lines:
        sheet.write(x, y, sheet.fitting(line, WIDTH, size=15), size=15, color=sheet.theme.quiet)
        y += SERIES_STEP


def _draw_reason(sheet: Sheet, reason: Reason, details: Sequence[str], y: float) -> float:
    """One reason, what can be done, and what was found; returns where the next one begins."""
    x = MARGIN + 20
    for line in sheet.wrapped(reason.sentence, WIDTH, size=22):
        sheet.write(x, y, line, size=22, bold=False)
        y += 30
    for line in sheet.wrapped(f"What to do: {reason.next_step}", WIDTH, size=18):
        sheet.write(x, y, line, size=18, color=sheet.theme.warning)
        y += 25
    for line in _detail_lines(sheet, details):
        sheet.write(x, y, line, size=14, color=sheet.theme.quiet)
        y += 19
    return y + 24


def _detail_lines(sheet: Sheet, details: Sequence[str]) -> list[str]:
    lines = [
        line for detail in details for line in sheet.wrapped(f"In detail: {writable(plain(detail))}", WIDTH, size=14)
    ]
    if len(lines) > DETAIL_LINES:
        lines = [*lines[: DETAIL_LINES - 1], "More details stand in the report (SR)."]
    return lines


def _height(sheet: Sheet, reason: Reason, details: Sequence[str]) -> float:
    sentences = len(sheet.wrapped(reason.sentence, WIDTH, size=22))
    steps = len(sheet.wrapped(f"What to do: {reason.next_step}", WIDTH, size=18))
    return 30.0 * sentences + 25.0 * steps + 19.0 * len(_detail_lines(sheet, details)) + 24.0
