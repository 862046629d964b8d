"""The source image planes on the measuring grid: which instance (and frame) shows slice k.

highdicom takes the order of the source list as the order of the mask and does not look at positions; a reversed
list puts the mask on the wrong slices without an error. So every plane is found by its position, never by its place
in a list, and positions and orientation go into the result with the very digits of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import pydicom
from pydicom.uid import EnhancedMRImageStorage

from dicom_node.assembly.attributes import AttributeReader
from dicom_node.encoding.patient_module import required_uid
from dicom_node.errors import Reason, Refusal, RejectedStudy
from inference.geometry import FloatArray, GeometryError, VolumeGeometry

POSITION_TOLERANCE_MM: Final = 0.1
"""Between a source plane and its slice of the grid: the grid is even, real stacks jitter by a few hundredths of a mm;
a wrong slice is at least 0.3 mm away."""

ORIENTATION_TOLERANCE: Final = 1e-3
"""Between direction cosines; over a 15 mm labyrinth 1e-3 is 0.015 mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourcePlane:
    """One image plane of the segmented series; `frame_number` (from 1) only if it is a frame of an Enhanced image.

    `instance_number` is (0020,0013), what viewers call the image's number; None if there is no legal one.
    `position`, `orientation`, `pixel_spacing` and `slice_thickness` are the source's own DS values, digits kept.
    """

    sop_class_uid: str
    sop_instance_uid: str
    instance_number: int | None
    frame_number: int | None
    position: Sequence[Any]
    orientation: Sequence[Any]
    pixel_spacing: Sequence[Any]
    slice_thickness: Any
    rows: int
    columns: int

    @property
    def position_mm(self) -> FloatArray:
        """(3,) LPS position of the center of the first voxel."""
        return np.array([float(value) for value in self.position])


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceGrid:
    """The segmented series as a grid: `planes[k]` is the source plane of slice k; k grows along cross(row, column)."""

    geometry: VolumeGeometry
    planes: tuple[SourcePlane, ...]


def read_source_grid(sources: Sequence[pydicom.Dataset]) -> SourceGrid:
    """The grid that these images (headers suffice) span, whatever their order or that of their frames.

    Raises
    ------
    RejectedStudy
        GEOM_MISSING if a plane has no position, orientation or spacing; PATIENT_MISMATCH, CONFLICT, FOR_MISSING or
        FOR_MIXED if the sources are not one patient's one series in one frame of reference; ORIENT_INVALID or
        SPACING if the planes are not the slices of one regular grid.
    """
    check_one_series(sources)
    planes = [plane for source in sources for plane in _planes(source)]
    row, column = np.array([float(value) for value in planes[0].orientation]).reshape(2, 3)
    normal = np.cross(row, column)
    planes.sort(key=lambda plane: float(normal @ plane.position_mm))
    geometry = _span(planes, row, column, normal, sources[0].FrameOfReferenceUID)
    for k, plane in enumerate(planes):
        _check_plane(plane, k, geometry)
    return SourceGrid(geometry=geometry, planes=tuple(planes))


def slice_names(grid: SourceGrid) -> tuple[str, ...]:
    """What a reader finds each slice under in a viewer, k growing: "MRC image 34", or "MRC frame 34"."""
    return tuple(
        f"MRC frame {plane.frame_number}"
        if plane.frame_number is not None
        else f"MRC image {plane.instance_number}"
        if plane.instance_number is not None
        else f"MRC slice {k + 1} of {len(grid.planes)}"
        for k, plane in enumerate(grid.planes)
    )


