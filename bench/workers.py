"""Throughput against the number of workers, beside one worker on the same database.

    python bench/workers.py [--workers 2] [--studies 10] [--rounds 3] [--databases sqlite postgresql]

Every worker is a process of its own with one computing thread. In each round a fresh state gets the same number of
small synthetic studies for each worker: both ears found, measured, encoded, verified, in a twentieth of a clinical
study's voxels, so that what workers share weighs twenty times as much as in practice. Then the workers start, and
compute until the queue is empty. A worker's rate is counted from the end of its first study to the end of its last; the
rate of all is their sum.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from local_postgresql import running_postgresql
from many_studies import Site, ended, ends_by_worker, put_studies, small_ears, states, wait_until, workers_at
from suite import Benchmark, Better, Found, Measurement, in_turns, run

GOAL_OF_LINEAR: Final = 0.85
SQLITE, POSTGRESQL = "sqlite", "postgresql"
NAMES: Final = {SQLITE: "SQLite", POSTGRESQL: "PostgreSQL"}


def studies_a_minute(site: Site, workers: int, studies: int) -> float:
    """Rate of so many workers with so many studies for each of them."""
    engine = site.open()
    count = workers * studies
    put_studies(site.spool(engine), small_ears(), range(count))
    with workers_at(site, workers) as running:
        wait_until(lambda: ended(engine) == count, running)
    ends = ends_by_worker(engine)
    if len(ends) != workers:
        raise RuntimeError(f"{workers} workers were started, {sorted(ends)} took part: give each more studies")
    print(f"    {workers} at work: {dict(states(engine))}", flush=True)
    engine.dispose()
    return sum(60.0 * (len(one) - 1) / (one[-1] - one[0]) for one in ends.values())


@contextmanager
def sites(database: str) -> Iterator[Callable[[], Site]]:
    """Makes a fresh site at every call."""
    made = 0
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:

        def site(url: str = "") -> Site:
            nonlocal made
            made += 1
            place = Path(folder) / f"site-{made}"
            place.mkdir()
            return Site(folder=place, url=url)

        if database == SQLITE:
            yield site
            return
        with running_postgresql() as server:

            def site_on_server() -> Site:
                name = f"site_{made}"
                with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
                    connection.execute(sa.text(f"CREATE DATABASE {name}"))
                return site(server.rsplit("/", 1)[0] + f"/{name}")

            yield site_on_server


def measure_database(database: str, workers: int, studies: int, rounds: int) -> Iterator[Measurement]:
    """One worker and several in turns."""
    print(f"{NAMES[database]}", flush=True)
    with sites(database) as fresh:
        rates = in_turns(
            rounds,
            {
                "several": lambda: studies_a_minute(fresh(), workers, studies),
                "one": lambda: studies_a_minute(fresh(), 1, studies),
            },
        )
    yield Measurement(
        what=f"{NAMES[database]}, {workers} workers",
        unit="studies/min",
        better=Better.HIGHER,
        values=rates["several"],
        rival="one worker",
        rival_values=rates["one"],
    )
    yield Measurement(
        what=f"{NAMES[database]}, {workers} workers: share of {workers} times one",
        unit="of linear",
        better=Better.HIGHER,
        values=tuple(several / (workers * one) for several, one in zip(rates["several"], rates["one"], strict=True)),
        goal=GOAL_OF_LINEAR,
    )


def measure(asked: argparse.Namespace) -> Found:
    """Every database in turn."""
    return Found(
        measurements=tuple(
            one
            for database in asked.databases
            for one in measure_database(database, asked.workers, asked.studies, asked.rounds)
        )
    )


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--studies", type=int, default=10, metavar="N", help="for each worker; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--databases", nargs="+", default=[SQLITE, POSTGRESQL], choices=[SQLITE, POSTGRESQL])


BENCHMARK: Final = Benchmark(
    name="workers",
    question="How much more do several workers get through than one?",
    measure=measure,
    add_options=options,
    quick=("--studies", "3", "--rounds", "1", "--databases", "sqlite"),
)

if __name__ == "__main__":
    run(BENCHMARK)
