from dataclasses import replace

import numpy as np
import pydicom
import pytest
from mr_sources import ENCODED_AT, HYDROPS_UID, MODEL, MRC_UID, classic_series, enhanced_image, key_of, oblique_grid
from mr_sources import study_findings as findings_of
from result_objects import OPTIONS, comments, content_items, make_results, numbers

from dicom_node.encoding.measurement_report import DocumentReference, build_not_computed_report
from dicom_node.encoding.part10 import part10_bytes, read_part10
from dicom_node.errors import Reason, Refusal, UnusableInput
from inference.anatomy import EarSide
from inference.geometry import Volume
from inference.segmentation import ThresholdSegmenter

GRID = oblique_grid()
REFUSAL = Refusal(reason=Reason.PARTNER_MISSING, detail="found MRC only")


def not_computed(source: pydicom.Dataset, *refusals: Refusal, **options: object) -> pydicom.Dataset:
    report = build_not_computed_report(
        refusals or (REFUSAL,),
        source,
        [source],
        key=key_of([source]),
        options=OPTIONS,
        encoded_at=ENCODED_AT,
        **options,
    )
    return read_part10(part10_bytes(report))


def title(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def evidence(report: pydicom.Dataset) -> set[str]:
    return {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def test_a_ratio_is_written_in_per_cent_and_never_as_a_fraction():
    report = make_results(findings_of(GRID, ratio=0.271)).report
    ratios = [(value, unit) for name, value, unit in numbers(report) if name.startswith("Endolymph to total")]
    assert set(ratios) == {("27.1", "%")}
    assert not any("0.27" in comment for comment in comments(report))
    assert b"0.271" not in part10_bytes(report)


def test_each_ear_has_ratio_interval_and_both_volumes():
    results = make_results()
    ratio = results.findings.ears[EarSide.RIGHT].ratio
    names = [name for name, _, _ in numbers(results.report)]
    assert len(names) == 2 * 7
    assert ("Total fluid space volume", f"{ratio.total_fluid_mm3:.1f}", "mm3") in numbers(results.report)
    assert ("Endolymph volume", f"{ratio.endolymph_mm3:.1f}", "mm3") in numbers(results.report)
    assert ("Volume", f"{ratio.total_fluid_mm3:.1f}", "mm3") in numbers(results.report)
    assert ("EH volume ratio, lower limit of 95 % interval", "24.4", "%") in numbers(results.report)
    assert ("EH volume ratio, upper limit of 95 % interval", "29.8", "%") in numbers(results.report)


def test_each_ear_stands_in_one_line_of_text():
    results = make_results()
    ratio = results.findings.ears[EarSide.LEFT].ratio
    assert (
        "Left ear: EH ratio 27.1 % (95 % interval 24.4 % to 29.8 %), "
        f"total fluid space {ratio.total_fluid_mm3:.1f} mm3, endolymph {ratio.endolymph_mm3:.1f} mm3."
    ) in comments(results.report)


def test_an_ear_without_a_number_says_why_and_shows_no_zero():
    report = make_results(findings_of(GRID, ears=(EarSide.LEFT,))).report
    assert "Right ear: not evaluated." in comments(report)
    assert "This ear is outside the field of view." in comments(report)
    stated = {item.ConceptCodeSequence[0].CodeMeaning for item in content_items(report, "CODE")}
    assert {"Not Evaluated", "Ear not found", "Non-diagnostic quality"} <= stated
    assert len(numbers(report)) == 7
    assert all(float(value) > 0 for _, value, _ in numbers(report))


def test_volumes_point_to_the_segments_that_carry_their_tracking_uid():
    results = make_results()
    tracked = {item.TrackingUID: item.SegmentNumber for item in results.seg.SegmentSequence}
    found = {}
    for group in content_items(results.report, "CONTAINER"):
        for item in group.get("ContentSequence", []):
            if item.ValueType == "IMAGE":
                uid = next(one.UID for one in group.ContentSequence if one.ValueType == "UIDREF")
                found[uid] = item.ReferencedSOPSequence[0].ReferencedSegmentNumber
    assert found == tracked


@pytest.mark.parametrize("source", [classic_series(GRID), [enhanced_image(GRID)]], ids=["classic", "enhanced"])
def test_a_contour_runs_around_the_largest_slice_of_each_fluid(source):
    results = make_results(source=source)
    contours = content_items(results.report, "SCOORD")
    fluids = [results.findings.ears[side].fluid for side in (EarSide.RIGHT, EarSide.LEFT)]
    masks = [mask for fluid in fluids for mask in (fluid.total_fluid_mask, fluid.endolymph_mask)]
    for contour, mask in zip(contours, masks, strict=True):
        areas = mask.array.sum(axis=(1, 2))
        k = round(float(GRID.to_index(mask.geometry.to_lps((int(areas.argmax()), 0, 0)))[0]))
        reference = contour.ContentSequence[0].ReferencedSOPSequence[0]
        if len(source) == 1:
            assert reference.ReferencedFrameNumber == k + 1
        else:
            assert reference.ReferencedSOPInstanceUID == source[k].SOPInstanceUID
        x, y = np.array(contour.GraphicData).reshape(-1, 2)[:-1].T
        assert abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2 == pytest.approx(areas.max())


def test_every_number_says_how_it_was_made():
    for item in content_items(make_results().report, "NUM"):
        assert item.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning == "Measurement Method"


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (ThresholdSegmenter().identity, "Histogram Analysis"),
        (replace(MODEL, learned=True), "Artificial Intelligence"),
    ],
)
def test_the_report_calls_only_a_trained_model_artificial_intelligence(model, family):
    report = make_results(findings_of(GRID, model=model)).report
    families = {
        item.ConceptCodeSequence[0].CodeMeaning
        for item in content_items(report, "CODE")
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Algorithm Family"
    }
    assert families == {family}


