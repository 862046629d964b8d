"""The ledger's table of moves, walked pair by pair, and the ledger on a real SQLite file."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from dicom_node.database import open_database
from dicom_node.ledger import TRANSITIONS, IllegalMoveError, Ledger, StudyEvent, StudyState, next_state


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(open_database(f"sqlite:///{tmp_path / 'node.db'}"))


@pytest.mark.parametrize(("state", "event"), list(product(StudyState, StudyEvent)))
def test_every_pair_of_state_and_event_is_either_in_the_table_or_refused(state: StudyState, event: StudyEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalMoveError, match=f"{state} cannot become {event}"):
            next_state(state, event)


def test_every_state_can_be_reached_from_waiting() -> None:
    reached = {StudyState.WAITING}
    while True:
        more = {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(StudyState)


def test_a_late_image_reopens_a_study_from_every_state() -> None:
    assert {next_state(state, StudyEvent.ARRIVED) for state in StudyState} == {StudyState.WAITING}


def test_a_study_runs_from_arrival_to_numbers_and_its_history_tells_so(ledger: Ledger) -> None:
    ledger.arrived("1.2", revision=1, at=10.0)
    ledger.move("1.2", StudyEvent.COMPLETED, at=11.0, work_id="abc", work={"study": "1.2"}, detail="counts agree")
    ledger.move("1.2", StudyEvent.STARTED, at=12.0)
    assert ledger.step("1.2", "segment", work={"study": "1.2"}, at=12.5)
    running = ledger.get("1.2")
    assert running is not None
    assert (running.state, running.step, running.work_id) == (StudyState.COMPUTING, "segment", "abc")
    ledger.move("1.2", StudyEvent.COMPUTED, at=13.0, findings={"status": "computed"})
    done = ledger.get("1.2")
    assert done is not None
    assert (done.state, done.step, done.findings) == (StudyState.COMPUTED, "", {"status": "computed"})
    assert [line.event for line in ledger.history("1.2")] == [
        StudyEvent.ARRIVED,
        StudyEvent.COMPLETED,
        StudyEvent.STARTED,
        StudyEvent.COMPUTED,
    ]


def test_an_impossible_move_raises_and_changes_nothing(ledger: Ledger) -> None:
    ledger.arrived("1.2", revision=1, at=10.0)
    with pytest.raises(IllegalMoveError):
        ledger.move("1.2", StudyEvent.STARTED, at=11.0)
    record = ledger.get("1.2")
    assert record is not None
    assert record.state is StudyState.WAITING
    assert [line.event for line in ledger.history("1.2")] == [StudyEvent.ARRIVED]


def test_what_a_waiting_study_waits_for_is_kept_until_it_moves(ledger: Ledger) -> None:
    ledger.arrived("1.2", revision=1, at=10.0)
    decision = {"series_instance_uid": "1.2.3", "role": "MRC", "rule": "heavily-t2", "reason": "TE 540 ms"}
    ledger.waiting("1.2", reason="INCOMPLETE", detail="3 of 104", look_again_at=40.0, decisions=[decision], at=11.0)
    record = ledger.get("1.2")
    assert record is not None
    assert (record.reason, record.look_again_at, list(record.decisions)) == ("INCOMPLETE", 40.0, [decision])
    ledger.move("1.2", StudyEvent.COMPLETED, at=12.0)
    moved = ledger.get("1.2")
    assert moved is not None
    assert (moved.reason, moved.look_again_at) == ("", None)


def test_the_newest_change_is_listed_first(ledger: Ledger) -> None:
    for uid, at in (("1.1", 1.0), ("1.3", 3.0), ("1.2", 2.0)):
        ledger.arrived(uid, revision=1, at=at)
    assert [record.study_instance_uid for record in ledger.recent()] == ["1.3", "1.2", "1.1"]


def test_the_outcome_of_a_piece_of_work_is_recalled_when_the_same_inputs_come_again(ledger: Ledger) -> None:
    ledger.arrived("1.2", revision=1, at=10.0)
    ledger.move("1.2", StudyEvent.COMPLETED, at=11.0, work_id="abc")
    ledger.move("1.2", StudyEvent.STARTED, at=12.0)
    ledger.move("1.2", StudyEvent.REFUSED, at=13.0, reason="REG_POOR", findings={"status": "refused"})
    ledger.arrived("1.2", revision=2, at=20.0)
    known = ledger.finished("abc")
    assert known is not None
    assert (known.event, known.reason, known.findings) == (StudyEvent.REFUSED, "REG_POOR", {"status": "refused"})
    ledger.move("1.2", known.event, at=21.0, reason=known.reason, work_id="abc", findings=known.findings)
    record = ledger.get("1.2")
    assert record is not None
    assert record.state is StudyState.REFUSED
    assert ledger.finished("other") is None


def test_studies_that_were_under_way_are_found_again_after_a_restart(ledger: Ledger) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        ledger.arrived(uid, revision=1, at=1.0)
    ledger.move("1.2", StudyEvent.COMPLETED, at=2.0, work_id="abc", work={"study_instance_uid": "1.2"})
    ledger.move("1.3", StudyEvent.COMPLETED, at=3.0, work_id="def")
    ledger.move("1.3", StudyEvent.STARTED, at=4.0)
    under_way = ledger.in_state(StudyState.QUEUED, StudyState.COMPUTING)
    assert [(record.study_instance_uid, record.work_id) for record in under_way] == [("1.2", "abc"), ("1.3", "def")]
    assert under_way[0].work == {"study_instance_uid": "1.2"}
