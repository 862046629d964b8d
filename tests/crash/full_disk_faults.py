"""A disk that is really full: all that the node keeps lies on a small tmpfs, and somebody fills it to the last byte.

The ledgers are the sender's and the PACS's own.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from computing_faults import PATIENCE_S, RESULTS, Site, copy_database, template
from exact_sender import associated
from fault import Fault, NotHere, Observation, Scale, Trial
from receiver_stem import forked_receiver
from sending import Acknowledged, look_at, send_until_refused
from tripwire import POINTS

OUT_OF_RESOURCES: Final = 0xA700
MEBIBYTES: Final = 48
A_PIECE: Final = 1 << 20


class SmallDisk:
    """A tmpfs, and the ballast that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte to anybody."""
        piece = A_PIECE
        with self._ballast.open("ab", buffering=0) as ballast:
            while piece:
                try:
                    ballast.write(bytes(piece))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A disk of our own. Needs root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_while_receiving(trial: Trial) -> Observation:
    """The disk of spool and database fills up while images come; later there is room again."""
    ledger: Acknowledged = {}
    problems: list[str] = []
    with small_disk(trial.folder / "disk") as disk:
        with forked_receiver(disk.folder) as (_, port), associated(port) as sender:
            if send_until_refused(sender, ledger, size=64, most=trial.chance.randint(1, 12)) != 0:
                problems.append("images are not taken before the disk is full")
            disk.fill()
            status = send_until_refused(sender, ledger, size=256, most=100)
            if status != OUT_OF_RESOURCES:
                problems.append(f"a full disk was answered with {status}, expected A700H")
            if sender.echo() != 0:
                problems.append("no answer to C-ECHO on a full disk")
            disk.empty()
            if send_until_refused(sender, ledger, size=64, most=3) != 0:
                problems.append("images are not taken when there is room again")
        kept = look_at(disk.folder, ledger)
    return Observation(
        acknowledged=len(ledger), lost=kept.lost, doubled=kept.doubled, left_over=kept.left_over,
        problems=(*problems, *kept.problems),
    )  # fmt: skip


def full_while_computing(trial: Trial) -> Observation:
    """The disk of databases, outbox and log is full from a named step on, for some seconds."""
    point = POINTS[trial.seed % len(POINTS)]
    base = template()
    with small_disk(trial.folder / "disk") as disk:
        site = Site(folder=disk.folder / "state", study=base.study, result_uids=base.result_uids)
        shutil.copytree(base.folder / "spool", site.folder / "spool")
        copy_database(base.folder / "node.db", site.folder / "node.db")
        with site.pacs():
            site.start("worker-1", point=point, harm="stop")
            if not site.wait("worker-1", "T"):
                return Observation(problems=(f"never came to {point}",))
            disk.fill()
            site.tell("worker-1", signal.SIGCONT)
            time.sleep(trial.chance.uniform(0.5, 6.0))
            disk.empty()
            _keep_alive(site)
            return site.settled()


def _keep_alive(site: Site) -> None:
    """Start the worker again if it ends, as `serve` and systemd do, until everything has come."""
    deadline = time.monotonic() + PATIENCE_S
    while len(set(site.uids())) < RESULTS and time.monotonic() < deadline:
        if site.state("worker-1") in ("", "Z"):
            site.start("worker-1")
        time.sleep(0.1)


def _needs_a_disk() -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise NotHere("needs root to mount a small disk")


FAULTS: Final = (
    Fault(
        number="F09",
        title="the disk is full, really, while images are kept, and while a study is computed, kept, sent",
        promise="A700 and C-ECHO answered; the study is finished once there is room: one result, same UIDs, same bytes",
        trials={Scale.CI: 2, Scale.NIGHTLY: 50, Scale.RELEASE: 500},
        run=lambda trial: (full_while_receiving, full_while_computing)[trial.seed % 2](trial),
        requires=_needs_a_disk,
    ),
)
