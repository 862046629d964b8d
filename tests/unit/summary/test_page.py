"""The page of a computed study: everything on it, everything inside it, nothing over anything else."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from mr_sources import STUDY_UID
from summary_pages import SLAB, Page, findings_on, page

from dicom_node.encoding.codes import RESEARCH_USE_TEXT
from dicom_node.encoding.measurements import study_measurements
from dicom_node.summary.heading import writable_name
from dicom_node.summary.page import draw_side_mark, draw_summary, mark_place, summary_pictures
from dicom_node.summary.sheet import MONITOR, PAPER, SIZE, Sheet, Theme, WrittenText
from inference.anatomy import EarSide
from inference.findings import QualityCode, QualityFlag, Severity

LONG = (
    "The perilymph takes up little contrast agent, so that endolymph and perilymph differ less than usual; look at it."
)
HOSTILE_NAME = "<script>alert(1)</script>$x^2$ {{7*7}}^=cmd"


def drawn(of: Page, theme: Theme = MONITOR) -> Sheet:
    return draw_summary(summary_pictures(of.findings, of.measurements), of.measurements, of.identity, theme)


def overlap(one: WrittenText, other: WrittenText) -> float:
    """Area in square units that two texts share, a unit of rim taken off."""
    width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0]) - 2.0
    height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1]) - 2.0
    return max(0.0, width) * max(0.0, height)


def with_remarks(of: Page, count: int) -> Page:
    """The same study with many long remarks on each ear and on the examination."""
    flags = tuple(
        QualityFlag(code=QualityCode.MOTION, severity=Severity.WARN, message=f"{number}. {LONG}")
        for number in range(count)
    )
    ears = {side: replace(ear, quality=flags) for side, ear in of.findings.ears.items()}
    findings = replace(of.findings, ears=ears, quality=flags)
    return replace(of, findings=findings, measurements=study_measurements(findings))


@pytest.mark.parametrize("theme", [MONITOR, PAPER])
@pytest.mark.parametrize("remarks", [0, 1, 9])
def test_every_text_lies_on_the_page_and_none_over_another(theme: Theme, remarks: int) -> None:
    of = page(PatientName="Very^Long Name That Goes On^And On^Dr.^MSc" * 1, StudyDescription="D" * 64)
    written = drawn(with_remarks(of, remarks) if remarks else of, theme).written()
    for one in written:
        left, top, right, bottom = one.box
        assert left >= 0, one
        assert top >= 0, one
        assert right <= SIZE, one
        assert bottom <= SIZE, one
    crossing = [(a.text, b.text) for a, b in combinations(written, 2) if overlap(a, b) > 0.0]
    assert crossing == []


def test_each_ears_texts_stay_in_its_own_half() -> None:
    sheet = drawn(page())
    middle = SIZE / 2
    in_ears = [one for one in sheet.written() if 100 < one.box[1] < 940]
    assert all(one.box[2] <= middle or one.box[0] >= middle for one in in_ears), in_ears


def test_all_numbers_of_the_model_are_written_and_nothing_else_is_a_percentage() -> None:
    of = page()
    texts = " ".join(one.text for one in drawn(of).written())
    known = set()
    for ear in of.measurements.ears:
        assert ear.ratio is not None
        assert ear.total_fluid is not None
        assert ear.endolymph is not None
        for figure in (ear.ratio, ear.total_fluid, ear.endolymph):
            assert figure.text in texts
            known.add(figure.text)
        known.update(ear.interval_text.split(" to "))
        known.update(level.ratio.text for level in ear.levels if level.ratio)
        assert ear.interval_text in texts
        for level in ear.levels:
            assert level.ratio is not None
            assert f"{level.ratio.text}, {level.where}" in texts
    previous = of.measurements.ear(EarSide.LEFT).previous
    assert previous is not None
    assert f"previous {previous.ratio.text}, 2025-03-01" in texts
    assert f"change {previous.change.text}" in texts
    known |= {previous.ratio.text, previous.change.text, "95 %"}
    assert set(re.findall(r"[-+]?[\d.]+ (?:percentage points|mm3|%)", texts)) == known
    assert "other model then: ear 0.9" in texts
    assert RESEARCH_USE_TEXT in " ".join(texts.split())
    assert "Model threshold 1.0.0." in texts


def test_right_stands_on_the_left_and_carries_its_mark() -> None:
    written = drawn(page()).written()
    place = {one.text: one.box for one in written if one.text in ("Right ear", "Left ear")}
    assert place["Right ear"][2] < SIZE / 2 < place["Left ear"][0]
    marks = {one.text: (one.x, one.y) for one in written if one.size == 30.0}
    assert marks == {"R": mark_place(EarSide.RIGHT), "L": mark_place(EarSide.LEFT)}


def test_the_digits_in_the_pixels_are_those_of_the_measurements() -> None:
    """Each number is drawn once more by itself, and found pixel by pixel in the page."""
    sheet = drawn(page())
    pixels = sheet.pixels()
    numbers = [one for one in sheet.written() if "%" in one.text or "mm3" in one.text]
    assert len(numbers) >= 13
    for one in numbers:
        alone = Sheet(MONITOR)
        alone.write(one.x, one.y, one.text, size=one.size, bold=one.bold, align=one.align, anchor=one.anchor)
        left, top, right, bottom = (round(edge) for edge in one.box)
        there = pixels[top:bottom, left:right].max(axis=2) > 60
        wanted = alone.pixels()[top:bottom, left:right].max(axis=2) > 60
        assert wanted.any()
        assert (there == wanted).mean() > 0.97, one.text


def test_an_ear_without_a_number_says_so_in_large_letters() -> None:
    written = drawn(page(sides=(EarSide.LEFT,))).written()
    texts = [one.text for one in written]
    assert "Not evaluated" in texts
    assert "No labyrinth was found on this side." in texts
    statement = next(one for one in written if one.text == "Not evaluated")
    assert statement.size >= 30
    assert statement.box[2] < SIZE / 2


def test_remarks_that_do_not_fit_are_counted_and_never_dropped_in_silence() -> None:
    texts = [one.text for one in drawn(with_remarks(page(), 9)).written()]
    assert sum("more in the report (SR)." in text for text in texts) == 3


def test_a_hostile_name_is_drawn_as_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dicom_node")
    of = page(PatientName=HOSTILE_NAME)
    texts = [one.text for one in drawn(of).written()]
    assert any("<script>alert(1)</script>$x" in text for text in texts)
    assert "script" not in caplog.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田 太郎 (Yamada, Tarou)"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "洪 吉洞 (Hong, Gildong)"),
        ("שרון^דבורה", "שרון, דבורה"),
        ("Διονυσιος", "Διονυσιος"),
    ],
)
def test_names_of_any_script_are_written_in_full_or_the_page_says_that_they_are_not(name: str, shown: str) -> None:
    written, remark = writable_name(name)
    assert written == shown or remark
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each character that it draws as an empty box
        drawn(page(PatientName=name, SpecificCharacterSet="ISO_IR 192")).pixels()


def test_a_name_that_no_font_can_write_is_replaced_by_words() -> None:
    private = "\ue123\ue124"
    assert writable_name(f"Latin^Form={private}^x") == (
        "Latin, Form",
        "other scripts of the name cannot be written here",
    )
    assert writable_name(f"{private}^{private}") == ("Name: see the patient ID", "no font here writes this name")
    assert writable_name("") == ("Name not stated", "")


def test_equal_studies_give_equal_pixels_and_equal_documents() -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 11, 22, tzinfo=UTC)
    first, second = drawn(page()), drawn(page())
    assert np.array_equal(first.pixels(), second.pixels())
    assert drawn(page(), PAPER).pdf(title="t", at=at) == drawn(page(), PAPER).pdf(title="t", at=at)


def test_the_marks_are_drawn_alone_as_on_the_page() -> None:
    for side in EarSide:
        alone = Sheet(MONITOR)
        draw_side_mark(alone, side)
        x, y = (round(value) for value in mark_place(side))
        assert alone.pixels()[y : y + 30, x : x + 30].max() > 200


def test_the_source_of_these_tests_is_an_oblique_study_with_two_ears() -> None:
    assert findings_on().computed
    assert page().source[0].StudyInstanceUID == STUDY_UID
    assert abs(SLAB.directions[2, 0]) < 0.99
