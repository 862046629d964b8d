"""What a node does all day, after years of work, beside the same on a small state.

    python bench/growth.py [--rows 1000000] [--few-rows 10000] [--rounds 5]

Two databases, one with a million images in its index and one with ten thousand, both filled by the product's own
tables; each operation is timed on both in turns, and where the cost does not grow the ratio stays near 1. The other
three sides of growth are benchmarks of their own: `growth_start.py`, `growth_queue.py` and `growth_soak.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from dashboard_parts import make_parts, serving
from desk_parts import DeskParts, hydrops_study
from grown_state import IMAGES_PER_STUDY, grow
from suite import Benchmark, Better, Found, Measurement, in_turns, run, seconds

from dicom_node.delivery.completion import commitment_counts
from dicom_node.duties import duties
from dicom_node.retention.keeping import keeping_of
from dicom_node.retention.periods import Periods

DESTINATION: Final = "pacs"
CALLS: Final = 5
"""Of an operation in each round; the middle one counts."""


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
        "page: drift over a year": partial(get, "/drift?days=365"),
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


def measure(asked: argparse.Namespace) -> Found:
    """Every operation on both databases."""
    return Found(measurements=tuple(measure_operations(asked.rows, asked.few_rows, asked.rounds)))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="images; default: %(default)s")
    parser.add_argument("--few-rows", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")


BENCHMARK: Final = Benchmark(
    name="growth",
    question="Does what a node does all day take longer after years?",
    measure=measure,
    add_options=options,
    quick=("--rows", "20000", "--few-rows", "2000", "--rounds", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
