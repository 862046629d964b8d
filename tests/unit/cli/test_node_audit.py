"""What the node writes into the audit trail about itself, its callers and its deliveries."""

from __future__ import annotations

from pathlib import Path

import pytest
from queued_results import put

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.cli.delivering import delivery_auditor
from dicom_node.cli.node_audit import SAME_CALLER_S, RejectionAuditor, audited_run
from dicom_node.cli.os_user import os_user
from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox, OutboxObject
from dicom_node.intake.admission import RejectedCaller
from dicom_node.study_cards import StudyCards

STRANGER = RejectedCaller(calling_ae="STRANGER", address="10.9.9.9", words="not in listener.allowed")


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    return AuditTrail(tmp_path / "audit")


def test_start_and_end_are_written_also_when_it_ends_by_an_error(trail: AuditTrail) -> None:
    with pytest.raises(RuntimeError, match="down"), audited_run(trail, "receiving"):
        raise RuntimeError("down")
    entries = list(trail.entries())
    assert [entry.action for entry in entries] == [AuditAction.NODE_STARTED, AuditAction.NODE_STOPPED]
    assert {entry.message["ActiveParticipant"][0]["UserID"] for entry in entries} == {os_user()}


def test_a_caller_that_knocks_again_and_again_is_one_entry_a_minute(trail: AuditTrail) -> None:
    now = [0.0]
    tell = RejectionAuditor(trail, monotonic=lambda: now[0])
    for _ in range(50):
        tell(STRANGER)
    tell(RejectedCaller(calling_ae="STRANGER", address="10.9.9.8", words=STRANGER.words))
    now[0] = SAME_CALLER_S
    tell(STRANGER)
    entries = list(trail.entries())
    assert [entry.message["ActiveParticipant"][0]["NetworkAccessPointID"] for entry in entries] == [
        "10.9.9.9",
        "10.9.9.8",
        "10.9.9.9",
    ]


def test_callers_that_change_their_title_each_time_cannot_fill_the_trail(trail: AuditTrail) -> None:
    now = [0.0]
    tell = RejectionAuditor(trail, monotonic=lambda: now[0], max_callers=10)
    for number in range(50):
        tell(RejectedCaller(calling_ae=f"X{number}", address="10.9.9.9", words="no"))
    assert sum(1 for _ in trail.entries()) == 10
    now[0] = SAME_CALLER_S
    tell(STRANGER)
    assert sum(1 for _ in trail.entries()) == 11


def test_a_disk_that_does_not_take_the_entry_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit").write_text("a file where the folder should be")
    trail = AuditTrail(tmp_path / "audit")
    RejectionAuditor(trail)(STRANGER)
    with audited_run(trail, "receiving"):
        pass
    assert caplog.text.count("event=audit_failed") == 3


def test_a_delivery_is_an_entry_that_names_destination_and_object(tmp_path: Path, trail: AuditTrail) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    outbox = Outbox(tmp_path / "outbox", engine)
    report = OutboxObject(
        kind="SR", sop_class_uid="1.2", sop_instance_uid="2.25.5", series_instance_uid="2.25.6", data=b"x"
    )
    put(outbox, "key", "2.25.1", [report], ["pacs"], at=0.0)
    delivery_auditor(trail, StudyCards(engine), "HYDROPS")(outbox.deliveries("2.25.1")[0])
    (entry,) = trail.entries()
    assert entry.action is AuditAction.RESULTS_SENT
    assert [one["UserID"] for one in entry.message["ActiveParticipant"]][::2] == ["HYDROPS", "pacs"]
    assert entry.message["EventIdentification"]["EventOutcomeDescription"] == "SR 2.25.5"
