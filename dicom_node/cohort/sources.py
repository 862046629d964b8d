"""What there is to compute in some folders: DICOM studies by their UID, and subjects as NIfTI files by their names.

    SUBJECT/mrc.nii.gz              MR cisternography: this file makes a folder a subject
    SUBJECT/ppi.nii.gz, pei.nii.gz  magnitudes, as a pair; or ...
    SUBJECT/hydrops.nii.gz          PPI minus PEI, perilymph > 0, endolymph < 0; or ...
    SUBJECT/hydrops_mi2.nii.gz      HYDROPS times MRC; or ...
    SUBJECT/real_ir.nii.gz          real inversion recovery

A table (.csv) with the columns `subject`, `mrc` and those of the contrast files names the same from anywhere.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydicom

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import UnusableInput
from dicom_node.instance_files import UNREADABLE

SUBJECT_FILES: Final[Mapping[str, SeriesRole]] = {
    role.value.lower(): role for role in SeriesRole if role is not SeriesRole.OTHER
}
"""File name without suffix, or column of a table, and what it is."""

SUFFIXES: Final = (".nii.gz", ".nii")

LEGAL_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What may become the name of a result folder; whatever a file says beyond that stays out of paths."""


@dataclass(frozen=True, kw_only=True)
class DicomStudy:
    """The DICOM files of one study. `name` is that of its result folder, `folder` the innermost that holds them all."""

    name: str
    folder: Path
    study_instance_uid: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class NiftiSubject:
    """The NIfTI files of one subject by role; `left_out` are others of its folder, whose names say no role."""

    name: str
    folder: Path
    files: Mapping[SeriesRole, Path]
    left_out: tuple[Path, ...] = ()


Source = DicomStudy | NiftiSubject


def find_sources(
    places: Sequence[Path], *, results: Path, on_file: Callable[[], None] = lambda: None
) -> tuple[Source, ...]:
    """Every study and subject in these folders and tables, each once, in the order in which they were found.

    Only a few bytes of each file are kept: a cohort's headers would not fit into memory.

    Parameters
    ----------
    results
        Where results are written; what lies there is no input.
    on_file
        Called for every file looked at.

    Raises
    ------
    UnusableInput
        If a place does not exist, holds nothing, or is a table that cannot be read.
    """
    studies: dict[str, dict[Path, None]] = {}
    subjects: dict[Path, NiftiSubject] = {}
    for place in places:
        if place.resolve() == results.resolve():
            raise UnusableInput(f"{place}: expected results in another folder than the images; choose another --out")
        if place.is_dir():
            found = _look_through(place, results.resolve(), studies, subjects, on_file)
        elif place.is_file() and place.suffix.lower() == ".csv":
            named = _subjects_of_table(place)
            subjects |= {place / subject.name: subject for subject in named}
            found = bool(named)
        else:
            raise UnusableInput(f"{place}: expected a folder, or a .csv table of subjects; found neither")
        if not found:
            raise UnusableInput(
                f"{place}: found no DICOM image and no mrc.nii.gz in it or below; pass the folder with the files"
            )
    return (*(_study(uid, tuple(paths)) for uid, paths in studies.items()), *_told_apart(tuple(subjects.values())))


def _look_through(
    place: Path,
    results: Path,
    studies: dict[str, dict[Path, None]],
    subjects: dict[Path, NiftiSubject],
    on_file: Callable[[], None],
) -> bool:
    """Add what lies in `place` and below, in the order of paths, each file once; whether there was anything."""
    found = False
    results_below = place.resolve() in results.parents
    for folder, paths in _folders(place):
        if results_below and (folder.resolve() == results or results in folder.resolve().parents):
            continue
        images = [path for path in paths if path.name.endswith(SUFFIXES)]
        subject = _subject(folder, place, images)
        if subject is not None:
            subjects.setdefault(folder.resolve(), subject)
            found = True
        for path in paths:
            on_file()
            uid = None if path in images else study_instance_uid(path)
            if uid is not None:
                studies.setdefault(uid, {})[path.resolve()] = None
                found = True
    return found


def _folders(place: Path) -> Iterator[tuple[Path, list[Path]]]:
    """`place` and every folder below, each with its own files."""
    entries = sorted(place.iterdir())
    yield place, [entry for entry in entries if entry.is_file()]
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():  # a link upward would never end
            yield from _folders(entry)


def study_instance_uid(path: Path) -> str | None:
    """(0020,000D) of a DICOM instance; None for any other file."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPInstanceUID"])
        named = header.get("SOPInstanceUID") and header.get("StudyInstanceUID")
    except (*UNREADABLE, OSError):
        return None
    return str(header.StudyInstanceUID) if named else None


def _study(uid: str, paths: Sequence[Path]) -> DicomStudy:
    folders = {path.parent for path in paths}
    common = next(iter(folders))
    while any(folder != common and common not in folder.parents for folder in folders):
        common = common.parent
    legal = LEGAL_UID.fullmatch(uid) and len(uid) <= 64
    name = uid if legal else f"illegal-uid-{_digest(uid)}"
    return DicomStudy(name=name, folder=common, study_instance_uid=uid, paths=tuple(paths))


def _subject(folder: Path, place: Path, images: Sequence[Path]) -> NiftiSubject | None:
    """The subject that a folder is, if it has an MRC."""
    roles: dict[SeriesRole, Path] = {}
    left_out = []
    for path in images:
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        role = SUBJECT_FILES.get(stem)
        if role is None or role in roles:
            left_out.append(path)
        else:
            roles[role] = path
    if SeriesRole.MRC not in roles:
        return None
    inner = folder.relative_to(place).parts or (folder.resolve().name,)
    name = "_".join(inner)
    if not SAFE_NAME.fullmatch(name):
        name = f"subject-{_digest(name)}"
    return NiftiSubject(name=name, folder=folder.resolve(), files=roles, left_out=tuple(left_out))


def _subjects_of_table(table: Path) -> list[NiftiSubject]:
    """One subject for each row; paths are relative to the table."""
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableInput(f"{table}: expected a CSV table in UTF-8: {error}") from None
    subjects = []
    for number, row in enumerate(rows, start=2):
        cells = {(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
        name = cells.get("subject", "")
        files: dict[SeriesRole, Path] = {
            role: table.parent / cells[column] for column, role in SUBJECT_FILES.items() if cells.get(column)
        }
        if not SAFE_NAME.fullmatch(name) or SeriesRole.MRC not in files:
            raise UnusableInput(
                f"{table}: line {number}: expected a subject (letters, digits, dot, dash) and its mrc file, found "
                f"{name!r} and {cells.get('mrc', '')!r}; columns are subject, {', '.join(SUBJECT_FILES)}"
            )
        subjects.append(NiftiSubject(name=name, folder=files[SeriesRole.MRC].parent.resolve(), files=files))
    names = [subject.name for subject in subjects]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UnusableInput(f"{table}: expected every subject once, found twice: {', '.join(doubled)}")
    return subjects


def _told_apart(subjects: Sequence[NiftiSubject]) -> list[NiftiSubject]:
    """The subjects under names of their own: two sites may both have a sub-01."""
    names = [subject.name for subject in subjects]
    return [
        subject
        if names.count(subject.name) == 1
        else NiftiSubject(
            name=f"{subject.name}-{_digest(str(subject.files[SeriesRole.MRC].resolve()))}",
            folder=subject.folder,
            files=subject.files,
            left_out=subject.left_out,
        )
        for subject in subjects
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
