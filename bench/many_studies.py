"""Many small studies in a node's spool, and the workers that compute them: for benchmarks of workers and of growth."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from sqlalchemy import Engine, select

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from desk_parts import hydrops_study  # noqa: E402 - the same studies as in the tests
from small_studies import SMALL_EARS  # noqa: E402

from dicom_node.claims import claim_rows  # noqa: E402
from dicom_node.database import open_database  # noqa: E402
from dicom_node.encoding.phantom_study import phantom_datasets  # noqa: E402
from dicom_node.intake.spool import Spool  # noqa: E402
from dicom_node.ledger import Ledger, StudyState  # noqa: E402
from dicom_node.ledger_rows import ledger_events  # noqa: E402
from dicom_node.study_moves import StudyEvent  # noqa: E402
from inference.phantom import make_study  # noqa: E402

SERIES: Final = ("MRC", "PPI", "PEI")
STORING_THREADS: Final = 8
"""As many associations at once: their images share flushes, as in the listener."""

ENDED: Final = (StudyState.COMPUTED, StudyState.REFUSED, StudyState.FAILED, StudyState.NOT_OURS)
STOP_S: Final = 60.0
TIMEOUT_S: Final = 3600.0


def small_ears() -> list[Dataset]:
    """Three series in which both ears are measured, in a twentieth of a clinical study's voxels."""
    return phantom_datasets(make_study(SMALL_EARS), series=SERIES)


def no_ears() -> list[Dataset]:
    """Three series of a few voxels: the whole way through the node, with hardly anything to compute."""
    return hydrops_study()


def put_studies(spool: Spool, images: Sequence[Dataset], numbers: Sequence[int]) -> None:
    """Keep the images once for each number, as another study; each is proved complete at once."""
    with ThreadPoolExecutor(STORING_THREADS) as threads:
        for number in numbers:
            encoded = list(_as_study(images, number))
            list(threads.map(lambda one: spool.store(one, source="SCANNER", at=time.time()), encoded))
            counts: dict[str, int] = {}
            for one in images:
                counts[one.SeriesInstanceUID] = counts.get(one.SeriesInstanceUID, 0) + 1
            for series, count in counts.items():
                spool.set_expected(series, count)


def study_uid(number: int) -> str:
    """The Study Instance UID of one number."""
    return f"2.25.4000.{number}"


def _as_study(images: Sequence[Dataset], number: int) -> Iterator[bytes]:
    """The images as those of another patient's study; the same objects under other names."""
    series: dict[str, str] = {}
    for place, one in enumerate(images):
        one.StudyInstanceUID = study_uid(number)
        one.PatientID = f"P{number}"
        own = series.setdefault(one.SeriesInstanceUID, f"{study_uid(number)}.{len(series)}")
        one.SeriesInstanceUID = own
        one.FrameOfReferenceUID = f"{study_uid(number)}.77"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{study_uid(number)}.99.{place}"
        buffer = io.BytesIO()
        one.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Site:
    """A state folder and its database; `url` is empty for SQLite."""

    folder: Path
    url: str = ""

    @property
    def state_dir(self) -> Path:
        """Where spool, outbox and pictures lie."""
        return self.folder / "state"

    def open(self) -> Engine:
        """The state database, its folder made when missing."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open_database(self.url or f"sqlite:///{self.state_dir / 'node.db'}")

    def spool(self, engine: Engine) -> Spool:
        """The spool of this site."""
        return Spool(self.state_dir / "spool", engine)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one process holds."""

    memory_mib: float
    descriptors: int
    threads: int


class WorkerProcess:
    """`hydrops-node work` on a site."""

    def __init__(self, site: Site, worker_id: str) -> None:
        self.log_path = site.folder / f"{worker_id}.log"
        config = site.folder / f"{worker_id}.toml"
        (site.folder / "rules.toml").write_text("")
        config.write_text(
            f'node.state_dir = "{site.state_dir}"\nnode.worker_id = "{worker_id}"\n'
            'assembly.rules_file = "rules.toml"\nprocessing.threads = 1\nlistener.min_free_bytes = 0\n'
        )
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"HYDROPS_DATABASE_URL": site.url} if site.url else {})
        command = [sys.executable, "-m", "dicom_node.cli", "work", "--config", str(config)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def load(self) -> Load:
        """What it holds now."""
        process = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Load(
            memory_mib=int(status["VmRSS"].split()[0]) / 1024.0,
            descriptors=sum(1 for _ in (process / "fd").iterdir()),
            threads=int(status["Threads"]),
        )

    def require_alive(self) -> None:
        """Raise RuntimeError, with the end of its log, if it has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"a worker ended:\n{self.log_path.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """End it as a power failure would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in good order."""
        self._process.terminate()
        self._process.wait(STOP_S)


def processor_s(pid: int) -> float:
    """How long a process has computed since its start, on all cores together."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)


@contextmanager
def workers_at(site: Site, count: int) -> Iterator[list[WorkerProcess]]:
    """Worker processes, stopped in the end."""
    running = [WorkerProcess(site, f"worker-{number}") for number in range(1, count + 1)]
    try:
        yield running
    finally:
        for one in running:
            one.stop()


def wait_until(condition: Callable[[], bool], workers: Sequence[WorkerProcess], *, every_s: float = 0.2) -> None:
    """Return once the condition holds.

    Raises
    ------
    RuntimeError
        If a worker ends, or an hour goes by.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        for one in workers:
            one.require_alive()
        if time.monotonic() > deadline:
            raise RuntimeError(f"not done after {TIMEOUT_S:.0f} s:\n{workers[0].log_path.read_text()[-3000:]}")
        time.sleep(every_s)


def ended(engine: Engine) -> int:
    """How many studies have come to an end."""
    counts = Ledger(engine).counts()
    return sum(counts[state] for state in ENDED)


def ends_by_worker(engine: Engine) -> dict[str, list[float]]:
    """When each worker ended its studies (POSIX seconds), in order."""
    done = [StudyEvent.COMPUTED.value, StudyEvent.REFUSED.value]
    query = (
        select(claim_rows.c.worker_id, ledger_events.c.at)
        .join(claim_rows, claim_rows.c.study_instance_uid == ledger_events.c.study_instance_uid)
        .where(ledger_events.c.event.in_(done))
        .order_by(ledger_events.c.at)
    )
    found: dict[str, list[float]] = {}
    with engine.connect() as connection:
        for worker_id, at in connection.execute(query):
            found.setdefault(worker_id, []).append(float(at))
    return found


def states(engine: Engine) -> Mapping[str, int]:
    """How many studies are in each state that any is in."""
    return {state.value: count for state, count in Ledger(engine).counts().items() if count}
