"""A study whose images were erased is sent again: the same study, the same result, and no way in for a wrong image."""

from __future__ import annotations

import pytest
from desk_parts import LOCALIZER, hydrops_study, series_of
from kept_studies import STUDY, KeptStudies

from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.study_requests import RequestState, StudyAction


@pytest.fixture
def node(node: KeptStudies) -> KeptStudies:
    """One study, computed, delivered, its images erased."""
    node.finish_study()
    node.round_after(15)
    assert node.image_files() == []
    return node


def results(node: KeptStudies) -> list[tuple[str, str, int]]:
    return [(one.sop_instance_uid, one.state, one.attempts) for one in node.outbox.deliveries(STUDY)]


def test_p11_the_whole_study_sent_again_is_the_same_study_and_sends_nothing(node: KeptStudies) -> None:
    decided, sent = node.record(), results(node)
    node.receive(hydrops_study())
    node.work_off()
    assert len(node.image_files()) == len(hydrops_study())
    assert (node.record().state, node.record().work_id) == (decided.state, decided.work_id)
    assert results(node) == sent
    assert node.events().count(StudyEvent.REFUSED) == 1
    assert node.keeping().held_because == ""


def test_p11_a_replay_of_it_sends_the_same_objects_as_the_same_bytes(node: KeptStudies) -> None:
    before = {path.name: path.read_bytes() for path in node.result_files()}
    uids = {uid for uid, _, _ in results(node)}
    node.receive(hydrops_study())
    node.work_off()
    assert node.actions.replay(STUDY, "anna").accepted
    node.work_off()
    assert {uid for uid, state, _ in results(node) if state == "waiting"} == uids
    assert {path.name: path.read_bytes() for path in node.result_files()} == before


def test_images_that_came_again_go_again(node: KeptStudies) -> None:
    node.receive(hydrops_study())
    node.work_off()
    node.round_after(13)
    assert node.image_files()
    node.round_after(2)
    assert node.image_files() == []
    assert node.events().count(StudyEvent.ERASED) == 2


@pytest.mark.parametrize("count", [1, 9])
def test_a_part_of_it_sent_again_changes_nothing(node: KeptStudies, count: int) -> None:
    decided, sent = node.record(), results(node)
    node.receive(hydrops_study()[:count])
    node.work_off()
    assert node.record().state is decided.state
    assert results(node) == sent
    assert node.record().revision == node.spool.study(STUDY).revision, "it is not looked at again and again"
    node.round_after(15)
    assert node.image_files() == [], "they were here before, and are not needed now either"


def test_a_new_series_beside_erased_ones_is_kept_and_waits_for_the_whole_study(node: KeptStudies) -> None:
    decided, sent = node.record(), results(node)
    late = series_of(LOCALIZER)
    node.receive(late)
    node.work_off()
    assert (node.record().state, results(node)) == (decided.state, sent)
    assert "send the whole study again" in node.keeping().held_because
    node.round_after(1000)
    assert len(node.image_files()) == len(late), "nobody has looked at them"
    node.receive(hydrops_study())
    node.work_off()
    assert node.record().revision == node.spool.study(STUDY).revision
    assert node.keeping().held_because == ""


def test_a_missing_series_that_comes_late_is_computed_once_the_whole_study_is_here_again(node: KeptStudies) -> None:
    one_series, others = hydrops_study("2.25.7")[:8], hydrops_study("2.25.7")[8:]
    node.receive(one_series)
    node.look_round_after()
    node.look_round_after(200.0)
    (work,) = node.desk.unfinished()
    node.desk.compute(work)
    node.deliver()
    node.round_after(15)
    assert node.state("2.25.7")[1] == "PARTNER_MISSING"
    node.receive(others)
    node.work_off()
    assert node.state("2.25.7")[1] == "PARTNER_MISSING"
    node.receive(one_series)
    node.work_off()
    assert node.state("2.25.7")[1] != "PARTNER_MISSING"


def test_p10_another_content_under_the_uid_of_an_erased_image_is_refused(node: KeptStudies) -> None:
    images = hydrops_study()
    images[3].SeriesDescription = "another patient's, perhaps"
    node.receive(images)
    node.work_off()
    assert node.state() == (StudyState.REFUSED, "CONFLICT")
    node.round_after(1000)
    assert node.image_files(), "a person has to see what came"


@pytest.mark.parametrize(
    ("count", "lacking"), [(0, "its images were erased here"), (5, "of its")], ids=["none came", "some came"]
)
def test_a_replay_without_the_images_says_what_to_do(node: KeptStudies, count: int, lacking: str) -> None:
    node.receive(hydrops_study()[:count])
    node.work_off()
    outcome = node.actions.replay(STUDY, "anna")
    assert outcome.accepted is False
    assert lacking in outcome.sentence
    assert "erased here on 1970-01-" in outcome.sentence
    assert "send the whole study again" in outcome.sentence


@pytest.mark.parametrize("action", [StudyAction.REPLAY, StudyAction.FORCE])
def test_a_request_that_was_written_down_before_the_images_went_is_declined(
    node: KeptStudies, action: StudyAction
) -> None:
    decided = node.record()
    node.requests.ask(STUDY, action, destination="", actor="anna", at=node.now)
    node.work_off()
    (request,) = node.requests.of_study(STUDY)
    assert request.state is RequestState.DECLINED
    assert "send the whole study again" in request.answer
    assert node.record().state is decided.state


def test_results_can_still_be_sent_to_a_destination_again(node: KeptStudies) -> None:
    assert node.actions.resend(STUDY, "pacs", "anna").accepted
    node.work_off()
    assert {state for _, state, _ in results(node)} == {"waiting"}
    node.deliver()
    assert {state for _, state, _ in results(node)} == {"delivered"}
