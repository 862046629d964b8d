"""What the pictures of a study cost.

    python bench/views.py [--rounds 5]

The pack is built from a synthetic study with both ears, whole MRC of 384 x 324 x 104 voxels, and written durably.
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
from dicom_node.pipeline import PipelineOptions, StepTimer, measure_study
from dicom_node.views.pack import build_view_pack
from dicom_node.views.shelf import ViewShelf
from inference.phantom import PhantomOptions, make_study
from inference.segmentation import ThresholdSegmenter


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


def measure(asked: argparse.Namespace) -> Found:
    """Build and keep the pack."""
    with tempfile.TemporaryDirectory(prefix="bench-views-") as folder:
        return Found(measurements=tuple(packs(Path(folder) / "views", asked.rounds)))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")


BENCHMARK: Final = Benchmark(
    name="views",
    question="What do the pictures of a study cost?",
    measure=measure,
    add_options=options,
    quick=("--rounds", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
