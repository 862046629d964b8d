"""`hydrops-node audit`: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.audit import AuditAction, AuditOutcome, AuditTrail
from dicom_node.cli import main


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text("", encoding="utf-8")
    (tmp_path / "state").mkdir()
    return path


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    written = AuditTrail(tmp_path / "state" / "audit")
    written.record(AuditAction.STUDY_RETRY, actor="anna", study_instance_uid="2.25.1", address="10.1.2.3")
    written.record(
        AuditAction.STUDY_CANCEL,
        actor="\x1b[2Jotto",
        study_instance_uid="2.25.2",
        detail="it is computed",
        outcome=AuditOutcome.MINOR_FAILURE,
    )
    return written


def test_a_whole_trail_is_said_to_be_whole(config: Path, trail: AuditTrail, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "2 entries, all there and unchanged\n"


def test_a_changed_entry_is_named_and_the_exit_status_tells(
    config: Path, trail: AuditTrail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (tmp_path / "state" / "audit").glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"anna", b"otto"))
    assert main(["audit", "verify", "--config", str(config)]) == 1
    assert f"{path.name}, line 1: entry 1 was changed after it was written" in capsys.readouterr().out


def test_entries_are_shown_with_who_what_and_how_it_ended(
    config: Path, trail: AuditTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "show", "--config", str(config)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("  ")[-3:] == ["study_retry", "by anna from 10.1.2.3", "2.25.1"]
    assert "failed  study_cancel  by ?[2Jotto  2.25.2  it is computed" in second


def test_a_delivery_is_shown_with_where_it_went(
    config: Path, trail: AuditTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    trail.record(
        AuditAction.RESULTS_SENT, actor="HYDROPS", peer="pacs", study_instance_uid="2.25.3", detail="SR 2.25.9"
    )
    assert main(["audit", "show", "--study", "2.25.3", "--config", str(config)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("results_sent  by HYDROPS  to pacs  2.25.3  SR 2.25.9")


def test_looking_at_the_trail_is_itself_an_entry(
    config: Path, trail: AuditTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "show", "--study", "2.25.1", "--json", "--config", str(config)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["EventIdentification"]["EventTypeCode"]["csd-code"] == "study_retry"
    assert [entry.action for entry in trail.entries()][2:] == [AuditAction.AUDIT_READ]


def test_a_node_that_never_ran_has_no_trail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "node.toml"
    path.write_text("", encoding="utf-8")
    assert main(["audit", "verify", "--config", str(path)]) == 2
    assert "no state here yet" in capsys.readouterr().err
