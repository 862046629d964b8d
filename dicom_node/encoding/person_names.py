"""A DICOM person name (PN) as people write it: for lists and pages, never for identity."""

from __future__ import annotations

from typing import Final

_GROUPS: Final = 3
"""Alphabetic, ideographic, phonetic (PS3.5 6.2.1.2)."""


def written_name(value: str) -> str:
    """A PN value as one line: "Doe, Jane A.", or "山田 太郎 (Yamada, Tarou)" where two scripts are given.

    The phonetic group is shown only if it is the only one.
    """
    groups = [group.strip() for group in value.split("=")[:_GROUPS]]
    alphabetic, ideographic, phonetic = (*groups, "", "", "")[:_GROUPS]
    latin, other, sound = _joined(alphabetic, ", "), _joined(ideographic, " "), _joined(phonetic, " ")
    if other and latin:
        return f"{other} ({latin})"
    return other or latin or sound


def _joined(group: str, after_family: str) -> str:
    """The five components of one group: family, given, middle, prefix, suffix."""
    family, *others = (part.strip() for part in group.split("^"))
    given, middle, prefix, suffix = (*others, "", "", "", "")[:4]
    rest = " ".join(part for part in (prefix, given, middle, suffix) if part)
    return after_family.join(part for part in (family, rest) if part)
