"""The spool's index on a real PostgreSQL: the same promises, and many writers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_postgresql import running_postgresql
from mr_images import EXPLICIT_LE, STUDY, encode, make_mr
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text

from dicom_node.database import open_database
from dicom_node.errors import ConfigError
from dicom_node.intake.replaced_images import ReplacedImages
from dicom_node.intake.spool import Spool, StoredKind


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture
def engine(server: str) -> Iterator[Engine]:
    opened = open_database(server)
    with opened.begin() as connection:
        connection.execute(text("TRUNCATE spool_instance, spool_series, spool_study"))
    yield opened
    opened.dispose()


def test_new_duplicate_conflict_arrivals_and_revisions_are_as_on_sqlite(engine, tmp_path):
    spool = Spool(tmp_path, engine)
    image = make_mr()
    spool.set_expected(image.SeriesInstanceUID, 2)
    kinds = []
    for pixels in (bytes(512), bytes(512), b"\1" * 512):
        image.PixelData = pixels
        kinds.append(spool.store_dataset(encode(image), EXPLICIT_LE, source="A", at=1.5).kind)
    assert kinds == [StoredKind.NEW, StoredKind.DUPLICATE, StoredKind.CONFLICT]
    assert [one.conflict for one in spool.instances(STUDY)] == [True, True]
    arrival = spool.arrivals(STUDY)[image.SeriesInstanceUID]
    assert (arrival.received, arrival.expected, arrival.last_received_at) == (1, 2, 1.5)
    assert [(one.instances, one.revision) for one in spool.studies()] == [(1, 2)]
    assert spool.arrival(image.SeriesInstanceUID) == arrival
    assert spool.arrival("1.2.3") is None
    spool.set_expected(image.SeriesInstanceUID, 3)
    assert spool.studies()[0].revision == 3


def test_images_that_orthanc_has_not_given_are_remembered_as_on_sqlite(engine):
    now = [100.0]
    here, there = (ReplacedImages(engine, url, clock=lambda: now[0]) for url in ("http://here", "http://there"))
    here.add(["a", "b"])
    there.add(["a"])
    now[0] = 200.0
    here.add(["a", "c"])
    here.strike(["b", "x"])
    again = ReplacedImages(engine, "http://here", clock=lambda: now[0])
    assert again.waiting(since=100.0) == {"a", "c"}
    assert again.waiting(since=150.0) == {"c"}
    again.clear()
    assert again.waiting(since=0.0) == frozenset()
    assert there.waiting(since=0.0) == {"a"}


def test_the_index_is_rebuilt_from_the_files(engine, tmp_path):
    spool = Spool(tmp_path, engine)
    for _ in range(3):
        spool.store_dataset(encode(make_mr()), EXPLICIT_LE, source="A", at=1.5)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE spool_instance"))
    assert len(spool.sweep().reindexed) == 3
    assert len(spool.instances(STUDY)) == 3


def test_two_contents_of_one_uid_at_the_same_moment_are_always_seen_as_a_conflict(engine, tmp_path):
    """Two nodes on one database; without a lock on the UID both would see themselves as the first."""
    spools = [Spool(tmp_path, engine) for _ in range(2)]
    for _ in range(20):
        image = make_mr()
        contents = [encode(make_mr(SOPInstanceUID=image.SOPInstanceUID, PixelData=bytes([n]) * 512)) for n in range(2)]
        barrier = threading.Barrier(2)
        kinds: list[StoredKind] = []

        def store(spool: Spool, content: bytes, barrier=barrier, kinds=kinds) -> None:
            barrier.wait()
            kinds.append(spool.store_dataset(content, EXPLICIT_LE, source="A", at=1.0).kind)

        writers = [threading.Thread(target=store, args=pair) for pair in zip(spools, contents, strict=True)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted(kinds) == [StoredKind.CONFLICT, StoredKind.NEW]
    assert all(one.conflict for one in spools[0].instances(STUDY))


def test_many_writers_across_studies_neither_lose_nor_deadlock(engine, tmp_path):
    spool = Spool(tmp_path, engine)
    uids = [make_mr().SOPInstanceUID for _ in range(10)]
    failed: list[BaseException] = []

    def store(worker: int) -> None:
        try:
            for uid in uids if worker % 2 else reversed(uids):
                study = f"1.2.3.{worker}"
                image = make_mr(SOPInstanceUID=uid, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
                spool.store_dataset(encode(image), EXPLICIT_LE, source="A", at=1.0)
        except BaseException as problem:
            failed.append(problem)
            raise

    writers = [threading.Thread(target=store, args=(worker,)) for worker in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    kept = [one for worker in range(6) for one in spool.instances(f"1.2.3.{worker}")]
    assert len(kept) == 60
    assert all(one.conflict for one in kept)


@pytest.fixture
def fresh(server: str) -> Iterator[URL]:
    """An empty database on the server."""
    url = make_url(server).set(database="fresh")
    keeper = create_engine(server, isolation_level="AUTOCOMMIT")
    with keeper.connect() as connection:
        connection.execute(text("CREATE DATABASE fresh"))
        yield url
        connection.execute(text("DROP DATABASE fresh WITH (FORCE)"))
    keeper.dispose()


def test_processes_that_start_together_on_a_new_database_all_find_their_tables(fresh: URL) -> None:
    """As after an update: unless one waits for the other, both make the same table, and one of them ends."""
    together = threading.Barrier(6)

    def start(_process: int) -> bool:
        together.wait()
        opened = open_database(fresh.render_as_string(hide_password=False))
        known = inspect(opened).has_table("spool_instance")
        opened.dispose()
        return known

    with ThreadPoolExecutor(6) as processes:
        assert all(processes.map(start, range(6)))


def test_a_user_who_may_make_no_tables_is_told_so_and_not_that_the_database_is_damaged(fresh: URL) -> None:
    maker = create_engine(fresh)
    with maker.begin() as connection:
        connection.execute(text("CREATE ROLE onlooker LOGIN"))
    with pytest.raises(ConfigError, match=r"fresh: PostgreSQL does not let .*permission denied.*needs CREATE"):
        open_database(fresh.set(username="onlooker").render_as_string(hide_password=False))
    with maker.begin() as connection:
        connection.execute(text("DROP ROLE onlooker"))
    maker.dispose()
