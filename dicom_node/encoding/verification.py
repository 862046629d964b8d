"""The last look before release: read the written bytes back and hold them against findings and source, in millimeters.

The way back shares as little as possible with the way out: pydicom unpacks the bits, positions come from the file's
own attributes, and numbers are compared without the rounding code. A result that fails is withheld; a missing result
is safe, a mirrored one is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_node.encoding import codes
from dicom_node.encoding.part10 import read_part10
from dicom_node.encoding.patient_module import inherit_modules
from dicom_node.encoding.source_planes import POSITION_TOLERANCE_MM, SourceGrid, read_source_grid
from dicom_node.errors import OutputMismatch
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, StudyFindings
from inference.geometry import FloatArray, Volume, VolumeGeometry

CENTROID_TOLERANCE_MM: Final = 0.1
"""Positions are copied digit by digit, so agreement is far better; one voxel of shift is 0.5 mm or more."""

VOLUME_TOLERANCE: Final = 1e-3
"""Relative; both sides count the same voxels, only the voxel size went through decimal text."""

IDENTITY: Final = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber")


def verify_segmentation(data: bytes, findings: StudyFindings, source: Sequence[pydicom.Dataset]) -> None:
    """Check the bytes of a SEG against the findings it was made from and the series it refers to.

    Parameters
    ----------
    data
        The complete Part 10 file, as it will be sent.
    source
        Headers of the segmented series, in any order.

    Raises
    ------
    OutputMismatch
        If patient, study, frame of reference, a referenced image, the number, side, centroid or volume of a
        segment, or any single voxel differs; the message says what was expected and what was found.
    """
    written = read_part10(data)
    grid = read_source_grid(source)
    check_identity(written, source)
    check_equal("frame of reference", grid.geometry.frame_of_reference_uid, str(written.get("FrameOfReferenceUID")))
    _check_references(written, source)
    segments = _read_segments(written, grid)
    check_equal(
        "segments",
        sorted((side.value, space.value) for side, space in _expected_segments(findings, grid.geometry)),
        sorted((segment.side.value, segment.space.value) for segment in segments),
    )
    check_equal("segment numbers", list(range(1, len(segments) + 1)), [segment.number for segment in segments])
    for segment in segments:
        _check_segment(segment, _mask(findings.ears[segment.side], segment.space), grid.geometry)
    _check_sides(segments)


@dataclass(frozen=True, kw_only=True, eq=False)
class _WrittenSegment:
    """What the file says about one segment: coded side and fluid, (n, 3) LPS voxel centers and their volume."""

    number: int
    side: EarSide
    space: FluidSpace
    points_mm: FloatArray
    volume_mm3: float

    @property
    def centroid_mm(self) -> FloatArray:
        centroid: FloatArray = self.points_mm.mean(axis=0)
        return centroid


def check_equal(what: str, expected: object, found: object) -> None:
    """Raise OutputMismatch, naming both, unless `found` is `expected`."""
    if expected != found:
        raise OutputMismatch(f"{what}: expected {expected}, found {found}")


def check_identity(written: pydicom.Dataset, source: Sequence[pydicom.Dataset]) -> None:
    """Patient and study are those of the source; values are compared but never quoted."""
    expected = inherit_modules(source[0]).dataset
    for keyword in IDENTITY:
        if str(written.get(keyword) or "") != str(expected.get(keyword) or ""):
            raise OutputMismatch(f"{keyword} of the result is not that of the source study {expected.StudyInstanceUID}")


def _check_references(written: pydicom.Dataset, source: Sequence[pydicom.Dataset]) -> None:
    """Every image that the file points to, at top level or in a frame, is one of the source series."""
    known = {str(one.SOPInstanceUID) for one in source}
    for item in written.ReferencedSeriesSequence:
        check_equal("referenced series", str(source[0].SeriesInstanceUID), str(item.SeriesInstanceUID))
    unknown = set(values_of([written], "ReferencedSOPInstanceUID")) - known
    if unknown:
        raise OutputMismatch(f"referenced images: expected instances of the source series, found {sorted(unknown)}")


def values_of(items: Iterable[pydicom.Dataset], keyword: str) -> Iterator[str]:
    """Every value of an attribute in these items, at any depth."""
    for element in (element for item in items for element in item):
        if element.VR == "SQ":
            yield from values_of(element.value, keyword)
        elif element.keyword == keyword:
            yield str(element.value)


def _read_segments(written: pydicom.Dataset, grid: SourceGrid) -> list[_WrittenSegment]:
    """The segments as the file has them, every voxel placed by the file's own geometry attributes."""
    pixels = written.pixel_array.reshape(int(written.NumberOfFrames), written.Rows, written.Columns)
    shared = written.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    between_rows, between_columns = (float(value) for value in measures.PixelSpacing)
    axes = np.array([float(value) for value in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    per_row, per_column = axes[3:] * between_rows, axes[:3] * between_columns
    source_position = {(plane.sop_instance_uid, plane.frame_number): plane.position_mm for plane in grid.planes}
    points: dict[int, list[FloatArray]] = {}
    for pixel_plane, frame in zip(pixels, written.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array([float(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient])
        _check_frame(frame, position, source_position)
        rows, columns = np.nonzero(pixel_plane)
        number = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        points.setdefault(number, []).append(
            position + rows[:, np.newaxis] * per_row + columns[:, np.newaxis] * per_column
        )
    voxel_mm3 = between_rows * between_columns * float(measures.SpacingBetweenSlices)
    return [_written_segment(item, points, voxel_mm3) for item in written.SegmentSequence]


def _check_frame(
    frame: pydicom.Dataset, position_mm: FloatArray, source_position: dict[tuple[str, int | None], FloatArray]
) -> None:
    """The frame lies where the source image lies that it says it was derived from."""
    reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
    number = reference.get("ReferencedFrameNumber")
    image = (str(reference.ReferencedSOPInstanceUID), None if number is None else int(number))
    expected = source_position.get(image)
    if expected is None or float(np.linalg.norm(expected - position_mm)) > POSITION_TOLERANCE_MM:
        where = "no such plane in the source" if expected is None else f"{expected.round(3).tolist()} mm"
        raise OutputMismatch(f"frame of {image}: expected {where}, found {position_mm.round(3).tolist()} mm")


def _written_segment(item: pydicom.Dataset, points: dict[int, list[FloatArray]], voxel_mm3: float) -> _WrittenSegment:
    number = int(item.SegmentNumber)
    if number not in points:
        raise OutputMismatch(f"segment {number}: expected at least one frame, found none")
    centers = np.concatenate(points[number])
    modifier = item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue
    kind = item.SegmentedPropertyTypeCodeSequence[0].CodeValue
    return _WrittenSegment(
        number=number,
        side=_side(str(modifier)),
        space=next(space for space, code in codes.FLUID.items() if code.value == kind),
        points_mm=centers,
        volume_mm3=len(centers) * voxel_mm3,
    )


def _side(laterality: str) -> EarSide:
    for side, code in codes.LATERALITY.items():
        if code.value == laterality:
            return side
    raise OutputMismatch(
        f"laterality: expected {[code.value for code in codes.LATERALITY.values()]}, found {laterality}"
    )


def _expected_segments(findings: StudyFindings, grid: VolumeGeometry) -> list[tuple[EarSide, FluidSpace]]:
    return [
        (side, space)
        for side in (EarSide.RIGHT, EarSide.LEFT)
        for space in (FluidSpace.TOTAL_FLUID_SPACE, FluidSpace.ENDOLYMPH)
        if side in findings.ears
        and findings.ears[side].evaluated
        and len(_points_inside(_mask(findings.ears[side], space), grid))
    ]


def _mask(ear: EarFindings, space: FluidSpace) -> Volume:
    if ear.fluid is None:
        raise OutputMismatch(f"{ear.side} ear: expected segmented fluid in the findings, found none")
    return ear.fluid.total_fluid_mask if space is FluidSpace.TOTAL_FLUID_SPACE else ear.fluid.endolymph_mask


def _points_inside(mask: Volume, grid: VolumeGeometry) -> FloatArray:
    """(n, 3) LPS centers of the mask's voxels that lie on the source grid."""
    points = mask.geometry.to_lps(np.argwhere(mask.array))
    index = np.rint(grid.to_index(points))
    inside = ((index >= 0) & (index < grid.shape)).all(axis=1)
    return points[inside]


def _check_segment(segment: _WrittenSegment, mask: Volume, grid: VolumeGeometry) -> None:
    """One written segment is the finding's mask: same place, same volume, same voxels."""
    name = f"segment {segment.number} ({segment.side} {segment.space})"
    expected = _points_inside(mask, grid)
    distance = float(np.linalg.norm(expected.mean(axis=0) - segment.centroid_mm))
    if distance > CENTROID_TOLERANCE_MM:
        raise OutputMismatch(
            f"{name}: centroid expected at {expected.mean(axis=0).round(2).tolist()} mm, "
            f"found at {segment.centroid_mm.round(2).tolist()} mm ({distance:.2f} mm away)"
        )
    expected_mm3 = len(expected) * mask.geometry.voxel_volume_mm3
    if abs(segment.volume_mm3 - expected_mm3) > VOLUME_TOLERANCE * expected_mm3:
        raise OutputMismatch(f"{name}: volume expected {expected_mm3:.2f} mm3, found {segment.volume_mm3:.2f} mm3")
    strangers = len(segment.points_mm) - _count_on_mask(segment.points_mm, mask)
    if strangers:
        raise OutputMismatch(f"{name}: expected every voxel inside the finding's mask, found {strangers} outside")


def _count_on_mask(points_mm: FloatArray, mask: Volume) -> int:
    """How many of these places are voxels of the mask, each counted once."""
    index = np.unique(np.rint(mask.geometry.to_index(points_mm)).astype(int), axis=0)
    inside = ((index >= 0) & (index < mask.array.shape)).all(axis=1)
    on_mask: NDArray[np.bool_] = mask.array[tuple(index[inside].T)].astype(bool)
    return int(on_mask.sum())


def _check_sides(segments: Sequence[_WrittenSegment]) -> None:
    """What is coded left lies to the patient's left (+x): of the other ear, or of the midline if it is alone."""
    x_mm = {
        segment.side: float(segment.centroid_mm[0])
        for segment in segments
        if segment.space is FluidSpace.TOTAL_FLUID_SPACE
    }
    if len(x_mm) == 2:
        if x_mm[EarSide.LEFT] <= x_mm[EarSide.RIGHT]:
            raise OutputMismatch(f"sides: expected left at larger x than right, found {x_mm} mm")
        return
    for side, x in x_mm.items():
        if x * side.lps_sign <= 0:
            raise OutputMismatch(
                f"sides: expected the {side} ear at {'+' if side.lps_sign > 0 else '-'}x, found {x:.1f} mm"
            )
