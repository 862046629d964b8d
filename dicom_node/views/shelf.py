"""View packs on disk: one folder per piece of work, there in full after a power cut or not there at all.

The worker writes, the web reads. A name that comes from a URL is looked up in the manifest and is never joined to a
path before it was found there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicom_node.durable_file import make_folders, sync_directory, write_durably

MANIFEST: Final = "manifest.json"

WORK_ID: Final = re.compile(r"[0-9a-f]{64}")
"""A computed piece of work is named by the digest of its inputs (`study_desk`); refusals have no views."""

UNFINISHED: Final = ".unfinished-"

ORPHAN_AGE_S: Final = 3600.0
"""A folder under a temporary name is left alone this long: another worker may be writing it."""


@dataclass(frozen=True, kw_only=True)
class ViewFile:
    """One file of a pack: where it lies, how to send it, and the SHA-256 it was written with."""

    path: Path
    media_type: str
    sha256: str


class ViewShelf:
    """All packs of a node under one folder, which is made when missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_folders([directory])

    def put(self, work_id: str, files: Mapping[str, bytes]) -> None:
        """Keep a pack; one that is there in full already is left alone.

        Raises
        ------
        ValueError
            If `work_id` is not one, or the files have no manifest.
        OSError
            Anything the disk says; the pack is then not there.
        """
        if not WORK_ID.fullmatch(work_id) or MANIFEST not in files:
            raise ValueError(f"a pack needs a work id and a {MANIFEST}; found {work_id!r} and {sorted(files)}")
        final = self._directory / work_id
        if self.manifest(work_id) is not None:
            os.utime(final)  # in use again: an erasure of the study that is under way leaves it alone
            return
        unfinished = self._directory / f"{UNFINISHED}{secrets.token_hex(8)}"
        unfinished.mkdir(mode=0o700)
        try:
            for name, data in files.items():
                write_durably(unfinished / name, f"{name}.part", [data])
            if final.exists():  # it lost a file, or its manifest
                shutil.rmtree(final)
            unfinished.rename(final)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_directory(self._directory)

    def manifest(self, work_id: str) -> Mapping[str, Any] | None:
        """What the pack of this work holds, or None if there is none, or not all of it."""
        if not WORK_ID.fullmatch(work_id):
            return None
        folder = self._directory / work_id
        try:
            manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
            complete = all((folder / name).stat().st_size == one["bytes"] for name, one in manifest["files"].items())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return manifest if complete else None

    def file(self, work_id: str, name: str) -> ViewFile | None:
        """One file that the manifest of this work lists; None for any other name."""
        manifest = self.manifest(work_id)
        if manifest is None or name not in manifest["files"]:
            return None
        listed = manifest["files"][name]
        return ViewFile(path=self._directory / work_id / name, media_type=listed["media_type"], sha256=listed["sha256"])

    def older_than(self, at: float) -> list[str]:
        """The work ids of packs that were put, or put again, before `at`."""
        packs = [folder for folder in self._directory.iterdir() if WORK_ID.fullmatch(folder.name)]
        return sorted(folder.name for folder in packs if folder.stat().st_mtime < at)

    def sweep(self, now: float) -> int:
        """Remove folders that a killed worker left unfinished; returns how many."""
        left = [
            folder for folder in self._directory.glob(f"{UNFINISHED}*") if folder.stat().st_mtime < now - ORPHAN_AGE_S
        ]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)
