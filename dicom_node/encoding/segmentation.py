"""Findings to a DICOM Segmentation (PS3.3 A.51): BINARY, on the grid of the source MRC series, source digits kept.

BINARY because FRACTIONAL does not open in OHIF and LABELMAP is refused by Orthanc 1.10 and DCMTK 3.6.7. Endolymph
lies inside the total fluid space, so segments overlap and say so. Frames without a voxel are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pydicom
from highdicom import (
    AlgorithmIdentificationSequence,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS

from dicom_node.encoding import codes
from dicom_node.encoding.identity import InputKey, ResultKind, result_uid, tracking_id, tracking_uid
from dicom_node.encoding.patient_module import inherit_lossiness, inherit_modules, required_uid
from dicom_node.encoding.provenance import ResultOptions, algorithm_version, contributing_equipment, stamp
from dicom_node.encoding.source_planes import POSITION_TOLERANCE_MM, SourceGrid, SourcePlane, read_source_grid
from dicom_node.errors import OutputMismatch
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, ModelIdentity, StudyFindings
from inference.geometry import Volume, VolumeGeometry


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentMask:
    """One segment to be: where its voxels lie on the source grid. `start` (k, j, i) and `mask` (bool) are its box."""

    side: EarSide
    space: FluidSpace
    start: tuple[int, int, int]
    mask: NDArray[np.bool_]


def build_segmentation(
    findings: StudyFindings,
    source: Sequence[pydicom.Dataset],
    *,
    key: InputKey,
    options: ResultOptions,
    encoded_at: datetime,
) -> Segmentation:
    """Up to four segments: total fluid space of both ears, then endolymph; an ear without a number has none.

    Parameters
    ----------
    source
        Headers of the MRC series: its classic instances in any order, or its one Enhanced MR instance. The ears'
        masks are crops of the grid they span; what reaches outside it is left out.
    encoded_at
        Local wall-clock time; the only part of the object that does not follow from the inputs.

    Raises
    ------
    ValueError
        If no ear was evaluated: an empty SEG would read as "no fluid".
    RejectedStudy
        If the source's identity or geometry attributes are missing, illegal or contradict each other.
    OutputMismatch
        If masks and source grid do not lie on each other, or an evaluated ear has no fluid on it.
    """
    grid = read_source_grid(source)
    segments = in_viewer_order(segment_masks(findings, grid.geometry), grid)
    if not segments:
        raise ValueError("no ear was evaluated; there is nothing to segment")
    slices = _used_slices(segments)
    dataset = Segmentation(
        source_images=_headers_for_highdicom(source, grid, slices),
        pixel_array=_paste(segments, slices, grid.geometry.shape),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, segment, findings.model, key) for number, segment in enumerate(segments, start=1)
        ],
        series_instance_uid=result_uid(ResultKind.SEGMENTATION_SERIES, key),
        series_number=options.segmentation_series_number,
        sop_instance_uid=result_uid(ResultKind.SEGMENTATION, key),
        instance_number=1,
        manufacturer=codes.NODE_MANUFACTURER,
        manufacturer_model_name=codes.NODE_MODEL_NAME,
        software_versions=options.software_version,
        device_serial_number=options.device_serial_number,
        content_label=codes.SEGMENTATION_LABEL,
        content_description="Inner-ear fluid spaces. Research use only.",
        series_description=codes.SEGMENTATION_DESCRIPTION,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=True,
        plane_positions=[PlanePositionSequence("PATIENT", grid.planes[k].position) for k in slices],
        coding_schemes=codes.coding_schemes(),
        contributing_equipment=[contributing_equipment(key, options, findings.model, encoded_at)],
    )
    _finish(dataset, key, encoded_at)
    return dataset


def segment_masks(findings: StudyFindings, grid: VolumeGeometry) -> list[SegmentMask]:
    """The segments of a result: total fluid space right, left, then endolymph; one without a voxel is left out.

    Raises
    ------
    OutputMismatch
        If a mask is not a crop of `grid`, or an evaluated ear has no total fluid on it.
    """
    ears = [findings.ears[side] for side in (EarSide.RIGHT, EarSide.LEFT) if side in findings.ears]
    masks = [(ear.side, _masks(ear)) for ear in ears if ear.evaluated]
    segments: list[SegmentMask] = []
    for space in FluidSpace:
        for side, of_ear in masks:
            segment = _on_grid(side, space, of_ear[space], grid)
            if segment.mask.any():
                segments.append(segment)
            elif space is FluidSpace.TOTAL_FLUID_SPACE:
                raise OutputMismatch(f"{side} ear has a ratio, but no voxel of total fluid on the source grid")
    return segments


def in_viewer_order(segments: Sequence[SegmentMask], grid: SourceGrid) -> list[SegmentMask]:
    """The order in which OHIF 3.13 shows every voxel; right before left where it does not matter.

    OHIF lays overlapping segments into layers: a segment joins the first layer that it does not overlap. If that layer
    reaches further along OHIF's stack than the segment does, every slice of the segment that the layer lacks is lost
    without a word. So of two segments that will share a layer (one fluid of both ears) the one that ends first in
    OHIF's stack comes first, if each has slices of its own.
    """
    ordered: list[SegmentMask] = []
    for space in FluidSpace:
        pair = [segment for segment in segments if segment.space is space]
        if len(pair) == 2:
            first, second = (_stack_indices(segment, grid) for segment in pair)
            if max(first) > max(second) and not second <= first:
                pair.reverse()
        ordered += pair
    return ordered


def _stack_indices(segment: SegmentMask, grid: SourceGrid) -> set[int]:
    """Where OHIF's stack has the segment's slices: against the normal (classic images), or as frames are stored."""
    used = [segment.start[0] + int(k) for k in np.flatnonzero(segment.mask.any(axis=(1, 2)))]
    frames = [grid.planes[k].frame_number for k in used]
    return {len(grid.planes) - 1 - k if frame is None else frame - 1 for k, frame in zip(used, frames, strict=True)}


def _masks(ear: EarFindings) -> Mapping[FluidSpace, Volume]:
    if ear.fluid is None:
        raise OutputMismatch(f"{ear.side} ear has a ratio, but no segmented fluid")
    return {
        FluidSpace.TOTAL_FLUID_SPACE: ear.fluid.total_fluid_mask,
        FluidSpace.ENDOLYMPH: ear.fluid.endolymph_mask,
    }


def _on_grid(side: EarSide, space: FluidSpace, mask: Volume, grid: VolumeGeometry) -> SegmentMask:
    """The part of `mask` that lies inside `grid`."""
    corner = np.rint(grid.to_index(mask.geometry.index_to_lps[:3, 3])).astype(int)
    start = (int(corner[0]), int(corner[1]), int(corner[2]))
    if not grid.crop(start, mask.geometry.shape).same_grid(mask.geometry, tolerance_mm=POSITION_TOLERANCE_MM):
        raise OutputMismatch(f"{side} {space} mask is not a crop of the source grid at index {start}")
    low = np.maximum(corner, 0)
    high = np.maximum(np.minimum(corner + mask.array.shape, grid.shape), low)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low - corner, high - corner, strict=True))
    inside = (int(low[0]), int(low[1]), int(low[2]))
    return SegmentMask(side=side, space=space, start=inside, mask=mask.array[box].astype(bool))


def _used_slices(segments: Sequence[SegmentMask]) -> list[int]:
    """Slices with a voxel of any segment, ascending: only their instances are referenced."""
    used = {segment.start[0] + int(k) for segment in segments for k in np.flatnonzero(segment.mask.any(axis=(1, 2)))}
    return sorted(used)


def _paste(segments: Sequence[SegmentMask], slices: Sequence[int], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(used slices, J, I, segments) array of 0 and 1."""
    row_of = {k: row for row, k in enumerate(slices)}
    stack = np.zeros((len(slices), shape[1], shape[2], len(segments)), dtype=np.uint8)
    for number, segment in enumerate(segments):
        k0, j0, i0 = segment.start
        _, height, width = segment.mask.shape
        for k, plane in enumerate(segment.mask, start=k0):
            if k in row_of:
                stack[row_of[k], j0 : j0 + height, i0 : i0 + width, number] = plane
    return stack