def test_the_report_is_complete_but_unverified_and_preliminary():
    report = make_results().report
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_segmentation_and_every_image_of_both_series_are_evidence():
    results = make_results()
    images = {header.SOPInstanceUID for header in [*results.source, *results.contrast]}
    assert evidence(results.report) == images | {results.seg.SOPInstanceUID}
    series = {
        item.SeriesInstanceUID
        for study in results.report.CurrentRequestedProcedureEvidenceSequence
        for item in study.ReferencedSeriesSequence
    }
    assert {MRC_UID, HYDROPS_UID} < series


def test_the_observer_is_the_device_and_keeps_its_uid_whatever_the_model():
    def observer(results):
        items = content_items(results.report, "UIDREF")
        return next(i.UID for i in items if i.ConceptNameCodeSequence[0].CodeMeaning == "Device Observer UID")

    other_model = replace(MODEL, sha256="cd" * 32)
    assert observer(make_results()) == observer(make_results(findings_of(GRID, model=other_model)))


def test_research_use_stands_in_text_and_description():
    for report in (make_results().report, not_computed(classic_series(GRID)[0])):
        assert any(comment.startswith("Research use only. Not for diagnostic use.") for comment in comments(report))
        assert "RESEARCH" in report.SeriesDescription


def test_what_could_not_be_copied_is_said():
    report = make_results(source=classic_series(GRID, PatientSex=b"X ")).report
    assert any("PatientSex of the source is not legal" in comment for comment in comments(report))


def test_remarks_about_the_choice_of_series_are_said():
    remark = Refusal(reason=Reason.FOR_DIFFERS, detail="HYDROPS was aligned by its pixels")
    report = make_results(remarks=(remark,)).report
    assert any("HYDROPS was aligned by its pixels" in comment for comment in comments(report))


def test_every_group_has_a_contour_under_its_tracking_uid_or_ohif_shows_none():
    groups = [one for one in content_items(make_results().report, "CONTAINER") if "Measurement Group" in title(one)]
    tracked = [next(item.UID for item in group.ContentSequence if item.ValueType == "UIDREF") for group in groups]
    drawn = [any(item.ValueType == "SCOORD" for item in group.ContentSequence) for group in groups]
    assert drawn == 4 * [True, False]
    assert tracked[::2] == tracked[1::2]
    assert len(set(tracked)) == 4


