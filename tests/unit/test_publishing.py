"""A worker that comes too late: another one has its study, at whatever step, and it must leave no trace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from desk_parts import DeskParts, hydrops_study
from patience import PATIENCE_S
from sqlalchemy import Connection

from dicom_node.claims import TakenOverError
from dicom_node.examination import Work
from dicom_node.ledger import IllegalMoveError, StudyEvent, StudyState

STUDY = "2.25.100"


def late_and_other(folder: Path, at_step: int, act: Callable[[DeskParts, Work], None]) -> tuple[DeskParts, Work]:
    """A worker that is stopped in its `at_step`th step for as long as `act` takes, by another one on the same folder.

    Steps are counted by the desk's clock, which is read before and after each of them.
    """
    ticks = 0

    def at_tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == at_step:
            other.now = late.now
            act(other, work)

    late = DeskParts(folder, on_step=at_tick)
    other = DeskParts(folder, worker_id="worker-2")
    late.receive(hydrops_study())
    (work,) = late.look_round_after()
    return late, work


def goes_on_to_the_end(other: DeskParts, work: Work) -> None:
    other.desk.compute(work)
    assert other.state()[0] is StudyState.REFUSED


@pytest.mark.parametrize("at_step", [1, 2, 5, 8])
def test_f27_a_worker_whose_study_another_one_has_finished_publishes_nothing(tmp_path: Path, at_step: int) -> None:
    late, work = late_and_other(tmp_path, at_step, goes_on_to_the_end)
    with pytest.raises(TakenOverError):
        late.desk.compute(work)
    events = late.events()
    assert [events.count(one) for one in (StudyEvent.STARTED, StudyEvent.TAKEN_OVER, StudyEvent.REFUSED)] == [2, 1, 1]
    assert late.sent() == [("SR", "pacs")]
    (delivery,) = late.outbox.deliveries(STUDY)
    assert late.outbox.read(delivery.sop_instance_uid)
    assert len(list((tmp_path / "outbox").iterdir())) == 1
    assert late.wakes == 0


def test_f27_a_worker_whose_study_another_one_has_begun_publishes_nothing_and_that_one_does(tmp_path: Path) -> None:
    def begins(other: DeskParts, work: Work) -> None:
        other.desk.runs.begin(work)

    late, work = late_and_other(tmp_path, 8, begins)
    with pytest.raises(TakenOverError):
        late.desk.compute(work)
    assert (late.state()[0], late.sent()) == (StudyState.COMPUTING, [])
    other = DeskParts(tmp_path, worker_id="worker-2")
    other.desk.compute(work)
    assert other.sent() == [("SR", "pacs")]
    told = [line.detail for line in late.ledger.history(STUDY) if line.event is StudyEvent.TAKEN_OVER]
    assert told == ["worker-2 took it over from worker-1"]


def test_f27_bytes_that_two_workers_wrote_at_the_same_moment_are_one_file_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, work = late_and_other(tmp_path, 10_000, goes_on_to_the_end)
    other = DeskParts(tmp_path, worker_id="worker-2")
    keep = late.outbox.keep

    def keep_and_be_overtaken(objects):
        kept = keep(objects)
        (written,) = (tmp_path / "outbox").iterdir()
        aside = written.rename(tmp_path / written.name)  # as if the other one had looked before it was there
        other.now = late.now + 7.0  # other bytes: another time of encoding
        other.desk.compute(work)
        aside.rename(written)
        assert len(list((tmp_path / "outbox").iterdir())) == 2
        return kept

    monkeypatch.setattr(late.outbox, "keep", keep_and_be_overtaken)
    with pytest.raises(TakenOverError):
        late.desk.compute(work)
    (left,) = (tmp_path / "outbox").iterdir()
    (delivery,) = late.outbox.deliveries(STUDY)
    assert late.outbox.read(delivery.sop_instance_uid) == left.read_bytes()


def test_a_failure_of_the_late_worker_does_not_fail_the_study_of_the_other_one(tmp_path: Path) -> None:
    late, work = late_and_other(tmp_path, 5, lambda other, work: other.desk.runs.begin(work))
    with pytest.raises(TakenOverError):
        late.desk.compute(work)
    late.desk.runs.fail(work, "MemoryError")
    assert late.state()[0] is StudyState.COMPUTING
    late.desk.runs.give_up(work, "its run ended (ERROR) and left no outcome")
    assert late.state()[0] is StudyState.FAILED


def test_nobody_begins_a_run_between_the_question_whose_it_is_and_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, work = late_and_other(tmp_path, 5, lambda _other, _work: None)
    other = DeskParts(tmp_path, worker_id="worker-2")
    is_anothers, begun = late.claims.is_anothers, threading.Event()

    def begin() -> None:
        with suppress(IllegalMoveError):
            other.desk.runs.begin(work)
        begun.set()

    def ask_and_look_who_else_may(study: str, run_id: str, *, within: Connection) -> bool:
        found = is_anothers(study, run_id, within=within)
        threading.Thread(target=begin).start()
        return found

    move = late.ledger.move

    def move_late(*arguments: Any, **names: Any) -> StudyState:
        begun.wait(1.0)  # time enough for whoever may
        return move(*arguments, **names)

    late.desk.runs.begin(work)
    monkeypatch.setattr(late.claims, "is_anothers", ask_and_look_who_else_may)
    monkeypatch.setattr(late.ledger, "move", move_late)
    late.desk.runs.fail(work, "MemoryError")
    assert begun.wait(PATIENCE_S)
    assert late.events()[-2:] == [StudyEvent.STARTED, StudyEvent.FAILED]
    assert late.state()[0] is StudyState.FAILED


def test_f24_a_study_over_which_two_workers_ended_is_failed_with_a_sentence_and_can_be_retried(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    for _ in range(2):
        parts = DeskParts(tmp_path)  # a new process
        assert parts.desk.runs.begin(work) is not None
        with parts.ledger.transaction() as connection:
            parts.claims.died(STUDY, lived_s=60.0, within=connection)
    parts = DeskParts(tmp_path)
    parts.desk.compute(work)
    assert parts.record().detail == (
        "2 workers ended while they computed it; memory may be short; "
        "it is not tried again unless somebody asks for a retry"
    )
    assert (parts.state()[0], parts.sent()) == (StudyState.FAILED, [])
    assert parts.actions.retry(STUDY, "anna").accepted
    parts.work_off()
    assert parts.state()[0] is StudyState.REFUSED


def test_f27_a_step_that_is_tried_again_does_not_take_the_study_back(tmp_path: Path) -> None:
    late, work = late_and_other(tmp_path, 5, lambda other, work: other.desk.runs.begin(work))
    late.desk.runs.forget_claim()
    with pytest.raises(TakenOverError):
        late.desk.compute(work)
    with pytest.raises(TakenOverError):  # as after a database that was away for a moment
        late.desk.compute(work)
    assert late.events().count(StudyEvent.TAKEN_OVER) == 1
    late.desk.runs.forget_claim()  # the other one fell silent, and the queue gives it back
    late.desk.compute(work)
    told = [line.detail for line in late.ledger.history(STUDY) if line.event is StudyEvent.TAKEN_OVER]
    assert told[-1] == "worker-1 took it over from worker-2"
    assert late.state()[0] is StudyState.REFUSED
