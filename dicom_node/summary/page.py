"""The summary of a computed study on one sheet: right ear on the left, left ear on the right, as on the images.

Per ear: key slices with contours, the labyrinth in three dimensions, every number of the measurement model, what
lessens it, and the previous value. Drawn while the study is worked on, because only then are its images at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dicom_node.encoding.measurements import INTERVAL_NAME, EarMeasurements, StudyMeasurements
from dicom_node.summary.heading import FOOT_TOP, HEAD_HEIGHT, MARGIN, PageIdentity, draw_foot, draw_head
from dicom_node.summary.key_slices import KeySlice, key_slices
from dicom_node.summary.labyrinth_picture import LabyrinthPicture, labyrinth_picture
from dicom_node.summary.sheet import SIZE, Sheet, Theme
from inference.anatomy import EarSide
from inference.findings import StudyFindings

TITLE: Final = "Inner-ear hydrops summary"

GAP: Final = 8.0
COLUMN: Final = (SIZE - 2 * MARGIN - 2 * GAP) / 2.0
SLICE_HEIGHT: Final = 210.0
SLICES_TOP: Final = HEAD_HEIGHT + 36.0
NUMBERS_TOP: Final = SLICES_TOP + 2 * (SLICE_HEIGHT + 22.0) + 6.0
REMARKS_TOP: Final = NUMBERS_TOP + 262.0
REMARK_SIZE: Final = 13.0
REMARK_STEP: Final = 16.5

SIDE_MARK_SIZE: Final = 30.0
"""Of the letter R or L over each ear: legible where a whole page is shown as a thumbnail of 256 pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarPictures:
    """What is drawn of one ear besides its numbers; nothing for an ear without any."""

    key_slices: tuple[KeySlice, ...] = ()
    labyrinth: LabyrinthPicture | None = None


Pictures = Mapping[EarSide, EarPictures]


def summary_pictures(findings: StudyFindings, measurements: StudyMeasurements) -> Pictures:
    """The pictures of both ears, made once for all prints."""
    return {
        side: EarPictures(
            key_slices=key_slices(ear, measurements.ear(side)),
            labyrinth=None if ear.fluid is None else labyrinth_picture(ear.fluid),
        )
        for side, ear in findings.ears.items()
    }


def draw_summary(pictures: Pictures, measurements: StudyMeasurements, identity: PageIdentity, theme: Theme) -> Sheet:
    """The sheet of a computed study."""
    sheet = Sheet(theme)
    draw_head(sheet, identity, TITLE)
    sheet.line(SIZE / 2, HEAD_HEIGHT + 4, SIZE / 2, REMARKS_TOP)
    for side, left in ((EarSide.RIGHT, MARGIN), (EarSide.LEFT, SIZE / 2 + GAP)):
        if side in pictures:
            _draw_ear(sheet, pictures[side], measurements.ear(side), left)
    _draw_remarks(sheet, measurements)
    draw_foot(sheet, measurements.model)
    return sheet


def side_mark(side: EarSide) -> str:
    """R or L: the patient's."""
    return side.value[0].upper()


def mark_place(side: EarSide) -> tuple[float, float]:
    """Where the mark of a side stands, (x, y) of its upper left corner in units: R on the left half, L on the right."""
    x = MARGIN if side is EarSide.RIGHT else SIZE - MARGIN - SIDE_MARK_SIZE
    return x, HEAD_HEIGHT


def draw_side_mark(sheet: Sheet, side: EarSide) -> None:
    """R or L at the outer upper corner of the ear's column."""
    x, y = mark_place(side)
    sheet.write(x, y, side_mark(side), size=SIDE_MARK_SIZE, bold=True)


