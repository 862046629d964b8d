"""One study as a case: its files, its series with their roles, and the input set chosen, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pydicom
from pydicom.uid import EnhancedMRImageStorage

from dicom_node.assembly.classification import SeriesRules
from dicom_node.assembly.completeness import Arrival, judge
from dicom_node.assembly.headers import SeriesHeader, group_series, read_series_header
from dicom_node.assembly.pairing import StudyAssembly, assemble
from dicom_node.encoding.identity import InputKey
from dicom_node.encoding.provenance import ResultOptions
from dicom_node.errors import Reason, Refusal
from dicom_node.instance_files import InstanceFile
from dicom_node.pipeline import PipelineOptions
from dicom_node.volumes import ordered_frames
from inference.findings import ModelIdentity


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseOptions:
    """What a site chose that changes results; `digest` of all of it is part of every result's identity."""

    rules: SeriesRules
    digest: str
    max_frames_per_series: int = 2000
    max_series_per_study: int = 200
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    results: ResultOptions = field(default_factory=ResultOptions)
    threads: int = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One study: its instances by SOP Instance UID, its series headers by UID, and what was decided about them."""

    study_instance_uid: str
    files: Mapping[str, InstanceFile]
    headers: Mapping[str, SeriesHeader]
    assembly: StudyAssembly


def open_case(
    study_instance_uid: str,
    files: Iterable[InstanceFile],
    options: CaseOptions,
    *,
    known_refusals: Sequence[Refusal] = (),
    read_series: Callable[[Sequence[pydicom.Dataset]], SeriesHeader] = read_series_header,
) -> Case:
    """The case of one study: duplicates dropped, series read, roles given, the input set chosen or refused.

    `known_refusals` is what the intake holds against images of the study; one that names a series which is not used
    leaves the study alone. `read_series` may remember what it has read.
    """
    kept: dict[str, InstanceFile] = {}
    conflict: Refusal | None = None
    for file in files:
        known = kept.setdefault(file.sop_instance_uid, file)
        if known.sha256 != file.sha256:
            conflict = Refusal(
                reason=Reason.CONFLICT,
                detail=f"SOP Instance UID {file.sop_instance_uid} exists twice with different content: "
                f"SHA-256 {known.sha256[:12]}... and {file.sha256[:12]}...",
            )
    series = group_series([file.header for file in kept.values()])
    headers = {uid: read_series(datasets) for uid, datasets in series.items()}
    assembly = assemble(
        list(headers.values()),
        options.rules,
        max_frames_per_series=options.max_frames_per_series,
        max_series_per_study=options.max_series_per_study,
    )
    held_against = (
        conflict
        or next((one for one in known_refusals if _concerns(one, assembly)), None)
        or (None if assembly.chosen is None else _of_unnamed_frames(assembly.chosen.mrc, kept))
    )
    if held_against is not None:
        assembly = replace(assembly, chosen=None, refusal=held_against)
    return Case(study_instance_uid=study_instance_uid, files=kept, headers=headers, assembly=assembly)


def _of_unnamed_frames(mrc: SeriesHeader, files: Mapping[str, InstanceFile]) -> Refusal | None:
    """Why SEG and SR could not name the planes of this cisternogram; they refer to all frames of one Enhanced MR image.

    Said before the work, and not by the encoder after it.
    """
    if not mrc.enhanced:
        return None
    uids, series = mrc.sop_instance_uids, f"MRC series {mrc.series_instance_uid}"
    stored = len(files[uids[0]].header.get("PerFrameFunctionalGroupsSequence", []))
    if mrc.sop_class_uid != EnhancedMRImageStorage:
        detail = f"{series}: expected Enhanced MR or classic MR images, found SOP Class {mrc.sop_class_uid}"
    elif len(uids) > 1:
        detail = f"{series}: expected one Enhanced MR image, found its frames in {len(uids)}"
    elif len(mrc.frames) < stored:
        detail = (
            f"{series}: expected all frames of Enhanced MR image {uids[0]} to show the MRC, found {len(mrc.frames)} of "
            f"{stored}; where magnitude and phase share an image, send the magnitude as a series of its own"
        )
    else:
        return None
    return Refusal(reason=Reason.ENHANCED_UNSUPPORTED, detail=detail, series_instance_uid=mrc.series_instance_uid)


def _concerns(refusal: Refusal, assembly: StudyAssembly) -> bool:
    """Whether a refusal about one series stands against computing the study."""
    if refusal.series_instance_uid is None:
        return True
    if assembly.chosen is None:  # then that series may be what is missing, unless nothing here is about hydrops
        return assembly.refusal is None or assembly.refusal.reason is not Reason.NO_HYDROPS_STUDY
    used = {header.series_instance_uid for header in assembly.chosen.series.values()}
    return refusal.series_instance_uid in used


def as_all_there_is(case: Case) -> Case:
    """The case of a folder, in which nothing more will arrive: a series that is known to lack images is refused now."""
    arrivals = {
        uid: Arrival(
            series_instance_uid=uid, received=len(header.sop_instance_uids), last_received_at=0.0, expected=None
        )
        for uid, header in case.headers.items()
    }
    headers = list(case.headers.values())
    verdict = judge(case.assembly, headers, arrivals, now=math.inf, quiet_s=0.0, partner_wait_s=0.0)
    if case.assembly.chosen is None or verdict.refusal is None:
        return case
    return replace(case, assembly=replace(case.assembly, chosen=None, refusal=verdict.refusal))


def case_key(case: Case, model: ModelIdentity, options: CaseOptions) -> InputKey:
    """The identity of the work: the chosen inputs (or, for a refusal, all of the study), the model, the settings."""
    used = case.assembly.chosen.series.values() if case.assembly.chosen else case.headers.values()
    uids = [uid for header in used for uid in header.sop_instance_uids]
    return InputKey(
        instances=tuple(sorted((uid, case.files[uid].sha256) for uid in uids)),
        model_sha256=model.sha256,
        settings_digest=options.digest,
    )


def mrc_headers(case: Case) -> list[pydicom.Dataset]:
    """Headers of the cisternogram's images, in the order of its slices."""
    assert case.assembly.chosen is not None, "only a case with an input set has a cisternogram"
    frames = ordered_frames(case.assembly.chosen.mrc)
    return [case.files[uid].header for uid in dict.fromkeys(frame.sop_instance_uid for frame in frames)]


def contrast_headers(case: Case) -> list[pydicom.Dataset]:
    """Headers of the other series that are used."""
    chosen = case.assembly.chosen
    assert chosen is not None, "only a case with an input set has contrast series"
    others = [header for header in chosen.series.values() if header is not chosen.mrc]
    return [case.files[uid].header for header in others for uid in header.sop_instance_uids]


def identity_header(case: Case) -> pydicom.Dataset:
    """The image that patient and study are copied from."""
    chosen = case.assembly.chosen
    return case.files[chosen.mrc.sop_instance_uids[0] if chosen else next(iter(case.files))].header
