"""What is made of one study's case: measured, encoded and checked, or refused with a report that says why.

`process` (a folder) and the worker (the spool) do the same work on the same `Case`; only where the files come from
and where the objects go differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pydicom

from dicom_node.assembly.headers import SeriesRole
from dicom_node.case import Case, CaseOptions, case_key, contrast_headers, identity_header, mrc_headers
from dicom_node.delivery.outbox import OutboxObject
from dicom_node.encoding.findings_json import findings_document
from dicom_node.encoding.identity import InputKey
from dicom_node.encoding.measurement_report import build_measurement_report, build_not_computed_report
from dicom_node.encoding.measurements import PreviousValue, StudyMeasurements, study_measurements
from dicom_node.encoding.part10 import part10_bytes
from dicom_node.encoding.report_verification import verify_not_computed_report, verify_report
from dicom_node.encoding.segmentation import build_segmentation
from dicom_node.encoding.source_planes import read_source_grid, slice_names
from dicom_node.encoding.summary_objects import SummarySource
from dicom_node.encoding.verification import verify_segmentation
from dicom_node.errors import OutputMismatch, Reason, Refusal, RejectedStudy, UnusableInput
from dicom_node.pipeline import StepTimer, measure_study
from dicom_node.pixel_decoding import Decoders
from dicom_node.summary.objects import computed_summary, refused_summary
from dicom_node.summary.refused_page import UnderstoodSeries
from dicom_node.volumes import check_geometry, load_volume
from inference.anatomy import EarSide
from inference.findings import ModelIdentity, StudyFindings
from inference.geometry import Volume, VolumeGeometry
from inference.segmentation import FluidSegmenter


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """What is drawn of a computed study besides SEG and SR, all of it at hand: the page, and the dashboard's pictures.

    `mrc_grid` is where the whole MRC lies, of which every ear is a crop.
    """

    findings: StudyFindings
    measurements: StudyMeasurements
    source: SummarySource
    mrc_grid: VolumeGeometry

    def page(self) -> tuple[OutboxObject, ...]:
        """The summary page in the forms that the site wants; none where it wants none.

        Raises
        ------
        OutputMismatch
            If what was written is not what was drawn.
        """
        return computed_summary(self.findings, self.measurements, self.source)


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseResult:
    """What a case came to: findings.json and the objects to send (SEG and SR; or "not computed" SR and page).

    `findings` is None and `refusals` is not empty when the study was refused. `drawing` is what is still to be drawn of
    a computed one; the page of a refused study is drawn already.
    """

    key: InputKey
    objects: tuple[OutboxObject, ...]
    document: Mapping[str, Any]
    findings: StudyFindings | None
    drawing: Drawing | None = None
    refusals: tuple[Refusal, ...] = ()


def work_case(
    case: Case,
    *,
    segmenter: FluidSegmenter,
    options: CaseOptions,
    step: StepTimer,
    encoded_at: datetime,
    previous: Mapping[EarSide, PreviousValue] | None = None,
) -> CaseResult:
    """Compute a case or refuse it, its page drawn as well: for whoever writes all of it to one folder."""
    model = segmenter.identity
    result = compute_case(
        case, segmenter=segmenter, options=options, step=step, encoded_at=encoded_at, previous=previous
    )
    if result.drawing is None:
        return result
    try:
        with step("draw summary"):
            page = result.drawing.page()
    except OutputMismatch as mismatch:
        refusal = Refusal(reason=Reason.OUTPUT_MISMATCH, detail=str(mismatch))
        return refuse_case(case, (refusal,), model=model, options=options, step=step, at=encoded_at)
    return replace(result, objects=(*result.objects, *page))


def compute_case(
    case: Case,
    *,
    segmenter: FluidSegmenter,
    options: CaseOptions,
    step: StepTimer,
    encoded_at: datetime,
    previous: Mapping[EarSide, PreviousValue] | None = None,
) -> CaseResult:
    """Compute a case or refuse it; either way with finished, checked objects. Its page is still to be drawn.

    `previous` is each ear's value in an earlier study: shown beside the new one, no part of the result's identity.
    """
    key = case_key(case, segmenter.identity, options)
    try:
        drawing = drawing_of(
            case, segmenter=segmenter, options=options, step=step, encoded_at=encoded_at, previous=previous
        )
        findings, measurements = drawing.findings, drawing.measurements
        with step("encode and check"):
            objects = encode_findings(case, findings, key, options, encoded_at, measurements)
    except RejectedStudy as rejection:
        return refuse_case(
            case, rejection.refusals, model=segmenter.identity, options=options, step=step, at=encoded_at
        )
    except OutputMismatch as mismatch:
        refusal = Refusal(reason=Reason.OUTPUT_MISMATCH, detail=str(mismatch))
        return refuse_case(case, (refusal,), model=segmenter.identity, options=options, step=step, at=encoded_at)
    document = findings_document(
        case.assembly, findings, key=key, timings_s=step.seconds, measurements=measurements, previous=previous
    )
    return CaseResult(key=key, objects=objects, document=document, findings=findings, drawing=drawing)


def drawing_of(
    case: Case,
    *,
    segmenter: FluidSegmenter,
    options: CaseOptions,
    step: StepTimer,
    encoded_at: datetime,
    previous: Mapping[EarSide, PreviousValue] | None = None,
) -> Drawing:
    """Measure a case, and everything that its page is drawn from.

    Raises
    ------
    RejectedStudy
        As `measure_case`, or if the source's planes are not the slices of one regular grid.
    """
    findings = measure_case(case, segmenter=segmenter, options=options, step=step)
    assert case.assembly.chosen is not None, "only a case with an input set has findings"
    return Drawing(
        findings=findings,
        measurements=measured_case(case, findings, previous),
        source=_summary_source(case, case_key(case, findings.model, options), options, findings.model, encoded_at),
        mrc_grid=check_geometry(case.assembly.chosen.mrc),
    )


def measure_case(case: Case, *, segmenter: FluidSegmenter, options: CaseOptions, step: StepTimer) -> StudyFindings:
    """Load the chosen series and measure both ears.

    Raises
    ------
    RejectedStudy
        If the assembly refused, a series cannot be loaded, or no ear got a number.
    """
    if case.assembly.chosen is None:
        raise RejectedStudy(case.assembly.refusal or Refusal(reason=Reason.PARTNER_MISSING, detail="no input set"))
    with step("load images"):
        volumes = load_volumes(case, options)
    return measure_study(volumes, segmenter=segmenter, options=options.pipeline, step=step)


def load_volumes(case: Case, options: CaseOptions) -> dict[SeriesRole, Volume]:
    """The chosen series' physical values, each on its own grid.

    Raises
    ------
    RejectedStudy
        As `volumes.load_volume`.
    """
    assert case.assembly.chosen is not None, "only a case with an input set has volumes"
    paths = {uid: file.path for uid, file in case.files.items()}
    with Decoders() as decoders:
        return {
            role: load_volume(header, paths, threads=options.threads, decoders=decoders)
            for role, header in case.assembly.chosen.series.items()
        }


def measured_case(
    case: Case, findings: StudyFindings, previous: Mapping[EarSide, PreviousValue] | None = None
) -> StudyMeasurements:
    """The findings as every rendering prints them.

    Raises
    ------
    RejectedStudy
        If the source's planes are not the slices of one regular grid.
    """
    assert case.assembly.chosen is not None, "only a case with an input set has findings"
    names = slice_names(read_source_grid(mrc_headers(case)))
    remarks = case.assembly.chosen.warnings
    return study_measurements(findings, slice_names=names, previous=previous, remarks=remarks)


def _summary_source(
    case: Case, key: InputKey, options: CaseOptions, model: ModelIdentity, at: datetime, *reasons: Reason
) -> SummarySource:
    """Whose page it is, and what it was made from: of a refused study no image is shown."""
    return SummarySource(
        header=identity_header(case),
        instances=() if reasons else [*mrc_headers(case), *contrast_headers(case)],
        key=key,
        options=options.results,
        model=model,
        encoded_at=at,
        reasons=reasons,
    )


def encode_findings(
    case: Case,
    findings: StudyFindings,
    key: InputKey,
    options: CaseOptions,
    encoded_at: datetime,
    measurements: StudyMeasurements | None = None,
) -> tuple[OutboxObject, ...]:
    """SEG and SR as bytes, each read back and compared with the findings before it is let go."""
    chosen = case.assembly.chosen
    assert chosen is not None, "only a case with an input set has findings"
    source, contrast = mrc_headers(case), contrast_headers(case)
    segmentation = build_segmentation(findings, source, key=key, options=options.results, encoded_at=encoded_at)
    segmentation_object = _outbox_object("SEG", segmentation)
    verify_segmentation(segmentation_object.data, findings, source)
    report = build_measurement_report(
        findings,
        source,
        contrast,
        segmentation,
        key=key,
        options=options.results,
        encoded_at=encoded_at,
        remarks=chosen.warnings,
        measurements=measurements or measured_case(case, findings),
    )
    report_object = _outbox_object("SR", report)
    verify_report(report_object.data, findings, source, contrast, segmentation_object.data)
    return (segmentation_object, report_object)


def refuse_case(
    case: Case,
    refusals: Sequence[Refusal],
    *,
    model: ModelIdentity,
    options: CaseOptions,
    step: StepTimer,
    at: datetime,
) -> CaseResult:
    """A "not computed" report with the reasons, on the study's own identity.

    When the study cannot even be named in a report (illegal UIDs), the result has no objects and one reason more.
    """
    key = case_key(case, model, options)
    reasons = dict.fromkeys(refusal.reason for refusal in refusals)
    objects: tuple[OutboxObject, ...] = ()
    try:
        objects = (
            _not_computed_object(case, refusals, model=model, key=key, options=options, at=at),
            *_not_computed_summary(case, refusals, _summary_source(case, key, options, model, at, *reasons)),
        )
    except UnusableInput as problem:
        refusals = (*refusals, Refusal(reason=Reason.TAG_INVALID, detail=str(problem)))
    document = findings_document(case.assembly, None, key=key, timings_s=step.seconds, refusals=refusals, model=model)
    return CaseResult(key=key, objects=objects, document=document, findings=None, refusals=tuple(refusals))


def _not_computed_object(
    case: Case, refusals: Sequence[Refusal], *, model: ModelIdentity, key: InputKey, options: CaseOptions, at: datetime
) -> OutboxObject:
    """The "not computed" report as bytes, read back and checked."""
    source = identity_header(case)
    evidence = [file.header for file in case.files.values()]
    report = build_not_computed_report(
        refusals, source, evidence, model=model, key=key, options=options.results, encoded_at=at
    )
    written = _outbox_object("SR", report)
    verify_not_computed_report(written.data, refusals, source, evidence)
    return written


def _not_computed_summary(case: Case, refusals: Sequence[Refusal], source: SummarySource) -> tuple[OutboxObject, ...]:
    """The page that says so to whoever opens the study, with the series as they were understood."""
    understood = [
        UnderstoodSeries(
            number=case.headers[decision.series_instance_uid].series_number,
            description=case.headers[decision.series_instance_uid].series_description,
            role=decision.role.value,
        )
        for decision in case.assembly.decisions
        if decision.series_instance_uid in case.headers
    ]
    return refused_summary(refusals, understood, source)


def _outbox_object(kind: str, dataset: pydicom.Dataset) -> OutboxObject:
    """One finished result as bytes; from here on only these bytes travel."""
    return OutboxObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        data=part10_bytes(dataset),
    )
