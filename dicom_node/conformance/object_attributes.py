"""What an object of ours holds, read off the objects: every attribute, when it is there and where its value comes from.

Nothing is declared here by hand. Examples that differ in one respect (`example_objects`) are compared attribute by
attribute; so a new attribute in an encoder appears on the page, and one that moved shows where it moved.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag, Tag

from dicom_node.conformance.example_objects import Change, ExampleObject, Family
from dicom_node.conformance.occurrences import SEVERAL, Occurrence, occurrences

OWN_UIDS: Final = frozenset({("SOPInstanceUID",), ("SeriesInstanceUID",)})
"""Every object has its own; all other UIDs may name something of the source."""

MOVED: Final = "moved"
"""Stands for a value that cannot be compared with that of the base, because the places do not correspond."""


class Source(StrEnum):
    """Where a value comes from."""

    FIXED = "FIXED"
    COPY = "COPY"
    CONFIG = "CONFIG"
    AUTO = "AUTO"

    @property
    def meaning(self) -> str:
        """The word in a sentence."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    Source.FIXED: "the same in every object of every installation",
    Source.COPY: "copied from the source images, text rewritten in UTF-8",
    Source.CONFIG: "chosen by the site, section 6",
    Source.AUTO: "made by the node from images, findings, model or time",
}


class Presence(StrEnum):
    """When an attribute is there, and whether it then has a value."""

    ALWAYS = "ALWAYS"
    EMPTY = "EMPTY"
    VNAP = "VNAP"
    ANAP = "ANAP"
    ANAPCV = "ANAPCV"

    @property
    def meaning(self) -> str:
        """The word in a sentence."""
        return _PRESENCES[self]


