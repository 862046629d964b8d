"""Urgent studies go before others, and nobody waits for ever; a person's word is kept, shown and audited."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk_parts import URGENT_SENDER, DeskParts, hydrops_study
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_node.audit import AuditAction
from dicom_node.examination import Work
from dicom_node.retention.study_rows import forget
from dicom_node.study_moves import StudyEvent, StudyState
from dicom_node.study_requests import RequestState
from dicom_node.urgency import HEAD_START_S, Urgency, place_in_queue

STUDY = "2.25.100"
IN_2026 = 1_780_000_000.0


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    made = DeskParts(tmp_path)
    made.now = IN_2026
    return made


def with_priority(priority: str) -> list[Dataset]:
    images = hydrops_study()
    for one in images:
        one.RequestedProcedurePriority = priority
    return images


def queued(parts: DeskParts) -> Work:
    (work,) = parts.look_round_after()
    return work


@given(
    first=st.floats(IN_2026, IN_2026 + 30 * 86400.0),
    wait_s=st.floats(2 * 3600.0 + 1.0, 30 * 86400.0),
)
def test_whoever_has_waited_longer_than_the_head_start_is_not_overtaken(first: float, wait_s: float) -> None:
    waiting = place_in_queue(Urgency.ROUTINE, first)
    assert waiting <= place_in_queue(Urgency.URGENT, first + wait_s)
    if wait_s > HEAD_START_S[Urgency.FIRST] + 1.0:
        assert waiting <= place_in_queue(Urgency.FIRST, first + wait_s)


@given(
    first=st.floats(IN_2026, IN_2026 + 30 * 86400.0),
    later_s=st.floats(0.0, 2 * 3600.0 - 2.0),
)
def test_an_urgent_study_goes_before_those_that_have_waited_for_less(first: float, later_s: float) -> None:
    assert place_in_queue(Urgency.URGENT, first + later_s) < place_in_queue(Urgency.ROUTINE, first)
    assert place_in_queue(Urgency.FIRST, first + later_s) < place_in_queue(Urgency.URGENT, first)


@pytest.mark.parametrize("at", [0.0, 4e9])
def test_a_place_is_one_that_the_queue_can_hold_whatever_the_clock_says(at: float) -> None:
    assert {place_in_queue(one, at) for one in Urgency} <= set(range(1, 2)) | {2**31 - 1}


@pytest.mark.parametrize(
    ("priority", "urgency"),
    [("STAT", Urgency.URGENT), ("high", Urgency.URGENT), ("ROUTINE", Urgency.ROUTINE), ("LOW", Urgency.ROUTINE)],
)
def test_images_may_say_that_their_study_is_urgent(parts: DeskParts, priority: str, urgency: Urgency) -> None:
    parts.receive(with_priority(priority))
    work = queued(parts)
    assert parts.urgencies.of_study(STUDY).urgency is urgency
    assert parts.desk.place_in_queue(work) == place_in_queue(urgency, parts.now)


def test_a_sender_may_be_one_whose_studies_are_urgent(parts: DeskParts) -> None:
    parts.receive(hydrops_study(), source=URGENT_SENDER)
    queued(parts)
    assert parts.urgencies.of_study(STUDY).sentence == f"urgent, because {URGENT_SENDER} sent it"


def test_a_study_that_stands_in_line_is_put_first_by_name(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    before = queued(parts)
    assert parts.actions.first(STUDY, "anna").accepted
    (work,) = parts.desk.look_round()
    assert (work.work_id, work.run) == (before.work_id, 1)
    assert parts.desk.place_in_queue(work) == place_in_queue(Urgency.FIRST, parts.now)
    assert parts.urgencies.of_study(STUDY).sentence == "first, because anna asked for it"
    assert parts.ledger.history(STUDY)[-1].event is StudyEvent.PUT_FIRST
    assert AuditAction.STUDY_FIRST in [entry.action for entry in parts.audit.entries()]


def test_the_run_that_stood_in_line_before_is_dropped_and_the_new_one_is_computed_once(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    before = queued(parts)
    parts.actions.first(STUDY, "anna")
    (work,) = parts.desk.look_round()
    parts.desk.compute(before)
    assert parts.state()[0] is StudyState.QUEUED
    parts.desk.compute(work)
    assert parts.state()[0] is StudyState.REFUSED
    parts.desk.compute(before)
    assert parts.events().count(StudyEvent.STARTED) == 1


def test_a_study_whose_turn_came_meanwhile_is_not_put_first(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    work = queued(parts)
    assert parts.actions.first(STUDY, "anna").accepted
    parts.desk.runs.begin(work)
    assert parts.desk.look_round() == []
    assert parts.requests.of_study(STUDY)[-1].state is RequestState.DECLINED
    assert parts.state()[0] is StudyState.COMPUTING


def test_a_study_that_was_put_first_stays_first_when_an_image_comes_late(parts: DeskParts) -> None:
    parts.receive(hydrops_study()[:-1])
    queued(parts)
    parts.actions.first(STUDY, "anna")
    parts.desk.look_round()
    parts.receive(hydrops_study()[-1:])
    work = queued(parts)
    assert parts.urgencies.of_study(STUDY).sentence == "first, because anna asked for it"
    assert parts.desk.place_in_queue(work) == place_in_queue(Urgency.FIRST, parts.now)
    parts.desk.compute(work)
    assert parts.state()[0] is StudyState.REFUSED


def test_a_study_that_was_put_first_and_has_its_outcome_stands_in_line_as_its_images_say(parts: DeskParts) -> None:
    parts.receive(hydrops_study()[:-1])
    queued(parts)
    parts.actions.first(STUDY, "anna")
    (work,) = parts.desk.look_round()
    parts.desk.compute(work)
    parts.receive(hydrops_study()[-1:])
    queued(parts)
    assert parts.urgencies.of_study(STUDY).urgency is Urgency.ROUTINE


def test_the_word_goes_with_the_study(parts: DeskParts) -> None:
    parts.receive(with_priority("STAT"))
    queued(parts)
    with parts.ledger.transaction() as connection:
        forget(connection, STUDY)
    assert parts.urgencies.of_study(STUDY).urgency is Urgency.ROUTINE