def _describe(number: int, segment: SegmentMask, model: ModelIdentity, key: InputKey) -> SegmentDescription:
    """One item of the Segment Sequence (PS3.3 C.8.20.2)."""
    region = CodedConcept.from_code(codes.INNER_EAR)
    region.AnatomicRegionModifierSequence = [CodedConcept.from_code(codes.LATERALITY[segment.side])]
    description = SegmentDescription(
        segment_number=number,
        segment_label=tracking_id(segment.side, segment.space),
        segmented_property_category=codes.BODY_SUBSTANCE,
        segmented_property_type=codes.FLUID[segment.space],
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name,
            family=codes.algorithm_family(model),
            version=algorithm_version(model),
            source=codes.NODE_MANUFACTURER,
            parameters={"sha256": model.sha256, "input_digest": key.digest},
        ),
        tracking_uid=tracking_uid(key, segment.side, segment.space),
        tracking_id=tracking_id(segment.side, segment.space),
        display_color=codes.SEGMENT_COLOR[segment.side, segment.space],
    )
    description.AnatomicRegionSequence = [region]
    return description


def _headers_for_highdicom(
    source: Sequence[pydicom.Dataset], grid: SourceGrid, slices: Sequence[int]
) -> list[pydicom.Dataset]:
    """Clean headers of the referenced source instances: nothing in them but what the SEG needs, in ISO_IR 192."""
    clean = inherit_modules(source[0]).dataset
    clean.SeriesInstanceUID = required_uid(source[0], "SeriesInstanceUID")
    clean.SOPClassUID = required_uid(source[0], "SOPClassUID")
    clean.Modality = "MR"
    clean.Rows, clean.Columns = grid.geometry.shape[1:]
    inherit_lossiness(clean, source)
    if grid.planes[0].frame_number is not None:
        return [_enhanced_header(clean, grid)]
    return [_classic_header(clean, grid.planes[k], grid.geometry) for k in slices]


