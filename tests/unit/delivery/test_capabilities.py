"""What goes where: by a receiver's own answers, by the configuration, and never by an answer that is too old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.database import open_database
from dicom_node.delivery.capabilities import ASK_AGAIN_S, ASK_EVERY_S, KINDS, Capabilities, FormChoice
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind

PACS = Destination(name="pacs", kind="dicom", host="10.1.2.3", port=104, called_ae="PACS")
ORTHANC = Destination(name="orthanc", kind="orthanc", url="http://127.0.0.1:8042")
AWAY = DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail="no connection")


class Receiver:
    """Answers what the test wants, and counts how often it was asked."""

    def __init__(self, answer: frozenset[str] | DeliveryOutcome) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, destination: Destination) -> frozenset[str] | DeliveryOutcome:
        self.asked += 1
        return self.answer


@pytest.fixture
def capabilities(tmp_path: Path) -> Capabilities:
    return Capabilities(open_database(f"sqlite:///{tmp_path / 'node.db'}"))


Choose = Callable[[Receiver], FormChoice]


@pytest.fixture
def choose(capabilities: Capabilities) -> Choose:
    return lambda receiver: FormChoice(capabilities, receiver, clock=lambda: 1000.0)


def test_nothing_is_known_of_a_destination_that_was_never_asked(capabilities: Capabilities) -> None:
    forms = capabilities.of(PACS)
    assert forms.asked_at is None
    assert [answer.sent for answer in forms.answers] == [True] * 4
    assert forms.sentence == "has not been asked yet, would get SEG, SR, SC, PDF"


def test_an_answer_is_kept_with_the_reason_for_what_is_not_sent(capabilities: Capabilities) -> None:
    capabilities.learn(PACS, frozenset({"SC"}), at=5.0)
    forms = capabilities.of(PACS)
    assert {answer.kind: answer.sent for answer in forms.answers} == {
        "SEG": False,
        "SR": False,
        "SC": True,
        "PDF": False,
    }
    assert forms.answers[0].reason == "this destination does not take SEG"
    assert (forms.asked_at, forms.readable) == (5.0, True)


@pytest.mark.parametrize(("kinds", "readable"), [({"SEG"}, False), (set(), False), ({"SEG", "PDF"}, True)])
def test_a_destination_without_a_form_for_people_is_an_alarm(
    capabilities: Capabilities, kinds: set[str], readable: bool
) -> None:
    capabilities.learn(PACS, frozenset(kinds), at=5.0)
    forms = capabilities.of(PACS)
    assert forms.readable is readable
    assert ("NOTHING GOES THERE THAT A PERSON CAN READ" in forms.sentence) is not readable


def test_a_form_that_this_node_does_not_make_is_nothing_that_a_person_can_read(capabilities: Capabilities) -> None:
    capabilities.learn(PACS, frozenset({"SEG", "PDF"}), at=5.0)
    forms = Capabilities(capabilities._engine, made=("SEG", "SR", "SC")).of(PACS)
    assert not forms.readable
    assert forms.sentence.startswith("gets SEG; does not take SR, SC; NOTHING GOES THERE")


def test_a_receiver_that_accepts_a_kind_and_takes_no_object_of_it_does_not_count_as_taking_it(
    capabilities: Capabilities,
) -> None:
    told: list[bool] = []
    receiver = Receiver(frozenset({"SEG", "SR"}))
    choice = FormChoice(
        capabilities, receiver, clock=lambda: 1000.0, on_answer=lambda forms: told.append(forms.readable)
    )
    choice.refused(PACS, "SR")  # the C-STORE was answered with 0122H, "SOP class not supported"
    assert told == [True, False]
    assert not capabilities.of(PACS).readable
    assert choice.objection(PACS, "SR", queued_at=1001.0) is None  # the next study tries it again


def test_a_list_in_the_configuration_leaves_out_the_rest(capabilities: Capabilities, choose: Choose) -> None:
    receiver = Receiver(frozenset(KINDS))
    short = replace(PACS, send=("SC", "PDF"))
    outcome = choose(receiver).objection(short, "SEG", queued_at=0.0)
    assert outcome is not None
    assert outcome.kind is OutcomeKind.NOT_TAKEN
    assert outcome.detail == "not sent: this destination is not to get SEG (destinations[].send)"
    assert receiver.asked == 0
    assert capabilities.of(short).sentence == "has not been asked yet, would get SC, PDF; not to get SEG, SR"


def test_an_orthanc_takes_everything_and_is_not_asked(capabilities: Capabilities, choose: Choose) -> None:
    receiver = Receiver(AWAY)
    choice = choose(receiver)
    choice.look_daily(ORTHANC)
    assert [choice.objection(ORTHANC, kind, queued_at=0.0) for kind in KINDS] == [None] * 4
    assert receiver.asked == 0
    assert capabilities.of(ORTHANC).sentence == "gets SEG, SR, SC, PDF"


def test_a_receiver_is_asked_once_for_the_objects_of_a_study_and_again_for_the_next(choose: Choose) -> None:
    receiver = Receiver(frozenset({"SR"}))
    choice = choose(receiver)
    outcomes = [choice.objection(PACS, kind, queued_at=990.0) for kind in ("SEG", "SC", "SR")]
    assert [one is None or one.detail for one in outcomes] == [
        "not sent: this destination does not take SEG",
        "not sent: this destination does not take SC",
        True,
    ]
    assert receiver.asked == 1
    receiver.answer = frozenset({"SR", "SEG"})
    assert choice.objection(PACS, "SEG", queued_at=1001.0) is None
    assert receiver.asked == 2


def test_what_a_receiver_accepted_is_tried_without_asking_again(capabilities: Capabilities, choose: Choose) -> None:
    capabilities.learn(PACS, frozenset({"SEG"}), at=5.0)
    receiver = Receiver(AWAY)
    assert choose(receiver).objection(PACS, "SEG", queued_at=999.0) is None
    assert receiver.asked == 0


def test_a_receiver_that_does_not_answer_is_the_outcome_and_keeps_what_it_said_before(
    capabilities: Capabilities, choose: Choose
) -> None:
    capabilities.learn(PACS, frozenset({"SR"}), at=5.0)
    assert choose(Receiver(AWAY)).objection(PACS, "SEG", queued_at=999.0) == AWAY
    forms = capabilities.of(PACS)
    assert (forms.asked_at, forms.problem) == (5.0, "no connection")
    assert forms.answers[1].sent


def test_an_answer_belongs_to_the_address_that_gave_it(capabilities: Capabilities) -> None:
    capabilities.learn(PACS, frozenset({"SR"}), at=5.0)
    assert capabilities.of(replace(PACS, port=105)).asked_at is None
    assert capabilities.of(replace(PACS, timeout_s=1.0)).asked_at == 5.0


@pytest.mark.parametrize(
    ("answered_s_ago", "tried_s_ago", "asked"),
    [
        (None, None, 1),
        (ASK_EVERY_S - 1.0, ASK_EVERY_S - 1.0, 0),
        (ASK_EVERY_S + 1.0, ASK_EVERY_S + 1.0, 1),
        (ASK_EVERY_S + 1.0, ASK_AGAIN_S - 1.0, 0),
    ],
)
def test_a_receiver_is_asked_daily_and_one_that_is_away_not_at_every_round(
    capabilities: Capabilities, answered_s_ago: float | None, tried_s_ago: float | None, asked: int
) -> None:
    now = 1_000_000.0
    if answered_s_ago is not None:
        capabilities.learn(PACS, frozenset({"SR"}), at=now - answered_s_ago)
    if tried_s_ago is not None and tried_s_ago != answered_s_ago:
        capabilities.failed(PACS, "no connection", at=now - tried_s_ago)
    receiver = Receiver(frozenset({"SR"}))
    FormChoice(capabilities, receiver, clock=lambda: now).look_daily(PACS)
    assert receiver.asked == asked


def test_f28_an_answer_of_before_the_clock_was_set_back_is_asked_for_again(capabilities: Capabilities) -> None:
    capabilities.learn(PACS, frozenset({"SC"}), at=90_000.0)
    receiver = Receiver(frozenset(KINDS))
    choice = FormChoice(capabilities, receiver, clock=lambda: 1000.0)
    assert choice.objection(PACS, "SEG", queued_at=999.0) is None
    assert receiver.asked == 1
    choice.look_daily(PACS)
    assert receiver.asked == 1
    capabilities.learn(PACS, frozenset({"SC"}), at=90_000.0)
    choice.look_daily(PACS)
    assert receiver.asked == 2
