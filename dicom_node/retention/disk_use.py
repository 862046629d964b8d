"""How many bytes each part of the state folder takes on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PARTS: Final = ("spool", "outbox", "views", "audit")
"""Folders that are told by name; everything else beside them is the databases, and small."""

DATABASES: Final = "databases"


def disk_use(state_dir: Path) -> Mapping[str, int]:
    """Bytes by part: the folders of `PARTS`, and `DATABASES` for the files beside them.

    A file that goes while this looks counts as gone.
    """
    found = {part: _bytes_below(state_dir / part) for part in PARTS}
    found[DATABASES] = sum(_size(entry) for entry in os.scandir(state_dir) if entry.is_file(follow_symlinks=False))
    return found


def _bytes_below(folder: Path) -> int:
    total = 0
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return 0
    for entry in entries:
        total += _bytes_below(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else _size(entry)
    return total


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
