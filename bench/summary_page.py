"""How long a study's summary page takes: picture and PDF, drawn, encoded and read back, as the worker does it.

    python bench/summary_page.py [--rounds 10]

One process, one thread; the first round, which loads fonts, is told apart. Also the search among 10,000 study cards.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pydicom
from machine import REPOSITORY, machine_line

sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

from summary_pages import page, summary_source

from dicom_node.database import open_database
from dicom_node.ledger import Ledger
from dicom_node.study_cards import StudyCards, card_of
from dicom_node.summary.objects import computed_summary

STUDIES = 10_000


def say(what: str, rounds: int, task: Callable[[], object]) -> None:
    """One line: median and slowest by the clock, and the processor's time, which others do not touch."""
    elapsed, own = [], []
    for _ in range(rounds):
        began, began_own = time.perf_counter(), time.process_time()
        task()
        elapsed.append(time.perf_counter() - began)
        own.append(time.process_time() - began_own)
    median, slowest = statistics.median(elapsed), max(elapsed)
    print(f"{what}: median {median:.3f} s, slowest {slowest:.3f} s of {rounds}; CPU {statistics.median(own):.3f} s")


def draw(rounds: int) -> None:
    """The page in its forms."""
    of = page()
    picture, both = summary_source(of.source), summary_source(of.source, pdf=True)
    say("picture and PDF, first", 1, lambda: computed_summary(of.findings, of.measurements, both))
    say("picture", rounds, lambda: computed_summary(of.findings, of.measurements, picture))
    say("picture and PDF", rounds, lambda: computed_summary(of.findings, of.measurements, both))


def search(folder: Path, rounds: int) -> None:
    """One page of a list, searched by name among many studies."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    cards, ledger = StudyCards(engine), Ledger(engine)
    for number in range(STUDIES):
        header = pydicom.Dataset()
        header.PatientID, header.PatientName = f"P{number % 3000}", f"Name{number}^Given"
        cards.put(card_of(f"1.2.{number}", header))
        ledger.arrived(f"1.2.{number}", revision=1, at=float(number))
    for text in ("", "name77", "nobody"):
        say(f"search {text!r} among {STUDIES} studies", rounds, partial(cards.search, text))


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    print(machine_line())
    draw(asked.rounds)
    with tempfile.TemporaryDirectory() as folder:
        search(Path(folder), asked.rounds)


if __name__ == "__main__":
    main()
