"""What people may ask for in which state, and that every asking is answered with a sentence and audited."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from desk_parts import DeskParts, hydrops_study

from dicom_node.audit import AuditAction, AuditEntry, AuditOutcome
from dicom_node.study_actions import EVENTS, fitting, objection
from dicom_node.study_moves import TRANSITIONS, StudyState
from dicom_node.study_requests import RequestState, StudyAction

STUDY = "2.25.100"


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    return DeskParts(tmp_path)


def asked(parts: DeskParts) -> list[AuditEntry]:
    """The entries about what people asked for."""
    return [entry for entry in parts.audit.entries() if entry.action is not AuditAction.IMAGES_RECEIVED]


@pytest.mark.parametrize(("action", "state"), list(product(StudyAction, StudyState)))
def test_an_action_fits_exactly_where_the_table_of_moves_has_its_event(action: StudyAction, state: StudyState) -> None:
    sentence = objection(action, state)
    assert (sentence == "") is ((state, EVENTS[action]) in TRANSITIONS)
    if sentence:
        assert sentence.startswith(f"{action} does not fit this study: ")
        assert sentence.endswith(" or ".join(fitting(state)))


def test_every_state_offers_a_person_something() -> None:
    assert all(fitting(state) for state in StudyState)


def test_a_request_that_does_not_fit_is_declined_at_once_and_audited(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.work_off()
    outcome = parts.actions.retry(STUDY, "anna")
    assert not outcome.accepted
    assert outcome.sentence == "retry does not fit this study: it was refused; what fits now is replay"
    assert parts.requests.of_study(STUDY) == []
    (entry,) = asked(parts)
    assert entry.action is AuditAction.STUDY_RETRY
    event = entry.message["EventIdentification"]
    assert (event["EventOutcomeIndicator"], event["EventOutcomeDescription"]) == (
        AuditOutcome.MINOR_FAILURE,
        outcome.sentence,
    )
    assert entry.message["ActiveParticipant"][0]["UserID"] == "anna"


def test_a_study_that_nobody_knows_is_said_to_be_unknown(parts: DeskParts) -> None:
    outcome = parts.actions.cancel("2.25.999", "anna")
    assert (outcome.accepted, "unknown here" in outcome.sentence) == (False, True)


def test_asking_twice_asks_once(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.work_off()
    first, second = parts.actions.replay(STUDY, "anna"), parts.actions.replay(STUDY, "otto")
    assert first.accepted
    assert second.accepted
    assert "already" in second.sentence
    (request,) = parts.requests.of_study(STUDY)
    assert (request.actor, request.state) == ("anna", RequestState.OPEN)
    assert [entry.action for entry in asked(parts)] == [AuditAction.STUDY_REPLAY] * 2


@pytest.mark.parametrize(
    ("destination", "said"), [("moon", "no destination 'moon'; known: pacs"), ("pacs", "no results to send")]
)
def test_resending_needs_a_destination_and_results(parts: DeskParts, destination: str, said: str) -> None:
    parts.receive(hydrops_study()[:-8])
    parts.work_off()
    outcome = parts.actions.resend(STUDY, destination, "anna")
    assert not outcome.accepted
    assert said in outcome.sentence
