"""Encoded objects on disk: one file each, named by the SHA-256 of its bytes, so no name comes from a DICOM value."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

# A file that nobody refers to is left alone this long: another process may be about to write its row.
ORPHAN_AGE_S = 3600.0


class ObjectFiles:
    """Durable, content-addressed files in one folder, which is made when missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the bytes with this SHA-256 lie."""
        return self._directory / f"{digest}.dcm"

    def keep(self, data: bytes) -> str:
        """Write `data` so that it survives a power cut; returns its SHA-256. A damaged copy is replaced."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not path.exists() or path.read_bytes() != data:
            self._write(path, data)
        self._sync()
        return digest

    def read(self, digest: str) -> tuple[bytes, str]:
        """The bytes kept under `digest` and the SHA-256 that they have now.

        Raises
        ------
        FileNotFoundError
            If the file is gone.
        """
        data = self.path(digest).read_bytes()
        return data, hashlib.sha256(data).hexdigest()

    def sweep(self, used: Collection[str], now: float) -> int:
        """Remove old files, finished or half written, that none of the digests in `used` names; returns how many."""
        names = {self.path(digest).name for digest in used}
        orphans = [
            path
            for path in self._directory.iterdir()
            if path.name not in names and path.stat().st_mtime < now - ORPHAN_AGE_S
        ]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def _write(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._directory, suffix=".part")
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
