"""Every attribute of a data set, sequences included, as a flat list that can be compared and printed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.multival import MultiValue

CONTENT_TREE: Final = "ContentSequence"
"""The tree of a report has a table of its own (`report_tree`)."""

BULK: Final = frozenset({"PixelData", "EncapsulatedDocument"})
SEVERAL: Final = "items"
"""Stands for the value of a sequence whose items are listed below it."""

CODE: Final = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """One attribute in one place of one data set: `path` as in `Attribute`, `item` says in which sequence items."""

    path: tuple[str, ...]
    item: tuple[str, ...]
    vr: str
    value: str


def occurrences(
    dataset: pydicom.Dataset, path: tuple[str, ...] = (), item: tuple[str, ...] = ()
) -> Iterator[Occurrence]:
    """Every attribute of a data set and of its sequences; a code is one line, not three."""
    for element in dataset:
        keyword = keyword_for_tag(element.tag)
        here = (*path, keyword)
        if element.VR != "SQ":
            yield Occurrence(path=here, item=item, vr=str(element.VR), value=_text(element))
            continue
        codes = [code_text(one) for one in element.value if is_code(one)]
        yield Occurrence(path=here, item=item, vr="SQ", value=", ".join(codes) or (SEVERAL if element.value else ""))
        if keyword == CONTENT_TREE or len(codes) == len(element.value):
            continue
        for number, one in enumerate(element.value):
            yield from occurrences(one, here, (*item, f"{keyword}[{number}]"))


def _text(element: pydicom.DataElement) -> str:
    """A value on one line; a long one by its digest, which is enough to compare."""
    if element.is_empty:
        return ""
    if keyword_for_tag(element.tag) in BULK:
        return hashlib.sha256(element.value).hexdigest()
    value = element.value
    return "\\".join(str(one) for one in value) if isinstance(value, list | MultiValue) else str(value)


def is_code(item: pydicom.Dataset) -> bool:
    """True for a code and nothing else: value, scheme, meaning."""
    return len(item) == len(CODE) and all(keyword in item for keyword in CODE)


def code_text(item: pydicom.Dataset) -> str:
    """(value, scheme, meaning)."""
    return f"({item.CodeValue}, {item.CodingSchemeDesignator}, {item.CodeMeaning})"
