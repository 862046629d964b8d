"""What the node does of the IHE Radiology profile "AI Results" (AIR), looked up in objects that it makes.

The profile's primitives are known from its public overview and from the Connectathon's test descriptions; the text of
the supplement itself was not at hand, and the sheet says so. So it lists what is there, and claims no conformance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pydicom

from dicom_node import __version__
from dicom_node.conformance.negotiation import created_objects
from dicom_node.conformance.report_tree import MEASUREMENT_GROUP, TRACKING_IDENTIFIER
from dicom_node.conformance.tables import paragraphs, table
from dicom_node.encoding.codes import NODE_MODEL_NAME

TRACKING_UID: Final = "112040"
ALGORITHM_NAME: Final = "111001"
QUALITATIVE: Final = ("STATUS", "EARSTATUS", "111101")


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One thing the profile is about, how we say it, and the look at our objects that tells whether we do."""

    subject: str
    ours: str
    holds: Callable[[], bool]


def capabilities() -> tuple[Capability, ...]:
    """Every primitive and rule of the profile that can be looked up in an object."""
    return (*_of_the_results(), *_of_regions(), *_of_provenance())


def _of_the_results() -> tuple[Capability, ...]:
    return (
        Capability(
            subject="Results as DICOM objects in the study that was analyzed",
            ours="Study Instance UID of the source in every object",
            holds=_in_the_study,
        ),
        Capability(
            subject="Report is the root of the results",
            ours="Comprehensive 3D SR, TID 1500, whose evidence names segmentation and source images",
            holds=_report_is_root,
        ),
        Capability(
            subject="Measurement",
            ours="NUM with UCUM unit and method (TID 300) in groups of TID 1411, 1410 and 1501",
            holds=lambda: all(_units(report) == {"UCUM"} for report in _computed()),
        ),
        Capability(
            subject="Qualitative finding",
            ours="CODE: status of the computation and of each ear, image quality (CID 7036), quality remarks, reasons",
            holds=lambda: all(any(_items(report, "CODE", name) for name in QUALITATIVE) for report in _computed()),
        ),
    )


def _of_regions() -> tuple[Capability, ...]:
    return (
        Capability(
            subject="Region: segment",
            ours="BINARY Segmentation, referenced by TID 1411 groups with its source series",
            holds=lambda: all(_items(report, "IMAGE", "121191") for report in _computed()),
        ),
        Capability(
            subject="Region: contour on an image",
            ours="SCOORD POLYLINE of the largest slice, TID 1410",
            holds=lambda: all(_items(report, "SCOORD", "111030") for report in _computed()),
        ),
        Capability(
            subject="Location",
            ours="Finding Site with laterality in every group about an ear",
            holds=lambda: all(_items(group, "CODE", "363698007") for group in _ear_groups()),
        ),
        Capability(
            subject="Tracking identifier",
            ours="Tracking Identifier and UID in every group; those of a fluid equal the segment's",
            holds=_tracked,
        ),
    )