_PRESENCES: Final = {
    Presence.ALWAYS: "always there, always with a value",
    Presence.EMPTY: "always there, never with a value",
    Presence.VNAP: "always there, the value not always",
    Presence.ANAP: "not always there, then with a value",
    Presence.ANAPCV: "not always there, the value neither",
}


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One line of an annex. `path` holds the keywords from the top of the data set down to the attribute.

    `sources` are more than one where the items of a sequence differ; `values` are the fixed ones.
    """

    path: tuple[str, ...]
    vr: str
    presence: Presence
    sources: tuple[Source, ...]
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of PS3.6, with one ">" for each sequence around it."""
        return f"{'>' * (len(self.path) - 1)}{dictionary_description(_tag(self.path[-1]))}"

    @property
    def tag(self) -> str:
        """(gggg,eeee)."""
        return f"({_tag(self.path[-1]).group:04X},{_tag(self.path[-1]).element:04X})"


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module of an annex: its information entity, its usage in the standard (M, C, U), and what of it we write."""

    name: str
    entity: str
    usage: str
    attributes: tuple[Attribute, ...]


def modules_of(families: Sequence[Family]) -> tuple[Module, ...]:
    """The annex of one kind of object: modules in the order of the standard, attributes in the order of their tags."""
    seen = [[tuple(occurrences(one.dataset)) for one in family] for family in families]
    paths = sorted(
        {one.path for family in seen for lines in family for one in lines},
        key=lambda path: [_tag(word) for word in path],
    )
    sop_class_uid = str(families[0][0].dataset.SOPClassUID)
    by_module: dict[str, list[Attribute]] = {}
    for path in paths:
        by_module.setdefault(_module_of(path[0], sop_class_uid), []).append(_attribute(path, families, seen))
    return tuple(
        Module(
            name=_title(module["key"]),
            entity=module["ie"],
            usage=module["usage"],
            attributes=tuple(by_module[module["key"]]),
        )
        for module in _modules(sop_class_uid)
        if module["key"] in by_module
    )


Seen = Sequence[Sequence[Sequence[Occurrence]]]
"""What stands in every object of every family."""


def _attribute(path: tuple[str, ...], families: Sequence[Family], seen: Seen) -> Attribute:
    sources: set[Source] = set()
    fixed: list[str] = []
    for family, lines in zip(families, seen, strict=True):
        values = [[one.value for one in own if one.path == path] for own in lines]
        by_value = _by_value(path, family, values)
        sources |= {source for _, source in by_value}
        fixed += [value for value, source in by_value if source is Source.FIXED and value]
    if SEVERAL in fixed:
        sources, fixed = set(), []
    return Attribute(
        path=path,
        vr=next(one.vr for family in seen for lines in family for one in lines if one.path == path),
        presence=_presence(path, [lines for family in seen for lines in family]),
        sources=tuple(one for one in Source if one in sources),
        values=tuple(dict.fromkeys(fixed)),
    )


def _by_value(
    path: tuple[str, ...], family: Family, values: Sequence[Sequence[str]]
) -> list[tuple[str | None, Source]]:
    """Every value of the base (or None, where it stands in other examples only) and where it comes from."""
    found: list[tuple[str | None, Source]] = []
    for place in range(len(values[0]) or max(len(one) for one in values)):
        comparable = [_at(place, one, expected=len(values[0])) for one in values]
        source = _source(path, [pair for pair in zip(family, comparable, strict=True) if pair[1] is not MOVED])
        found.append((values[0][place] if values[0] else None, source))
    if {source for _, source in found} == {Source.FIXED}:
        return [(value, _followed(value, path, family, values) or source) for value, source in found]
    return found


def _followed(
    value: str | None, path: tuple[str, ...], family: Family, values: Sequence[Sequence[str]]
) -> Source | None:
    """Where a value comes from whose places cannot be compared, because their number changes with the cause.

    Other findings bring other values: the numbering of frames, for one. Another source brings others in place of it.
    """
    base = set(values[0])
    for one, found in zip(family, values, strict=True):
        if one.example.change is Change.FINDINGS and set(found) != base:
            return Source.AUTO
        instead = set(found) - base
        if one.example.change is Change.SOURCE and instead and value not in found:
            return Source.COPY if instead <= _said_by_source(path, one) else Source.AUTO
    return None


def _at(place: int, values: Sequence[str], *, expected: int) -> str | None:
    """The value in one place, None where there is none; MOVED where there are more or fewer items than in the base."""
    if not values:
        return None
    return values[place] if expected == len(values) or (not expected and place < len(values)) else MOVED


def _presence(path: tuple[str, ...], seen: Sequence[Sequence[Occurrence]]) -> Presence:
    """How often the attribute is there among the places (objects, sequence items) where it could be."""
    places = {(n, one.item) for n, lines in enumerate(seen) for one in lines if one.path[:-1] == path[:-1]}
    filled = [bool(one.value) for lines in seen for one in lines if one.path == path]
    if len(path) == 1:
        places = {(n, ()) for n in range(len(seen))}
    if len(filled) < len(places):
        return Presence.ANAP if all(filled) else Presence.ANAPCV
    if all(filled):
        return Presence.ALWAYS
    return Presence.VNAP if any(filled) else Presence.EMPTY


Compared = Sequence[tuple[ExampleObject, str | None]]
"""What stands in one place of each example; the base first."""


def _source(path: tuple[str, ...], compared: Compared) -> Source:
    """Where the value in one place comes from."""
    base = compared[0][1]
    changes = {one.example.change for one, value in compared if value != base}
    if Change.SOURCE in changes and _copied(path, compared):
        return Source.COPY
    if changes & {Change.SOURCE, Change.MOMENT, Change.FINDINGS} or (base is None and Change.EXTENT in changes):
        return Source.AUTO
    return Source.CONFIG if Change.CONFIGURATION in changes else Source.FIXED


def _copied(path: tuple[str, ...], compared: Compared) -> bool:
    """True if the value follows the source: never another one than the source has, and seen to change with it."""
    base = compared[0][1]
    follows = False
    for one, value in compared:
        in_source = _said_by_source(path, one)
        if in_source and (value or "") not in in_source:
            return False
        follows |= bool(value) and value in in_source and value != base
        follows |= not value and not in_source and bool(base)
    return follows


def _said_by_source(path: tuple[str, ...], one: ExampleObject) -> Set[str]:
    """What the source images say under the same keyword; for the UID of something else, any UID of theirs."""
    if dictionary_VR(_tag(path[-1])) == "UI" and path not in OWN_UIDS:
        return one.said_by_source["UI"]
    return one.said_by_source.get(path[-1], frozenset())


def _modules(sop_class_uid: str) -> list[dict[str, str]]:
    modules: list[dict[str, str]] = get_iod_module_map()[get_sop_class_iod_map()[sop_class_uid]]
    return modules


def _module_of(keyword: str, sop_class_uid: str) -> str:
    """The module of the object's IOD that brings a top-level attribute; a mandatory one rather than another.

    Raises
    ------
    LookupError
        If no module has it: then an encoder writes what the IOD does not know.
    """
    attributes = get_module_attribute_map()
    bringing = [
        module
        for module in _modules(sop_class_uid)
        if any(one["keyword"] == keyword and not one["path"] for one in attributes[module["key"]])
    ]
    if not bringing:
        raise LookupError(f"{keyword} belongs to no module of SOP class {sop_class_uid}")
    return next((one for one in bringing if one["usage"] == "M"), bringing[0])["key"]


def _title(key: str) -> str:
    """Name of a module as PS3.3 writes it."""
    words = {"sr": "SR", "sop": "SOP", "sc": "SC", "of": "of", "icc": "ICC"}
    return " ".join(words.get(word, word.capitalize()) for word in key.split("-"))


def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"{keyword} is no attribute of the dictionary")
    return Tag(tag)
