"""Findings to a TID 1500 report, or the reasons for having none to a TID 2000 one: Comprehensive 3D SR (PS3.3 A.35.13).

A report of no result has no measurements. OHIF shows an Imaging Measurement Report without them as an empty pane, but
any other title as text; so it is a Diagnostic Imaging Report.

Every report is COMPLETE, UNVERIFIED and PRELIMINARY: nobody has looked at it yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pydicom
from highdicom import sr
from numpy.typing import NDArray
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian, MRImageStorage

from dicom_node.encoding import codes
from dicom_node.encoding.identity import InputKey, ResultKind, device_uid, result_uid, tracking_uid
from dicom_node.encoding.measurements import EarMeasurements, StudyMeasurements, study_measurements
from dicom_node.encoding.patient_module import InheritedModules, inherit_modules, required_uid
from dicom_node.encoding.provenance import ResultOptions, contributing_equipment, stamp
from dicom_node.encoding.report_content import (
    MeasurementGroup,
    SegmentReference,
    contour_group,
    ear_evaluations,
    ear_sentences,
    evaluations_container,
    findings_container,
    quality_evaluations,
    reason_evaluations,
    status_evaluation,
    volume_group,
)
from dicom_node.encoding.segmentation import SegmentMask, segment_masks
from dicom_node.encoding.source_planes import SourceGrid, read_source_grid, slice_names
from dicom_node.errors import OutputMismatch, Refusal, RejectedStudy, UnusableInput
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, ModelIdentity, QualityFlag, StudyFindings


@dataclass(frozen=True, kw_only=True)
class DocumentReference:
    """An earlier report that a new one replaces (Predecessor Documents Sequence)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = Comprehensive3DSRStorage


def build_measurement_report(
    findings: StudyFindings,
    source: Sequence[pydicom.Dataset],
    contrast: Sequence[pydicom.Dataset],
    segmentation: pydicom.Dataset,
    *,
    key: InputKey,
    options: ResultOptions,
    encoded_at: datetime,
    remarks: Sequence[Refusal] = (),
    measurements: StudyMeasurements | None = None,
    predecessor: DocumentReference | None = None,
) -> sr.Comprehensive3DSR:
    """The report of a computed study: examination, then per ear its ratio, its two volumes and one contour.

    Parameters
    ----------
    source
        Headers of the segmented MRC series, in any order.
    contrast
        Headers of every other series that went into the numbers; evidence like the source.
    segmentation
        The SEG of the same findings; its segments are referenced by number and tracking UID.
    remarks
        What was noticed when the series were chosen (a repeated scan, another frame of reference).
    measurements
        The findings as they are printed, which all objects of one result share; made here if there is only a report.

    Raises
    ------
    RejectedStudy
        If the source's identity or geometry attributes are missing, illegal or contradict each other.
    OutputMismatch
        If findings, segmentation and source do not belong together.
    """
    grid = read_source_grid(source)
    inherited = inherit_modules(source[0])
    measured = measurements or study_measurements(findings, slice_names=slice_names(grid))
    masks = {(one.side, one.space): one for one in segment_masks(findings, grid.geometry)}
    ears = [findings.ears[side] for side in (EarSide.RIGHT, EarSide.LEFT) if side in findings.ears]
    groups: list[MeasurementGroup] = []
    for ear in (ear for ear in ears if ear.ratio is not None):
        own = {space: mask for (of, space), mask in masks.items() if of is ear.side}
        groups += _ear_groups(ear, measured.ear(ear.side), own, grid, segmentation, source, findings.model, key)
    without = [ear for ear in ears if ear.ratio is None]
    content = sr.MeasurementReport(
        observation_context=_observed_by_device(options),
        procedure_reported=codes.PROCEDURE_REPORTED,
        imaging_measurements=groups,
        language_of_content_item_and_descendants=_english(),
    )
    content[0].ContentSequence.append(
        evaluations_container(
            [
                status_evaluation(computed=True),
                *quality_evaluations(findings.quality),
                *(evaluation for ear in without for evaluation in ear_evaluations(ear)),
            ],
            [
                *(flag.message for flag in findings.quality),
                *(sentence for ear in without for sentence in ear_sentences(measured.ear(ear.side))),
                *_sentences(remarks),
                *inherited.remarks,
            ],
        )
    )
    return _document(
        content,
        _Evidence(inherited=inherited, instances=[*source, *contrast, segmentation]),
        series_uid=result_uid(ResultKind.REPORT_SERIES, key),
        instance_uid=result_uid(ResultKind.REPORT, key),
        description=codes.REPORT_DESCRIPTION,
        model=findings.model,
        key=key,
        options=options,
        encoded_at=encoded_at,
        predecessor=predecessor,
    )


