"""The spool's index on a real PostgreSQL: the same promises, and many writers at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mr_images import EXPLICIT_LE, STUDY, encode, make_mr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from dicom_node.database import open_database
from dicom_node.intake.spool import Spool, StoredKind


def programs() -> Path | None:
    """Folder of initdb and postgres; Debian keeps them outside PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a fresh server; it runs as user postgres when we are root, because it refuses to run as root."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data = Path(f"/tmp/hydrops-test-postgresql-{os.getpid()}")
    data.mkdir(mode=0o700)
    if as_postgres:
        shutil.chown(data, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    initdb = [str(folder / "initdb"), "-D", str(data), "-U", "node", "--auth=trust", "--no-sync"]
    subprocess.run([*as_postgres, *initdb], check=True, capture_output=True, cwd="/")
    postgres = [str(folder / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(data)]
    process = subprocess.Popen([*as_postgres, *postgres], stderr=subprocess.DEVNULL, cwd="/")
    try:
        url = f"postgresql+psycopg://node@127.0.0.1:{port}/postgres"
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(data)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            open_database(url).dispose()
            return
        except OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)


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
    spool.set_expected(image.SeriesInstanceUID, 3)
    assert spool.studies()[0].revision == 3


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
