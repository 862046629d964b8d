"""The conformance pages are those of this program, and say what the program's tables and objects say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from mr_sources import ENCODED_AT
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.uid import UID
from result_objects import OPTIONS, make_results

from dicom_node.cli import main
from dicom_node.conformance.commitment import REASON_BEHAVIOR
from dicom_node.conformance.ihe_air import air_sheet, capabilities
from dicom_node.conformance.negotiation import created_objects
from dicom_node.conformance.object_annexes import private_codes, reason_codes, report_lines
from dicom_node.conformance.object_attributes import Module, Presence, Source, modules_of
from dicom_node.conformance.occurrences import occurrences
from dicom_node.conformance.parameters import GENERAL, LISTENER, SENDER, default_of
from dicom_node.conformance.report_tree import TreeLine, tree_lines
from dicom_node.conformance.statement import statement
from dicom_node.conformance.status_codes import BEHAVIOR, CONDITIONS
from dicom_node.delivery import peer_answers
from dicom_node.delivery.capabilities import FORMS
from dicom_node.delivery.commitment_answers import FAILURE_REASONS, REQUEST_STATUSES, AfterFailure
from dicom_node.encoding.part10 import part10_bytes, read_part10
from dicom_node.encoding.summary_objects import SummarySource, build_summary_document, build_summary_image
from dicom_node.intake import wire_status
from dicom_node.settings import AllowedCaller, DestinationSettings, ListenerSettings, NodeSettings
from dicom_node.settings.effects import Effect, effect_of

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """A part of the page, from its heading to the next of the same or a higher level."""
    heading = re.search(rf"^(#+) {re.escape(title)}.*$", PAGE, re.MULTILINE)
    assert heading, title
    rest = PAGE[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_pages_are_those_that_this_program_writes() -> None:
    assert statement() == PAGE
    assert (ROOT / "docs" / "ihe-air.md").read_text(encoding="utf-8") == air_sheet()


def test_the_forms_that_receivers_are_asked_about_are_those_of_the_objects_that_we_make() -> None:
    made = {
        (kind, str(one.dataset.SOPClassUID), str(one.dataset.file_meta.TransferSyntaxUID))
        for kind, families in created_objects().items()
        for family in families
        for one in family
    }
    assert {(form.kind, *form.context) for form in FORMS} == made


def test_the_command_writes_the_pages_and_sees_a_page_that_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", "--write", str(tmp_path)]) == 0
    assert (tmp_path / "conformance.md").read_text(encoding="utf-8") == PAGE
    assert main(["conformance", "--check", str(tmp_path)]) == 0
    (tmp_path / "ihe-air.md").write_text("edited by hand", encoding="utf-8")
    assert main(["conformance", "--check", str(tmp_path)]) == 1
    assert "ihe-air.md: not the page of this program" in capsys.readouterr().out
    assert main(["conformance", "--check", str(tmp_path / "none")]) == 2


def test_sections_stand_in_the_order_of_annex_n() -> None:
    numbers = re.findall(r"^## (\S+) ", PAGE, re.MULTILINE)
    assert numbers == ["1", "2", "3", "4", "5", "6", "7", "8", "A.A", "A.B", "A.C", "A.D", "A.E"]


def test_statuses_are_listed_with_what_the_sender_makes_of_them() -> None:
    behavior = {words: kind for kind, words in BEHAVIOR.items()}
    listed = {}
    for cells in rows(section("7.3.2.5.1 SCU: C-STORE"))[2:]:
        if len(cells) == 4 and re.match("[0-9A-F]{4}", cells[2]):
            first, _, last = cells[2].partition("-")
            listed[int(first, 16), int(last or first, 16)] = behavior[cells[3]]
    assert listed == {(one.first, one.last): one.kind for one in peer_answers.C_STORE_STATUSES}


def test_every_status_that_the_listener_can_answer_is_listed_with_its_condition() -> None:
    listed = {(cells[2], cells[3].strip("`")): cells[4] for cells in rows(section("7.3.2.5.2 SCP: C-STORE"))[2:]}
    for one in wire_status.WireReason:
        assert listed[f"{one.status:04X}", one.value] == CONDITIONS[one]
    assert ("A700", "OUT_OF_RESOURCES") in listed
    assert len(listed) == len(wire_status.WireReason) + 2


def test_p19_what_is_said_in_a_storage_commitment_is_listed_with_what_becomes_of_it() -> None:
    reasons = {cells[1]: cells[3] for cells in rows(section("7.3.2.6.2 SCU: Failure Reason (0008,1197)"))[2:]}
    assert reasons.pop("every other") == REASON_BEHAVIOR[AfterFailure.STOP]
    assert reasons == {f"{one.reason:04X}": REASON_BEHAVIOR[one.then] for one in FAILURE_REASONS}
    requests = {cells[2] for cells in rows(section("7.3.2.6.1 SCU: statuses of the N-ACTION"))[2:] if len(cells) == 4}
    assert requests == {"every other", *(f"{one.first:04X}" for one in REQUEST_STATUSES)}
    reports = {cells[2] for cells in rows(section("7.3.2.6.3 SCU: statuses that the N-EVENT-REPORT"))[2:]}
    assert reports == {"0000", "0110", "0113", "0114", "0115", "0213"}


def test_every_dicom_setting_is_listed_with_its_default() -> None:
    listed = {*GENERAL, *LISTENER, *SENDER}
    for prefix, kind in (
        ("listener", ListenerSettings),
        ("listener.allowed[]", AllowedCaller),
        ("destinations[]", DestinationSettings),
    ):
        keys = {f"{prefix}.{name}" for name in kind.__dataclass_fields__}
        not_of_dicom = {"destinations[].url", "destinations[].username"}
        assert keys - not_of_dicom <= listed
    assert f'| `node.ae_title` | `"{NodeSettings().ae_title}"` |' in PAGE
    assert default_of("listener.allowed[].networks") == '`["127.0.0.1/32"]`'
    assert default_of("destinations[].name") == "required"
    assert effect_of("listener.allowed") is Effect.AT_ONCE


def test_private_codes_and_reasons_are_listed() -> None:
    annex = section("A.E Code set usage")
    for code in (*private_codes(), *reason_codes()):
        assert f"| {code.value} | {code.meaning} |" in annex


def test_every_capability_of_the_air_sheet_was_found_in_our_objects() -> None:
    assert [one.subject for one in capabilities() if not one.holds()] == []


# --- The annexes against objects of another study than the examples ---------------------------------------------------


def objects(kind: str) -> tuple[pydicom.Dataset, tuple[pydicom.Dataset, ...]]:
    """One object of each kind from the encoders' own test study, and the headers of its source."""
    results = make_results()
    sources = (*results.source, *results.contrast)
    summary = SummarySource(
        header=results.source[0],
        instances=sources,
        key=results.key,
        options=OPTIONS,
        model=results.findings.model,
        encoded_at=ENCODED_AT,
    )
    made = {
        "SEG": lambda: results.seg,
        "SR": lambda: results.report,
        "SC": lambda: build_summary_image(np.zeros((1024, 1024, 3), dtype=np.uint8), summary),
        "PDF": lambda: build_summary_document(b"%PDF-1.4 another", summary),
    }
    return read_part10(part10_bytes(made[kind]())), sources