def _of_provenance() -> tuple[Capability, ...]:
    return (
        Capability(
            subject="Algorithm named with every result",
            ours="Algorithm Identification (TID 4019) with version and weights' SHA-256 in every group about an ear",
            holds=lambda: all(_items(group, "TEXT", ALGORITHM_NAME) for group in _ear_groups()),
        ),
        Capability(
            subject="Equipment that contributed",
            ours="Contributing Equipment: scanner, this node with its model, encoding library",
            holds=lambda: all(_names_the_node(one) for one in _every_object()),
        ),
        Capability(
            subject="Observer",
            ours="Device Observer (TID 1004) with UID, name, manufacturer, model, serial number",
            holds=lambda: all(_items(report, "UIDREF", "121012") for report in _reports()),
        ),
        Capability(
            subject="Nobody has verified it yet",
            ours="Verification Flag UNVERIFIED, Preliminary Flag PRELIMINARY",
            holds=lambda: all(
                (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
                for report in _reports()
            ),
        ),
        Capability(
            subject="A study without a result says why",
            ours='Report "not computed" with coded reasons and sentences',
            holds=lambda: all(_items(report, "CODE", "REASON") for report in _not_computed()),
        ),
    )


GAPS: Final = (
    ("Supplement", "Its text was not at hand; constraints on single content items were not compared with it."),
    (
        "Storage Commitment [RAD-10]",
        'Asked for where the site says so (`done = "committed"`), tested with Orthanc; off by default.',
    ),
    (
        "Observer UID",
        "Device Observer UID names the installation and stays when the model changes; the model stands in "
        "Algorithm Identification and Contributing Equipment of every result.",
    ),
    ("Parametric map", "None is made: results are segments and numbers."),
    ("Consistent Time", "The node takes the system's time; synchronizing it (NTP) is the site's part."),
    ("Private codes", "The ratio and the total fluid space have no code in a public scheme; they are 99EHNODE."),
    ("Orders and workflow (AIW-I)", "No worklist (UPS-RS) is read; a study starts work by arriving."),
    ("Connectathon", "Never tested there. Validators run in the tests: dciodvfy and dcentvfy."),
)


def air_sheet() -> str:
    """The whole page; the same program gives the same page."""
    actors = [
        ("Evidence Creator", "yes, see below"),
        ("Image Manager/Archive", "no: results go to one"),
        ("Image Display", "no: OHIF, which the node serves, is another project's display"),
        ("Imaging Document Consumer", "no"),
    ]
    rows = [(one.subject, "yes" if one.holds() else "**no**", one.ours) for one in capabilities()]
    return (
        paragraphs(
            "# IHE AI Results (AIR): capability sheet",
            f"Hydrops Node {__version__}, written by `hydrops-node conformance`. This is what the node does of the "
            "profile, not a claim of conformance to it. **Research use only. Not for diagnostic use.**",
            "## Actors",
            table(("Actor of the profile", "This node"), actors),
            "Results are stored by C-STORE as in [RAD-43] and [RAD-18]; classes, transfer syntaxes and statuses are in "
            "the [DICOM conformance statement](conformance.md).",
            "## Content of results",
            "Each line was looked up in objects that the program made while this page was written.",
            table(("Subject", "Done", "How"), rows),
            "## What is missing or unknown",
            table(("Subject", "State"), GAPS),
        )
        + "\n"
    )


def _every_object() -> Iterator[pydicom.Dataset]:
    for families in created_objects().values():
        for family in families:
            yield from (one.dataset for one in family)


def _reports() -> list[pydicom.Dataset]:
    return [one.dataset for family in created_objects()["SR"] for one in family]


def _computed() -> list[pydicom.Dataset]:
    return [one.dataset for one in created_objects()["SR"][0]]


def _not_computed() -> list[pydicom.Dataset]:
    return [one.dataset for one in created_objects()["SR"][1]]


def _in_the_study() -> bool:
    return all(
        str(one.dataset.StudyInstanceUID) == one.example.study.patient["StudyInstanceUID"]
        for families in created_objects().values()
        for family in families
        for one in family
    )


def _report_is_root() -> bool:
    segmentations = {str(one.dataset.SOPInstanceUID) for family in created_objects()["SEG"] for one in family}
    return all(
        report.ContentTemplateSequence[0].TemplateIdentifier == "1500" and segmentations & set(_evidence(report))
        for report in _computed()
    )


def _evidence(report: pydicom.Dataset) -> Iterator[str]:
    for study in report.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            yield from (str(one.ReferencedSOPInstanceUID) for one in series.ReferencedSOPSequence)


def _items(dataset: pydicom.Dataset, value_type: str, concept: str = "") -> list[pydicom.Dataset]:
    """Content items of one value type and concept, depth first."""
    found = []
    for item in dataset.get("ContentSequence", []):
        if item.ValueType == value_type and concept in ("", item.ConceptNameCodeSequence[0].CodeValue):
            found.append(item)
        found += _items(item, value_type, concept)
    return found


def _groups() -> list[pydicom.Dataset]:
    return [group for report in _reports() for group in _items(report, "CONTAINER", MEASUREMENT_GROUP)]


def _ear_groups() -> list[pydicom.Dataset]:
    return [group for group in _groups() if not _items(group, "CODE", "STATUS")]


def _units(report: pydicom.Dataset) -> set[str]:
    return {
        str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodingSchemeDesignator)
        for item in _items(report, "NUM")
    }


def _tracked() -> bool:
    """Every group has both identifiers, and every segment's UID stands in a report."""
    both = all(
        _items(group, "TEXT", TRACKING_IDENTIFIER) and _items(group, "UIDREF", TRACKING_UID) for group in _groups()
    )
    reported = _uids(_reports())
    segments = {
        str(item.TrackingUID)
        for family in created_objects()["SEG"]
        for one in family
        for item in one.dataset.SegmentSequence
    }
    return both and segments <= reported


def _uids(reports: Iterable[pydicom.Dataset]) -> set[str]:
    items: Sequence[pydicom.Dataset] = [item for report in reports for item in _items(report, "UIDREF", TRACKING_UID)]
    return {str(item.UID) for item in items}


def _names_the_node(dataset: pydicom.Dataset) -> bool:
    return any(one.get("ManufacturerModelName") == NODE_MODEL_NAME for one in dataset.ContributingEquipmentSequence)
