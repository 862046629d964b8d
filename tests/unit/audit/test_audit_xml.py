"""Entries as XML: valid by the structure of PS3.15 A.5.1, whatever stands in them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from lxml import etree

from dicom_node.audit import AuditAction, AuditEntry, AuditEvent, AuditOutcome
from dicom_node.audit.audit_repository import framed, syslog_message
from dicom_node.audit.audit_xml import written_as_xml

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[2] / "support" / "audit_message.rng"))
HOSTILE = 'x"/><AuditMessage>&amp;<!ENTITY\n\r\t\x00\x1b]]>\ud800\uffff\U0001f600'
FRAME = re.compile(rb"(\d+) (<(\d+)>1 (\S+) (\S+) (\S+) (\S+) (\S+) (\[.*?\]) \xef\xbb\xbf(<\?xml.*))", re.DOTALL)


def event(action: AuditAction, **changes: object) -> AuditEvent:
    values: dict[str, object] = {"action": action, "actor": "anna", "at": 1772366400.5, **changes}
    return AuditEvent(**values)  # type: ignore[arg-type]


def entry(one: AuditEvent, sequence: int = 7) -> AuditEntry:
    message = one.message(source="NODE", process_id=4711)
    return AuditEntry(sequence=sequence, previous="0" * 64, action=one.action, message=message, sha256="1" * 64)


def document(one: AuditEvent) -> etree._Element:
    root = etree.fromstring(written_as_xml(entry(one).message))
    SCHEMA.assertValid(root)
    return root


@pytest.mark.parametrize("action", list(AuditAction), ids=lambda one: one.value)
@pytest.mark.parametrize("full", [False, True], ids=["bare", "full"])
def test_s24_every_kind_of_entry_is_valid_by_the_schema(action: AuditAction, full: bool) -> None:
    texts = {"study_instance_uid": "2.25.1", "patient_id": "P1", "address": "10.1.2.3", "peer": "PACS", "detail": "why"}
    texts |= {"query": "studies?StudyDate=20260301-"}
    root = document(event(action, **(texts if full else {})))
    assert len(root.findall("ActiveParticipant")) == (3 if full else 2)
    assert (root.find("EventIdentification/EventOutcomeDescription") is not None) == full


def test_s24_the_schema_refuses_what_the_standard_does_not_know() -> None:
    good = written_as_xml(entry(event(AuditAction.LOGIN)).message)
    for taken, put in ((b'csd-code="110114"', b'code="110114"'), (b'UserIsRequestor="true"', b'UserIsRequestor="yes"')):
        assert taken in good
        assert not SCHEMA.validate(etree.fromstring(good.replace(taken, put)))


def test_s24_hostile_texts_stay_text() -> None:
    root = document(event(AuditAction.CALLER_REJECTED, actor=HOSTILE, detail=HOSTILE, address="10.1.2.3"))
    asker = root.find("ActiveParticipant")
    assert asker is not None
    assert asker.get("UserID", "").startswith('x"/><AuditMessage>&amp;<!ENTITY\n\r\t\ufffd\ufffd]]>\ufffd')
    assert len(root.findall("ActiveParticipant")) == 2
    assert root.findtext("EventIdentification/EventOutcomeDescription", "").endswith("\U0001f600")


@pytest.mark.parametrize(
    ("outcome", "priority"),
    [
        (AuditOutcome.SUCCESS, b"85"),
        (AuditOutcome.MINOR_FAILURE, b"84"),
        (AuditOutcome.SERIOUS_FAILURE, b"83"),
        (AuditOutcome.MAJOR_FAILURE, b"82"),
    ],
)
def test_s24_the_header_is_that_of_rfc_5424_and_the_frame_counts_octets(outcome: AuditOutcome, priority: bytes) -> None:
    message = syslog_message(entry(event(AuditAction.LOGIN, actor="Åse", outcome=outcome)), host_name="node-1")
    found = FRAME.fullmatch(framed(message))
    assert found is not None
    assert int(found[1]) == len(found[2])
    assert found[3] == priority
    assert datetime.fromisoformat(found[4].decode()).timestamp() == 1772366400.5
    assert found.group(5, 6, 7, 8) == (b"node-1", b"hydrops-node", b"4711", b"DICOM+RFC3881")
    assert found[9] == b'[meta sequenceId="7"]'
    SCHEMA.assertValid(etree.fromstring(found[10]))
