"""Images received per second: this node, Orthanc, storescp, and pynetdicom as one first writes it, in one run.

    python bench/intake.py [--images 200] [--rounds 3]

Every receiver gets the same images from the same sender (DCMTK's storescu with TCP_NODELAY, one process for each
association), in turns A B C D A B C D, because a shared machine changes its mind from minute to minute: read the
ratios. Of the four, only this node has file, folder and index row flushed before it says success, and Orthanc the
file; the others leave it to the kernel (bench/receivers.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from receivers import CALLING, RECEIVERS, Pair, Running, names, node
from suite import Benchmark, Better, Found, Measurement, in_turns, run

from certificates import Authority  # isort: skip - of tests/support, which `receivers` made known

SIZES: Final = {"250 KB": (384, 324), "512 KB": (512, 512)}
"""Rows and columns, 16 bit: one slice of a hydrops protocol, and one of twice the matrix."""

SERIES_IMAGES: Final = 104
CROWD: Final = 50
"""Associations at once whose memory is looked at."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is sent at once: images of one size, over so many associations."""

    size: str
    associations: int
    images: int
    tls: bool = False
    name: str = ""

    @property
    def what(self) -> str:
        """In words that stay the same."""
        plural = "associations" if self.associations > 1 else "association"
        return self.name or f"{self.size}, {self.associations} {plural}{', TLS' if self.tls else ''}"


def cases(images: int) -> tuple[Case, ...]:
    """Everything that is compared."""
    plain = [Case(size=size, associations=count, images=images) for size in SIZES for count in (1, 4, 10)]
    by_tls = [Case(size="250 KB", associations=count, images=images, tls=True) for count in (1, 4, 10)]
    series = Case(size="250 KB", associations=1, images=SERIES_IMAGES, name=f"series of {SERIES_IMAGES} images")
    return (*plain, *by_tls, series)


def make_images(folder: Path, case: Case) -> None:
    """New images of one series, in one subfolder for each association."""
    study, series = generate_uid(), generate_uid()
    rows, columns = SIZES[case.size]
    noise = os.urandom(rows * columns * 2)
    for n in range(case.images):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.PatientID, image.PatientName, image.Modality = "BENCH", "BENCH", "MR"
        image.InstanceNumber = n + 1
        image.Rows, image.Columns, image.SamplesPerPixel = rows, columns, 1
        image.PhotometricInterpretation = "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = noise[n:] + noise[:n]
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        part = folder / str(n % case.associations)
        part.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(part / f"{n}.dcm", image, enforce_file_format=True)


def send(folder: Path, to: Running, *, pair: Pair | None) -> float:
    """Seconds until every image under `folder` was answered with success."""
    tls = [] if pair is None else ["+tls", str(pair.key), str(pair.certificate), "-ic"]
    words = ["storescu", "-R", *tls, "-aet", CALLING, "-aec", to.called, "+sd", "127.0.0.1", str(to.port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    began = time.perf_counter()
    senders = [
        subprocess.Popen([*words, str(part)], env=environment, stdout=subprocess.DEVNULL)
        for part in sorted(folder.iterdir())
    ]
    failed = [sender.args for sender in senders if sender.wait() != 0]
    if failed:
        raise RuntimeError(f"storescu failed against {to.called}")
    return time.perf_counter() - began


class Batches:
    """Images for each round of a case; every receiver gets those of its round."""

    def __init__(self, folder: Path, case: Case, rounds: int) -> None:
        self._folders = [folder / f"round-{n}" for n in range(rounds)]
        for one in self._folders:
            make_images(one, case)
        self._next: dict[str, int] = {}

    def rate(self, name: str, to: Running, *, images: int, pair: Pair | None) -> float:
        """Images a second of this receiver's next round."""
        number = self._next.get(name, 0)
        self._next[name] = number + 1
        return images / send(self._folders[number], to, pair=pair)


def compare(case: Case, rounds: int, folder: Path, pair: Pair) -> Iterator[Measurement]:
    """One case: all receivers in turns, this node beside each of the others."""
    print(f"{case.what}:", flush=True)
    pair_of_case = pair if case.tls else None
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for name, receiver in RECEIVERS.items():
            home = folder / name
            home.mkdir()
            running[name] = stack.enter_context(receiver(home, pair_of_case))
        batches = Batches(folder / "images", case, rounds)
        contenders = {
            name: partial(batches.rate, name, to, images=case.images, pair=pair_of_case) for name, to in running.items()
        }
        values = in_turns(rounds, contenders)
    for name, title in names().items():
        yield Measurement(
            what=case.what,
            unit="images/s",
            better=Better.HIGHER,
            values=values["node"],
            rival=title,
            rival_values=values[name],
        )


def crowd(rounds: int, folder: Path) -> Iterator[Measurement]:
    """This node's memory after each of several floods from many associations at once."""
    print(f"memory with {CROWD} associations:", flush=True)
    case = Case(size="250 KB", associations=CROWD, images=4 * CROWD)
    home = folder / "node"
    home.mkdir()
    with node(home, None) as running:
        before = running.resident_mib()
        after = []
        for n in range(rounds):
            images = folder / f"images-{n}"
            make_images(images, case)
            send(images, running, pair=None)
            shutil.rmtree(images)
            after.append(running.resident_mib())
            print(f"  round {n + 1}/{rounds}: {after[-1]:.0f} MiB", flush=True)
    what = f"resident memory after {4 * CROWD} images by {CROWD} associations (idle: {before:.0f} MiB)"
    yield Measurement(what=what, unit="MiB", better=Better.LOWER, values=tuple(after))


def measure(asked: argparse.Namespace) -> Found:
    """Every case, then the crowd."""
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="bench-intake-", dir=asked.folder) as name:
        folder = Path(name)
        authority = Authority(folder)
        made = authority.sign("receiver")
        pair = Pair(certificate=made.certificate, key=made.key, authority=authority.certificate)
        for case in cases(asked.images):
            with tempfile.TemporaryDirectory(dir=folder) as home:
                found += compare(case, asked.rounds, Path(home), pair)
        with tempfile.TemporaryDirectory(dir=folder) as home:
            found += crowd(max(asked.rounds, 3), Path(home))
    return Found(measurements=tuple(found), details=_goals(found))


def _goals(found: list[Measurement]) -> Mapping[str, str]:
    return {"goal": "at least 1 times Orthanc, at least 1/1.5 times pynetdicom", "measurements": str(len(found))}


def add_options(parser: argparse.ArgumentParser) -> None:
    """How much."""
    parser.add_argument("--images", type=int, default=200, help="images in one measurement (default 200)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure with (default: that of temporary files)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every receiver (default 3)")


BENCHMARK: Final = Benchmark(
    name="intake",
    question="How many images a second are received and kept, beside receivers that promise less?",
    measure=measure,
    add_options=add_options,
    quick=("--images", "20", "--rounds", "1"),
)
"""No ratio is gated: this node waits for three flushes an image and its rivals for one or none, so the ratio is that of
the disk to the processor, and another job that writes moves it by half."""


if __name__ == "__main__":
    run(BENCHMARK)
    sys.exit(0)
