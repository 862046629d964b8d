"""The last look at a report before release: its numbers, sides, references and flags against the findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.encoding import codes
from dicom_node.encoding.part10 import read_part10
from dicom_node.encoding.source_planes import SourceGrid, read_source_grid
from dicom_node.encoding.verification import check_equal, check_identity, values_of
from dicom_node.errors import OutputMismatch, Refusal
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, StudyFindings
from inference.geometry import FloatArray

ROUNDING_HALF: Final = 0.05 + 1e-9
"""Numbers are printed with one decimal, so they may differ from the findings by half of that."""

FLAGS: Final = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}


def verify_report(
    data: bytes,
    findings: StudyFindings,
    source: Sequence[pydicom.Dataset],
    contrast: Sequence[pydicom.Dataset],
    segmentation: bytes,
) -> None:
    """Check the bytes of a measurement report.

    Parameters
    ----------
    data, segmentation
        The complete Part 10 files of the report and of the SEG it refers to.
    source, contrast
        Headers of the segmented series, and of the other series that went into the numbers.

    Raises
    ------
    OutputMismatch
        If patient, study, flags or evidence differ; if a number is missing, extra, of another ear, in another unit or
        not the finding's value to one decimal; or if a referenced segment or a contour is not that of its ear.
    """
    written, seg = read_part10(data), read_part10(segmentation)
    _check_document(written, source, [*source, *contrast, seg])
    groups = list(_groups(written))
    found = [number for group in groups for number in group.numbers]
    for side in (EarSide.RIGHT, EarSide.LEFT):
        expected = _expected_numbers(findings.ears[side]) if side in findings.ears else {}
        _check_numbers(side, expected, [number for number in found if number.side is side])
    _check_all_have_a_side(found)
    grid = read_source_grid(source)
    for group in groups:
        _check_segment_reference(group, seg)
        _check_contour(group, findings, grid)


def verify_not_computed_report(
    data: bytes, refusals: Sequence[Refusal], source: pydicom.Dataset, evidence: Sequence[pydicom.Dataset]
) -> None:
    """Check the bytes of a "not computed" report: right patient, every reason, every image, and no number at all.

    Raises
    ------
    OutputMismatch
        If any of that is not so.
    """
    written = read_part10(data)
    _check_document(written, [source], [source, *evidence])
    groups = list(_groups(written))
    if any(group.numbers for group in groups):
        raise OutputMismatch("not-computed report: expected no number, found one")
    stated = {value for group in groups for name, value in group.codes if name == codes.NOT_COMPUTED_REASON.value}
    check_equal("coded reasons", sorted({refusal.reason.value for refusal in refusals}), sorted(stated))


@dataclass(frozen=True, kw_only=True)
class _Number:
    """One NUM item: the ear and fluid of its group, what it is called, and what it says."""

    side: EarSide | None
    space: FluidSpace | None
    name: str
    value: float
    unit: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    """One measurement group as the file has it."""

    side: EarSide | None
    tracking_uid: str
    numbers: tuple[_Number, ...]
    codes: tuple[tuple[str, str], ...]
    items: Sequence[pydicom.Dataset]


def _check_document(
    written: pydicom.Dataset, source: Sequence[pydicom.Dataset], evidence: Sequence[pydicom.Dataset]
) -> None:
    check_identity(written, source)
    for keyword, expected in FLAGS.items():
        check_equal(keyword, expected, written.get(keyword))
    check_equal("template", "1500", written.ContentTemplateSequence[0].TemplateIdentifier)
    listed = set(values_of(written.CurrentRequestedProcedureEvidenceSequence, "ReferencedSOPInstanceUID"))
    expected_uids = {str(one.SOPInstanceUID) for one in evidence}
    if listed != expected_uids:
        raise OutputMismatch(
            f"evidence: missing {sorted(expected_uids - listed)[:3]}, unexpected {sorted(listed - expected_uids)[:3]}"
        )
    unlisted = set(values_of(written.ContentSequence, "ReferencedSOPInstanceUID")) - listed
    if unlisted:
        raise OutputMismatch(f"content refers to instances that are not evidence: {sorted(unlisted)}")


def _groups(written: pydicom.Dataset) -> Iterator[_Group]:
    for container in written.ContentSequence:
        if _name(container) != "126010":  # Imaging Measurements
            continue
        for group in container.ContentSequence:
            yield _group(list(group.ContentSequence))


def _group(items: Sequence[pydicom.Dataset]) -> _Group:
    stated = [(_name(item), _code_value(item)) for item in items if item.ValueType == "CODE"]
    side = _group_side(items)
    finding = next((value for name, value in stated if name == "121071"), None)
    space = next((space for space, code in codes.FLUID.items() if code.value == finding), None)
    return _Group(
        side=side,
        tracking_uid=next(str(item.UID) for item in items if _name(item) == "112040"),
        numbers=tuple(_number(item, side, space) for item in items if item.ValueType == "NUM"),
        codes=tuple(stated),
        items=items,
    )


def _code_value(item: pydicom.Dataset) -> str:
    """The code of a CODE item; more than 16 characters stand in Long Code Value (PS3.3 8.1)."""
    code = item.ConceptCodeSequence[0]
    return str(code.get("CodeValue") or code.get("LongCodeValue"))


def _group_side(items: Sequence[pydicom.Dataset]) -> EarSide | None:
    sites = [item for item in items if _name(item) == "363698007"]  # Finding Site
    for modifier in (child for site in sites for child in site.get("ContentSequence", [])):
        for side, code in codes.LATERALITY.items():
            if modifier.ConceptCodeSequence[0].CodeValue == code.value:
                return side
    return None


def _number(item: pydicom.Dataset, side: EarSide | None, space: FluidSpace | None) -> _Number:
    measured = item.MeasuredValueSequence[0]
    check_equal("decimal and floating-point value", float(measured.NumericValue), float(measured.FloatingPointValue))
    return _Number(
        side=side,
        space=space,
        name=_name(item),
        value=float(measured.NumericValue),
        unit=str(measured.MeasurementUnitsCodeSequence[0].CodeValue),
    )


def _name(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def _expected_numbers(ear: EarFindings) -> dict[str, list[tuple[float, str]]]:
    """By concept name: (exact value as printed units have it, unit); more than one where fluids share the name."""
    if ear.ratio is None:
        return {}
    return {
        codes.EH_RATIO.value: [(100 * ear.ratio.value, "%")],
        codes.EH_RATIO_LOW.value: [(100 * ear.ratio.low, "%")],
        codes.EH_RATIO_HIGH.value: [(100 * ear.ratio.high, "%")],
        codes.VOLUME.value: [(ear.ratio.total_fluid_mm3, "mm3"), (ear.ratio.endolymph_mm3, "mm3")],
    }


def _check_numbers(side: EarSide, expected: Mapping[str, list[tuple[float, str]]], found: Sequence[_Number]) -> None:
    check_equal(f"{side} ear: names of numbers", sorted(expected), sorted({number.name for number in found}))
    for number in found:
        wanted = expected[number.name]
        if number.name == codes.VOLUME.value and number.space is not None:
            wanted = [wanted[list(codes.FLUID).index(number.space)]]
        if not any(abs(value - number.value) <= ROUNDING_HALF and unit == number.unit for value, unit in wanted):
            raise OutputMismatch(f"{side} ear, {number.name}: expected {wanted}, found {number.value} {number.unit}")


def _check_all_have_a_side(found: Sequence[_Number]) -> None:
    if any(number.side is None for number in found):
        raise OutputMismatch("expected every number to name its ear, found one without laterality")


def _check_segment_reference(group: _Group, seg: pydicom.Dataset) -> None:
    """A group that refers to a segment refers to the one of its own ear and tracking UID."""
    for item in group.items:
        if _name(item) != "121191":  # Referenced Segment
            continue
        reference = item.ReferencedSOPSequence[0]
        check_equal("referenced segmentation", str(seg.SOPInstanceUID), str(reference.ReferencedSOPInstanceUID))
        segment = seg.SegmentSequence[int(reference.ReferencedSegmentNumber) - 1]
        check_equal("tracking UID of the referenced segment", group.tracking_uid, str(segment.TrackingUID))
        laterality = segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue
        expected = None if group.side is None else codes.LATERALITY[group.side].value
        check_equal("laterality of the referenced segment", expected, str(laterality))


def _check_contour(group: _Group, findings: StudyFindings, grid: SourceGrid) -> None:
    """A contour runs around fluid of its own ear, on the image that it names."""
    for item in (item for item in group.items if item.ValueType == "SCOORD"):
        fluid = None if group.side is None else findings.ears[group.side].fluid
        if fluid is None:
            raise OutputMismatch(f"contour: expected only for an evaluated ear, found for {group.side}")
        k = _slice_of(item.ContentSequence[0].ReferencedSOPSequence[0], grid)
        rows_columns = np.array(item.GraphicData, dtype=float).reshape(-1, 2)[:, ::-1] - 0.5  # of pixel centers
        corners_mm = grid.geometry.to_lps(np.column_stack([np.full(len(rows_columns), k), rows_columns]))
        index = fluid.total_fluid_mask.geometry.to_index(corners_mm)
        voxels = np.argwhere(fluid.total_fluid_mask.array)
        voxels = voxels[voxels[:, 0] == round(float(index[0, 0]))]
        if not len(voxels) or not _within(index[:, 1:], voxels[:, 1:]):
            raise OutputMismatch(f"contour of the {group.side} ear: expected around its fluid, found elsewhere")


def _slice_of(reference: pydicom.Dataset, grid: SourceGrid) -> int:
    image = (str(reference.ReferencedSOPInstanceUID), reference.get("ReferencedFrameNumber"))
    for k, plane in enumerate(grid.planes):
        if (plane.sop_instance_uid, plane.frame_number) == image:
            return k
    raise OutputMismatch(f"contour: expected on an image of the source series, found on {image}")


def _within(points: FloatArray, voxels: NDArray[np.int_]) -> bool:
    """Whether points stay in the box of the voxels; contours run along pixel edges, half a pixel from the centers."""
    reach = 0.5 + 0.1
    low, high = voxels.min(axis=0) - reach, voxels.max(axis=0) + reach
    return bool((points >= low).all() and (points <= high).all())
