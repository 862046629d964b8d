"""A worker that has nothing to do hardly looks, and misses nothing that it would have seen by looking all the time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_postgresql import programs, running_postgresql
from sqlalchemy import Engine, insert, text

from dicom_node.change_watch import ChangeWatch
from dicom_node.database import open_database, writing
from dicom_node.intake.spool_rows import study_table
from dicom_node.ledger import Ledger, StudyEvent
from dicom_node.look_pace import LOOK_ANYWAY_S, LookPace

STUDY = "2.25.1"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'node.db'}"
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    return str(request.getfixturevalue("server"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_database(url)
    with writing(opened) as connection:
        for table in ("spool_instance", "spool_study", "ledger_studies", "ledger_events"):
            connection.execute(text(f"DELETE FROM {table}"))
    yield opened
    opened.dispose()


def come(engine: Engine, study: str = STUDY) -> None:
    with writing(engine) as connection:
        connection.execute(insert(study_table).values(study_instance_uid=study, revision=1))


def test_nothing_has_changed_until_somebody_commits(engine: Engine) -> None:
    watch = ChangeWatch(engine)
    assert watch.changed()  # nobody has looked yet
    assert [watch.changed() for _ in range(3)] == [False, False, False]
    come(engine)
    assert [watch.changed() for _ in range(2)] == [True, False]
    with engine.connect() as connection:
        connection.execute(text("SELECT count(*) FROM spool_study"))
    assert not watch.changed()


def test_a_change_is_seen_when_it_is_committed_however_long_ago_it_was_made(engine: Engine) -> None:
    watch = ChangeWatch(engine)
    watch.changed()
    with writing(engine) as connection:
        connection.execute(insert(study_table).values(study_instance_uid=STUDY, revision=1))
        watch.changed()  # PostgreSQL: a transaction has begun; nothing of it is to be seen yet
        watch.changed()
    assert watch.changed()


def test_what_is_rolled_back_hides_nothing_that_follows(engine: Engine) -> None:
    watch = ChangeWatch(engine)
    with engine.connect() as connection:
        connection.execute(insert(study_table).values(study_instance_uid=STUDY, revision=1))
        connection.rollback()
    watch.changed()
    come(engine)
    assert watch.changed()


def test_a_commit_of_another_process_is_seen(engine: Engine, url: str) -> None:
    watch = ChangeWatch(engine)
    watch.changed()
    program = (
        "import sys; from dicom_node.database import open_database, writing; from sqlalchemy import text\n"
        "with writing(open_database(sys.argv[1])) as c: "
        "c.execute(text(\"INSERT INTO spool_study (study_instance_uid, revision) VALUES ('2.25.9', 1)\"))"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)
    assert watch.changed()


def test_every_one_of_many_commits_is_seen_between_two_looks(engine: Engine) -> None:
    watch = ChangeWatch(engine)
    watch.changed()
    for number in range(200):
        come(engine, f"2.25.{number}")
        assert watch.changed()
        assert not watch.changed()


def test_where_the_database_went_away_one_looks_and_then_watches_on() -> None:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with running_postgresql() as url:
        engine = open_database(url)
        watch = ChangeWatch(engine)
        watch.changed()
        assert not watch.changed()
        with engine.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()")
            )
        assert watch.changed()
        assert watch.changed()
        assert not watch.changed()
        engine.dispose()


@dataclass
class Clocks:
    """A wall clock that can be set, and one that cannot."""

    now: float = 1_000_000.0
    steady: float = 0.0

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def pace(engine: Engine, clocks: Clocks) -> LookPace:
    made = LookPace(engine, clock=lambda: clocks.now, monotonic=lambda: clocks.steady)
    assert made.is_due()
    made.looked()
    assert not made.is_due()
    return made


def test_an_idle_worker_looks_round_every_five_seconds_and_when_something_is_committed(
    engine: Engine, clocks: Clocks, pace: LookPace
) -> None:
    clocks.go_on(LOOK_ANYWAY_S - 0.1)
    assert not pace.is_due()
    clocks.go_on(0.2)
    assert pace.is_due()
    pace.looked()
    assert not pace.is_due()
    come(engine)
    assert pace.is_due()


def test_a_study_whose_time_comes_is_looked_at_in_that_moment(engine: Engine, clocks: Clocks, pace: LookPace) -> None:
    wait(Ledger(engine), clocks.now, until=clocks.now + LOOK_ANYWAY_S - 1.0)
    looks(pace)
    clocks.go_on(LOOK_ANYWAY_S - 1.01)
    assert not pace.is_due()
    clocks.go_on(0.02)
    assert pace.is_due()


def test_while_a_study_is_under_way_every_look_is_due(engine: Engine, clocks: Clocks, pace: LookPace) -> None:
    ledger = Ledger(engine)
    wait(ledger, clocks.now, until=clocks.now + 3600.0)
    ledger.move(STUDY, StudyEvent.COMPLETED, at=clocks.now, work_id="a", work={})
    for event in (StudyEvent.STARTED, StudyEvent.COMPUTED):
        looks(pace)
        assert pace.is_due()
        ledger.move(STUDY, event, at=clocks.now, **({} if event is StudyEvent.STARTED else {"findings": {}}))
    looks(pace)
    assert not pace.is_due()


def test_after_the_clock_was_set_back_the_next_look_is_due(clocks: Clocks, pace: LookPace) -> None:
    clocks.go_on(1.0)
    assert not pace.is_due()
    clocks.now -= 3600.0
    assert pace.is_due()


def looks(pace: LookPace) -> None:
    """Look round, as a worker does."""
    pace.is_due()
    pace.looked()


def wait(ledger: Ledger, now: float, *, until: float) -> None:
    """Have the study wait for its time."""
    ledger.arrived(STUDY, revision=1, at=now)
    ledger.waiting(STUDY, reason="", detail="", look_again_at=until, decisions=[], at=now)
