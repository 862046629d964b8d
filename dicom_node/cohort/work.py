"""One source's work from files to result folder, or the finding that it was done before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_node.case import Case, CaseOptions, as_all_there_is, case_key, open_case
from dicom_node.casework import load_volumes, work_case
from dicom_node.cohort.images import result_images
from dicom_node.cohort.outcome import SourceOutcome, SourceState
from dicom_node.cohort.result_folder import (
    FINDINGS,
    OBJECTS,
    findings_bytes,
    missing_images,
    put_result,
    read_result,
)
from dicom_node.cohort.sources import DicomStudy, NiftiSubject, Source
from dicom_node.cohort.subject import Subject, open_subject
from dicom_node.encoding.findings_json import findings_document
from dicom_node.encoding.identity import InputKey
from dicom_node.errors import RejectedStudy, UnusableInput
from dicom_node.instance_files import InstanceFile, read_instance
from dicom_node.pipeline import StepTimer, measure_study
from inference.segmentation import FluidSegmenter

Json = Mapping[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """What a process needs to work on any source. `again` computes even what was done before."""

    segmenter: FluidSegmenter
    options: CaseOptions
    nifti: bool = False
    again: bool = False
    clock: Callable[[], float] = time.monotonic


def work_source(
    source: Source, result: Path, bench: Bench, *, encoded_at: datetime, tell: Tell = lambda _line: None
) -> SourceOutcome:
    """Compute a source into the folder `result`, unless the same was done there before.

    Parameters
    ----------
    tell
        Gets a line for every decision and step.

    Raises
    ------
    OSError
        If the result cannot be written, or a DICOM file was taken away meanwhile.
    """
    began = bench.clock()
    step = StepTimer(bench.clock, on_step=lambda name: tell(f"  {name}"))
    try:
        if isinstance(source, DicomStudy):
            outcome = _work_dicom(source, result, bench, step, encoded_at, tell)
        else:
            outcome = _work_subject(source, result, bench, step, tell)
    except UnusableInput as problem:
        outcome = _outcome(source, SourceState.UNUSABLE, problem=str(problem))
    return replace(outcome, seconds=round(bench.clock() - began, 3))


def _outcome(source: Source, state: SourceState, *, problem: str = "") -> SourceOutcome:
    return SourceOutcome(name=source.name, folder=str(source.folder), state=state, problem=problem)


def _work_dicom(
    source: DicomStudy, result: Path, bench: Bench, step: StepTimer, encoded_at: datetime, tell: Tell
) -> SourceOutcome:
    files = [file for path in source.paths if (file := read_instance(path)) is not None]
    if not files:
        raise UnusableInput(f"{source.folder}: the files of study {source.study_instance_uid} cannot be read any more")
    case = as_all_there_is(open_case(source.study_instance_uid, files, bench.options))
    blank = _identified(_outcome(source, SourceState.UNUSABLE), files[0])
    key = case_key(case, bench.segmenter.identity, bench.options)
    _tell_decisions(case, tell)
    before = _done_before(result, key, bench, objects=True)
    if before is not None:
        return _with_findings(blank, before, done_before=True)
    worked = work_case(case, segmenter=bench.segmenter, options=bench.options, step=step, encoded_at=encoded_at)
    written = {f"{one.kind.lower()}.dcm": one.data for one in worked.objects}
    if bench.nifti and worked.findings is not None:
        with step("write images"):
            written |= result_images(load_volumes(case, bench.options), worked.findings)
    put_result(result, {**written, FINDINGS: findings_bytes(worked.document)})
    return _with_findings(blank, worked.document)


def _work_subject(source: NiftiSubject, result: Path, bench: Bench, step: StepTimer, tell: Tell) -> SourceOutcome:
    with step("load images"):
        subject = open_subject(source)
    _tell_decisions(subject, tell)
    model = bench.segmenter.identity
    key = subject.key(model_sha256=model.sha256, settings_digest=bench.options.digest)
    blank = _outcome(source, SourceState.UNUSABLE)
    before = _done_before(result, key, bench, objects=False)
    if before is not None:
        return _with_findings(blank, before, done_before=True)
    images: dict[str, bytes] = {}
    try:
        if subject.refusal is not None:
            raise RejectedStudy(subject.refusal)
        findings = measure_study(subject.volumes, segmenter=bench.segmenter, options=bench.options.pipeline, step=step)
        with step("write images"):
            images = result_images(subject.volumes, findings)
        document = findings_document(subject, findings, key=key, timings_s=step.seconds)
    except RejectedStudy as rejection:
        document = findings_document(
            subject, None, key=key, timings_s=step.seconds, refusals=rejection.refusals, model=model
        )
    put_result(result, {**images, FINDINGS: findings_bytes(document)})
    return _with_findings(blank, document)


def _tell_decisions(decided: Case | Subject, tell: Tell) -> None:
    decisions = decided.assembly.decisions if isinstance(decided, Case) else decided.decisions
    for decision in decisions:
        tell(f"  series {decision.series_instance_uid}: taken as {decision.role}, because {decision.reason}")


def _done_before(result: Path, key: InputKey, bench: Bench, *, objects: bool) -> Json | None:
    """The findings of the same inputs, model and settings, if all files that are wanted now stand beside them."""
    document = None if bench.again else read_result(result)
    if document is None or document.get("input_digest") != key.digest:
        return None
    there = {path.name for path in result.iterdir()}
    computed = document.get("status") == SourceState.COMPUTED
    if objects and computed and not set(OBJECTS[:2]) <= there:
        return None
    if computed and (bench.nifti or not objects) and missing_images(there):
        return None
    return document


def _with_findings(blank: SourceOutcome, document: Json, *, done_before: bool = False) -> SourceOutcome:
    return replace(blank, state=SourceState(document["status"]), findings=document, done_before=done_before)


def _identified(outcome: SourceOutcome, file: InstanceFile) -> SourceOutcome:
    """With what a table names a study by, read from one of its images."""
    text = {name: str(file.header.get(name) or "").strip() for name in ("PatientID", "StudyDate")}
    scanner = " ".join(str(file.header.get(name) or "") for name in ("Manufacturer", "ManufacturerModelName"))
    return replace(outcome, patient_id=text["PatientID"], study_date=text["StudyDate"], scanner=scanner.strip())
