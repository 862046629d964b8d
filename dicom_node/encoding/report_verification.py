"""The last look at a report before release: its numbers, sides, references and flags against the findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        not the finding's value to one decimal; if a referenced segment or a contour is not that of its ear; if a
        group has no contour; or if an ear without numbers is not said to be "not evaluated".
    """
    written, seg = read_part10(data), read_part10(segmentation)
    _check_document(written, source, [*source, *contrast, seg], template="1500")
    groups = list(_groups(written))
    found = [number for group in groups for number in group.numbers]
    for side in (EarSide.RIGHT, EarSide.LEFT):
        expected = _expected_numbers(findings.ears[side]) if side in findings.ears else {}
        _check_numbers(side, expected, [number for number in found if number.side is side])
    _check_all_have_a_side(found)
    _check_silent_ears(written, findings)
    _check_every_group_is_drawn(groups)
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
    _check_document(written, [source], [source, *evidence], template="2000")
    items = list(_items(written))
    if any(item.ValueType == "NUM" for item in items):
        raise OutputMismatch("not-computed report: expected no number, found one")
    stated = {value for name, value in _stated(items) if name == codes.NOT_COMPUTED_REASON.value}
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
    space: FluidSpace | None
    tracking_uid: str
    numbers: tuple[_Number, ...]
    items: Sequence[pydicom.Dataset]


def _check_document(
    written: pydicom.Dataset,
    source: Sequence[pydicom.Dataset],
    evidence: Sequence[pydicom.Dataset],
    *,
    template: str,
) -> None:
    check_identity(written, source)
    for keyword, expected in FLAGS.items():
        check_equal(keyword, expected, written.get(keyword))
    check_equal("template", template, written.ContentTemplateSequence[0].TemplateIdentifier)
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


def _items(parent: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """Every content item below `parent`, depth first."""
    for item in parent.get("ContentSequence", []):
        yield item
        yield from _items(item)


def _stated(items: Iterable[pydicom.Dataset]) -> Iterator[tuple[str, str]]:
    """Name and value of every coded statement."""
    return ((_name(item), _code_value(item)) for item in items if item.ValueType == "CODE")


def _group(items: Sequence[pydicom.Dataset]) -> _Group:
    side = _group_side(items)
    finding = next((value for name, value in _stated(items) if name == "121071"), None)
    space = next((space for space, code in codes.FLUID.items() if code.value == finding), None)
    return _Group(
        side=side,
        space=space,
        tracking_uid=next(str(item.UID) for item in items if _name(item) == "112040"),
        numbers=tuple(_number(item, side, space) for item in items if item.ValueType == "NUM"),
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
    fluids = codes.FLUID_VOLUME
    return {
        fluids[FluidSpace.TOTAL_FLUID_SPACE].value: [(ear.ratio.total_fluid_mm3, "mm3")],
        fluids[FluidSpace.ENDOLYMPH].value: [(ear.ratio.endolymph_mm3, "mm3")],
        codes.EH_RATIO.value: [(100 * ear.ratio.value, "%")],
        codes.EH_RATIO_LOW.value: [(100 * ear.ratio.low, "%")],
        codes.EH_RATIO_HIGH.value: [(100 * ear.ratio.high, "%")],
        codes.VOLUME.value: [(ear.ratio.total_fluid_mm3, "mm3"), (ear.ratio.endolymph_mm3, "mm3")],
    }


def _check_numbers(side: EarSide, expected: Mapping[str, list[tuple[float, str]]], found: Sequence[_Number]) -> None:
    check_equal(f"{side} ear: names of numbers", sorted(expected), sorted({number.name for number in found}))
    for number in found:
        wanted = expected[number.name]
        if number.name == codes.VOLUME.value:
            wanted = [] if number.space is None else [wanted[list(codes.FLUID).index(number.space)]]
        if not any(abs(value - number.value) <= ROUNDING_HALF and unit == number.unit for value, unit in wanted):
            raise OutputMismatch(f"{side} ear, {number.name}: expected {wanted}, found {number.value} {number.unit}")


def _check_all_have_a_side(found: Sequence[_Number]) -> None:
    if any(number.side is None for number in found):
        raise OutputMismatch("expected every number to name its ear, found one without laterality")


def _check_silent_ears(written: pydicom.Dataset, findings: StudyFindings) -> None:
    """An ear without numbers is said to be "not evaluated", and no other ear is."""
    stated = set(_stated(_items(written)))
    for side, ear in findings.ears.items():
        expected = codes.EAR_EVALUATED if ear.ratio else codes.EAR_NOT_EVALUATED
        found = [value for name, value in stated if name == codes.EAR_STATUS[side].value]
        check_equal(f"status of the {side} ear", [expected.value], found)


def _check_every_group_is_drawn(groups: Sequence[_Group]) -> None:
    """OHIF shows nothing of a report with a group for whose tracking UID there is no contour."""
    drawn = {group.tracking_uid for group in groups if any(item.ValueType == "SCOORD" for item in group.items)}
    bare = [group.tracking_uid for group in groups if group.tracking_uid not in drawn]
    if bare:
        raise OutputMismatch(f"expected a contour for every group, found none for tracking UID {bare[0]}")


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
        if fluid is None or group.space is None:
            raise OutputMismatch(f"contour: expected only for a fluid of an evaluated ear, found for {group.side}")
        mask = {
            FluidSpace.TOTAL_FLUID_SPACE: fluid.total_fluid_mask,
            FluidSpace.ENDOLYMPH: fluid.endolymph_mask,
        }[group.space]
        k = _slice_of(item.ContentSequence[0].ReferencedSOPSequence[0], grid)
        rows_columns = np.array(item.GraphicData, dtype=float).reshape(-1, 2)[:, ::-1] - 0.5  # of pixel centers
        corners_mm = grid.geometry.to_lps(np.column_stack([np.full(len(rows_columns), k), rows_columns]))
        index = mask.geometry.to_index(corners_mm)
        voxels = np.argwhere(mask.array)
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
