"""Numbers of claims: whoever has the last one may publish, nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from dicom_node.claims import MAX_BEGINNINGS, MAX_DEATHS, Claim, Claims, TakenOverError
from dicom_node.database import open_database, writing

STUDY, RUN = "2.25.1", "2.25.1:work:1"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with writing(engine) as connection:
        yield connection


@pytest.fixture
def anna(engine: Engine) -> Claims:
    return Claims(engine, "anna")


@pytest.fixture
def bert(engine: Engine) -> Claims:
    return Claims(engine, "bert")


def test_f27_who_was_overtaken_may_not_publish(anna: Claims, bert: Claims, connection: Connection) -> None:
    first = anna.take(STUDY, RUN, within=connection)
    anna.require(first, within=connection)
    second = bert.take(STUDY, RUN, within=connection)
    bert.require(second, within=connection)
    with pytest.raises(TakenOverError, match="bert has it, as number 2"):
        anna.require(first, within=connection)
    assert (first.taken_from, second.taken_from, second.again) == ("", "anna", True)


def test_a_number_is_never_drawn_twice_not_even_for_another_run(
    anna: Claims, bert: Claims, connection: Connection
) -> None:
    runs = (RUN, RUN, "2.25.1:work:2", RUN)
    taken = [claims.take(STUDY, run, within=connection) for claims, run in zip((anna, bert) * 2, runs, strict=True)]
    assert [one.number for one in taken] == [1, 2, 3, 4]
    assert taken[2].taken_from == ""  # another run is not taken from anybody


def test_the_same_number_after_a_restored_database_is_told_from_the_lost_one(
    anna: Claims, bert: Claims, connection: Connection
) -> None:
    late = Claim(
        study_instance_uid=STUDY, run_id=RUN, number=1, beginnings=1, deaths=0, worker_id="anna", taken_from=""
    )
    assert bert.take(STUDY, RUN, within=connection).number == late.number
    with pytest.raises(TakenOverError):
        anna.require(late, within=connection)


def test_a_step_that_is_tried_again_by_the_same_process_keeps_its_claim(
    anna: Claims, bert: Claims, connection: Connection
) -> None:
    first = anna.take(STUDY, RUN, within=connection)
    assert anna.take(STUDY, RUN, after=first, within=connection) == first
    bert.take(STUDY, RUN, within=connection)
    with pytest.raises(TakenOverError):
        anna.take(STUDY, RUN, after=first, within=connection)
    assert anna.take(STUDY, RUN, within=connection).number == 3  # a run of its own, which was given to it again


def test_f24_two_deaths_that_were_seen_are_enough(anna: Claims, bert: Claims, connection: Connection) -> None:
    anna.take(STUDY, RUN, within=connection)
    assert not bert.died(STUDY, lived_s=60.0, within=connection)  # it is not at this study: nothing is counted
    for _ in range(MAX_DEATHS):
        assert anna.take(STUDY, RUN, within=connection).ends_workers == ""
        assert anna.died(STUDY, lived_s=60.0, within=connection)
    assert bert.take(STUDY, RUN, within=connection).ends_workers.startswith("2 workers ended while they computed it")
    assert bert.take(STUDY, f"{RUN}:1", within=connection).ends_workers == ""  # somebody asked for a retry


def test_beginnings_without_an_end_are_counted_over_all_workers(
    anna: Claims, bert: Claims, connection: Connection
) -> None:
    for claims in (anna, bert, anna, bert, anna)[:MAX_BEGINNINGS]:
        assert claims.take(STUDY, RUN, within=connection).ends_workers == ""
    assert "5 processes" in bert.take(STUDY, RUN, within=connection).ends_workers


def test_a_study_left_by_orderly_stops_is_begun_as_often_as_it_takes(anna: Claims, connection: Connection) -> None:
    for _ in range(3 * MAX_BEGINNINGS):
        claim = anna.take(STUDY, RUN, within=connection)
        assert claim.ends_workers == ""
        anna.give_back(claim, within=connection)


def test_whose_run_it_is(anna: Claims, bert: Claims, connection: Connection) -> None:
    assert not anna.is_anothers(STUDY, RUN, within=connection)
    anna.take(STUDY, RUN, within=connection)
    assert not anna.is_anothers(STUDY, RUN, within=connection)
    assert bert.is_anothers(STUDY, RUN, within=connection)
    assert not bert.is_anothers(STUDY, f"{RUN}:1", within=connection)
