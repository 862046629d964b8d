"""What a node does all day, after years and after a flood: every operation beside itself on a small state.

    python bench/growth.py [--rows 1000000] [--few-rows 10000] [--queued 1000] [--soak 200] [--starting-rows 100000]

Four parts. (1) Two databases, one with a million images in its index and one with ten thousand, both filled by the
product's own tables; each operation is timed on both in turns, and where the cost does not grow the ratio stays near 1.
(2) The node's start with a hundred thousand images on disk and in the index, until it answers a C-ECHO, beside an empty
one. (3) A thousand tiny studies at once: the time for each while the queue is full and while it is nearly empty, and a
worker that is killed in the middle. (4) A soak: many studies with two ears through one worker, its memory and
descriptors after the first tenth and at the end.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from dashboard_parts import make_parts, serving
from desk_parts import DeskParts, hydrops_study
from grown_state import IMAGES_PER_STUDY, file_name, grow
from local_node import LocalNode
from many_studies import (
    Load,
    Site,
    WorkerProcess,
    ended,
    ends_by_worker,
    no_ears,
    put_studies,
    small_ears,
    states,
    wait_until,
)
from suite import Benchmark, Better, Found, Measurement, in_turns, run, seconds
from turnaround import start_and_echo

from dicom_node.database import open_database
from dicom_node.delivery.completion import commitment_counts
from dicom_node.duties import duties
from dicom_node.retention.keeping import keeping_of
from dicom_node.retention.periods import Periods

DESTINATION: Final = "pacs"
CALLS: Final = 5
"""Of an operation in each round; the middle one counts."""

IDLE_S: Final = 20.0
GOAL_ECHO_S: Final = 3.0
GOAL_MIB_A_THOUSAND: Final = 20.0
"""A worker that grows by less holds out for years between two restarts."""

WARM_SHARE: Final = 0.1
"""Of the soak: caches fill, and the allocator finds its size."""


def operations(parts: DeskParts, get: Callable[[str], object]) -> Mapping[str, Callable[[], object]]:
    """What a node does all day, by what it is called in the table."""
    now = time.time()
    numbers = iter(range(1_000_000))
    parts.desk.look_round()  # at all studies; what follows within seconds is at what came lately

    def one_image_comes() -> None:
        parts.receive(hydrops_study(f"2.25.8.{next(numbers)}")[:1])

    def keeping() -> None:
        with parts.engine.connect() as connection:
            keeping_of(connection, "2.25.5", Periods(inputs_days=30, results_days=0, audit_days=0))

    return {
        "an image is kept and indexed": one_image_comes,
        "look round, nothing new": parts.desk.look_round,
        "what is due to be delivered": partial(parts.outbox.due, DESTINATION, now),
        "states and backlog for /metrics": lambda: (
            parts.ledger.counts(),
            parts.outbox.backlog(),
            commitment_counts(parts.engine),
            duties(parts.engine),
        ),
        "`status`: the last fifty, and who works": lambda: (parts.ledger.recent(limit=50), duties(parts.engine)),
        "until when a study is kept": keeping,
        "page: list of studies": partial(get, "/studies"),
        "page: one study": partial(get, "/studies/2.25.5"),
        "page: one patient's studies, by a word": partial(parts.cards.search, "P000001"),
    }


def timed(operation: Callable[[], object]) -> float:
    """The middle of a few calls, in milliseconds."""
    return 1000.0 * statistics.median(seconds(operation) for _ in range(CALLS))


def measure_operations(rows: int, few_rows: int, rounds: int) -> Iterator[Measurement]:
    """Each operation on many rows and on few."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        large, small = (_grown(Path(folder) / str(count), count // IMAGES_PER_STUDY) for count in (rows, few_rows))
        with serving(make_parts(large.folder)) as of_large, serving(make_parts(small.folder)) as of_small:
            clients = of_large.client("vera"), of_small.client("vera")
            size = (large.folder / "node.db").stat().st_size / 2**20
            yield Measurement(
                what=f"the state database, {rows:,} images", unit="MiB", better=Better.LOWER, values=(size,)
            )
            many = operations(large, lambda path: clients[0].get(path).raise_for_status())
            few = operations(small, lambda path: clients[1].get(path).raise_for_status())
            for name in many:
                print(f"  {name}", flush=True)
                values = in_turns(rounds, {"many": partial(timed, many[name]), "few": partial(timed, few[name])})
                yield Measurement(
                    what=f"{name}, {rows:,} images",
                    unit="ms",
                    better=Better.LOWER,
                    values=values["many"],
                    rival=f"the same with {few_rows:,}",
                    rival_values=values["few"],
                )


