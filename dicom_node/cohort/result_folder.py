"""A study's result folder: there in full or not at all, whenever the process ends.

A new folder gets its name when everything in it is on disk. In a folder that is there already findings.json goes first
and comes back last: where it stands, the rest is whole and belongs to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from dicom_node.durable_file import sync_directory

Json = Mapping[str, Any]

IMAGE_FILES: Final = (
    "mrc.nii.gz",
    "hydrops.nii.gz",
    "real_ir.nii.gz",
    "labels.nii.gz",
    "total_fluid.nii.gz",
    "endolymph.nii.gz",
)
"""What `images` writes; of `hydrops` and `real_ir` a study has one."""

FINDINGS: Final = "findings.json"
OBJECTS: Final = ("seg.dcm", "sr.dcm", "sc.dcm", "pdf.dcm")
OURS: Final = (FINDINGS, *OBJECTS, *IMAGE_FILES)
UNFINISHED: Final = ".unfinished-"
"""What a folder is called while it is filled."""


def put_result(folder: Path, files: Mapping[str, bytes]) -> None:
    """`files`, findings.json among them, as the content of `folder`; an earlier result's are replaced or removed.

    Raises
    ------
    OSError
        Anything the disk says; then there is no findings.json.
    """
    if folder.exists():
        _fill(folder, files)
        return
    unfinished = folder.with_name(f"{UNFINISHED}{folder.name}")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    _fill(unfinished, files)
    unfinished.rename(folder)
    sync_directory(folder.parent)


def remove_unfinished(results: Path) -> None:
    """Remove what processes that were killed had begun; nothing may be at work in `results`."""
    for folder in results.glob(f"{UNFINISHED}*"):
        shutil.rmtree(folder)


def read_result(folder: Path) -> Json | None:
    """The findings of an earlier run; None if there are none, or what is there is no JSON object."""
    try:
        document = json.loads((folder / FINDINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def missing_images(there: Iterable[str]) -> bool:
    """Whether a computed study's folder with these files lacks one of its images."""
    names = set(there)
    contrast = {"hydrops.nii.gz", "real_ir.nii.gz"}
    return not (set(IMAGE_FILES) - contrast <= names and contrast & names)


def findings_bytes(document: Json) -> bytes:
    """findings.json as it is written."""
    return (json.dumps(document, indent=2) + "\n").encode()


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    (folder / FINDINGS).unlink(missing_ok=True)
    sync_directory(folder)
    for name in OURS:
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        if name != FINDINGS:
            _write(folder / name, content)
    temporary = folder / f"{UNFINISHED}{FINDINGS}"
    _write(temporary, files[FINDINGS])
    sync_directory(folder)
    temporary.rename(folder / FINDINGS)
    sync_directory(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
