"""What stands in a study's history when the worker that computed it ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from desk_parts import DeskParts, hydrops_study

from dicom_node.claims import MAX_DEATHS
from dicom_node.cli.worker_ends import how_it_ended, note_worker_end
from dicom_node.ledger import StudyEvent, StudyState


@pytest.mark.parametrize(
    ("exit_status", "said"),
    [
        (1, "exit status 1"),
        (-signal.SIGSEGV, "signal SIGSEGV"),
        (-signal.SIGKILL, "killed, as the kernel does when memory is short"),
    ],
)
def test_an_exit_status_in_words(exit_status: int, said: str) -> None:
    assert how_it_ended(exit_status) == said


def test_f24_the_end_of_a_worker_is_noted_with_the_study_it_was_at_and_with_no_other(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    for study in ("2.25.101", "2.25.102"):
        parts.receive(hydrops_study(study))
    at_it, in_line = parts.look_round_after()
    parts.desk.runs.begin(at_it)
    note_worker_end(parts.engine, "worker-2", -signal.SIGABRT, lived_s=60.0)
    assert StudyEvent.WORKER_DIED not in parts.events(at_it.study_instance_uid)
    note_worker_end(parts.engine, "worker-1", -signal.SIGABRT, lived_s=60.0)
    told = [(line.event, line.detail) for line in parts.ledger.history(at_it.study_instance_uid)][-1]
    assert told == (StudyEvent.WORKER_DIED, "worker-1 ended while it computed this: signal SIGABRT")
    assert parts.state(at_it.study_instance_uid)[0] is StudyState.COMPUTING
    assert StudyEvent.WORKER_DIED not in parts.events(in_line.study_instance_uid)


def test_f24_a_worker_that_ends_before_it_began_anything_is_no_fault_of_the_study_its_predecessor_left(
    tmp_path: Path,
) -> None:
    parts = DeskParts(tmp_path)
    parts.receive(hydrops_study())
    (left,) = parts.look_round_after()
    parts.desk.runs.begin(left)
    time.sleep(0.2)
    for _ in range(2 * MAX_DEATHS):  # its model's folder is gone, say
        note_worker_end(parts.engine, "worker-1", 2, lived_s=0.1)
    assert StudyEvent.WORKER_DIED not in parts.events()
    parts.desk.compute(left)
    assert parts.state()[0] is StudyState.REFUSED


def test_f24_a_worker_that_dies_and_one_that_fails_are_two_that_did_not_come_to_the_end(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    for study in ("2.25.101", "2.25.102"):
        parts.receive(hydrops_study(study))
    dead_first, failed_first = parts.look_round_after()
    parts.desk.runs.begin(dead_first)
    note_worker_end(parts.engine, "worker-1", -signal.SIGKILL, lived_s=60.0)
    parts.desk.runs.begin(failed_first)
    again = parts.desk.fault(failed_first, "MemoryError")
    assert again is not None
    assert parts.state("2.25.102")[0] is StudyState.QUEUED
    assert parts.desk.fault(dead_first, "MemoryError") is None
    assert parts.state("2.25.101")[0] is StudyState.FAILED
    parts.desk.runs.begin(again)
    note_worker_end(parts.engine, "worker-1", -signal.SIGKILL, lived_s=60.0)
    parts.desk.runs.forget_claim()  # as in another process
    assert parts.desk.runs.begin(again) is None
    assert parts.state("2.25.102")[0] is StudyState.FAILED
    assert "2 workers ended" in parts.record("2.25.102").detail
