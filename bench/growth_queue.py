"""A flood of tiny studies at once: the time for each with many in line behind it and with none, and a worker that dies.

    python bench/growth_queue.py [--studies 1000]

One worker computes them; it is killed (kill -9) when half of them are done, and begun again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from many_studies import Site, WorkerProcess, ended, ends_by_worker, no_ears, put_studies, states, wait_until
from suite import Benchmark, Better, Found, Measurement, run


def measure_queue(studies: int) -> Iterator[Measurement]:
    """A flood of tiny studies through one worker, which is killed when half of them are done."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        site = Site(folder=Path(folder))
        engine = site.open()
        put_studies(site.spool(engine), no_ears(), range(studies))
        print(f"  {studies} studies stand in the spool", flush=True)
        worker = WorkerProcess(site, "worker-1")
        wait_until(lambda: ended(engine) >= studies // 2, [worker])
        worker.kill()
        done, began = ended(engine), time.monotonic()
        worker = WorkerProcess(site, "worker-1")
        wait_until(lambda: ended(engine) > done, [worker], every_s=0.05)
        again_s = time.monotonic() - began
        wait_until(lambda: ended(engine) == studies, [worker])
        worker.stop()
        print(f"    {dict(states(engine))}", flush=True)
        (ends,) = ends_by_worker(engine).values()
        engine.dispose()
    tenth = max(2, studies // 10)
    before, after = _apart_ms(ends[studies // 2 - tenth : studies // 2]), _apart_ms(ends[-tenth:])
    yield Measurement(
        what=f"a study with {studies // 2:,} in line behind it",
        unit="ms",
        better=Better.LOWER,
        values=(before,),
        rival="the last of them",
        rival_values=(after,),
    )
    yield Measurement(
        what=f"kill -9 of the worker with {studies // 2:,} in line, until its successor has ended a study",
        unit="s",
        better=Better.LOWER,
        values=(again_s,),
    )


def _apart_ms(ends: Sequence[float]) -> float:
    """How long a study takes in a row of them."""
    return 1000.0 * statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))


def measure(asked: argparse.Namespace) -> Found:
    """The flood."""
    return Found(measurements=tuple(measure_queue(asked.studies)))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--studies", type=int, default=1000, metavar="N", help="tiny ones; default: %(default)s")


BENCHMARK: Final = Benchmark(
    name="growth_queue",
    question="Does a study take longer with a thousand in line behind it?",
    measure=measure,
    add_options=options,
    quick=("--studies", "20"),
)

if __name__ == "__main__":
    run(BENCHMARK)