def _draw_ear(sheet: Sheet, pictures: EarPictures, measured: EarMeasurements, left: float) -> None:
    draw_side_mark(sheet, measured.side)
    sheet.write(left + COLUMN / 2, HEAD_HEIGHT + 6, measured.name, size=20, bold=True, align="center")
    if not measured.evaluated or pictures.labyrinth is None:
        _draw_not_evaluated(sheet, measured, left)
        return
    for row, key in enumerate(pictures.key_slices):
        _draw_slices(sheet, key, left, SLICES_TOP + row * (SLICE_HEIGHT + 22.0))
    half = (COLUMN - GAP) / 2.0
    box = sheet.picture((left, NUMBERS_TOP, half - 10.0, 232.0), pictures.labyrinth.painted(sheet.theme.background))
    _draw_letters(sheet, box, pictures.labyrinth.letters)
    _draw_legend(sheet, left + 4.0, NUMBERS_TOP + 236.0)
    _draw_numbers(sheet, measured, left + half - 2.0)


def _draw_not_evaluated(sheet: Sheet, measured: EarMeasurements, left: float) -> None:
    """An ear without numbers: said in large letters, with its reasons, so that nobody reads the gap as normal."""
    center = left + COLUMN / 2
    sheet.write(
        center, SLICES_TOP + 150, "Not evaluated", size=30, bold=True, align="center", color=sheet.theme.warning
    )
    sheet.write(center, SLICES_TOP + 195, "This is neither zero nor normal.", size=16, align="center")
    y = SLICES_TOP + 235
    for sentence in measured.quality:
        for line in sheet.wrapped(sentence, COLUMN - 60, size=15):
            sheet.write(center, y, line, align="center", color=sheet.theme.quiet)
            y += 21


def _draw_slices(sheet: Sheet, key: KeySlice, left: float, top: float) -> None:
    half = (COLUMN - GAP) / 2.0
    sheet.write(left, top, sheet.fitting(key.title, COLUMN, size=14), size=14, color=sheet.theme.quiet)
    outlines = ((key.total_fluid, sheet.theme.total_fluid), (key.endolymph, sheet.theme.endolymph))
    for number, (name, gray) in enumerate((("MRC", key.mrc), ("HYDROPS-Mi2", key.mi2))):
        x = left + number * (half + GAP)
        box = sheet.picture((x, top + 18.0, half, SLICE_HEIGHT), gray, size_mm=key.size_mm, outlines=outlines)
        _draw_letters(sheet, box, key.letters, on_picture=True)
        sheet.write(box[0] + 5, box[1] + box[3] - 4, name, size=13, color=_ON_PICTURE, anchor="bottom", on_picture=True)


_ON_PICTURE: Final = "#f2f2f2"
"""Slices are dark on paper too."""


def _draw_letters(
    sheet: Sheet,
    box: tuple[float, float, float, float],
    letters: tuple[str, str, str, str],
    *,
    on_picture: bool = False,
) -> None:
    """The patient's directions at the edges of a picture: left, right, top, bottom."""
    x, y, width, height = box
    color = _ON_PICTURE if on_picture else sheet.theme.text
    places = (
        (x + 4, y + height / 2, "left", "center"),
        (x + width - 4, y + height / 2, "right", "center"),
        (x + width / 2, y + 4, "center", "top"),
        (x + width / 2, y + height - 4, "center", "bottom"),
    )
    for letter, (at_x, at_y, align, anchor) in zip(letters, places, strict=True):
        sheet.write(
            at_x, at_y, letter, size=15, bold=True, align=align, anchor=anchor, color=color, on_picture=on_picture
        )


def _draw_legend(sheet: Sheet, x: float, y: float) -> None:
    for name, color in (("total fluid", sheet.theme.total_fluid), ("endolymph", sheet.theme.endolymph)):
        sheet.swatch(x, y + 2, color)
        sheet.write(x + 18, y, name, size=13, color=sheet.theme.quiet)
        x += 30 + sheet.width_of(name, size=13)


