"""Who is on duty and who is silent: counted, not clocked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from patience import PATIENCE_S, wait_until
from sqlalchemy import Engine, update
from workers import a_worker

from dicom_node.database import open_database
from dicom_node.errors import ConfigError
from dicom_node.roster import FORGET_AFTER_S, MISSED_BEATS, OnDuty, Roster, Watch, wait_for_place, worker_rows

ANNA = a_worker("anna", host="here", beats=7)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    yield engine
    engine.dispose()


def test_a_worker_is_silent_after_ten_looks_at_the_same_count() -> None:
    watch = Watch("bert")
    assert [watch.look([ANNA]) for _ in range(MISSED_BEATS + 1)] == [[]] * MISSED_BEATS + [["anna"]]


def test_one_beat_in_between_and_the_counting_begins_anew() -> None:
    watch = Watch("bert")
    looks = [[ANNA]] * MISSED_BEATS + [[replace(ANNA, beats=8)]] * MISSED_BEATS
    assert [watch.look(look) for look in looks] == [[]] * len(looks)
    assert watch.look([replace(ANNA, beats=8)]) == ["anna"]


def test_a_worker_that_began_anew_is_alive_though_its_count_is_the_same() -> None:
    watch = Watch("bert")
    for _ in range(MISSED_BEATS + 1):
        watch.look([ANNA])
    assert watch.look([replace(ANNA, incarnation="2")]) == []


def test_no_clock_makes_a_worker_look_dead_or_alive() -> None:
    wrong_clock = replace(ANNA, beat_at=-1e9, silent_s=1e9)
    assert Watch("bert").look([wrong_clock]) == []
    watch = Watch("bert")
    for number in range(MISSED_BEATS):
        watch.look([replace(ANNA, beat_at=float(number))])
    assert watch.look([replace(ANNA, silent_s=-3600.0)]) == ["anna"]


def test_nobody_waits_for_the_silence_of_a_worker_that_stopped_in_order() -> None:
    assert Watch("bert").look([replace(ANNA, left_at=3.0)]) == ["anna"]


def test_nobody_takes_over_from_itself() -> None:
    watch = Watch("anna")
    assert [watch.look([ANNA]) for _ in range(3 * MISSED_BEATS)] == [[]] * (3 * MISSED_BEATS)


def test_a_beat_counts_and_a_place_that_another_process_took_is_told(engine: Engine) -> None:
    roster = Roster(engine)
    first = roster.sign_on("anna", "here", "1")
    assert roster.beat("anna", first)
    assert [(one.worker_id, one.host, one.beats) for one in roster.workers()] == [("anna", "here", 1)]
    second = roster.sign_on("anna", "there", "1")
    assert not roster.beat("anna", first)
    assert roster.beat("anna", second)
    (worker,) = roster.workers()
    assert (worker.host, worker.beats, worker.on_duty) == ("there", 1, True)
    assert abs(worker.beat_at - time.time()) < 60.0


def test_a_silent_worker_s_work_is_taken_over_by_each_look_of_a_living_one(engine: Engine) -> None:
    roster = Roster(engine)
    roster.sign_on("anna", "here", "1")  # and never beats
    taken: list[list[str]] = []
    duty = OnDuty(
        roster,
        "bert",
        "there",
        "1",
        take_over=lambda ids: taken.append(list(ids)),
        on_place_lost=lambda: None,
        beat_s=0.01,
    )
    duty.start()
    wait_until(lambda: taken.count(["anna"]) >= 2)
    duty.leave()
    assert taken[:MISSED_BEATS] == [[]] * MISSED_BEATS  # told, too: its next silence is a new one
    assert taken[MISSED_BEATS:] == [["anna"]] * (len(taken) - MISSED_BEATS)
    (anna, bert) = roster.workers()
    assert (anna.left_at, bert.left_at is not None) == (None, True)
    assert bert.beats > MISSED_BEATS


def test_a_worker_that_is_gone_for_a_week_is_forgotten_once_its_work_was_taken_over(engine: Engine) -> None:
    roster = Roster(engine)
    for worker_id in ("anna", "cleo"):
        roster.sign_on(worker_id, "here", "1")
    with engine.begin() as connection:  # anna was seen last a week and a day ago
        long_ago = worker_rows.c.beat_at - FORGET_AFTER_S - 86_400.0
        connection.execute(update(worker_rows).where(worker_rows.c.worker_id == "anna").values(beat_at=long_ago))
    taken: list[list[str]] = []
    duty = OnDuty(
        roster,
        "bert",
        "there",
        "1",
        take_over=lambda ids: taken.append(list(ids)),
        on_place_lost=lambda: None,
        beat_s=0.01,
    )
    assert [one.worker_id for one in roster.workers()] == ["anna", "bert", "cleo"]
    duty.start()
    wait_until(lambda: [one.worker_id for one in roster.workers()] == ["bert", "cleo"])
    duty.leave()
    assert ["anna", "cleo"] in taken


def test_a_worker_whose_id_another_process_took_is_told_to_end(engine: Engine) -> None:
    roster, ended = Roster(engine), threading.Event()
    duty = OnDuty(roster, "anna", "here", "1", take_over=lambda _ids: None, on_place_lost=ended.set, beat_s=0.01)
    duty.start()
    roster.sign_on("anna", "there", "1")
    assert ended.wait(PATIENCE_S)
    duty.leave()
    (worker,) = roster.workers()
    assert (worker.host, worker.left_at) == ("there", None)


def test_an_id_that_lives_on_another_machine_is_refused(engine: Engine) -> None:
    roster = Roster(engine)
    incarnation = roster.sign_on("anna", "here", "1")
    with pytest.raises(ConfigError, match=r"node\.worker_id: a worker 'anna' is on duty on here"):
        wait_for_place(roster, "anna", "there", sleep=lambda _s: roster.beat("anna", incarnation) and None)


def test_an_id_whose_last_machine_is_silent_or_the_same_is_free(engine: Engine) -> None:
    roster, pauses = Roster(engine), list[float]()
    wait_for_place(roster, "anna", "there", sleep=pauses.append)
    roster.sign_on("anna", "here", "1")
    wait_for_place(roster, "anna", "here", sleep=pauses.append)
    assert pauses == []
    wait_for_place(roster, "anna", "there", beat_s=2.0, sleep=pauses.append)
    assert sum(pauses) == 2.0 * (MISSED_BEATS + 1)