def _classic_header(clean: pydicom.Dataset, plane: SourcePlane, grid: VolumeGeometry) -> pydicom.Dataset:
    header = pydicom.Dataset()
    header.update(clean)
    header.SOPInstanceUID = plane.sop_instance_uid
    header.ImagePositionPatient = list(plane.position)
    header.ImageOrientationPatient = list(plane.orientation)
    header.PixelSpacing = list(plane.pixel_spacing)
    header.SliceThickness = _thickness(plane, grid)
    # stated, or highdicom would take the distance between two slices that happen to have voxels
    header.SpacingBetweenSlices = DS(round(float(grid.spacing_mm[0]), 6), auto_format=True)
    return header


def _enhanced_header(clean: pydicom.Dataset, grid: SourceGrid) -> pydicom.Dataset:
    """`clean` as an Enhanced MR header with the planes' geometry, frames in their stored order."""
    stored = sorted(grid.planes, key=lambda plane: plane.frame_number or 0)
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", stored[0].orientation)
    shared.PixelMeasuresSequence = PixelMeasuresSequence(
        pixel_spacing=stored[0].pixel_spacing,
        slice_thickness=float(_thickness(stored[0], grid.geometry)),
        spacing_between_slices=round(float(grid.geometry.spacing_mm[0]), 6),
    )
    frames = []
    for plane in stored:
        item = pydicom.Dataset()
        item.PlanePositionSequence = PlanePositionSequence("PATIENT", plane.position)
        frames.append(item)
    clean.SOPInstanceUID = stored[0].sop_instance_uid
    clean.NumberOfFrames = len(frames)
    clean.SharedFunctionalGroupsSequence = [shared]
    clean.PerFrameFunctionalGroupsSequence = frames
    return clean


def _thickness(plane: SourcePlane, grid: VolumeGeometry) -> Any:
    """Slice Thickness of the source, or the slice spacing where the source has none (type 2 in classic MR)."""
    if plane.slice_thickness not in (None, ""):
        return plane.slice_thickness
    return DS(round(float(grid.spacing_mm[0]), 6), auto_format=True)


def _finish(dataset: pydicom.Dataset, key: InputKey, encoded_at: datetime) -> None:
    """What highdicom draws at random: the UID of the frame dimensions, and every "now"."""
    organization = result_uid(ResultKind.DIMENSION_ORGANIZATION, key)
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for dimension in dataset.DimensionIndexSequence:
        dimension.DimensionOrganizationUID = organization
    stamp(dataset, encoded_at)
