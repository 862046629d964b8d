"""The page of workers, `status` and the metrics: the same duties in each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from dashboard_parts import Dashboard, make_parts, serving
from sqlalchemy import update

from dicom_node.claims import Claims
from dicom_node.cli.status import worker_lines
from dicom_node.database import writing
from dicom_node.duties import duties
from dicom_node.ledger import StudyEvent
from dicom_node.roster import Roster, worker_rows
from dicom_node.web.parts import WebParts

STUDY = "2.25.77"


@pytest.fixture
def parts(tmp_path: Path) -> WebParts:
    """anna began a study and fell silent, bert took it over, carl stopped in order, dora has nothing to do."""
    parts = make_parts(tmp_path)
    roster = Roster(parts.engine)
    for worker, host in (("anna", "<b>box-1</b>"), ("bert", "box-2"), ("carl", "box-3"), ("dora", "box-4")):
        incarnation = roster.sign_on(worker, host, "1")
        if worker == "carl":
            roster.sign_off(worker, incarnation)
    parts.ledger.arrived(STUDY, revision=1, at=1.0)
    parts.ledger.move(STUDY, StudyEvent.COMPLETED, at=2.0, work={"run": 1})
    parts.ledger.move(STUDY, StudyEvent.STARTED, at=3.0)
    parts.ledger.step(STUDY, "align series", work={"run": 1}, at=4.0)
    with writing(parts.engine) as connection:
        for worker in ("anna", "bert"):
            Claims(parts.engine, worker).take(STUDY, "run", within=connection)
        an_hour_ago = worker_rows.c.beat_at - 3600.0
        connection.execute(update(worker_rows).where(worker_rows.c.worker_id == "anna").values(beat_at=an_hour_ago))
    return parts


@pytest.fixture
def dashboard(parts: WebParts) -> Iterator[Dashboard]:
    with serving(parts) as running:
        yield running


def test_the_page_says_who_measures_what_and_whose_it_was(dashboard: Dashboard) -> None:
    with closing(dashboard.client("vera")) as client:
        answer = client.get("/workers")
    assert answer.status_code == 200
    cards = answer.text.split('<section class="card"')[1:]
    anna, bert, carl, dora = (" ".join(card.split()) for card in cards)
    assert "Silent" in anna
    assert "1 h ago" in anna
    assert "&lt;b&gt;box-1&lt;/b&gt;" in anna
    assert STUDY not in anna
    assert f'<a href="/studies/{STUDY}">' in bert
    assert "align the series; taken over from anna." in bert
    assert "Measuring" in bert
    assert "stopped in order" in carl
    assert "Ready" in dora


def test_nobody_sees_the_workers_who_is_not_signed_in(dashboard: Dashboard) -> None:
    with closing(dashboard.client()) as client:
        assert client.get("/workers").status_code != 200


def test_status_says_the_same_in_lines(parts: WebParts) -> None:
    title, anna, bert, carl, dora, _ = worker_lines(duties(parts.engine))
    assert title == "workers"
    assert ", silent for 36" in anna
    assert bert.endswith(f"at {STUDY} align series, taken over from anna")
    assert "stopped" in carl
    assert STUDY not in dora
    assert worker_lines([]) == ["no worker has been seen within a week", ""]


def test_a_study_that_ended_is_nobody_s_duty_any_more(parts: WebParts) -> None:
    assert [one.study_instance_uid for one in duties(parts.engine)] == ["", STUDY, "", ""]
    parts.ledger.move(STUDY, StudyEvent.COMPUTED, at=5.0, work_id="w", findings={})
    assert [one.study_instance_uid for one in duties(parts.engine)] == [""] * 4
