"""Encoded objects on disk: one file each, so that no name comes from a DICOM value and the first bytes are found again.

A name has two SHA-256 digests: of the SOP Instance UID, and of the bytes. When the database was lost or restored from
an older backup, an object that is encoded anew is recognized by the first, and goes out as the bytes it had before.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HALF_WRITTEN: Final = ".part"

HALF_WRITTEN_AGE_S: Final = 3600.0
"""A half-written file is left alone this long: another process may be at it."""

UNKNOWN_AGE_S: Final = 30 * 86400.0
"""A whole file without a row is kept this long: a restored backup of the database may be as old."""


class ObjectFiles:
    """Durable files in one folder, which is made when missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, sop_instance_uid: str, digest: str) -> Path:
        """Where the bytes of this object with this SHA-256 lie."""
        return self._directory / f"{_digest(sop_instance_uid.encode())}-{digest}.dcm"

    def keep(self, sop_instance_uid: str, data: bytes) -> str:
        """Make an object survive a power cut; returns the SHA-256 of the bytes that are kept.

        Bytes that lie here under its UID already, whole, are those that count: they may have been sent.
        """
        for path in sorted(self._directory.glob(f"{_digest(sop_instance_uid.encode())}-*.dcm")):
            named = path.stem.rpartition("-")[2]
            if _digest(path.read_bytes()) == named:
                path.touch()  # young again: no sweep of another worker is to remove it before it has its row
                self._sync()
                return named
        digest = _digest(data)
        self._write(self.path(sop_instance_uid, digest), data)
        self._sync()
        return digest

    def read(self, sop_instance_uid: str, digest: str) -> tuple[bytes, str]:
        """The bytes kept as this object under `digest`, and the SHA-256 that they have now.

        Raises
        ------
        FileNotFoundError
            If the file is gone.
        """
        data = self.path(sop_instance_uid, digest).read_bytes()
        return data, _digest(data)

    def keep_only(self, sop_instance_uid: str, digest: str) -> None:
        """Remove what else was written as this object: two workers encoded it at the same moment, these bytes count."""
        for path in self._directory.glob(f"{_digest(sop_instance_uid.encode())}-*.dcm"):
            if path != self.path(sop_instance_uid, digest):
                path.unlink(missing_ok=True)

    def sweep(self, used: Mapping[str, str], now: float) -> int:
        """Remove old files that no object of `used` (SOP Instance UID to digest) needs; returns how many."""
        names = {self.path(uid, digest).name for uid, digest in used.items()}
        orphans = [path for path in self._directory.iterdir() if path.name not in names and _is_old(path, now)]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def _write(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._directory, suffix=HALF_WRITTEN)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _sync(self) -> None:
        """Make renames survive a power cut: fsync of a file alone keeps only its temporary name."""
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_old(path: Path, now: float) -> bool:
    age_s = HALF_WRITTEN_AGE_S if path.suffix == HALF_WRITTEN else UNKNOWN_AGE_S
    try:
        return path.stat().st_mtime < now - age_s
    except FileNotFoundError:  # another worker has just given it its final name, or removed it
        return False
