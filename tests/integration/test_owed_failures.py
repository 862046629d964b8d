"""Which failures are still to be told, in the state database: workers in a crowd, SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from local_postgresql import running_postgresql
from sqlalchemy import Engine

from dicom_node.database import open_database, writing
from dicom_node.owed_failures import LEASE_S, OwedFailures, Turn

STUDY = "2.25.100"
FAILED_AT = 1_700_000_000.123456


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: Any, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
        yield opened
        opened.dispose()
        return
    with running_postgresql() as url:
        opened = open_database(url)
        yield opened
        opened.dispose()


def test_of_a_crowd_of_workers_one_begins_and_one_strikes_it_off(engine: Engine) -> None:
    owed = OwedFailures(engine)
    with writing(engine) as connection:
        owed.owe(STUDY, at=FAILED_AT, within=connection)
        owed.owe(STUDY, at=FAILED_AT, within=connection)  # noted twice, owed once
    (failure,) = owed.open()
    assert failure.failed_at == FAILED_AT
    clocks = [FAILED_AT + 1.0 + 0.1 * (n % 3) for n in range(8)]  # which do not agree
    with ThreadPoolExecutor(len(clocks)) as workers:
        turns = Counter(workers.map(lambda at: owed.begin(failure, at=at), clocks))
        assert turns == {Turn.OURS: 1, Turn.ANOTHERS: len(clocks) - 1}
        again = Counter(workers.map(lambda at: owed.begin(failure, at=at + 2 * LEASE_S), clocks))
        assert again == {Turn.OURS: 1, Turn.ANOTHERS: len(clocks) - 1}
        settled = Counter(workers.map(lambda _at: owed.settle(failure), clocks))
    assert settled == {True: 1, False: len(clocks) - 1}
    assert owed.begin(failure, at=FAILED_AT + 9 * LEASE_S) is Turn.ANOTHERS
