"""Faults while a study is computed: workers killed, stopped past their lease, out of memory; databases of yesterday.

The ledger is the PACS's own: every data set that it was handed, under which UID. What it must hold in the end are one
segmentation, one report and one summary page, under the UIDs of an undisturbed run, each as one and the same bytes
however often it came.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

from computing_worker import BEAT_S, the_stem
from desk_parts import DeskParts
from dicom_receivers import Receiver
from fault import Fault, Observation, Scale, Trial
from free_ports import free_port
from machine_faults import FAULTS as MACHINES
from phantom_patients import images_of
from small_studies import SMALL_EARS
from tripwire import IN_A_TRANSACTION, POINTS
from worker_end_faults import FAULTS as WORKER_ENDS

from dicom_node.delivery.object_files import HALF_WRITTEN_AGE_S
from dicom_node.ledger import StudyState
from dicom_node.owed_failures import failure_key
from dicom_node.roster import MISSED_BEATS
from inference.phantom import make_study

PATIENCE_S: Final = 400.0
LEASE_S: Final = BEAT_S * MISSED_BEATS
RESULTS: Final = 3
"""Segmentation, report and page."""

QUIET_S: Final = 0.5
"""How long nothing more must come to the PACS before its ledger is read."""

COMPUTING_TAKES_S: Final = 3.0
"""A random kill comes within so much time from the start of a worker; later ones would often find nothing to break."""

FOUND: Final = (StudyState.COMPUTED, StudyState.FAILED)


@dataclass(frozen=True, kw_only=True)
class Template:
    """A state folder with one complete study that nobody has looked at, and the UIDs that its results must have."""

    folder: Path
    study: str
    result_uids: frozenset[str]


@cache
def template() -> Template:
    """Made once; the UIDs are those of a run that nothing disturbs."""
    folder = Path(tempfile.mkdtemp(prefix="hydrops-fault-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    parts = DeskParts(folder)
    images = images_of(make_study(SMALL_EARS), "MRC", "PPI", "PEI")
    parts.receive(images, at=time.time() - 60)
    parts.engine.dispose()
    study = str(images[0].StudyInstanceUID)
    with tempfile.TemporaryDirectory(prefix="hydrops-fault-") as undisturbed:
        site = Site(folder=Path(undisturbed) / "state", study=study)
        site.begin_from(folder)
        with site.pacs():
            site.start("worker-1")
            seen = site.settled()
            site.end()
    uids = frozenset(site.uids())
    if not seen.good or len(uids) != RESULTS:
        raise RuntimeError(f"the undisturbed run gave {sorted(uids)}: {seen.problems}\n{site.log()[-2000:]}")
    return Template(folder=folder, study=study, result_uids=uids)


@dataclass(kw_only=True)
class Site:
    """A state folder, workers on it, and the PACS that they deliver to."""

    folder: Path
    study: str
    result_uids: frozenset[str] = frozenset()
    receiver: Receiver = field(default_factory=lambda: Receiver(port=free_port()))
    pids: dict[str, int] = field(default_factory=dict)

    def begin_from(self, folder: Path) -> None:
        """Copy a state folder; images are linked, because nobody changes them."""
        shutil.copytree(folder / "spool", self.folder / "spool", copy_function=os.link)
        for name in ("node.db", "workflow.db"):
            if (folder / name).exists():
                copy_database(folder / name, self.folder / name)

    @contextmanager
    def pacs(self) -> Iterator[None]:
        """The PACS listens; the workers end with the block."""
        with self.receiver.listening():
            try:
                yield
            finally:
                self.end()

    def start(self, worker_id: str, *, point: str = "", harm: str = "") -> None:
        """Start a worker, which comes to `harm` at `point`."""
        self.pids[worker_id] = the_stem().fork(self.folder, worker_id, self.receiver.port, point, harm)

    def tell(self, worker_id: str, what: signal.Signals) -> None:
        """Send a signal to a worker; nothing if it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pids[worker_id], what)

    def state(self, worker_id: str) -> str:
        """The kernel's letter for a worker: "T" when it is stopped, "" when it is gone."""
        try:
            return Path(f"/proc/{self.pids[worker_id]}/stat").read_text().rpartition(") ")[2][0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def wait(self, worker_id: str, state: str) -> bool:
        """Wait until a worker is in this state; False if it did not come to that."""
        return _wait(lambda: self.state(worker_id) in (state, "Z" if state == "" else state))

    def step_out_of_writing(self, worker_id: str) -> None:
        """Let a stopped worker go on until none of its threads is inside a transaction.

        Whoever is stopped while it writes to SQLite holds up every other writer until it goes on or is killed; that is
        a trial of its own.
        """
        while not all(_may_write(self.folder / name) for name in ("node.db", "workflow.db")):
            self.tell(worker_id, signal.SIGCONT)
            time.sleep(0.002)
            self.tell(worker_id, signal.SIGSTOP)
            self.wait(worker_id, "T")

    def end(self) -> None:
        """Kill whoever lives, and wait until all have gone."""
        for worker_id in list(self.pids):
            self.tell(worker_id, signal.SIGKILL)
            self.wait(worker_id, "")
            del self.pids[worker_id]

    def uids(self) -> list[str]:
        """What the PACS was handed, by SOP Instance UID."""
        return [uid for uid, _, _ in self.receiver.received]

    def log(self) -> str:
        """What all workers logged."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def settled(self) -> Observation:
        """Wait for all results and for quiet after them; then read the PACS's ledger."""
        began = time.monotonic()
        arrived = _wait(self._has_arrived)
        recovery_s = time.monotonic() - began
        self._wait_for_quiet()
        problems = [] if arrived else [f"the results did not come; the end of the log: {self.log()[-600:]}"]
        uids = set(self.uids()) - self._told()
        versions = {(uid, data) for uid, _, data in self.receiver.received}
        unknown = uids - self.result_uids if self.result_uids else set()
        return Observation(
            acknowledged=1,
            lost=len(self.result_uids - uids),
            doubled=len(unknown) + len(versions) - len(set(self.uids())),
            left_over=self._left_over(),
            recovery_s=recovery_s,
            problems=tuple(problems),
        )

    def _has_arrived(self) -> bool:
        return len(set(self.uids())) >= RESULTS and len(set(self.uids()) - self._told()) >= RESULTS

    def _told(self) -> set[str]:
        """What says that the node failed, where the study did before somebody had it tried again."""
        parts = DeskParts(self.folder)
        try:
            return {one.sop_instance_uid for one in parts.outbox.objects(failure_key(self.study))}
        finally:
            parts.engine.dispose()

    def _wait_for_quiet(self) -> None:
        count = -1
        while count != len(self.receiver.received):
            count = len(self.receiver.received)
            time.sleep(QUIET_S)

    def _left_over(self) -> int:
        """Files beside the results that not even the sweep of a start an hour later removes."""
        parts = DeskParts(self.folder)
        try:
            parts.outbox.sweep(time.time() + HALF_WRITTEN_AGE_S + 60)
        finally:
            parts.engine.dispose()
        return abs(len(list((self.folder / "outbox").iterdir())) - RESULTS - len(self._told()))


def _wait(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _may_write(database: Path) -> bool:
    """Whether nobody is writing to an SQLite file at this moment."""
    with sqlite3.connect(database, timeout=0) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.rollback()
    return True


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite file that may be in use, as a backup makes it."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)


@contextmanager
def _site(trial: Trial) -> Iterator[Site]:
    base = template()
    site = Site(folder=trial.folder / "state", study=base.study, result_uids=base.result_uids)
    site.begin_from(base.folder)
    with site.pacs():
        yield site


def killed_at_a_step(trial: Trial) -> Observation:
    """Kill -9 at a named step, the steps in turn; then the worker starts again."""
    with _site(trial) as site:
        site.start("worker-1", point=POINTS[trial.seed % len(POINTS)], harm="kill")
        if not site.wait("worker-1", ""):
            return Observation(problems=(f"never came to {POINTS[trial.seed % len(POINTS)]}",))
        site.start("worker-1")
        return site.settled()


def killed_at_random(trial: Trial) -> Observation:
    """Kill -9 one to three times, at random moments."""
    chance = trial.chance
    with _site(trial) as site:
        for _ in range(chance.randint(1, 3)):
            site.start("worker-1")
            time.sleep(chance.uniform(0.0, COMPUTING_TAKES_S))
            site.end()
        site.start("worker-1")
        return site.settled()


def stopped_past_its_lease(trial: Trial) -> Observation:
    """SIGSTOP at a named step for twice the lease, with another worker beside it, then SIGCONT."""
    point = POINTS[trial.seed % len(POINTS)]
    with _site(trial) as site:
        site.start("worker-1", point=point, harm="stop")
        if not site.wait("worker-1", "T"):
            return Observation(problems=(f"never came to {point}",))
        if point not in IN_A_TRANSACTION:
            site.step_out_of_writing("worker-1")
        site.start("worker-2")
        time.sleep(2 * LEASE_S)
        other_is_done = point not in IN_A_TRANSACTION and trial.chance.random() < 0.7
        if other_is_done and not _wait(lambda: len(set(site.uids())) >= RESULTS):
            return Observation(problems=(f"nobody took over what was stopped at {point}: {site.log()[-600:]}",))
        site.tell("worker-1", signal.SIGCONT)
        seen = site.settled()
        before_publishing = POINTS.index(point) < POINTS.index("publish")
        if other_is_done and before_publishing and not _wait(lambda: _SAYS_LATE.search(site.log())):
            return Observation(problems=(f"the late worker, stopped at {point}, did not say that it came too late",))
        return seen


_SAYS_LATE: Final = re.compile("event=work_(came_too_late|dropped)")


def two_workers_one_killed(trial: Trial) -> Observation:
    """Two workers; the one that has the study is killed at a named step and never comes back."""
    point = POINTS[trial.seed % len(POINTS)]
    with _site(trial) as site:
        site.start("worker-1", point=point, harm="kill")
        if not site.wait("worker-1", ""):
            return Observation(problems=(f"never came to {point}",))
        site.start("worker-2")
        return site.settled()


def older_database(trial: Trial) -> Observation:
    """Both databases, or one of them, go back to a backup of a random moment; what was queued runs again."""
    chance = trial.chance
    backup = trial.folder / "backup"
    backup.mkdir()
    with _site(trial) as site:
        names = ("node.db", "workflow.db")
        site.start("worker-1")
        _wait(lambda: (site.folder / "workflow.db").exists())
        time.sleep(chance.uniform(0.0, COMPUTING_TAKES_S))
        for name in names:
            copy_database(site.folder / name, backup / name)
        first = site.settled()
        site.end()
        if not first.good:
            return first
        for name in chance.choice((names, names[:1], names[1:])):
            for path in site.folder.glob(f"{name}*"):
                path.unlink()
            shutil.copy(backup / name, site.folder / name)
        site.start("worker-1")
        ended = _run_to_an_end(site, chance)
        seen = site.settled()
        problems = () if ended else (f"the study was not computed again: {site.log()[-600:]}",)
        return replace(seen, problems=(*seen.problems, *problems))


def _run_to_an_end(site: Site, chance: random.Random) -> bool:
    """Wait until it is computed; a study that lost its run with its database is retried, as an operator does."""
    parts = DeskParts(site.folder, clock=time.time)
    try:
        _wait(lambda: (one := parts.ledger.get(site.study)) is not None and one.state in FOUND)
        if parts.state(site.study)[0] is StudyState.FAILED:
            parts.actions.retry(site.study, "operator")
        elif chance.random() < 0.5:
            parts.actions.replay(site.study, "operator")
        return _wait(lambda: parts.state(site.study)[0] is StudyState.COMPUTED)
    finally:
        parts.engine.dispose()


FAULTS: Final = (
    Fault(
        number="F03",
        title="kill -9 of the worker at a named step (claim, fetch, decode, register, infer, encode, keep, publish, "
        "draw, page, settle, send, mark)",
        promise="one segmentation, one report and one page at the PACS, same UIDs, same bytes",
        trials={Scale.CI: 2, Scale.NIGHTLY: 500, Scale.RELEASE: 5000},
        run=killed_at_a_step,
    ),
    Fault(
        number="F03 random",
        title="kill -9 of the worker at random moments",
        promise="the same",
        trials={Scale.CI: 1, Scale.NIGHTLY: 500, Scale.RELEASE: 5000},
        run=killed_at_random,
    ),
    Fault(
        number="F05",
        title="the databases, or one of them, are restored from an older backup, and the study is run again",
        promise="the PACS holds no second result: no new UID, no other bytes",
        trials={Scale.CI: 1, Scale.NIGHTLY: 100, Scale.RELEASE: 1000},
        run=older_database,
    ),
    Fault(
        number="F27",
        title="a worker is stopped (SIGSTOP) at a named step for twice its lease beside another one, and goes on",
        promise="one result; the late worker publishes nothing and says so",
        trials={Scale.CI: 2, Scale.NIGHTLY: 200, Scale.RELEASE: 2000},
        run=stopped_past_its_lease,
    ),
    Fault(
        number="F27 gone",
        title="one of two workers is killed at a named step and never comes back",
        promise="the other one takes its study over; one result",
        trials={Scale.CI: 1, Scale.NIGHTLY: 200, Scale.RELEASE: 2000},
        run=two_workers_one_killed,
    ),
    *WORKER_ENDS,
    *MACHINES,
)
