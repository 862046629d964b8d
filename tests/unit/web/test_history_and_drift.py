"""A patient's history and a scanner's drift as pages: the numbers of the plot stand in the table too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from dashboard_parts import Dashboard, make_parts, serving

from dicom_node.ledger import StudyEvent
from dicom_node.study_cards import EarResult, StudyCard, patient_key
from dicom_node.web.patient_history import history_of

NOW = 1_795_000_000.0
HOSTILE = "Doe^<script>alert(1)</script>"
KEY = patient_key("P1", "", "")

CARD = StudyCard(
    study_instance_uid="2.25.1",
    patient_key=KEY,
    patient_name=HOSTILE,
    patient_id="P1",
    birth_date="",
    sex="F",
    study_date="20240110",
    study_time="",
    accession_number="",
    description="",
    scanner="Vida, <b>MR1</b>",
    institution="",
)
RESULT = EarResult(
    study_instance_uid="2.25.1",
    work_id="a" * 64,
    side="left",
    ratio=0.271,
    low=0.24,
    high=0.3,
    total_fluid_mm3=180.0,
    endolymph_mm3=48.8,
    quality=(),
    model="oto 1",
    scanner="Vida, <b>MR1</b>",
    study_date="20240110",
    computed_at=NOW - 100_000.0,
    seconds=5.0,
)


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory) -> Iterator[Dashboard]:
    parts = make_parts(tmp_path_factory.mktemp("plots"), clock=lambda: NOW)
    cards = parts.cards
    for number, (date, ratio, model) in enumerate([("20240110", 0.271, "oto 1"), ("20250610", 0.4, "oto 2")], start=1):
        uid, work_id = f"2.25.{number}", f"{number:064x}"
        cards.put(replace(CARD, study_instance_uid=uid, study_date=date))
        left = replace(RESULT, study_instance_uid=uid, work_id=work_id, ratio=ratio, high=0.5, model=model)
        right = replace(left, side="right", ratio=None, low=None, high=None, quality=("EAR_NOT_FOUND",))
        cards.put_results([right, left])
    cards.put(replace(CARD, study_instance_uid="2.25.8", patient_key="", patient_id=""))
    cards.put(replace(CARD, study_instance_uid="2.25.9", patient_key=patient_key("P9", "", ""), study_date="unknown"))
    finish(parts.ledger, "2.25.2", f"{2:064x}", StudyEvent.COMPUTED, NOW - 20_000_000.0)
    finish(parts.ledger, "2.25.1", f"{1:064x}", StudyEvent.COMPUTED, NOW - 100_000.0)
    finish(parts.ledger, "2.25.9", f"{'c' * 64}-NO_MRC", StudyEvent.REFUSED, NOW - 50_000.0)
    with serving(parts) as running:
        yield running


def finish(ledger, uid: str, work_id: str, event: StudyEvent, at: float) -> None:
    ledger.arrived(uid, revision=1, at=at - 60.0)
    ledger.move(uid, StudyEvent.COMPLETED, at=at - 30.0, work_id=work_id, work={})
    ledger.move(uid, StudyEvent.STARTED, at=at - 20.0)
    ledger.move(uid, event, at=at, findings={})


def get(dashboard: Dashboard, path: str) -> str:
    with closing(dashboard.client("vera")) as client:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text


def test_the_history_shows_every_number_in_plot_and_table_and_marks_the_new_model(dashboard):
    text = get(dashboard, "/studies/2.25.1/history")
    plotted = re.findall(r"<title>(2\d{3}-[^<]*)</title>", text)
    assert plotted == [
        "2024-01-10, left ear: 27.1 % (95 % interval 24.0 % to 50.0 %), oto 1",
        "2025-06-10, left ear: 40.0 % (95 % interval 24.0 % to 50.0 %), oto 2",
    ]
    assert "now oto 2" in text
    assert 'class="number" data-label="EH ratio">27.1 %</td>' in text
    assert text.count("not evaluated") == 2
    assert "<strong>(changed)</strong>" in text


def test_a_hostile_name_is_shown_and_does_nothing(dashboard):
    for path in ("/studies/2.25.1/history", "/drift"):
        text = get(dashboard, path)
        assert "<script>alert" not in text
        assert "<b>MR1</b>" not in text
    assert "&lt;script&gt;alert(1)" in get(dashboard, "/studies/2.25.1/history")


def test_without_a_patient_id_no_other_study_is_shown(dashboard):
    text = get(dashboard, "/studies/2.25.8/history")
    assert "name no patient ID" in text
    assert "27.1 %" not in text


def test_one_examination_alone_makes_no_plot(dashboard):
    history = history_of(replace(CARD, study_instance_uid="2.25.9", patient_key="x"), dashboard.parts.cards)
    assert history.plot is None
    assert "one examination" in history.why_not


def test_a_study_computed_twice_counts_with_the_result_that_holds_now(dashboard):
    cards, ledger = dashboard.parts.cards, dashboard.parts.ledger
    again = replace(RESULT, study_instance_uid="2.25.2", work_id="f" * 64, ratio=0.45, computed_at=NOW, model="oto 3")
    cards.put_results([again])
    card = cards.get("2.25.2")
    assert card is not None

    def numbers() -> list[str]:
        return [row.number for row in history_of(card, cards).rows if row.side == "left"]

    assert numbers() == ["27.1 %", "40.0 %"]
    finish(ledger, "2.25.2", "f" * 64, StudyEvent.COMPUTED, NOW - 10_000_000.0)
    assert numbers() == ["27.1 %", "45.0 %"]
    finish(ledger, "2.25.2", f"{2:064x}", StudyEvent.COMPUTED, NOW - 9_000_000.0)  # put back: the first is recalled
    assert numbers() == ["27.1 %", "40.0 %"]
    finish(ledger, "2.25.2", f"{'e' * 64}-NO_MRC", StudyEvent.REFUSED, NOW - 8_500_000.0)
    assert numbers() == ["27.1 %"]


def test_drift_counts_what_finished_in_the_span_per_scanner(dashboard):
    text = get(dashboard, "/drift?days=90")
    assert re.search(r"refused studies: 1 of 2", text)
    assert "27.1 % (27.1 to 27.1, n = 1)" in text
    narrowed = get(dashboard, "/drift?scanner=Nobody&days=30")
    assert "No study was finished in this time." in narrowed
    assert get(dashboard, "/drift?days=77").count('value="90" selected') == 1  # an unknown span is the usual one


def test_drift_says_by_which_rule_it_speaks_up(dashboard):
    text = get(dashboard, "/drift")
    assert "The last 20 values are held against all before them" in text
    assert "It is a reason to look at the scanner" in text