def build_not_computed_report(
    refusals: Sequence[Refusal],
    source: pydicom.Dataset,
    evidence: Sequence[pydicom.Dataset],
    *,
    key: InputKey,
    options: ResultOptions,
    encoded_at: datetime,
    model: ModelIdentity | None = None,
    quality: Sequence[QualityFlag] = (),
    predecessor: DocumentReference | None = None,
) -> sr.Comprehensive3DSR:
    """A small valid report that says "not computed" and why, so that the reader sees that the node looked.

    Parameters
    ----------
    refusals
        At least one; each becomes a code and a sentence with its detail.
    source
        Header of any instance of the study: patient and study are copied from it.
    evidence
        Headers of the instances that were received; `source` is added if it is not among them.

    Raises
    ------
    UnusableInput
        If not even the study can be named: illegal UIDs, or a patient identity too long to be copied.
    """
    if not refusals:
        raise ValueError("a report of no result needs a reason")
    try:
        inherited = inherit_modules(source)
        instances = [source, *(one for one in evidence if one.SOPInstanceUID != source.SOPInstanceUID)]
        named = _Evidence(inherited=inherited, instances=instances)
        named.items()
    except RejectedStudy as rejection:
        raise UnusableInput(f"no report can be written: {rejection.refusal.detail}") from rejection
    reasons = [refusal.reason for refusal in refusals]
    root = sr.ContainerContentItem(name=codes.DIAGNOSTIC_IMAGING_REPORT, template_id="2000")
    root.ContentSequence = sr.ContentSequence([*_english(), *_observed_by_device(options)], is_root=False)
    root.ContentSequence.append(
        findings_container(
            [status_evaluation(computed=False), *reason_evaluations(reasons), *quality_evaluations(quality)],
            [
                "Hydrops ratio: not computed.",
                *_sentences(refusals),
                *(flag.message for flag in quality),
                *inherited.remarks,
            ],
        )
    )
    return _document(
        sr.ContentSequence([root], is_root=True),
        named,
        series_uid=result_uid(ResultKind.NOT_COMPUTED_SERIES, key, *reasons),
        instance_uid=result_uid(ResultKind.NOT_COMPUTED_REPORT, key, *reasons),
        description=codes.NOT_COMPUTED_DESCRIPTION,
        model=model,
        key=key,
        options=options,
        encoded_at=encoded_at,
        predecessor=predecessor,
    )


def _english() -> sr.LanguageOfContentItemAndDescendants:
    return sr.LanguageOfContentItemAndDescendants(sr.CodedConcept.from_code(codes.ENGLISH))


def _sentences(refusals: Sequence[Refusal]) -> list[str]:
    return [f"{refusal.reason.sentence} ({refusal.reason}: {refusal.detail})" for refusal in refusals]


def _ear_groups(
    ear: EarFindings,
    measured: EarMeasurements,
    masks: dict[FluidSpace, SegmentMask],
    grid: SourceGrid,
    segmentation: pydicom.Dataset,
    source: Sequence[pydicom.Dataset],
    model: ModelIdentity,
    key: InputKey,
) -> list[MeasurementGroup]:
    """The groups of one evaluated ear: of each segmented fluid the contour and the volume, under one tracking UID."""
    series_uid = required_uid(source[0], "SeriesInstanceUID")
    groups: list[MeasurementGroup] = []
    for space, mask in masks.items():
        k, plane_mask = largest_slice(mask, grid)
        groups.append(contour_group(ear, measured, space, grid.planes[k], plane_mask, model, key))
        number = _segment_number(segmentation, tracking_uid(key, ear.side, space))
        reference = SegmentReference(segmentation=segmentation, number=number, source_series_uid=series_uid)
        groups.append(volume_group(measured, space, reference, model, key))
    return groups


