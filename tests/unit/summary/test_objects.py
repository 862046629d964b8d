"""The page as finished objects, and every rendering of every number beside each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from mr_sources import STUDY_UID, oblique_grid, study_findings
from result_objects import make_results
from summary_pages import EARLIER, Page, page, summary_source

from dicom_node.assembly.pairing import StudyAssembly
from dicom_node.cli.status import _ear_lines
from dicom_node.delivery.outbox import OutboxObject
from dicom_node.encoding.findings_json import findings_document
from dicom_node.encoding.part10 import part10_bytes, read_part10
from dicom_node.encoding.summary_objects import build_summary_image
from dicom_node.encoding.summary_verification import SideMark, verify_summary_document, verify_summary_image
from dicom_node.errors import OutputMismatch, Reason, Refusal
from dicom_node.summary.objects import computed_summary, refused_summary, side_marks
from dicom_node.summary.page import draw_summary, summary_pictures
from dicom_node.summary.sheet import MONITOR
from inference.anatomy import EarSide

REFUSAL = Refusal(reason=Reason.SLICE_GAP, detail="slice 4 of series 1.2.3")


def objects(of: Page, **options: bool) -> dict[str, OutboxObject]:
    made = computed_summary(of.findings, of.measurements, summary_source(of.source, **options))
    return {one.kind: one for one in made}


def datasets(of: Page) -> dict[str, pydicom.Dataset]:
    return {kind: read_part10(one.data) for kind, one in objects(of, pdf=True).items()}


def pdf_text(document: pydicom.Dataset, folder: Path) -> str:
    """The text of an encapsulated PDF, read by poppler."""
    if shutil.which("pdftotext") is None:
        pytest.skip("poppler-utils is not installed (`make setup` does)")
    path = folder / "summary.pdf"
    path.write_bytes(bytes(document.EncapsulatedDocument)[: int(document.EncapsulatedDocumentLength)])
    read = subprocess.run(["pdftotext", "-raw", str(path), "-"], check=True, capture_output=True, text=True)
    return " ".join(read.stdout.split())


def report_text(report: pydicom.Dataset) -> str:
    """Every text and number of a report, numbers as its viewers print them."""
    said = []
    for item in report.iterall():
        if item.keyword == "TextValue":
            said.append(str(item.value))
        if item.keyword == "MeasuredValueSequence":
            measured = item.value[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            said.append(f"{float(measured.NumericValue):.1f} {unit}")
    return " ".join(said)


@pytest.mark.parametrize(("options", "kinds"), [
    ({}, ["SC"]),
    ({"pdf": True}, ["SC", "PDF"]),
    ({"summary": False}, []),
    ({"summary": False, "pdf": True}, ["PDF"]),
])  # fmt: skip
def test_the_site_chooses_the_forms(options: dict[str, bool], kinds: list[str]) -> None:
    assert list(objects(page(), **options)) == kinds
    refused = refused_summary([REFUSAL], (), summary_source(page().source, REFUSAL.reason, **options))
    assert [one.kind for one in refused] == kinds


def test_both_objects_belong_to_the_study_and_say_what_they_are() -> None:
    of = page()
    for written in datasets(of).values():
        assert written.StudyInstanceUID == STUDY_UID
        assert (written.PatientID, str(written.PatientName)) == ("P-0001", "Phantom^Test")
        assert written.BurnedInAnnotation == "YES"
        assert written.SeriesDescription == "RESEARCH EH summary"
        assert written.ContributingEquipmentSequence[-1].ManufacturerModelName == "Hydrops Node"
        assert "FrameOfReferenceUID" not in written
    image, document = datasets(of).values()
    assert (image.SeriesNumber, document.SeriesNumber) == (9903, 9904)
    assert image.SeriesInstanceUID != document.SeriesInstanceUID
    assert image.ImageComments.startswith("Research use only.")
    assert len(image.SourceImageSequence) == len(document.SourceInstanceSequence) == len(of.source)


def test_uids_follow_from_the_inputs_and_not_from_an_earlier_value() -> None:
    """A study sent again after an older one came to light keeps its objects; the outbox keeps the first bytes."""
    with_change = objects(page(), pdf=True)
    without = replace(page(), measurements=_without_previous(page()))
    for kind, one in objects(without, pdf=True).items():
        assert one.sop_instance_uid == with_change[kind].sop_instance_uid
        assert one.series_instance_uid == with_change[kind].series_instance_uid
        assert one.data != with_change[kind].data
    assert objects(page(), pdf=True) == with_change


def _without_previous(of: Page) -> object:
    return replace(of.measurements, ears=tuple(replace(ear, previous=None) for ear in of.measurements.ears))


def test_a_refused_study_has_other_uids_for_other_reasons_and_shows_no_image() -> None:
    source = page().source
    gap, lossy = (
        refused_summary([Refusal(reason=reason, detail="")], (), summary_source(source, reason, pdf=True))
        for reason in (Reason.SLICE_GAP, Reason.LOSSY)
    )
    uids = {one.sop_instance_uid for one in (*gap, *lossy, *objects(page(), pdf=True).values())}
    assert len(uids) == 6
    for one in gap:
        written = read_part10(one.data)
        assert written.SeriesDescription == "RESEARCH EH summary: not computed"
        assert "SourceImageSequence" not in written
        assert "SourceInstanceSequence" not in written


def test_every_rendering_of_every_number_is_the_same(tmp_path: Path) -> None:
    """SR, findings.json, `status`, the picture and the PDF, each read back from what was written."""
    of = page()
    written = datasets(of)
    document = findings_document(
        StudyAssembly(study_instance_uid=STUDY_UID, decisions=(), chosen=None, refusal=None, left_out=()),
        of.findings, key=summary_source(of.source).key, timings_s={}, measurements=of.measurements, previous=EARLIER,
    )  # fmt: skip
    sheet = draw_summary(summary_pictures(of.findings, of.measurements), of.measurements, of.identity, MONITOR)
    np.testing.assert_array_equal(written["SC"].pixel_array, sheet.pixels())  # so its texts are the picture's
    report = make_results(of.findings, of.source, measurements=of.measurements).report
    kept = json.loads(json.dumps(document))
    readings = {
        "SR": report_text(report),
        "json": " ".join(text for ear in kept["ears"].values() for text in ear["texts"]),
        "status": " ".join(_ear_lines(kept)),
        "SC": " ".join(one.text for one in sheet.written()),
        "PDF": pdf_text(written["PDF"], tmp_path),
    }
    for ear in of.measurements.ears:
        figures = [ear.total_fluid, ear.endolymph, ear.ratio, ear.low, ear.high, *(one.ratio for one in ear.levels)]
        if ear.previous is not None:
            figures += [ear.previous.ratio, ear.previous.change]
        for figure in figures:
            assert figure is not None
            missing = [name for name, text in readings.items() if figure.text not in text]
            assert missing == [], f"{ear.side} {figure.text}"
    numbers = re.compile(r"(?<![\d.])[-+]?\d+\.\d (?:percentage points|mm3|%)")
    assert set(numbers.findall(readings["SC"])) == set(numbers.findall(readings["PDF"]))
    assert set(numbers.findall(readings["SC"])) <= set(numbers.findall(readings["status"]))
    assert set(numbers.findall(readings["status"])) == set(numbers.findall(readings["json"]))
    assert set(numbers.findall(readings["json"])) <= set(numbers.findall(readings["SR"]))


def test_a_picture_with_another_patient_side_or_pixel_is_not_let_go() -> None:
    of = page()
    source = summary_source(of.source)
    sheet = draw_summary(summary_pictures(of.findings, of.measurements), of.measurements, of.identity, MONITOR)
    pixels = sheet.pixels()
    good = build_summary_image(pixels, source)
    verify_summary_image(part10_bytes(good), pixels, side_marks(), source.header)

    def refused(written: pydicom.Dataset, drawn: np.ndarray = pixels, marks: tuple[SideMark, ...] | None = None) -> str:
        with pytest.raises(OutputMismatch) as caught:
            verify_summary_image(part10_bytes(written), drawn, marks or side_marks(), source.header)
        return str(caught.value)

    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    assert "mark of the" in refused(build_summary_image(mirrored, source), mirrored)
    other = build_summary_image(pixels, source)
    other.PatientID = "P-0002"
    assert "PatientID" in refused(other)
    assert "P-0002" not in refused(other)
    dented = pixels.copy()
    dented[500, 500] ^= 255
    assert "1 pixels differ" in refused(build_summary_image(dented, source))
    small = np.ascontiguousarray(pixels[:512])
    assert "size of the page" in refused(build_summary_image(small, source))
    swapped = tuple(
        replace(mark, side=EarSide.LEFT if mark.side is EarSide.RIGHT else EarSide.RIGHT) for mark in side_marks()
    )
    assert "wrong half" in refused(good, marks=swapped)
    clean = build_summary_image(pixels, source)
    clean.BurnedInAnnotation = "NO"
    assert "burned in" in refused(clean)


def test_a_document_of_another_length_or_content_is_not_let_go() -> None:
    of = page()
    source = summary_source(of.source, pdf=True, summary=False)
    (made,) = computed_summary(of.findings, of.measurements, source)
    written = read_part10(made.data)
    pdf = bytes(written.EncapsulatedDocument)[: int(written.EncapsulatedDocumentLength)]
    verify_summary_document(made.data, pdf, source.header)
    for other in (pdf[:-2], b"%PDF-" + bytes(len(pdf) - 5)):
        with pytest.raises(OutputMismatch, match="document"):
            verify_summary_document(made.data, other, source.header)


def test_two_threads_draw_as_one_does() -> None:
    of, expected = page(), objects(page(), pdf=True)
    made: list[dict[str, OutboxObject]] = []
    threads = [threading.Thread(target=lambda: made.append(objects(of, pdf=True))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert made == [expected, expected]


def test_findings_without_pictures_still_make_a_page_with_their_numbers() -> None:
    grid = oblique_grid()
    bare = replace(page(), findings=study_findings(grid))
    (made,) = computed_summary(bare.findings, bare.measurements, summary_source(bare.source))
    assert read_part10(made.data).pixel_array.shape == (1024, 1024, 3)
