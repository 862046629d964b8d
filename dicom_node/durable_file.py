"""A file that is either there in full after a power cut, or not there at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path


def write_durably(
    path: Path,
    temporary_name: str,
    parts: Sequence[bytes | bytearray],
    *,
    modified_at: float | None = None,
    is_counted_on: Callable[[], bool] = lambda: False,
) -> None:
    """Write `parts` to `path`: temporary file beside it, fsync, rename, fsync of the directory.

    Without the first fsync a power cut leaves an empty file under the final name; without the second, only the
    temporary name. A failed fsync is final: the kernel may have dropped the pages, so asking again would lie.

    Parameters
    ----------
    modified_at
        Time of the last change that the file is to have (POSIX seconds), as durable as its content; None: now.
    is_counted_on
        Asked when the directory cannot be flushed: whether somebody else wrote the same content under the same name,
        and was told that it is there.

    Raises
    ------
    OSError
        Anything the disk says; the file is then gone under both names, unless it is counted on.
    """
    temporary = path.with_name(temporary_name)
    try:
        _write_synced(temporary, parts, modified_at)
        temporary.rename(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    try:
        sync_directory(path.parent)
    except OSError:
        if not is_counted_on():
            with suppress(OSError):
                path.unlink()
        raise


def make_folders(folders: Sequence[Path]) -> None:
    """Make the missing ones of `folders`, which lie in one directory, and make their names durable."""
    missing = [folder for folder in folders if not folder.is_dir()]
    for folder in missing:
        folder.mkdir(mode=0o700, exist_ok=True)
    if missing:
        sync_directory(missing[0].parent)


def sync_directory(directory: Path) -> None:
    """Make names created in or moved into `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, parts: Sequence[bytes | bytearray], modified_at: float | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        _write_all(descriptor, parts)
        if modified_at is not None:
            os.utime(descriptor, (modified_at, modified_at))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, parts: Sequence[bytes | bytearray]) -> None:
    """Write the parts one behind the other; in one call, unless the disk takes less at once."""
    left = [memoryview(part) for part in parts]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]
