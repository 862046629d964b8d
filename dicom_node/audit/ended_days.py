"""What the trail says of its own oldest entries when they are erased: the one reason why an entry may be missing.

The statement is an entry like any other, so it stands in the chain. It names the last entry that went and its digest,
to which the first entry that is left is chained: nobody can take away one more, or begin the trail with another one.
"""

from __future__ import annotations

import re
from typing import Final

from dicom_node.audit.events import AuditAction

_FORM: Final = re.compile(r"entries up to (\d+) were kept for their time and are erased; SHA-256 ([0-9a-f]{64})")


def statement(sequence: int, sha256: str) -> str:
    """That the entries up to this one, whose digest it says, are erased."""
    return f"entries up to {sequence} were kept for their time and are erased; SHA-256 {sha256}"


def stated(action: AuditAction, detail: str) -> tuple[int, str] | None:
    """Sequence and digest of the last entry that an entry says is erased; None if it says no such thing."""
    found = _FORM.fullmatch(detail) if action is AuditAction.AUDIT_ENTRIES_ERASED else None
    return None if found is None else (int(found[1]), found[2])
