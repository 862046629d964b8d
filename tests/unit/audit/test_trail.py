"""The audit trail on a real disk: what is in an entry, what survives a kill, and what a chain shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from patience import PATIENCE_S, STUDY_S

from dicom_node.audit import AuditAction, AuditEntry, AuditOutcome, AuditTrail
from dicom_node.audit import trail as trail_module

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
A_DAY_S = 86400.0
WRITER = """
import sys
from pathlib import Path
from dicom_node.audit import AuditAction, AuditTrail
trail = AuditTrail(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    trail.record(AuditAction.LOGIN, actor=sys.argv[3], detail=str(number))
"""


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trail(tmp_path: Path, clock: Clock) -> AuditTrail:
    return AuditTrail(tmp_path / "audit", source="NODE", clock=clock)


def write(trail: AuditTrail, count: int) -> None:
    for number in range(count):
        trail.record(AuditAction.STUDY_RETRY, actor="anna", study_instance_uid=f"2.25.{number}")


def day_file(folder: Path) -> Path:
    return folder / "audit" / "audit-2026-03-01.jsonl"


def test_an_entry_says_what_the_standard_wants_to_know(trail: AuditTrail) -> None:
    trail.record(
        AuditAction.STUDY_CANCEL,
        actor="anna",
        study_instance_uid="2.25.1",
        detail="a wrong study",
        outcome=AuditOutcome.MINOR_FAILURE,
        address="10.1.2.3",
    )
    (entry,) = trail.entries()
    event = entry.message["EventIdentification"]
    assert event["EventID"] == {"csd-code": "110111", "codeSystemName": "DCM", "originalText": "Procedure Record"}
    assert event["EventTypeCode"]["csd-code"] == "study_cancel"
    assert event["EventActionCode"] == "U"
    assert event["EventOutcomeIndicator"] == "4"
    assert event["EventOutcomeDescription"] == "a wrong study"
    assert event["EventDateTime"] == "2026-03-01T12:00:00.000+00:00"
    asker, node = entry.message["ActiveParticipant"]
    assert (asker["UserID"], asker["UserIsRequestor"], asker["NetworkAccessPointID"]) == ("anna", True, "10.1.2.3")
    assert (node["UserID"], node["AlternativeUserID"]) == (str(os.getpid()), "AETITLES=NODE")
    assert entry.message["AuditSourceIdentification"]["AuditSourceID"] == "NODE"
    (study,) = entry.message["ParticipantObjectIdentification"]
    assert study["ParticipantObjectIDTypeCode"]["csd-code"] == "110180"
    assert study["ParticipantObjectID"] == "2.25.1"


@pytest.mark.parametrize(
    ("action", "named"), [(AuditAction.RESULTS_SENT, True), (AuditAction.STUDY_RETRY, False)], ids=["sent", "retried"]
)
def test_the_patient_id_stands_only_where_the_table_of_the_event_wants_it(
    trail: AuditTrail, action: AuditAction, named: bool
) -> None:
    trail.record(action, actor="anna", study_instance_uid="2.25.1", patient_id="P-4711", peer="pacs")
    (entry,) = trail.entries()
    assert ("P-4711" in json.dumps(entry.message)) is named


def test_a_whole_trail_has_no_problems_and_a_trail_that_never_began_neither(trail: AuditTrail) -> None:
    assert trail.verify() == []
    write(trail, 5)
    assert [entry.sequence for entry in trail.entries()] == [1, 2, 3, 4, 5]
    assert trail.verify() == []


def test_hostile_texts_stay_one_line(trail: AuditTrail) -> None:
    trail.record(AuditAction.LOGIN, actor='x\n{"sequence": 2}\r\u2028', detail="\x1b[31m" + "\U0001f600" * 5000)
    write(trail, 1)
    assert trail.verify() == []
    assert len(list(trail.entries())) == 2


def changed(lines: list[bytes]) -> list[bytes]:
    lines[2] = lines[2].replace(b"anna", b"otto")
    return lines


def written_anew_in_another_form(lines: list[bytes]) -> list[bytes]:
    lines[2] = json.dumps(json.loads(lines[2])).encode() + b"\n"
    return lines


def cut_at_the_end(lines: list[bytes]) -> list[bytes]:
    lines[-1] = lines[-1][:40]
    return lines


DAMAGES: list[tuple[Callable[[list[bytes]], list[bytes]], str]] = [
    (changed, "line 3: entry 3 was changed"),
    (written_anew_in_another_form, "line 3: entry 3 was changed"),
    (lambda lines: lines[:2] + lines[3:], "line 3: entry 3 is missing before entry 4"),
    (lambda lines: lines[3:], "line 1: entries 1 to 3 are missing"),
    (lambda lines: lines[:-1], "head: the trail ends at entry 4, but entry 5"),
    (lambda lines: [], "head: the trail ends at entry 0, but entry 5"),
    (cut_at_the_end, "line 5: the line is cut"),
    (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "entry 2 stands after entry 3"),
    (lambda lines: [*lines, lines[0]], "line 6: entry 1 stands after entry 5"),
]


@pytest.mark.parametrize(("damage", "found"), DAMAGES)
def test_a_damaged_trail_says_where_and_what(
    trail: AuditTrail, tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]], found: str
) -> None:
    write(trail, 5)
    path = day_file(tmp_path)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    problems = [f"{one.where}: {one.sentence}" for one in trail.verify()]
    assert any(found in one for one in problems), problems


@pytest.mark.parametrize("damage", [cut_at_the_end, lambda lines: lines[:-1], lambda lines: []])
def test_a_trail_that_was_cut_goes_on_and_shows_it_for_ever(
    trail: AuditTrail, tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    write(trail, 5)
    path = day_file(tmp_path)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    write(trail, 2)
    assert trail.verify() != []
    entries = list(trail.entries())
    assert [one.action for one in entries].count(AuditAction.AUDIT_CHAIN_BROKEN) == 1
    assert entries[-1].sequence == 8


def test_a_lost_head_is_told_once_and_the_chain_goes_on(trail: AuditTrail, tmp_path: Path) -> None:
    write(trail, 3)
    (tmp_path / "audit" / "head").unlink()
    assert [one.where for one in trail.verify()] == ["head"]
    write(trail, 1)
    assert trail.verify() == []
    assert [one.action for one in trail.entries()][3:] == [AuditAction.AUDIT_CHAIN_BROKEN, AuditAction.STUDY_RETRY]


def test_a_kill_between_line_and_head_is_no_damage(trail: AuditTrail, tmp_path: Path) -> None:
    head = tmp_path / "audit" / "head"
    write(trail, 1)
    before = head.read_bytes()
    write(trail, 1)
    head.write_bytes(before)
    write(trail, 1)
    assert [entry.sequence for entry in trail.entries()] == [1, 2, 3]
    assert trail.verify() == []


def test_an_entry_that_a_kill_cut_short_was_never_promised_and_is_dropped(trail: AuditTrail, tmp_path: Path) -> None:
    write(trail, 2)
    with day_file(tmp_path).open("ab") as stream:
        stream.write(b'{"action":"study_re')
    write(trail, 1)
    assert [entry.sequence for entry in trail.entries()] == [1, 2, 3]
    assert trail.verify() == []


def test_the_chain_goes_on_over_midnight_and_over_a_clock_set_back(
    trail: AuditTrail, clock: Clock, tmp_path: Path
) -> None:
    write(trail, 1)
    clock.now += A_DAY_S
    write(trail, 2)
    clock.now -= A_DAY_S
    write(trail, 1)
    assert sorted(path.name for path in (tmp_path / "audit").glob("*.jsonl")) == [
        "audit-2026-03-01.jsonl",
        "audit-2026-03-02.jsonl",
    ]
    assert [entry.sequence for entry in trail.entries()] == [1, 2, 3, 4]
    assert trail.verify() == []
    day_file(tmp_path).unlink()
    assert "entry 1 is missing" in trail.verify()[0].sentence


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    command = [sys.executable, "-c", WRITER, str(folder), "40"]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.communicate(b"\n", timeout=STUDY_S)
        assert writer.returncode == 0
    trail = AuditTrail(folder)
    entries = list(trail.entries())
    assert [entry.sequence for entry in entries] == list(range(1, 81))
    assert {entry.message["ActiveParticipant"][0]["UserID"] for entry in entries} == {"one", "two"}
    assert trail.verify() == []


def test_files_are_their_owners_only(trail: AuditTrail, tmp_path: Path) -> None:
    write(trail, 1)
    for path in (tmp_path / "audit").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "audit").stat().st_mode & 0o077 == 0


def test_who_writes_does_not_wait_for_a_check_of_the_whole_trail(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail.record(AuditAction.LOGIN, actor="anna")
    parsed, written = trail_module.parsed, []

    def somebody_writes_meanwhile(line: bytes) -> AuditEntry:
        if not written:
            written.append(True)
            writer = threading.Thread(
                target=trail.record, args=(AuditAction.LOGIN,), kwargs={"actor": "ben"}, daemon=True
            )
            writer.start()
            writer.join(PATIENCE_S)
            assert not writer.is_alive()
        return parsed(line)

    monkeypatch.setattr(trail_module, "parsed", somebody_writes_meanwhile)
    assert trail.verify() == []
    assert len(list(trail.entries())) == 2
