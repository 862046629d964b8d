"""How many studies a minute `hydrops-node process` gets through, with one process and with more, and what one takes.

    python bench/cohort.py [--studies 6] [--jobs 1 2] [--nifti]

Each study is another synthetic patient with MRC, PPI and PEI of 384 x 324 x 104 voxels on disk. Every number of jobs
starts from an empty result folder; then the same command runs again and finds everything done. Memory is the most that
any one process held, which is what --jobs multiplies.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from suite import Benchmark, Better, Found, Measurement, run

from dicom_node.encoding.phantom_study import phantom_datasets
from inference.phantom import PhantomOptions, make_study

SERIES = ("MRC", "PPI", "PEI")
SAMPLE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Run:
    """One number of jobs. `again_s` is the same command with everything done; memory in MiB."""

    jobs: int
    studies: int
    seconds: float
    again_s: float
    peak_mib: float
    parent_mib: float

    @property
    def per_minute(self) -> float:
        """Studies."""
        return 60.0 * self.studies / self.seconds


class MemoryWatch:
    """The most resident memory that a process, and any one of its children, ever held."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self.parent_mib = 0.0
        self.child_mib = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more samples."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.parent_mib = max(self.parent_mib, high_water_mib(self._pid))
            for child in children(self._pid):
                self.child_mib = max(self.child_mib, high_water_mib(child))


def children(pid: int) -> list[int]:
    """Process ids; empty once the process has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def high_water_mib(pid: int) -> float:
    """VmHWM of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def write_patient(folder: Path, seed: int) -> None:
    """One study's files."""
    folder.mkdir(parents=True)
    patient = make_study(PhantomOptions(seed=seed, series=SERIES, oblique_deg=(12.0, 0.0, 0.0), motion_mm=1.0))
    for number, image in enumerate(phantom_datasets(patient, series=SERIES)):
        image.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)


def timed(command: Sequence[str]) -> tuple[float, MemoryWatch]:
    """Seconds and memory of a command that has to succeed."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    watch = MemoryWatch(process.pid)
    status = process.wait()
    watch.stop()
    if status != 0:
        raise subprocess.CalledProcessError(status, list(command))
    return time.perf_counter() - began, watch


def with_jobs(studies: Path, results: Path, *, jobs: int, nifti: bool) -> Run:
    """One number of jobs on every study, twice."""
    command = [sys.executable, "-m", "dicom_node.cli", "process", str(studies), "--out", str(results), "--quiet"]
    command += ["--table", str(results / "cohort.csv"), "--jobs", str(jobs), *(["--nifti"] if nifti else [])]
    seconds, watch = timed(command)
    again_s, _ = timed(command)
    return Run(
        jobs=jobs,
        studies=sum(1 for _ in studies.iterdir()),
        seconds=seconds,
        again_s=again_s,
        peak_mib=watch.child_mib,
        parent_mib=watch.parent_mib,
    )


def measured(of: Run) -> Iterator[Measurement]:
    """One number of jobs."""
    jobs = f"{of.jobs} job{'s' if of.jobs > 1 else ''}"
    yield Measurement(what=f"{jobs}: speed", unit="studies/min", better=Better.HIGHER, values=(of.per_minute,))
    yield Measurement(what=f"{jobs}: again, all done", unit="s", better=Better.LOWER, values=(of.again_s,))
    yield Measurement(what=f"{jobs}: memory of a job", unit="MiB", better=Better.LOWER, values=(of.peak_mib,))
    yield Measurement(what=f"{jobs}: memory of the parent", unit="MiB", better=Better.LOWER, values=(of.parent_mib,))


def measure(asked: argparse.Namespace) -> Found:
    """Every number of jobs on the same studies."""
    with tempfile.TemporaryDirectory(prefix="bench-cohort-") as folder:
        root = Path(folder)
        for number in range(asked.studies):
            write_patient(root / "studies" / f"{number:03d}", asked.first_seed + number)
        runs = [
            with_jobs(root / "studies", root / f"results-{jobs}", jobs=jobs, nifti=asked.nifti) for jobs in asked.jobs
        ]
    return Found(
        measurements=tuple(one for each in runs for one in measured(each)),
        details={"runs": [asdict(each) for each in runs]},
    )


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--studies", type=int, default=6, help="synthetic patients (default %(default)s)")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--nifti", action="store_true", help="images and masks as NIfTI, too")
    parser.add_argument("--first-seed", type=int, default=700, help="of the synthetic patients")


BENCHMARK: Final = Benchmark(
    name="cohort",
    question="How many studies a minute does `process` get through, and how much memory does each job need?",
    measure=measure,
    add_options=options,
    quick=("--studies", "2", "--jobs", "2"),
)

if __name__ == "__main__":
    run(BENCHMARK)
