"""What the pictures of a study cost, and how long the drift view looks through ten thousand studies.

    python bench/views.py [--rounds 5] [--studies 10000]

The pack is built from a synthetic study with both ears, whole MRC of 384 x 324 x 104 voxels, and written durably. The
drift view reads ledger, card index and outbox of a fresh SQLite database with that many finished studies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from suite import Benchmark, Better, Found, Measurement, run

from dicom_node.assembly.headers import SeriesRole
from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox
from dicom_node.drift import DAY_S, periods, shifts, study_points
from dicom_node.ledger import Ledger, StudyEvent
from dicom_node.pipeline import PipelineOptions, StepTimer, measure_study
from dicom_node.study_cards import EarResult, StudyCards
from dicom_node.views.pack import build_view_pack
from dicom_node.views.shelf import ViewShelf
from inference.phantom import PhantomOptions, make_study
from inference.segmentation import ThresholdSegmenter

DAYS = 90.0


def packs(folder: Path, rounds: int) -> Iterator[Measurement]:
    """Time building and keeping one study's pack."""
    study = make_study(PhantomOptions(seed=5, series=("MRC", "PPI", "PEI")))
    findings = measure_study(
        {SeriesRole(role): volume for role, volume in study.volumes.items()},
        segmenter=ThresholdSegmenter(),
        options=PipelineOptions(),
        step=StepTimer(time.perf_counter),
    )
    grid, shelf = study.volumes["MRC"].geometry, ViewShelf(folder)
    building, keeping, size = [], [], 0
    for number in range(rounds):
        began = time.perf_counter()
        files = build_view_pack(findings, grid).files
        built = time.perf_counter()
        shelf.put(f"{number:064x}", files)
        building.append(built - began)
        keeping.append(time.perf_counter() - built)
        size = sum(len(data) for data in files.values())
    yield Measurement(what="view pack, built", unit="s", better=Better.LOWER, values=tuple(building))
    yield Measurement(what="view pack, kept durably", unit="s", better=Better.LOWER, values=tuple(keeping))
    yield Measurement(what="view pack, size", unit="MB", better=Better.LOWER, values=(size / 1e6,))


def drift(folder: Path, studies: int, rounds: int) -> Measurement:
    """Time everything of the drift view but its HTML."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    ledger, cards, outbox = Ledger(engine), StudyCards(engine), Outbox(folder / "outbox", engine)
    with ledger.transaction() as connection:
        for number in range(studies):
            uid, at = f"2.25.{number}", number * DAYS * DAY_S / studies
            ledger.arrived(uid, revision=1, at=at, within=connection)
            notes = {"work_id": f"{number:064x}", "work": {}}
            ledger.move(uid, StudyEvent.COMPLETED, at=at + 1.0, within=connection, **notes)
            ledger.move(uid, StudyEvent.STARTED, at=at + 2.0, within=connection)
            ledger.move(uid, StudyEvent.COMPUTED, at=at + 3.0, within=connection, findings={})
    cards.put_results([result(number, side, studies) for number in range(studies) for side in ("right", "left")])
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        points = study_points(ledger, cards, outbox, since=0.0)
        periods(points, since=0.0, until=DAYS * DAY_S, length_s=7 * DAY_S)
        shifts(points)
        seconds.append(time.perf_counter() - began)
    engine.dispose()
    what = f"drift over {len(points)} studies"
    return Measurement(what=what, unit="s", better=Better.LOWER, values=tuple(seconds))


def result(number: int, side: str, studies: int) -> EarResult:
    """One ear's invented numbers."""
    return EarResult(
        study_instance_uid=f"2.25.{number}",
        work_id=f"{number:064x}",
        side=side,
        ratio=0.2 + 0.001 * (number % 100),
        low=0.1,
        high=0.4,
        total_fluid_mm3=180.0,
        endolymph_mm3=40.0,
        quality=(),
        model="oto 1",
        scanner=f"MR{number % 3}",
        study_date="20261122",
        computed_at=number * DAYS * DAY_S / studies,
        seconds=5.0,
    )


def measure(asked: argparse.Namespace) -> Found:
    """The pack, then the drift view."""
    with tempfile.TemporaryDirectory(prefix="bench-views-") as folder:
        pack = packs(Path(folder) / "views", asked.rounds)
        return Found(measurements=(*pack, drift(Path(folder), asked.studies, asked.rounds)))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--studies", type=int, default=10_000, help="default %(default)s")


BENCHMARK: Final = Benchmark(
    name="views",
    question="What do the pictures of a study cost, and a look through all results for drift?",
    measure=measure,
    add_options=options,
    quick=("--rounds", "2", "--studies", "1000"),
)

if __name__ == "__main__":
    run(BENCHMARK)
