"""The start of a node that has much in its spool, until it answers a C-ECHO, beside an empty one.

    python bench/growth_start.py [--rows 100000] [--rounds 5]

`serve` is started, asked every 20 ms, and stopped, in turns with a node that has nothing. The images lie on disk and in
the index, with the ledger, results and deliveries of their studies.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from grown_state import IMAGES_PER_STUDY, file_name, grow
from local_node import LocalNode
from suite import Benchmark, Better, Found, Measurement, in_turns, run
from turnaround import start_and_echo

from dicom_node.database import open_database

DESTINATION: Final = "pacs"
GOAL_ECHO_S: Final = 3.0


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


def measure(asked: argparse.Namespace) -> Found:
    """Starts of both nodes in turns."""
    return Found(measurements=(measure_start(asked.rows, asked.rounds),))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="images; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")


BENCHMARK: Final = Benchmark(
    name="growth_start",
    question="How soon after its start does a node with much in its spool answer?",
    measure=measure,
    add_options=options,
    quick=("--rows", "2000", "--rounds", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
