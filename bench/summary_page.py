"""How long a study's summary page takes: picture and PDF, drawn, encoded and read back, as the worker does it.

    python bench/summary_page.py [--rounds 10]

One process, one thread; the first round, which loads fonts, is told apart. By the clock, and in processor time, which
others on the machine do not touch. Also the search among 10,000 study cards.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pydicom
from machine import REPOSITORY
from suite import Benchmark, Better, Found, Measurement, run

sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from summary_pages import page, summary_source

from dicom_node.database import open_database
from dicom_node.ledger import Ledger
from dicom_node.study_cards import StudyCards, card_of
from dicom_node.summary.objects import computed_summary

STUDIES: Final = 10_000


def timed(what: str, rounds: int, task: Callable[[], object]) -> Iterator[Measurement]:
    """The task's time by the clock, and the processor's."""
    elapsed, own = [], []
    for _ in range(rounds):
        began, began_own = time.perf_counter(), time.process_time()
        task()
        elapsed.append(time.perf_counter() - began)
        own.append(time.process_time() - began_own)
    yield Measurement(what=what, unit="s", better=Better.LOWER, values=tuple(elapsed))
    yield Measurement(what=f"{what}, processor", unit="s", better=Better.LOWER, values=tuple(own))


def draw(rounds: int) -> Iterator[Measurement]:
    """The page in its forms."""
    of = page()
    picture, both = summary_source(of.source), summary_source(of.source, pdf=True)
    yield from timed("picture and PDF, first", 1, lambda: computed_summary(of.findings, of.measurements, both))
    yield from timed("picture", rounds, lambda: computed_summary(of.findings, of.measurements, picture))
    yield from timed("picture and PDF", rounds, lambda: computed_summary(of.findings, of.measurements, both))


def search(folder: Path, rounds: int) -> Iterator[Measurement]:
    """One page of a list, searched by name among many studies."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    cards, ledger = StudyCards(engine), Ledger(engine)
    for number in range(STUDIES):
        header = pydicom.Dataset()
        header.PatientID, header.PatientName = f"P{number % 3000}", f"Name{number}^Given"
        cards.put(card_of(f"1.2.{number}", header))
        ledger.arrived(f"1.2.{number}", revision=1, at=float(number))
    for text in ("", "name77", "nobody"):
        yield from timed(f"search '{text}' among {STUDIES} studies", rounds, partial(cards.search, text))


def measure(asked: argparse.Namespace) -> Found:
    """Draw, then search."""
    with tempfile.TemporaryDirectory() as folder:
        return Found(measurements=(*draw(asked.rounds), *search(Path(folder), asked.rounds)))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rounds", type=int, default=10, help="default %(default)s")


BENCHMARK: Final = Benchmark(
    name="summary_page",
    question="How long does the summary page of a study take, and a search in the list?",
    measure=measure,
    add_options=options,
    quick=("--rounds", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
