"""The drift page over a year of many studies, beside the same page computed from ledger, card index and outbox.

    python bench/growth_drift.py [--studies 100000] [--rounds 5] [--databases sqlite postgresql]

A real server, asked over HTTP as a browser would; its answer is the whole page. The rival is the page of a node whose
worker has not written a line yet, as in the first minutes after an upgrade. The clock's seconds count here, because
the database is a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, delete, select

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from dashboard_parts import Dashboard, make_parts, serving
from grown_state import grow
from local_postgresql import running_postgresql
from suite import Benchmark, Better, Found, Measurement, in_turns, run, seconds

from dicom_node.database import open_database, writing
from dicom_node.delivery.outbox import Outbox
from dicom_node.drift_rows import drift_rows, owe_points, owed_points
from dicom_node.ledger import Ledger
from dicom_node.study_cards import StudyCards

NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
PAGE: Final = "/drift?days=365"
GOAL_S: Final = 0.3
VIEWS: Final = 20
"""After which the server is looked at: what it keeps of a page would show."""


def measure_database(database: str, studies: int, rounds: int) -> Iterator[Measurement]:
    """The page with its lines written and without, and what the server keeps of it."""
    server: AbstractContextManager[str] = running_postgresql() if database == "postgresql" else nullcontext("")
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder, server as url:
        engine = open_database(url or f"sqlite:///{folder}/grown.db")
        began = time.monotonic()
        grow(engine, studies, destination="pacs", with_images=False)
        print(f"{NAMES[database]}: {studies} studies written in {time.monotonic() - began:.0f} s", flush=True)
        parts = make_parts(
            Path(folder),
            engine=engine,
            ledger=Ledger(engine),
            cards=StudyCards(engine),
            outbox=Outbox(Path(folder) / "outbox", engine),
        )
        with serving(parts) as dashboard:
            yield from _measure_page(NAMES[database], dashboard, studies, rounds)


def _measure_page(database: str, dashboard: Dashboard, studies: int, rounds: int) -> Iterator[Measurement]:
    client = dashboard.client("vera")

    def look() -> None:
        client.get(PAGE).raise_for_status()

    def computed() -> float:
        _owe_all(dashboard.parts.engine)
        try:
            return seconds(look)
        finally:
            with writing(dashboard.parts.engine) as connection:
                connection.execute(delete(owed_points))

    look()
    values = in_turns(rounds, {"lines": lambda: seconds(look), "computed": computed})
    yield Measurement(
        what=f"{database}: drift over a year, {studies:,} studies",
        unit="s",
        better=Better.LOWER,
        values=values["lines"],
        rival="computed from the sources",
        rival_values=values["computed"],
        goal=GOAL_S,
    )
    look()
    before = _memory_mib()
    for _ in range(VIEWS):
        look()
    yield Measurement(
        what=f"{database}: memory of the server, growth over {VIEWS} views of it",
        unit="MiB",
        better=Better.LOWER,
        values=(_memory_mib() - before,),
    )


def _owe_all(engine: Engine) -> None:
    """Have every study computed by the page, as if no worker had seen to any."""
    with writing(engine) as connection:
        owe_points(connection, select(drift_rows.c.study_instance_uid))


def _memory_mib() -> float:
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(words["VmRSS"].split()[0]) / 1024.0


def measure(asked: argparse.Namespace) -> Found:
    """Every database in turn."""
    return Found(
        measurements=tuple(
            one for database in asked.databases for one in measure_database(database, asked.studies, asked.rounds)
        )
    )


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--studies", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--databases", nargs="+", choices=tuple(NAMES), default=list(NAMES), help="default: both")


BENCHMARK: Final = Benchmark(
    name="growth_drift",
    question="Is the drift page there at once after years?",
    measure=measure,
    add_options=options,
    quick=("--studies", "2000", "--rounds", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