def largest_slice(segment: SegmentMask, grid: SourceGrid) -> tuple[int, NDArray[np.bool_]]:
    """The slice index k with most voxels of the segment, and its whole-plane (J, I) mask."""
    local = int(np.argmax(segment.mask.sum(axis=(1, 2))))
    plane = np.zeros(grid.geometry.shape[1:], dtype=bool)
    k0, j0, i0 = segment.start
    _, height, width = segment.mask.shape
    plane[j0 : j0 + height, i0 : i0 + width] = segment.mask[local]
    return k0 + local, plane


def _segment_number(segmentation: pydicom.Dataset, uid: str) -> int:
    for item in segmentation.SegmentSequence:
        if item.get("TrackingUID") == uid:
            return int(item.SegmentNumber)
    raise OutputMismatch(f"segmentation {segmentation.SOPInstanceUID} has no segment with tracking UID {uid}")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Evidence:
    """The instances a report rests on; the first names patient and study."""

    inherited: InheritedModules
    instances: Sequence[pydicom.Dataset]

    def items(self) -> list[pydicom.Dataset]:
        """What highdicom reads: four UIDs of every instance, and the clean patient and study with the first."""
        items = [self.inherited.dataset, *(pydicom.Dataset() for _ in self.instances[1:])]
        for item, instance in zip(items, self.instances, strict=True):
            for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
                setattr(item, keyword, required_uid(instance, keyword))
        # highdicom looks up by SOP class which modules to copy and knows no retired or private class; patient and
        # study modules are the same for all. `restore_sop_class` puts the true class back.
        items[0].SOPClassUID = MRImageStorage
        return items

    def restore_sop_class(self, report: pydicom.Dataset) -> None:
        """Let the report name the first instance's own SOP class."""
        first = self.instances[0]
        series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        series.ReferencedSOPSequence[0].ReferencedSOPClassUID = required_uid(first, "SOPClassUID")


def _document(
    content: sr.ContentSequence,
    evidence: _Evidence,
    *,
    series_uid: str,
    instance_uid: str,
    description: str,
    model: ModelIdentity | None,
    key: InputKey,
    options: ResultOptions,
    encoded_at: datetime,
    predecessor: DocumentReference | None,
) -> sr.Comprehensive3DSR:
    report = sr.Comprehensive3DSR(
        evidence=evidence.items(),
        content=content,
        series_instance_uid=series_uid,
        series_number=options.report_series_number,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=codes.NODE_MANUFACTURER,
        manufacturer_model_name=codes.NODE_MODEL_NAME,
        device_serial_number=options.device_serial_number,
        software_versions=options.software_version,
        series_description=description,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=None if predecessor is None else [_predecessor_dataset(predecessor)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=codes.coding_schemes(),
        contributing_equipment=[contributing_equipment(key, options, model, encoded_at)],
    )
    evidence.restore_sop_class(report)
    stamp(report, encoded_at)
    return report


def _observed_by_device(options: ResultOptions) -> sr.ObservationContext:
    """TID 1001: this installation as the observer, the same UID in all its reports."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(options.device_serial_number),
        name=options.device_name,
        manufacturer_name=codes.NODE_MANUFACTURER,
        model_name=codes.NODE_MODEL_NAME,
        serial_number=options.device_serial_number,
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
        )
    )


def _predecessor_dataset(reference: DocumentReference) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.StudyInstanceUID = reference.study_instance_uid
    dataset.SeriesInstanceUID = reference.series_instance_uid
    dataset.SOPInstanceUID = reference.sop_instance_uid
    dataset.SOPClassUID = reference.sop_class_uid
    return dataset
