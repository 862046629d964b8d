"""A soak: many studies with both ears through one worker; its memory, threads and descriptors early and at the end.

    python bench/growth_soak.py [--studies 200]

Images of the next study come while one is computed, as in a hospital.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from many_studies import Load, Site, WorkerProcess, ended, put_studies, small_ears, states, wait_until
from suite import Benchmark, Better, Found, Measurement, run

GOAL_MIB_A_THOUSAND: Final = 20.0
"""A worker that grows by less holds out for years between two restarts."""

WARM_SHARE: Final = 0.1
"""Of the soak: caches fill, and the allocator finds its size."""


def measure_soak(studies: int, loads: list[Load]) -> Iterator[Measurement]:
    """Studies with both ears through one worker, with images still coming while it computes."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        site = Site(folder=Path(folder))
        engine = site.open()
        spool, images = site.spool(engine), small_ears()
        worker = WorkerProcess(site, "worker-1")
        for number in range(studies):
            put_studies(spool, images, [number])
            wait_until(lambda before=number: ended(engine) >= before, [worker])  # one waits while one is computed
            loads.append(worker.load())
            if number % 20 == 19:
                print(f"  soak {number + 1}/{studies}: {asdict(loads[-1])}", flush=True)
        wait_until(lambda: ended(engine) == studies, [worker])
        loads.append(worker.load())
        worker.stop()
        print(f"    {dict(states(engine))}", flush=True)
        engine.dispose()
    warm = loads[max(1, int(WARM_SHARE * studies)) :]
    quarter = max(1, len(warm) // 4)
    began, ended_with = warm[:quarter], warm[-quarter:]
    apart = max(1, len(warm) - quarter) / 1000.0
    grown = statistics.median(one.memory_mib for one in ended_with) - statistics.median(one.memory_mib for one in began)
    yield Measurement(
        what=f"memory of a worker, growth over a soak of {studies} studies",
        unit="MiB per 1,000 studies",
        better=Better.LOWER,
        values=(grown / apart,),
        goal=GOAL_MIB_A_THOUSAND,
    )
    for name in ("descriptors", "threads"):
        yield Measurement(
            what=f"open {name} of a worker at the end of the soak",
            unit="",
            better=Better.LOWER,
            values=tuple(float(getattr(one, name)) for one in ended_with),
            rival="at its beginning",
            rival_values=tuple(float(getattr(one, name)) for one in began),
        )


def measure(asked: argparse.Namespace) -> Found:
    """The soak; what the worker held after every study is kept as well."""
    loads: list[Load] = []
    measurements = tuple(measure_soak(asked.studies, loads))
    return Found(measurements=measurements, details={"soak": [asdict(one) for one in loads]})


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--studies", type=int, default=200, metavar="N", help="default: %(default)s")


BENCHMARK: Final = Benchmark(
    name="growth_soak",
    question="Does a worker grow with the studies that it has computed?",
    measure=measure,
    add_options=options,
    quick=("--studies", "4"),
)

if __name__ == "__main__":
    run(BENCHMARK)