def _draw_numbers(sheet: Sheet, measured: EarMeasurements, x: float) -> None:
    """Every figure of an evaluated ear, the ratio largest."""
    assert measured.ratio is not None, "only an evaluated ear has numbers"
    assert measured.total_fluid is not None, "only an evaluated ear has numbers"
    assert measured.endolymph is not None, "only an evaluated ear has numbers"
    quiet = sheet.theme.quiet
    y = NUMBERS_TOP
    sheet.write(x, y, "EH ratio (volumes)", size=14, color=quiet)
    sheet.write(x, y + 16, measured.ratio.text, size=36, bold=True)
    sheet.write(x, y + 59, f"{INTERVAL_NAME} {measured.interval_text}", size=13.5)
    sheet.write(x, y + 80, f"total fluid {measured.total_fluid.text}", size=15)
    sheet.write(x, y + 99, f"endolymph {measured.endolymph.text}", size=15)
    y += 125
    for level in measured.levels:
        sheet.write(x, y, level.name, size=13, color=quiet)
        told = f"{level.ratio.text}, {level.where}" if level.ratio is not None else f"not told: {level.reason}"
        sheet.write(x, y + 15, sheet.fitting(told, COLUMN / 2, size=14), size=14)
        y += 36
    _draw_previous(sheet, measured, x, y)


def _draw_previous(sheet: Sheet, measured: EarMeasurements, x: float, y: float) -> None:
    previous = measured.previous
    if previous is None:
        sheet.write(x, y, "no earlier value known", size=13, color=sheet.theme.quiet)
        return
    sheet.write(x, y, f"previous {previous.ratio.text}, {previous.date_text}", size=13.5)
    sheet.write(x, y + 17, f"change {previous.change.text}", size=13.5)
    limits = f"the {INTERVAL_NAME}s {'overlap' if previous.overlap else 'do not overlap'}"
    sheet.write(x, y + 33, limits, size=12, color=sheet.theme.quiet)
    if not previous.same_model:
        then = sheet.fitting(f"other model then: {previous.model}", COLUMN / 2, size=12)
        sheet.write(x, y + 48, then, size=12, color=sheet.theme.warning)


def _draw_remarks(sheet: Sheet, measurements: StudyMeasurements) -> None:
    """What lessens the numbers: each ear's own remarks under its column, the examination's under both."""
    sheet.line(MARGIN, REMARKS_TOP, SIZE - MARGIN, REMARKS_TOP)
    common = [f"Examination: {sentence}" for sentence in measurements.quality]
    lines_left = int((FOOT_TOP - 10 - REMARKS_TOP - 8) / REMARK_STEP)
    below = _fitted(sheet, common, SIZE - 2 * MARGIN, lines_left - 1) if common else []
    for ear, left in zip(measurements.ears, (MARGIN, SIZE / 2 + GAP), strict=False):
        sentences = ear.quality if ear.evaluated else ()
        said = list(sentences) or (["No remark on quality."] if ear.evaluated else [])
        y = REMARKS_TOP + 7
        for line in _fitted(sheet, said, COLUMN, lines_left - len(below)):
            sheet.write(left, y, line, size=REMARK_SIZE)
            y += REMARK_STEP
    y = FOOT_TOP - 10 - REMARK_STEP * len(below)
    for line in below:
        sheet.write(MARGIN, y, line, size=REMARK_SIZE, color=sheet.theme.quiet)
        y += REMARK_STEP


def _fitted(sheet: Sheet, sentences: list[str], width: float, lines: int) -> list[str]:
    """The sentences in at most `lines` lines; the rest is named, never silently dropped."""
    wrapped = [sheet.wrapped(sentence, width, size=REMARK_SIZE) for sentence in dict.fromkeys(sentences)]
    if sum(map(len, wrapped)) <= lines:
        return [line for one in wrapped for line in one]
    kept: list[str] = []
    for number, one in enumerate(wrapped):
        if len(kept) + len(one) > lines - 1:
            return [*kept, f"{len(wrapped) - number} more in the report (SR)."]
        kept += one
    return kept