def _span(
    planes: Sequence[SourcePlane], row: FloatArray, column: FloatArray, normal: FloatArray, frame_of_reference_uid: str
) -> VolumeGeometry:
    """The regular grid from the first to the last of the sorted planes."""
    first, last = planes[0], planes[-1]
    step = normal * float(first.slice_thickness or 1.0)
    if len(planes) > 1:
        step = (last.position_mm - first.position_mm) / (len(planes) - 1)
    between_rows, between_columns = (float(value) for value in first.pixel_spacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, column * between_rows, row * between_columns
    affine[:3, 3] = first.position_mm
    try:
        return VolumeGeometry(
            shape=(len(planes), first.rows, first.columns),
            index_to_lps=affine,
            frame_of_reference_uid=str(frame_of_reference_uid),
        )
    except GeometryError as error:
        raise RejectedStudy(Refusal(reason=Reason.ORIENT_INVALID, detail=str(error))) from error


def check_one_series(sources: Sequence[pydicom.Dataset]) -> None:
    """Refuse sources that are not one series of one patient; highdicom and dciodvfy accept slices of two patients.

    Raises
    ------
    RejectedStudy
        PATIENT_MISMATCH, CONFLICT (two series or studies) or FOR_MISSING / FOR_MIXED.
    """
    _check_same(sources, "PatientID", Reason.PATIENT_MISMATCH, quote=False)
    _check_same(sources, "StudyInstanceUID", Reason.CONFLICT)
    _check_same(sources, "SeriesInstanceUID", Reason.CONFLICT)
    _check_same(sources, "FrameOfReferenceUID", Reason.FOR_MIXED)
    if not sources[0].get("FrameOfReferenceUID"):
        detail = f"series {sources[0].get('SeriesInstanceUID')} has no Frame of Reference UID"
        raise RejectedStudy(Refusal(reason=Reason.FOR_MISSING, detail=detail))


def _check_same(sources: Sequence[pydicom.Dataset], keyword: str, reason: Reason, *, quote: bool = True) -> None:
    values = {str(source.get(keyword) or "") for source in sources}
    if len(values) > 1:
        found = f": {sorted(values)}" if quote else ""
        detail = f"expected one {keyword} in {len(sources)} source images, found {len(values)}{found}"
        raise RejectedStudy(Refusal(reason=reason, detail=detail))


def _planes(source: pydicom.Dataset) -> list[SourcePlane]:
    """Every plane of one instance, in stored order."""
    if source.get("SOPClassUID") != EnhancedMRImageStorage:
        return [_plane(source, None, source, source, source)]
    shared = source.SharedFunctionalGroupsSequence[0]
    planes = []
    for number, own in enumerate(source.PerFrameFunctionalGroupsSequence, start=1):
        groups = [_group(keyword, own, shared) for keyword in _FUNCTIONAL_GROUPS]
        planes.append(_plane(source, number, *groups))
    return planes


_FUNCTIONAL_GROUPS: Final = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


def _group(keyword: str, own: pydicom.Dataset, shared: pydicom.Dataset) -> pydicom.Dataset:
    """One functional group of a frame: its own, or the one shared by all frames (PS3.3 C.7.6.16)."""
    for holder in (own, shared):
        if holder.get(keyword):
            return cast(pydicom.Dataset, holder[keyword].value[0])
    return pydicom.Dataset()


def _plane(
    source: pydicom.Dataset,
    frame_number: int | None,
    position: pydicom.Dataset,
    orientation: pydicom.Dataset,
    measures: pydicom.Dataset,
) -> SourcePlane:
    uid = required_uid(source, "SOPInstanceUID")
    return SourcePlane(
        sop_class_uid=required_uid(source, "SOPClassUID"),
        sop_instance_uid=uid,
        instance_number=AttributeReader([source]).integer("InstanceNumber"),
        frame_number=frame_number,
        position=_numbers(position, "ImagePositionPatient", 3, uid),
        orientation=_numbers(orientation, "ImageOrientationPatient", 6, uid),
        pixel_spacing=_numbers(measures, "PixelSpacing", 2, uid),
        slice_thickness=measures.get("SliceThickness"),
        rows=int(source.Rows),
        columns=int(source.Columns),
    )


def _numbers(holder: pydicom.Dataset, keyword: str, count: int, uid: str) -> Sequence[Any]:
    values = holder.get(keyword)
    if values is None or len(values) != count:
        detail = f"instance {uid}: expected {count} values of {keyword}, found {0 if values is None else len(values)}"
        raise RejectedStudy(Refusal(reason=Reason.GEOM_MISSING, detail=detail))
    return list(values)


def _check_plane(plane: SourcePlane, k: int, grid: VolumeGeometry) -> None:
    """Refuse a plane that is not slice `k` of the grid: a gap, a tilt, another size."""
    expected_mm = grid.to_lps((k, 0, 0))
    if float(np.linalg.norm(expected_mm - plane.position_mm)) > POSITION_TOLERANCE_MM:
        raise _refuse(Reason.SPACING, plane, f"slice {k} at {expected_mm.round(4)} mm", plane.position_mm.round(4))
    cosines = np.array([float(value) for value in plane.orientation])
    expected_cosines = np.concatenate([grid.directions[:, 2], grid.directions[:, 1]])
    if np.abs(cosines - expected_cosines).max() > ORIENTATION_TOLERANCE:
        raise _refuse(Reason.ORIENT_MIXED, plane, expected_cosines, cosines)
    spacing_mm = np.array([float(value) for value in plane.pixel_spacing])
    if (plane.rows, plane.columns) != grid.shape[1:] or np.abs(spacing_mm - grid.spacing_mm[1:]).max() > 1e-3:
        expected = (grid.shape[1:], grid.spacing_mm[1:])
        raise _refuse(Reason.MATRIX_MIXED, plane, expected, ((plane.rows, plane.columns), spacing_mm))


def _refuse(reason: Reason, plane: SourcePlane, expected: object, found: object) -> RejectedStudy:
    return RejectedStudy(Refusal(reason=reason, detail=f"{_name(plane)}: expected {expected}, found {found}"))


def _name(plane: SourcePlane) -> str:
    frame = "" if plane.frame_number is None else f" frame {plane.frame_number}"
    return f"instance {plane.sop_instance_uid}{frame}"
