"""What a node costs that has nothing to do: both processes of `serve`, on SQLite and on PostgreSQL.

    python bench/growth_idle.py [--idle-s 60] [--databases sqlite postgresql]

Processor time that the kernel has counted, so other jobs on the machine hardly disturb it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from local_node import LocalNode
from local_postgresql import running_postgresql
from many_studies import processor_s
from suite import Benchmark, Better, Found, Measurement, run

NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
SETTLE_S: Final = 20.0
"""The start is over: imports, first looks, the sweep."""

GOAL_PERCENT: Final = 2.0


def measure_database(database: str, idle_s: float) -> Iterator[Measurement]:
    """Both processes of an idle node."""
    server: AbstractContextManager[str] = running_postgresql() if database == "postgresql" else nullcontext("")
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder, server as url:
        environment = {"HYDROPS_DATABASE_URL": url} if url else {}
        node = LocalNode(Path(folder) / "node", entrance="dicom", environment=environment)
        node.start()
        try:
            time.sleep(SETTLE_S)
            percent = _percent_of_a_core(node, idle_s)
        finally:
            node.stop()
    for what, value in percent.items():
        print(f"  {NAMES[database]}: {what} {value:.2f} %", flush=True)
        yield Measurement(
            what=f"{NAMES[database]}: {what} with nothing to do",
            unit="% of a core",
            better=Better.LOWER,
            values=(value,),
            goal=GOAL_PERCENT,
        )


def _percent_of_a_core(node: LocalNode, idle_s: float) -> Mapping[str, float]:
    (receiver,), (worker,) = node.pids(), node.worker_pids()
    pids = {"the worker": worker, "the receiver": receiver}
    before, began = {name: processor_s(pid) for name, pid in pids.items()}, time.monotonic()
    time.sleep(idle_s)
    lasted_s = time.monotonic() - began
    return {name: 100.0 * (processor_s(pid) - before[name]) / lasted_s for name, pid in pids.items()}


def measure(asked: argparse.Namespace) -> Found:
    """Every database in turn."""
    return Found(
        measurements=tuple(one for database in asked.databases for one in measure_database(database, asked.idle_s))
    )


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--idle-s", type=float, default=60.0, metavar="S", help="default: %(default)s")
    parser.add_argument("--databases", nargs="+", choices=tuple(NAMES), default=list(NAMES), help="default: both")


BENCHMARK: Final = Benchmark(
    name="growth_idle",
    question="What does a node cost that has nothing to do?",
    measure=measure,
    add_options=options,
    quick=("--idle-s", "10"),
)

if __name__ == "__main__":
    run(BENCHMARK)
