"""A written object that lies about side, place, size or number is caught before it leaves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from mr_sources import EAR_CENTER_MM, ENCODED_AT, classic_series, enhanced_image, key_of, oblique_grid, study_findings
from result_objects import OPTIONS, Results, content_items, make_results

from dicom_node.encoding.measurement_report import build_not_computed_report
from dicom_node.encoding.part10 import part10_bytes, read_part10
from dicom_node.encoding.report_verification import verify_not_computed_report, verify_report
from dicom_node.encoding.verification import verify_segmentation
from dicom_node.errors import OutputMismatch, Reason, Refusal
from inference.anatomy import EarSide

GRID = oblique_grid()
RESULTS = make_results()


def check_seg(results: Results, change: Callable[[pydicom.Dataset], None]) -> None:
    seg = results.seg
    change(seg)
    verify_segmentation(part10_bytes(seg), results.findings, results.source)


def check_report(results: Results, change: Callable[[pydicom.Dataset], None]) -> None:
    report = results.report
    change(report)
    verify_report(part10_bytes(report), results.findings, results.source, results.contrast, results.seg_bytes)


def unchanged(_dataset: pydicom.Dataset) -> None: ...


@pytest.mark.parametrize(
    "source",
    [classic_series(GRID), classic_series(GRID, reverse=True), [enhanced_image(GRID, frame_order=range(39, -1, -1))]],
    ids=["classic", "reversed", "enhanced"],
)
@pytest.mark.parametrize("ears", [tuple(EarSide), (EarSide.LEFT,), (EarSide.RIGHT,)], ids=["both", "left", "right"])
def test_what_we_write_passes(source, ears):
    results = make_results(study_findings(GRID, ears=ears), source)
    check_seg(results, unchanged)
    check_report(results, unchanged)


def set_pixels(seg: pydicom.Dataset, frames: np.ndarray) -> None:
    bits = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    seg.PixelData = bits + b"\0" * (len(bits) % 2)


def mirror(seg: pydicom.Dataset) -> None:
    set_pixels(seg, seg.pixel_array[:, :, ::-1])


def flip_rows(seg: pydicom.Dataset) -> None:
    set_pixels(seg, seg.pixel_array[:, ::-1, :])


def shift_by_one_pixel(seg: pydicom.Dataset) -> None:
    set_pixels(seg, np.roll(seg.pixel_array, 1, axis=2))


def lose_the_last_voxel(seg: pydicom.Dataset) -> None:
    frames = seg.pixel_array.copy()
    frames[tuple(np.argwhere(frames)[-1])] = 0
    set_pixels(seg, frames)


def move_one_voxel(seg: pydicom.Dataset) -> None:
    frames = seg.pixel_array.copy()
    n, j, i = np.argwhere(frames)[0]
    frames[n, j, i], frames[n, j - 1, i] = 0, 1
    set_pixels(seg, frames)


def shift_frames_by_one_slice(seg: pydicom.Dataset) -> None:
    step = GRID.to_lps((1, 0, 0)) - GRID.to_lps((0, 0, 0))
    for frame in seg.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = [
            f"{float(a) + b:.8f}" for a, b in zip(place.ImagePositionPatient, step, strict=True)
        ]


def shift_frames_and_their_references(seg: pydicom.Dataset) -> None:
    """A whole SEG one slice off, consistent in itself: only the findings can tell."""
    following = {str(one.SOPInstanceUID): after for one, after in zip(RESULTS.source, RESULTS.source[1:], strict=False)}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        after = following[reference.ReferencedSOPInstanceUID]
        reference.ReferencedSOPInstanceUID = after.SOPInstanceUID
        frame.PlanePositionSequence[0].ImagePositionPatient = after.ImagePositionPatient


def swap_lateralities(seg: pydicom.Dataset) -> None:
    regions = [item.AnatomicRegionSequence[0] for item in seg.SegmentSequence]
    modifiers = [region.AnatomicRegionModifierSequence for region in regions]
    for region, modifier in zip(regions, modifiers[::-1], strict=True):
        region.AnatomicRegionModifierSequence = modifier


def swap_fluids(seg: pydicom.Dataset) -> None:
    first, second = seg.SegmentSequence[::2][:2]
    first.SegmentedPropertyTypeCodeSequence, second.SegmentedPropertyTypeCodeSequence = (
        second.SegmentedPropertyTypeCodeSequence,
        first.SegmentedPropertyTypeCodeSequence,
    )


def renumber_frames(seg: pydicom.Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        item = frame.SegmentIdentificationSequence[0]
        item.ReferencedSegmentNumber = 5 - item.ReferencedSegmentNumber


def drop_a_segment(seg: pydicom.Dataset) -> None:
    del seg.SegmentSequence[-1]


def change_spacing(seg: pydicom.Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = "1.1"


def transpose_axes(seg: pydicom.Dataset) -> None:
    item = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    item.ImageOrientationPatient = [*item.ImageOrientationPatient[3:], *item.ImageOrientationPatient[:3]]


def refer_to_another_image(seg: pydicom.Dataset) -> None:
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "2.25.99"


def refer_to_another_series(seg: pydicom.Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.99"


def put_into_another_frame_of_reference(seg: pydicom.Dataset) -> None:
    seg.FrameOfReferenceUID = "2.25.99"


def give_to_another_patient(dataset: pydicom.Dataset) -> None:
    dataset.PatientID = "P-0002"


def file_in_another_study(dataset: pydicom.Dataset) -> None:
    dataset.StudyInstanceUID = "2.25.99"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (mirror, "centroid expected"),
        (flip_rows, "centroid expected"),
        (shift_by_one_pixel, "centroid expected"),
        (lose_the_last_voxel, r"segment \d .*expected"),
        (move_one_voxel, "1 outside"),
        (shift_frames_by_one_slice, "frame of"),
        (shift_frames_and_their_references, "centroid expected"),
        (swap_lateralities, "centroid expected"),
        (swap_fluids, "(centroid|volume) expected"),
        (renumber_frames, "centroid expected"),
        (drop_a_segment, "segments: expected"),
        (change_spacing, "volume expected"),
        (transpose_axes, "centroid expected"),
        (refer_to_another_image, "referenced images"),
        (refer_to_another_series, "referenced series"),
        (put_into_another_frame_of_reference, "frame of reference"),
        (give_to_another_patient, "PatientID"),
        (file_in_another_study, "StudyInstanceUID"),
    ],
)
def test_a_segmentation_that_lies_is_caught(change, complaint):
    with pytest.raises(OutputMismatch, match=complaint):
        check_seg(RESULTS, change)


def test_a_mismatch_of_patients_names_neither():
    with pytest.raises(OutputMismatch) as caught:
        check_seg(RESULTS, give_to_another_patient)
    assert "P-000" not in str(caught.value)


def test_ears_that_lie_on_each_others_side_are_caught_even_if_every_voxel_is_where_the_findings_say():
    swapped = {side: EAR_CENTER_MM[other] for side, other in zip(EarSide, reversed(EarSide), strict=True)}
    results = make_results(study_findings(GRID, center_mm=swapped))
    with pytest.raises(OutputMismatch, match="sides"):
        check_seg(results, unchanged)


def test_a_lone_ear_on_the_wrong_side_of_the_midline_is_caught():
    swapped = {EarSide.LEFT: EAR_CENTER_MM[EarSide.RIGHT]}
    results = make_results(study_findings(GRID, ears=(EarSide.LEFT,), center_mm=swapped))
    with pytest.raises(OutputMismatch, match="sides"):
        check_seg(results, unchanged)


def number_item(report: pydicom.Dataset, meaning: str, which: int = 0) -> pydicom.Dataset:
    items = content_items(report, "NUM")
    return [item for item in items if item.ConceptNameCodeSequence[0].CodeMeaning.startswith(meaning)][which]


def write_ratio_as_fraction(report: pydicom.Dataset) -> None:
    value = number_item(report, "Endolymph to total").MeasuredValueSequence[0]
    value.NumericValue, value.FloatingPointValue = "0.271", 0.271


def drop_the_per_cent(report: pydicom.Dataset) -> None:
    value = number_item(report, "Endolymph to total").MeasuredValueSequence[0]
    value.MeasurementUnitsCodeSequence[0].CodeValue = "{ratio}"


def disagree_with_itself(report: pydicom.Dataset) -> None:
    number_item(report, "Volume").MeasuredValueSequence[0].NumericValue = "1.0"


def swap_the_volumes_of_two_fluids(report: pydicom.Dataset) -> None:
    first, second = number_item(report, "Volume", 0), number_item(report, "Volume", 1)
    first.MeasuredValueSequence, second.MeasuredValueSequence = (
        second.MeasuredValueSequence,
        first.MeasuredValueSequence,
    )


def change_a_volume_by_a_tenth(report: pydicom.Dataset) -> None:
    value = number_item(report, "Volume").MeasuredValueSequence[0]
    value.NumericValue = value.FloatingPointValue = float(value.NumericValue) + 0.1


def swap_sides(report: pydicom.Dataset) -> None:
    swap = {"24028007": "7771000", "7771000": "24028007"}
    for item in content_items(report, "CODE"):
        code = item.ConceptCodeSequence[0]
        code.CodeValue = swap.get(code.CodeValue, code.CodeValue)


def lose_the_laterality(report: pydicom.Dataset) -> None:
    for item in content_items(report, "CODE"):
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site":
            del item.ContentSequence


def refer_to_the_next_segment(report: pydicom.Dataset) -> None:
    item = next(i for i in content_items(report, "IMAGE") if "ReferencedSegmentNumber" in i.ReferencedSOPSequence[0])
    item.ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def draw_on_the_next_image(report: pydicom.Dataset) -> None:
    reference = content_items(report, "SCOORD")[0].ContentSequence[0].ReferencedSOPSequence[0]
    uids = [header.SOPInstanceUID for header in RESULTS.source]
    reference.ReferencedSOPInstanceUID = uids[uids.index(reference.ReferencedSOPInstanceUID) + 12]


def draw_mirrored(report: pydicom.Dataset) -> None:
    contour = content_items(report, "SCOORD")[0]
    points = np.array(contour.GraphicData).reshape(-1, 2)
    points[:, 0] = GRID.shape[2] - points[:, 0]
    contour.GraphicData = points.ravel().tolist()


def forget_the_contrast_series(report: pydicom.Dataset) -> None:
    del report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[1]


def call_it_verified(report: pydicom.Dataset) -> None:
    report.VerificationFlag = "VERIFIED"


def erase_a_contour(report: pydicom.Dataset) -> None:
    containers = content_items(report, "CONTAINER")
    group = next(one for one in containers if one.ConceptNameCodeSequence[0].CodeMeaning == "Measurement Group")
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "SCOORD"]


def hide_that_an_ear_was_not_evaluated(report: pydicom.Dataset) -> None:
    for item in content_items(report, "CODE"):
        if item.ConceptNameCodeSequence[0].CodeValue == "EARSTATUSR":
            item.ConceptNameCodeSequence[0].CodeValue = "SOMETHING"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (erase_a_contour, "expected a contour for every group"),
        (hide_that_an_ear_was_not_evaluated, "status of the right ear"),
        (write_ratio_as_fraction, "EHVR: expected .* found 0.271"),
        (drop_the_per_cent, "ratio}"),
        (disagree_with_itself, "decimal and floating-point"),
        (swap_the_volumes_of_two_fluids, "118565006: expected"),
        (change_a_volume_by_a_tenth, "118565006: expected"),
        (swap_sides, "expected"),
        (lose_the_laterality, "names of numbers"),
        (refer_to_the_next_segment, "tracking UID of the referenced segment"),
        (draw_on_the_next_image, "contour"),
        (draw_mirrored, "contour"),
        (forget_the_contrast_series, "evidence: missing"),
        (call_it_verified, "VerificationFlag"),
        (give_to_another_patient, "PatientID"),
        (file_in_another_study, "StudyInstanceUID"),
    ],
)
def test_a_report_that_lies_is_caught(change, complaint):
    with pytest.raises(OutputMismatch, match=complaint):
        check_report(RESULTS, change)


def test_a_number_for_an_ear_that_was_not_evaluated_is_caught():
    results = make_results()
    one_ear = study_findings(GRID, ears=(EarSide.LEFT,))
    with pytest.raises(OutputMismatch, match="right ear: names of numbers"):
        verify_report(results.report_bytes, one_ear, results.source, results.contrast, results.seg_bytes)


def test_numbers_that_changed_after_encoding_are_caught():
    ears = dict(RESULTS.findings.ears)
    ratio = ears[EarSide.LEFT].ratio
    ears[EarSide.LEFT] = replace(ears[EarSide.LEFT], ratio=replace(ratio, value=0.28))
    with pytest.raises(OutputMismatch, match="left ear, EHVR: expected"):
        verify_report(
            RESULTS.report_bytes,
            replace(RESULTS.findings, ears=ears),
            RESULTS.source,
            RESULTS.contrast,
            RESULTS.seg_bytes,
        )


def refused_report(source: list[pydicom.Dataset], refusals: tuple[Refusal, ...]) -> bytes:
    report = build_not_computed_report(
        refusals, source[0], source, key=key_of(source), options=OPTIONS, encoded_at=ENCODED_AT
    )
    return part10_bytes(report)


REFUSALS = (
    Refusal(reason=Reason.PARTNER_MISSING, detail="found MRC only"),
    Refusal(reason=Reason.ENHANCED_UNSUPPORTED, detail="color"),
)


def test_a_not_computed_report_passes_and_another_reason_does_not():
    source = classic_series(GRID)
    data = refused_report(source, REFUSALS)
    verify_not_computed_report(data, REFUSALS, source[0], source)
    with pytest.raises(OutputMismatch, match="coded reasons"):
        verify_not_computed_report(data, REFUSALS[:1], source[0], source)


def test_a_not_computed_report_with_a_number_is_caught():
    source = classic_series(GRID)
    report = read_part10(refused_report(source, REFUSALS))
    group = content_items(report, "CONTAINER")[-1]
    group.ContentSequence.append(content_items(RESULTS.report, "NUM")[0])
    with pytest.raises(OutputMismatch, match="expected no number"):
        verify_not_computed_report(part10_bytes(report), REFUSALS, source[0], source)
