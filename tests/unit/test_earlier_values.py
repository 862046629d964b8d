"""Which earlier value stands beside a new number."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.database import open_database
from dicom_node.earlier_values import earlier_values
from dicom_node.ledger import Ledger, StudyEvent
from dicom_node.study_cards import EarResult, StudyCard, StudyCards
from inference.anatomy import EarSide

MODEL = "ear 1.0"


@pytest.fixture
def cards(tmp_path: Path) -> StudyCards:
    return StudyCards(open_database(f"sqlite:///{tmp_path / 'node.db'}"))


def card(uid: str, date: str, *, time: str = "080000", patient: str = "key") -> StudyCard:
    return StudyCard(
        study_instance_uid=uid, patient_key=patient, patient_name="", patient_id="P", birth_date="", sex="",
        study_date=date, study_time=time, accession_number="", description="", scanner="", institution="",
    )  # fmt: skip


def put(
    cards: StudyCards, one: StudyCard, ratio: float | None, *, model: str = MODEL, side: str = "right", at: float = 1.0
) -> None:
    """A study that was computed: its card, its result, and where it stands."""
    uid = one.study_instance_uid
    work_id = f"{uid}-{model}"
    cards.put(one)
    result = EarResult(
        study_instance_uid=uid, work_id=work_id, side=side, ratio=ratio, low=ratio, high=ratio, total_fluid_mm3=ratio,
        endolymph_mm3=ratio, quality=(), model=model, scanner="", study_date=one.study_date, computed_at=at,
        seconds=1.0,
    )  # fmt: skip
    cards.put_results([result])
    ledger = Ledger(cards._engine)
    ledger.arrived(uid, revision=1, at=at)
    ledger.move(uid, StudyEvent.COMPLETED, at=at, work_id=work_id)
    ledger.move(uid, StudyEvent.STARTED, at=at)
    ledger.move(uid, StudyEvent.COMPUTED, at=at)


def test_the_last_study_before_this_one_counts_and_not_the_one_computed_last(cards: StudyCards) -> None:
    put(cards, card("1.3", "20260301"), 0.3, at=1.0)
    put(cards, card("1.1", "20240301"), 0.1, at=9.0)
    put(cards, card("1.2", "20250301"), 0.2, at=5.0)
    found = earlier_values(cards, card("1.9", "20260101"))
    assert {side: (value.ratio, value.study_date) for side, value in found.items()} == {
        EarSide.RIGHT: (0.2, "20250301")
    }


def test_a_study_is_never_compared_with_itself_nor_with_a_later_one_of_the_day(cards: StudyCards) -> None:
    put(cards, card("1.1", "20260301", time="090000"), 0.1)
    assert earlier_values(cards, card("1.1", "20260301", time="090000")) == {}
    assert earlier_values(cards, card("1.2", "20260301", time="080000")) == {}
    assert earlier_values(cards, card("1.2", "20260301", time="100000"))[EarSide.RIGHT].ratio == 0.1


def test_an_ear_that_was_not_evaluated_then_is_looked_for_further_back(cards: StudyCards) -> None:
    put(cards, card("1.1", "20240101"), 0.1)
    put(cards, card("1.2", "20250101"), None)
    put(cards, card("1.2", "20250101"), 0.4, side="left", at=2.0)
    found = earlier_values(cards, card("1.3", "20260101"))
    assert (found[EarSide.RIGHT].ratio, found[EarSide.LEFT].ratio) == (0.1, 0.4)


def test_of_a_study_computed_by_two_models_the_result_that_stands_is_quoted(cards: StudyCards) -> None:
    put(cards, card("1.1", "20240101"), 0.1, model=MODEL, at=1.0)
    put(cards, card("1.1", "20240101"), 0.2, model="threshold 2", at=5.0)
    assert earlier_values(cards, card("1.3", "20260101"))[EarSide.RIGHT].model == "threshold 2"


def test_a_study_that_is_examined_again_is_not_quoted(cards: StudyCards) -> None:
    put(cards, card("1.1", "20240101"), 0.1)
    put(cards, card("1.2", "20250101"), 0.2)
    Ledger(cards._engine).arrived("1.2", revision=2, at=9.0)
    assert earlier_values(cards, card("1.3", "20260101"))[EarSide.RIGHT].ratio == 0.1


def test_another_patient_and_a_study_without_a_date_or_an_id_have_no_earlier_value(cards: StudyCards) -> None:
    put(cards, card("1.1", "20240101", patient="another"), 0.1)
    put(cards, card("1.2", "20240101", patient=""), 0.2)
    put(cards, card("1.4", ""), 0.3)
    assert earlier_values(cards, card("1.3", "20260101")) == {}
    assert earlier_values(cards, card("1.3", "20260101", patient="")) == {}
    assert earlier_values(cards, card("1.3", "")) == {}
