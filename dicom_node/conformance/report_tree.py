"""The content tree of our reports, read off the reports: relationship, value type, concept, template, values, count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import pydicom

from dicom_node.conformance.occurrences import code_text

MEASUREMENT_GROUP: Final = "125007"
TRACKING_IDENTIFIER: Final = "112039"
_MOST_VALUES: Final = 6
"""More different codes than this are told as "see the private codes"."""


@dataclass(frozen=True, kw_only=True)
class TreeLine:
    """One line of the table. `depth` 0 is the root; `count` is how often it stands under its parent, as 1 or 0-4."""

    depth: int
    relationship: str
    value_type: str
    concept: str
    template: str
    values: tuple[str, ...]
    count: str


@dataclass(kw_only=True)
class _Node:
    """Items that stand at the same place and say the same kind of thing."""

    relationship: str
    value_type: str
    concept: str
    template: str
    values: dict[str, None] = field(default_factory=dict)
    visits: int = 0
    counts: list[int] = field(default_factory=list)
    children: dict[tuple[str, ...], _Node] = field(default_factory=dict)


def tree_lines(reports: Sequence[pydicom.Dataset]) -> tuple[TreeLine, ...]:
    """One tree that every one of these reports is part of, depth first, in the order in which items appear."""
    root = _Node(relationship="", value_type="CONTAINER", concept=_concept(reports[0]), template=_template(reports[0]))
    for report in reports:
        _add(root, report)
    root.counts = [1] * len(reports)
    return tuple(_lines(root, depth=0, parents=len(reports)))


def _add(node: _Node, item: pydicom.Dataset) -> None:
    """Merge what stands below `item` into `node`."""
    node.visits += 1
    node.values |= dict.fromkeys(_values(item))
    here: Counter[tuple[str, ...]] = Counter()
    for child in item.get("ContentSequence", []):
        key: tuple[str, ...] = (
            child.RelationshipType,
            child.ValueType,
            _concept(child),
            _template(child),
            _group(child),
        )
        here[key] += 1
        if key not in node.children:
            node.children[key] = _Node(
                relationship=key[0],
                value_type=key[1],
                concept=key[2] + (f": {key[4]}" if key[4] else ""),
                template=key[3],
            )
        _add(node.children[key], child)
    for key, count in here.items():
        node.children[key].counts.append(count)


def _lines(node: _Node, *, depth: int, parents: int) -> Iterator[TreeLine]:
    least = min(node.counts) if len(node.counts) == parents else 0
    most = max(node.counts)
    yield TreeLine(
        depth=depth,
        relationship=node.relationship,
        value_type=node.value_type,
        concept=node.concept,
        template=node.template,
        values=tuple(node.values) if len(node.values) <= _MOST_VALUES else ("see A.E",),
        count=f"{least}" if least == most else f"{least}-{most}",
    )
    for child in node.children.values():
        yield from _lines(child, depth=depth + 1, parents=node.visits)


def _concept(item: pydicom.Dataset) -> str:
    codes = item.get("ConceptNameCodeSequence")
    return code_text(codes[0]) if codes else ""


def _template(item: pydicom.Dataset) -> str:
    templates = item.get("ContentTemplateSequence")
    return f"TID {templates[0].TemplateIdentifier}" if templates else ""


def _group(item: pydicom.Dataset) -> str:
    """What a measurement group is about: its tracking identifier, the same for both ears."""
    if not _concept(item).startswith(f"({MEASUREMENT_GROUP},"):
        return ""
    tracked = (one.TextValue for one in item.ContentSequence if _concept(one).startswith(f"({TRACKING_IDENTIFIER},"))
    name = re.sub("^(Right|Left) ", "", str(next(tracked, "")))
    return name[:1].upper() + name[1:]


def _values(item: pydicom.Dataset) -> Iterable[str]:
    """What an item may hold, as far as it is not free: codes, units, shapes, kinds of referenced objects."""
    if item.ValueType == "CODE":
        return [code_text(item.ConceptCodeSequence[0])]
    if item.ValueType == "NUM":
        return [code_text(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])]
    if item.ValueType in ("SCOORD", "SCOORD3D"):
        return [str(item.GraphicType)]
    if item.ValueType in ("IMAGE", "COMPOSITE"):
        return [item.ReferencedSOPSequence[0].ReferencedSOPClassUID.name]
    return []