def _grown(folder: Path, studies: int) -> DeskParts:
    folder.mkdir()
    parts = DeskParts(folder, clock=time.time)
    began = time.monotonic()
    grow(parts.engine, studies, destination=DESTINATION)
    print(f"{studies * IMAGES_PER_STUDY} images indexed in {time.monotonic() - began:.0f} s", flush=True)
    return parts


def measure_start(rows: int, rounds: int) -> Measurement:
    """Start of the whole node until its first C-ECHO."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        full = LocalNode(Path(folder) / "full", entrance="dicom")
        empty = LocalNode(Path(folder) / "empty", entrance="dicom")
        full.state_dir.mkdir(parents=True, mode=0o700)
        engine = open_database(f"sqlite:///{full.state_dir / 'node.db'}")
        grow(engine, rows // IMAGES_PER_STUDY, destination=DESTINATION)
        engine.dispose()
        _put_files(full.state_dir / "spool", rows)
        print("  start to first C-ECHO", flush=True)
        values = in_turns(rounds, {"full": partial(_start, full), "empty": partial(_start, empty)})
    return Measurement(
        what=f"start to first C-ECHO, {rows:,} images",
        unit="s",
        better=Better.LOWER,
        values=values["full"],
        rival="an empty node",
        rival_values=values["empty"],
        goal=GOAL_ECHO_S,
    )


def _start(node: LocalNode) -> float:
    try:
        return start_and_echo(node)
    finally:
        node.stop()


def _put_files(spool: Path, rows: int) -> None:
    """A file for each row; the sweep looks at names only, and so what is in them does not matter here."""
    for number in range(256):
        (spool / f"{number:02x}").mkdir(parents=True)
    for study in range(rows // IMAGES_PER_STUDY):
        for image in range(IMAGES_PER_STUDY):
            name = file_name(study, image)
            (spool / name[:2] / f"{name}.dcm").write_bytes(b"")


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
        time.sleep(IDLE_S)  # deliveries and the last look at all studies are over
        before_s = worker.cpu_s()
        time.sleep(IDLE_S)
        idle = 100.0 * (worker.cpu_s() - before_s) / IDLE_S
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
    yield Measurement(what="a worker with nothing to do", unit="% of a core", better=Better.LOWER, values=(idle,))


def _apart_ms(ends: Sequence[float]) -> float:
    """How long a study takes in a row of them."""
    return 1000.0 * statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))


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
    """All four parts."""
    loads: list[Load] = []
    measurements = [
        *measure_operations(asked.rows, asked.few_rows, asked.rounds),
        measure_start(asked.starting_rows, asked.rounds),
        *measure_queue(asked.queued),
        *measure_soak(asked.soak, loads),
    ]
    return Found(measurements=tuple(measurements), details={"soak": [asdict(one) for one in loads]})


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="images; default: %(default)s")
    parser.add_argument("--few-rows", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--starting-rows", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--queued", type=int, default=1000, metavar="N", help="tiny studies; default: %(default)s")
    parser.add_argument("--soak", type=int, default=200, metavar="N", help="studies; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")


BENCHMARK: Final = Benchmark(
    name="growth",
    question="Does anything take longer after years, or with a thousand studies in line?",
    measure=measure,
    add_options=options,
    quick=(
        *("--rows", "20000", "--few-rows", "2000", "--starting-rows", "2000"),
        *("--queued", "20", "--soak", "4", "--rounds", "2"),
    ),
)

if __name__ == "__main__":
    run(BENCHMARK)
