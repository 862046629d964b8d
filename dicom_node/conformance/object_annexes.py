"""Annexes A.A (objects), A.B (content of reports) and A.E (codes) of the statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_node.conformance.example_objects import Family
from dicom_node.conformance.negotiation import created_objects
from dicom_node.conformance.object_attributes import Attribute, Module, Presence, Source, modules_of
from dicom_node.conformance.report_tree import TreeLine, tree_lines
from dicom_node.conformance.tables import paragraphs, table
from dicom_node.encoding import codes
from dicom_node.errors import Reason
from inference.findings import QualityCode

REPORT_TITLES: Final = ("A study that was computed", "A study that was not computed")

KIND_NOTES: Final = {
    "SEG": "One object for each computed study: up to four segments on the grid of the MR cisternography, total fluid "
    "space before endolymph. Of one fluid either ear may come first, as the slices that each fills demand, so one and "
    "the same Segment Number may be another segment in another study: find segments by label, codes or Tracking UID. "
    "Frames without a voxel are left out; an ear without a number has no segment.",
    "SR": "One document for each study: the measurements of a computed one, or the reasons of one that was not "
    "computed. Its content tree is in A.B.",
    "SC": "One summary for each study, made of pixels alone for receivers that show neither segmentations nor reports; "
    "of a study that was not computed it gives the reasons.",
    "PDF": "The same summary as a document.",
}
_LONGEST_LIST: Final = 5
"""More fixed values than this are told by their number: they are the numbering of items."""


def object_annex() -> str:
    """A.A: what every object holds."""
    legend = [("Source", one.value, one.meaning) for one in Source]
    legend += [("Presence", one.value, one.meaning) for one in Presence]
    return paragraphs(
        "## A.A Information Object Definitions",
        "Read off objects that the program made while this page was written. Attributes stand in the order of their "
        "tags within the module that brings them; `>` is a level of nesting. M, C and U are the usage of a module in "
        "PS3.3; only modules of which something is written are listed. There are no private attributes.",
        table(("Column", "Value", "Meaning"), legend),
        *(_object(number, kind) for number, kind in enumerate(created_objects(), start=1)),
    )


def _object(number: int, kind: str) -> str:
    families = created_objects()[kind]
    sop_class = UID(str(families[0][0].dataset.SOPClassUID))
    modules = modules_of(families)
    summary = table(
        ("Information entity", "Module", "Usage"), [(module.entity, module.name, module.usage) for module in modules]
    )
    return paragraphs(
        f"### A.A.{number} {sop_class.name.removesuffix(' Storage')} ({kind})",
        KIND_NOTES[kind],
        summary,
        *(_module(module) for module in modules),
    )


def _module(module: Module) -> str:
    columns = ("Attribute", "Tag", "VR", "Presence", "Source", "Value")
    return f"**{module.name}**\n\n" + table(columns, [_line(one) for one in module.attributes])


def _line(one: Attribute) -> tuple[str, ...]:
    return (one.name, one.tag, one.vr, one.presence.value, " / ".join(one.sources), _values(one))


def _values(one: Attribute) -> str:
    if len(one.values) > _LONGEST_LIST:
        return f"{len(one.values)} different"
    values = [f"{value} ({UID(value).name})" if one.vr == "UI" else value for value in one.values]
    return "; ".join(value for value in values if value != one.name.lstrip(">"))


def report_annex() -> str:
    """A.B: the content tree of each report."""
    columns = ("Level", "Relationship", "Value type", "Concept name", "Template", "How often", "Values")
    return paragraphs(
        "## A.B Structured Report content encoding",
        "Measurement groups carry their tracking identifier after the colon, without the side. Numbers are written "
        "with the digits that every other rendering of the result shows.",
        *(
            f"### A.B.{number} {title}\n\n" + table(columns, [_tree_row(line) for line in report_lines(family)])
            for number, (title, family) in enumerate(zip(REPORT_TITLES, created_objects()["SR"], strict=True), start=1)
        ),
    )


def report_lines(family: Family) -> tuple[TreeLine, ...]:
    """The tree of one kind of report."""
    return tree_lines([one.dataset for one in family])


def _tree_row(line: TreeLine) -> tuple[str, ...]:
    values = "; ".join(line.values)
    return (
        ">" * line.depth or "root",
        line.relationship,
        line.value_type,
        line.concept,
        line.template,
        line.count,
        values,
    )


def code_annex() -> str:
    """A.E: coding schemes and private codes."""
    schemes = [
        (
            str(one.CodingSchemeDesignator),
            str(one.get("CodingSchemeUID", "")),
            str(one.CodingSchemeName),
            str(one.get("CodingSchemeResponsibleOrganization", "")),
        )
        for one in codes.coding_schemes()
    ]
    private = sorted({(one.value, one.meaning) for one in private_codes()})
    return paragraphs(
        "## A.E Code set usage",
        "DCM, SCT, LN, UCUM, RADLEX and RFC5646 as PS3.16 section 8 defines them, and these two, which every object "
        "identifies in its Coding Scheme Identification Sequence:",
        table(("Designator", "UID", "Name", "Responsible"), schemes),
        f"### A.E.1 Private codes ({codes.PRIVATE_SCHEME}, version 1)",
        "(113288, DCM, Volume Ratio) is not used on purpose: it is a diffusion index.",
        table(("Code", "Meaning"), private),
        "Under REASON and QFLAG stand these, whose sentences for people are in "
        "[Reading the result](reading-the-result.md#not-computed-and-every-reason):",
        table(("Code", "Meaning"), sorted({(one.value, one.meaning) for one in reason_codes()})),
    )


def private_codes() -> Iterator[Code]:
    """Every code of our own that stands in `encoding.codes`."""
    for value in vars(codes).values():
        for code in value.values() if isinstance(value, dict) else [value]:
            if isinstance(code, Code) and code.scheme_designator == codes.PRIVATE_SCHEME:
                yield code


def reason_codes() -> Sequence[Code]:
    """Every reason and every quality remark as a code."""
    return [codes.reason_code(one) for one in (*Reason, *QualityCode)]