@pytest.mark.parametrize("kind", ["SEG", "SR", "SC", "PDF"])
def test_an_object_holds_what_its_annex_lists_and_nothing_else(kind: str) -> None:
    dataset, _ = objects(kind)
    held = {one.path for one in occurrences(dataset)}
    listed = {one.path: one.presence for module in annex(kind) for one in module.attributes}
    assert held <= set(listed)
    missing = {
        path
        for path, presence in listed.items()
        if path not in held and presence is Presence.ALWAYS and (len(path) == 1 or path[:-1] in held)
    }
    assert missing == set()


@pytest.mark.parametrize("kind", ["SEG", "SR", "SC", "PDF"])
def test_values_come_from_where_the_annex_says(kind: str) -> None:
    dataset, source = objects(kind)
    said = {(line.path[-1], line.value) for header in source for line in occurrences(header)}
    uids = {line.value for header in source for line in occurrences(header) if line.vr == "UI"}
    by_path = {one.path: one for module in annex(kind) for one in module.attributes}
    looked_at = 0
    for line in occurrences(dataset):
        attribute = by_path[line.path]
        if attribute.sources == (Source.FIXED,) and attribute.values:
            assert line.value in attribute.values or line.value == "", line
            looked_at += 1
        if attribute.sources == (Source.COPY,) and line.value and not lossiness(line.path[-1]):
            assert (line.path[-1], line.value) in said or line.value in uids, line
            looked_at += 1
    assert looked_at > 25


def lossiness(keyword: str) -> bool:
    """ "00" is written where the source says nothing."""
    return keyword == "LossyImageCompression"


def annex(kind: str) -> tuple[Module, ...]:
    return modules_of(created_objects()[kind])


@pytest.mark.parametrize("kind", ["SEG", "SR", "SC", "PDF"])
def test_every_attribute_of_the_annex_stands_on_the_page(kind: str) -> None:
    uid = UID(str(created_objects()[kind][0][0].dataset.SOPClassUID))
    text = section(f"A.A.{list(created_objects()).index(kind) + 1} {uid.name.removesuffix(' Storage')} ({kind})")
    for module in annex(kind):
        assert f"**{module.name}**" in text
        for one in module.attributes:
            assert f"| {one.name} | {one.tag} | {one.vr} | {one.presence} |" in text
            assert one.vr == dictionary_VR(one.path[-1]) or "or" in dictionary_VR(one.path[-1])
            assert keyword_for_tag(one.tag.strip("()").replace(",", "")) == one.path[-1]


def test_the_content_tree_holds_every_item_of_a_report() -> None:
    report, _ = objects("SR")
    listed = {(one.depth, one.relationship, one.value_type, one.concept, one.template) for one in listed_lines()}
    held = {(one.depth, one.relationship, one.value_type, one.concept, one.template) for one in tree_lines([report])}
    assert held <= listed
    assert len(held) > 20


def listed_lines() -> tuple[TreeLine, ...]:
    return tuple(line for family in created_objects()["SR"] for line in report_lines(family))