def test_a_report_of_no_result_is_no_measurement_report_because_ohif_shows_those_empty():
    report = not_computed(classic_series(GRID)[0])
    assert title(report) == "Diagnostic Imaging Report"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "2000"


def test_a_volume_without_a_segment_stands_with_its_ear():
    findings = findings_of(GRID, ears=(EarSide.LEFT,))
    ear = findings.ears[EarSide.LEFT]
    nothing = Volume(array=np.zeros(ear.fluid.roi.geometry.shape, dtype=bool), geometry=ear.fluid.roi.geometry)
    ears = {EarSide.LEFT: replace(ear, fluid=replace(ear.fluid, endolymph_mask=nothing))}
    report = make_results(replace(findings, ears=ears)).report
    assert ("Endolymph volume", f"{ear.ratio.endolymph_mm3:.1f}", "mm3") in numbers(report)
    assert len(content_items(report, "SCOORD")) == 1


def test_a_revision_names_the_report_it_replaces():
    earlier = DocumentReference(study_instance_uid="2.25.1", series_instance_uid="2.25.2", sop_instance_uid="2.25.3")
    study = make_results(predecessor=earlier).report.PredecessorDocumentsSequence[0]
    assert study.StudyInstanceUID == "2.25.1"
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.3"


def test_equal_inputs_give_equal_bytes():
    assert make_results().report_bytes == make_results().report_bytes


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_for_no_result_is_coded_and_readable(reason):
    report = not_computed(classic_series(GRID)[0], Refusal(reason=reason, detail="expected 104, found 103"))
    codes = {
        item.ConceptCodeSequence[0].get("CodeValue") or item.ConceptCodeSequence[0].get("LongCodeValue")
        for item in content_items(report, "CODE")
    }
    assert {reason.value, "NOTCOMPUTED"} <= codes
    assert any(reason.sentence in text and "expected 104, found 103" in text for text in comments(report))
    assert numbers(report) == []


def test_a_study_of_bare_minimum_headers_can_be_refused_in_a_report():
    bare = pydicom.Dataset()
    bare.SOPClassUID, bare.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "2.25.7"
    bare.StudyInstanceUID, bare.SeriesInstanceUID = "2.25.8", "2.25.9"
    report = not_computed(bare)
    assert report.StudyInstanceUID == "2.25.8"
    assert report.PatientID == ""
    assert evidence(report) == {"2.25.7"}


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.5", "1.3.12.2.1107.5.9.1"], ids=["retired", "private"])
def test_a_study_without_any_mr_image_can_be_refused_in_a_report(sop_class):
    report = not_computed(classic_series(GRID, SOPClassUID=sop_class)[0])
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == sop_class


def test_evidence_names_every_image_with_its_own_class():
    report = make_results(source=[enhanced_image(GRID)]).report
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    classes = [one.ReferencedSOPSequence[0].ReferencedSOPClassUID.name for one in series]
    assert classes == ["Enhanced MR Image Storage", "MR Image Storage", "Segmentation Storage"]


def test_a_study_whose_patient_cannot_be_copied_gets_no_report():
    with pytest.raises(UnusableInput, match="PatientID"):
        not_computed(classic_series(GRID, PatientID=b"7" * 80)[0])


def test_other_reasons_make_another_report():
    source = classic_series(GRID)[0]
    other = not_computed(source, Refusal(reason=Reason.REG_POOR, detail="moved"))
    assert not_computed(source).SOPInstanceUID != other.SOPInstanceUID


def test_a_report_of_no_result_needs_a_reason():
    source = classic_series(GRID)[0]
    with pytest.raises(ValueError, match="reason"):
        build_not_computed_report((), source, [source], key=key_of([source]), options=OPTIONS, encoded_at=ENCODED_AT)
