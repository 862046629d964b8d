"""One line of the trail: its form, its digest, and how the first and the last of a file are found."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicom_node.audit.events import AuditAction

LONGEST_ENTRY_BYTES: Final = 131072
"""Six texts of that length, each character escaped to 12 bytes at the very most, and the codes."""

_SEQUENCE: Final = re.compile(rb'"sequence":(\d{1,18}),"sha256":"[0-9a-f]{64}"\}\n\Z')


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One line of the trail. `sequence` counts from 1 over all days; `message` is `AuditEvent.message`."""

    sequence: int
    previous: str
    action: AuditAction
    message: Mapping[str, Any]
    sha256: str


class NotAnEntry(Exception):
    """A line that is no entry, or no longer the one that was written; its text says why."""


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one form in which an entry is written; ASCII, so no line break but its own is in it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its own digest."""
    return hashlib.sha256(canonical(content)).hexdigest()


def parsed(line: bytes) -> AuditEntry:
    """The entry on one line.

    Raises
    ------
    NotAnEntry
        If the line is cut, is no entry, or differs from what its digest was made of.
    """
    if not line.endswith(b"\n"):
        raise NotAnEntry("the line is cut")
    try:
        content = json.loads(line)
        digest = content.pop("sha256")
        entry = AuditEntry(
            sequence=int(content["sequence"]),
            previous=str(content["previous"]),
            action=AuditAction(content["action"]),
            message=content["message"],
            sha256=str(digest),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotAnEntry("the line is not an entry of this trail") from None
    if digest_of(content) != digest or canonical(content | {"sha256": digest}) != line:
        raise NotAnEntry(f"entry {entry.sequence} was changed after it was written")
    return entry


def sequence_of(line: bytes) -> int | None:
    """The number that a line claims, without reading or checking the rest; None where none stands at its place."""
    found = _SEQUENCE.search(line)
    return None if found is None else int(found[1])


def first_entry(path: Path) -> AuditEntry | None:
    """The entry on the first line of a file; None if that is none."""
    with path.open("rb") as stream:
        try:
            return parsed(stream.readline(LONGEST_ENTRY_BYTES))
        except NotAnEntry:
            return None


def last_entry(path: Path, *, drop_torn_after: tuple[int, str] | None) -> AuditEntry | None:
    """The last complete entry of a file.

    Bytes after the last line end, when the line before them is the one that the head names, are an entry that a kill
    cut short; nobody was told that it was written, so it is dropped. In any other case nothing is taken away.
    """
    content = _tail(path)
    whole = content[: content.rfind(b"\n") + 1]
    torn_bytes = len(content) - len(whole)
    try:
        entry = parsed(whole.splitlines(keepends=True)[-1])
    except (IndexError, NotAnEntry):
        return None
    if torn_bytes and drop_torn_after == (entry.sequence, entry.sha256):
        os.truncate(path, path.stat().st_size - torn_bytes)
    return entry


def _tail(path: Path) -> bytes:
    """The end of a file, long enough for any entry."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - LONGEST_ENTRY_BYTES))
        return stream.read()


def ends_with_newline(path: Path) -> bool:
    """Whether the last line is whole; an empty file has none that is not."""
    return _tail(path)[-1:] in (b"", b"\n")
