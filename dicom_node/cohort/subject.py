"""One subject's NIfTI files as the pipeline wants them: volumes by role, and a record of what was taken as what.

A NIfTI file names no patient, no study and no series, so no DICOM object is made of it. Where findings.json wants
UIDs it gets some that are made from the files' content and that no archive knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dicom_node.assembly.classification import RoleDecision
from dicom_node.assembly.headers import SeriesRole
from dicom_node.assembly.pairing import ACCEPTED_PARTNERS, LeftOut
from dicom_node.cohort.sources import SUBJECT_FILES, NiftiSubject
from dicom_node.encoding.identity import InputKey, derived_uid
from dicom_node.encoding.nifti import read_nifti
from dicom_node.errors import Reason, Refusal, UnusableInput
from inference.geometry import Volume

RULE: Final = "name of the NIfTI file"


@dataclass(frozen=True, kw_only=True)
class TakenFile:
    """One file that is used; `series_instance_uid` follows from its role and content."""

    series_instance_uid: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TakenSet:
    """The files that go into the numbers, by role."""

    series: Mapping[SeriesRole, TakenFile]
    warnings: tuple[Refusal, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What findings.json tells about a subject's files (the names are those of `StudyAssembly`), and their volumes."""

    study_instance_uid: str
    decisions: tuple[RoleDecision, ...]
    chosen: TakenSet | None
    left_out: tuple[LeftOut, ...]
    volumes: Mapping[SeriesRole, Volume]
    refusal: Refusal | None

    def key(self, *, model_sha256: str, settings_digest: str) -> InputKey:
        """The identity of the work on these files; what a file is taken as is part of it."""
        taken = {} if self.chosen is None else self.chosen.series
        instances = [(one.series_instance_uid, one.sha256) for one in taken.values()]
        fallback = (self.study_instance_uid, hashlib.sha256(self.study_instance_uid.encode()).hexdigest())
        return InputKey(
            instances=tuple(instances or [fallback]), model_sha256=model_sha256, settings_digest=settings_digest
        )


def open_subject(source: NiftiSubject) -> Subject:
    """The subject's files, read.

    Raises
    ------
    UnusableInput
        If a file cannot be read or does not say what must be known; the message names it.
    """
    contents = {role: _content(source, role) for role in source.files}
    files = {role: _taken(role, content) for role, content in contents.items()}
    study = derived_uid("nifti subject", *sorted(one.series_instance_uid for one in files.values()))
    used = _input_set(list(files))
    roles = () if used is None else (SeriesRole.MRC, *used)
    frame = derived_uid("nifti frame of reference", study)
    volumes = {
        role: _volume(contents[role], name=str(source.files[role]), frame=frame) for role in roles if role in contents
    }
    unused = [role for role in files if role not in roles]
    return Subject(
        study_instance_uid=study,
        decisions=(*(_decision(source, role, one) for role, one in files.items()), *_others(source, study)),
        chosen=None if used is None else TakenSet(series={role: files[role] for role in roles}),
        left_out=(
            *(_left_out(files[role], role, roles) for role in unused),
            *(
                LeftOut(series_instance_uid=one.series_instance_uid, role=SeriesRole.OTHER, reason=one.reason)
                for one in _others(source, study)
            ),
        ),
        volumes=volumes,
        refusal=None if used is not None else _no_partner(source),
    )


def _content(source: NiftiSubject, role: SeriesRole) -> bytes:
    path = source.files[role]
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror}") from None


def _taken(role: SeriesRole, content: bytes) -> TakenFile:
    sha256 = hashlib.sha256(content).hexdigest()
    return TakenFile(series_instance_uid=derived_uid("nifti file", role.value, sha256), sha256=sha256)


def _input_set(roles: Sequence[SeriesRole]) -> tuple[SeriesRole, ...] | None:
    """What goes with the MRC: the same order of preference as for DICOM."""
    return next((partners for partners in ACCEPTED_PARTNERS if all(role in roles for role in partners)), None)


def _volume(content: bytes, *, name: str, frame: str) -> Volume:
    volume = read_nifti(content, name=name, frame_of_reference_uid=frame)
    return Volume(array=np.asarray(volume.array, dtype=np.float32), geometry=volume.geometry)


def _decision(source: NiftiSubject, role: SeriesRole, taken: TakenFile) -> RoleDecision:
    return RoleDecision(
        series_instance_uid=taken.series_instance_uid,
        role=role,
        rule=RULE,
        reason=f"{source.files[role].name} was given as {role.value}",
    )


def _others(source: NiftiSubject, study: str) -> list[RoleDecision]:
    """Files whose names say nothing; they were not opened, so their UIDs follow from their names."""
    return [
        RoleDecision(
            series_instance_uid=derived_uid("nifti name", study, path.name),
            role=SeriesRole.OTHER,
            rule=RULE,
            reason=f"{path.name} is none of {', '.join(f'{name}.nii.gz' for name in SUBJECT_FILES)}, or is there twice",
        )
        for path in source.left_out
    ]


def _left_out(taken: TakenFile, role: SeriesRole, used: Sequence[SeriesRole]) -> LeftOut:
    reason = f"not needed beside {' and '.join(one.value for one in used)}" if used else "no input set is complete"
    return LeftOut(series_instance_uid=taken.series_instance_uid, role=role, reason=reason)


def _no_partner(source: NiftiSubject) -> Refusal:
    found = ", ".join(sorted(path.name for path in source.files.values()))
    return Refusal(
        reason=Reason.PARTNER_MISSING,
        detail=f"{source.folder}: expected ppi and pei, hydrops, hydrops_mi2 or real_ir beside the MRC, found {found}",
    )
