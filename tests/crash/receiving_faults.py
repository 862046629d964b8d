"""Faults while images are received: kills, power cuts, failing and read-only disks, too few descriptors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import loop_disk
from exact_sender import ExactSender, associated
from fault import Fault, NotHere, Observation, Scale, Trial
from process_size import size_of
from raw_peer import connect
from receiver_stem import forked_receiver
from sending import Acknowledged, Kept, ReceiverEnded, look_at, receiver, send_until_refused, send_while_it_lives

OUT_OF_RESOURCES: Final = 0xA700

NAMED_POINTS: Final = {"openat": 2, "writev": 1, "fsync": 2, "rename": 1, "pwrite64": 12, "fdatasync": 1, "sendto": 1}
"""System calls before which the receiver is killed, and how many of each keeping one image takes.

Between every two of them lies a step: file made, written, flushed, renamed, its folder flushed, row written, row
flushed, answer sent.
"""

FIRST_OF_AN_IMAGE: Final = {"fsync": 4, "fdatasync": 12}
"""From which call on a flush belongs to an image for sure; those before may be of the node's start."""

IMAGES_BEFORE_A_KILL: Final = 12

PATIENCE_S: Final = 120.0


def kill_at_random(trial: Trial) -> Observation:
    """Kill -9 at a random moment of sending; then start again."""
    ledger: Acknowledged = {}
    chance = trial.chance
    images, pause_s = chance.randint(0, 12), chance.uniform(0.0, 0.02)
    with forked_receiver(trial.folder) as (process_id, port):
        killer = threading.Thread(target=_kill_after, args=(process_id, ledger, images, pause_s))
        killer.start()
        send_while_it_lives(port, ledger, size=64)
        killer.join()
    seen = _after_restart(trial, trial.folder, ledger)
    if len(ledger) < images:
        return replace(seen, problems=(*seen.problems, f"{len(ledger)} images were acknowledged before the kill"))
    return seen


def _kill_after(process_id: int, ledger: Acknowledged, images: int, pause_s: float) -> None:
    """Kill some milliseconds after so many images were acknowledged, however fast this machine is now."""
    deadline = time.monotonic() + PATIENCE_S
    while len(ledger) < images and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(pause_s)
    os.kill(process_id, signal.SIGKILL)


def kill_before_a_system_call(trial: Trial) -> Observation:
    """Kill -9 just before the n-th call of one kind, n and kind by chance."""
    ledger: Acknowledged = {}
    chance = trial.chance
    call = chance.choice(list(NAMED_POINTS))
    when = chance.randint(1, IMAGES_BEFORE_A_KILL * NAMED_POINTS[call])
    inject = f"{call}:signal=SIGKILL:when={when}"
    with suppress(ReceiverEnded), forked_receiver(trial.folder, inject=inject) as (process_id, port):
        answered = None
        with suppress(OSError), associated(port) as sender:  # killed while we ask, perhaps
            answered = send_until_refused(sender, ledger, size=64, most=2 * IMAGES_BEFORE_A_KILL)
        if answered is not None or not _has_ended(process_id):
            return Observation(problems=(f"never came to {call} number {when}",))
    return _after_restart(trial, trial.folder, ledger)


def _has_ended(process_id: int) -> bool:
    """Wait until a process is gone; False if it lives on."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if ") Z " in Path(f"/proc/{process_id}/stat").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.005)
    return False


def power_cut(trial: Trial) -> Observation:
    """The disk as it is right after the last acknowledgement, used by a fresh node."""
    ledger: Acknowledged = {}
    chance = trial.chance
    with (
        loop_disk.new_disk(trial.folder, commit_s=chance.choice((5, 300))) as disk,
        forked_receiver(disk.folder) as (_, port),
        associated(port) as sender,
    ):
        _send_all(sender, ledger, chance.randint(5, 25))
        copy = disk.image_now(trial.folder / "after.img")
    with loop_disk.mounted(copy, trial.folder / "after") as after:
        return _after_restart(trial, after.folder, ledger)


def failing_fsync(trial: Trial) -> Observation:
    """The n-th flush of a file, a folder or the database answers EIO: that image is not acknowledged, later ones are.

    Every one of sixty images is flushed several times, so that success for all of them would be a failure that was
    swallowed, or flushed over until it went well.
    """
    ledger: Acknowledged = {}
    call = trial.chance.choice(tuple(FIRST_OF_AN_IMAGE))
    when = FIRST_OF_AN_IMAGE[call] + trial.chance.randint(0, 40)
    problems: list[str] = []
    inject = f"{call}:error=EIO:when={when}"
    with forked_receiver(trial.folder, inject=inject) as (_, port), associated(port) as sender:
        refused = send_until_refused(sender, ledger, size=64, most=60)
        if refused is None:
            problems.append("the association ended instead of an answer")
        elif refused != OUT_OF_RESOURCES:
            problems.append(f"{call} number {when} failed, and the image was answered {refused:04X}, expected A700")
        if send_until_refused(sender, ledger, size=64, most=3) != 0:
            problems.append("images after the failure are not taken")
    seen = _after_restart(trial, trial.folder, ledger)
    return replace(seen, problems=(*problems, *seen.problems))


def read_only_disk(trial: Trial) -> Observation:
    """The disk turns read-only while images come; it is mounted again, and the node started on it."""
    ledger: Acknowledged = {}
    problems: list[str] = []
    with (
        loop_disk.new_disk(trial.folder) as disk,
        forked_receiver(disk.folder) as (_, port),
        associated(port) as sender,
    ):
        _send_all(sender, ledger, trial.chance.randint(1, 10))
        disk.fail()
        for _ in range(3):
            status = send_until_refused(sender, ledger, size=64, most=1)
            if status != OUT_OF_RESOURCES:
                problems.append(f"a read-only disk was answered with {status}, expected A700H")
        if sender.echo() != 0:
            problems.append("no answer to C-ECHO on a read-only disk")
    with loop_disk.mounted(disk.image, trial.folder / "again") as disk:
        seen = _after_restart(trial, disk.folder, ledger)
    return replace(seen, problems=(*problems, *seen.problems))


def few_descriptors(trial: Trial) -> Observation:
    """Silent peers take the last descriptor; senders come, the peers leave, and all images arrive by trying again."""
    descriptors = trial.chance.randint(44, 64)
    shares: list[Acknowledged] = [{} for _ in range(30)]
    senders = []
    with receiver(trial.folder, under=("prlimit", f"--nofile={descriptors}", "--")) as (process, port):
        with ExitStack() as crowd:
            for _ in range(descriptors):
                crowd.enter_context(connect(port))
            used = _most_descriptors(process.pid, until=descriptors)
            senders = [threading.Thread(target=_send_patiently, args=(port, share)) for share in shares]
            for one in senders:
                one.start()
            time.sleep(trial.chance.uniform(0.0, 2.0))
        for one in senders:
            one.join()
    problems = [] if used >= descriptors else [f"{used} of {descriptors} descriptors were in use at most"]
    if missing := sum(len(share) < IMAGES_EACH for share in shares):
        problems.append(f"{missing} of {len(shares)} senders did not get rid of their images")
    ledger = {uid: sha256 for share in shares for uid, sha256 in share.items()}
    return _seen(ledger, look_at(trial.folder, ledger), tuple(problems))


def _most_descriptors(process_id: int, *, until: int) -> int:
    """How many descriptors a process has at most while it is looked at, which ends once it has so many."""
    most, deadline = 0, time.monotonic() + PATIENCE_S
    while most < until and time.monotonic() < deadline:
        most = max(most, size_of(process_id).descriptors)
        time.sleep(0.002)
    return most


IMAGES_EACH: Final = 2


def _send_patiently(port: int, ledger: Acknowledged) -> None:
    """Two images, however often it takes."""
    deadline = time.monotonic() + PATIENCE_S
    while len(ledger) < IMAGES_EACH and time.monotonic() < deadline:
        try:
            with associated(port, timeout_s=5) as sender:
                send_until_refused(sender, ledger, size=32, most=IMAGES_EACH - len(ledger))
        except OSError:
            time.sleep(0.1)


WARM_UP: Final = 50
ASSOCIATIONS: Final = 300
MOST_GROWTH_BYTES: Final = 4 * 1024**2
"""Over 250 associations; pynetdicom 3.0.4 by itself takes 2 MiB for 1,000."""


def many_associations(trial: Trial) -> Observation:
    """Three hundred associations one after the other, an image on each; the process is looked at from outside."""
    ledger: Acknowledged = {}
    problems = []
    with forked_receiver(trial.folder) as (process_id, port):
        for number in range(ASSOCIATIONS):
            with associated(port, timeout_s=60) as sender:
                _send_all(sender, ledger, 1, size=16)
            if number == WARM_UP:
                before = size_of(process_id)
        time.sleep(1.0)
        after = size_of(process_id)
    if after.memory_bytes - before.memory_bytes > MOST_GROWTH_BYTES:
        problems.append(f"the receiver grew from {before.memory_bytes} to {after.memory_bytes} bytes")
    if after.threads > before.threads or after.descriptors > before.descriptors:
        problems.append(f"before {before}, after {after}")
    return _seen(ledger, look_at(trial.folder, ledger), tuple(problems))


TIMED_EVERY: Final = 10
"""Every so many trials the restart is one of a whole process, and its first answer is timed."""


def _send_all(sender: ExactSender, ledger: Acknowledged, images: int, *, size: int = 64) -> None:
    """Send images that a node without any fault must take; what nobody acknowledged cannot be lost."""
    status = send_until_refused(sender, ledger, size=size, most=images)
    if status != 0:
        raise RuntimeError(f"an image before the fault was answered with {status}")


def _after_restart(trial: Trial, folder: Path, ledger: Acknowledged) -> Observation:
    """Start the node again on what is left, ask it something, then compare with the ledger."""
    timed = trial.seed % TIMED_EVERY == 0
    began = time.monotonic()
    with (receiver if timed else forked_receiver)(folder) as (_, port), associated(port) as sender:
        problems = () if sender.echo() == 0 else ("no answer to C-ECHO after the restart",)
        recovery_s = time.monotonic() - began if timed else None
    kept = look_at(folder, ledger, sweep=False)
    return replace(_seen(ledger, kept, problems), recovery_s=recovery_s)


def _seen(ledger: Acknowledged, kept: Kept, problems: tuple[str, ...]) -> Observation:
    """What is kept, held against what was acknowledged."""
    return Observation(
        acknowledged=len(ledger),
        lost=kept.lost,
        doubled=kept.doubled,
        left_over=kept.left_over,
        problems=(*problems, *kept.problems),
    )


def _needs(*programs: str) -> None:
    lacking = [name for name in programs if shutil.which(name) is None]
    if lacking:
        raise NotHere(f"needs {', '.join(lacking)}")


def _needs_strace() -> None:
    """Also that this machine lets it trace: containers often do not."""
    _needs("strace")
    traced = subprocess.run(["strace", "-qqq", "-o", os.devnull, sys.executable, "-c", ""], check=False)
    if traced.returncode != 0:
        raise NotHere("needs the right to trace processes (strace)")


def _needs_disk() -> None:
    if lacking := loop_disk.missing():
        raise NotHere(lacking)


FAULTS: Final = (
    Fault(
        number="F01",
        title="kill -9 at a random moment of receiving",
        promise="what was acknowledged is there, byte for byte; nothing half is left",
        trials={Scale.CI: 8, Scale.NIGHTLY: 1000, Scale.RELEASE: 10_000},
        run=kill_at_random,
    ),
    Fault(
        number="F01 named",
        title="kill -9 before a system call (write, fsync, rename, commit, answer ...)",
        promise="the same",
        trials={Scale.CI: 8, Scale.NIGHTLY: 1000, Scale.RELEASE: 5000},
        run=kill_before_a_system_call,
        requires=_needs_strace,
    ),
    Fault(
        number="F02",
        title="power cut right after an acknowledgement",
        promise="the same, on the disk as it was",
        trials={Scale.CI: 3, Scale.NIGHTLY: 200, Scale.RELEASE: 1000},
        run=power_cut,
        requires=_needs_disk,
    ),
    Fault(
        number="F10",
        title="fsync fails with an input/output error",
        promise="answered as a failure (A700), never tried again as a success; the next images are taken",
        trials={Scale.CI: 3, Scale.NIGHTLY: 100, Scale.RELEASE: 500},
        run=failing_fsync,
        requires=_needs_strace,
    ),
    Fault(
        number="F11",
        title="the disk turns read-only and is mounted again",
        promise="A700 meanwhile, C-ECHO answered; afterwards everything acknowledged is there",
        trials={Scale.CI: 2, Scale.NIGHTLY: 20, Scale.RELEASE: 100},
        run=read_only_disk,
        requires=_needs_disk,
    ),
    Fault(
        number="F23",
        title="three hundred associations one after the other",
        promise="memory, threads and descriptors of the receiver stay what they were after the first fifty",
        trials={Scale.CI: 0, Scale.NIGHTLY: 3, Scale.RELEASE: 100},
        run=many_associations,
    ),
    Fault(
        number="F32",
        title="file descriptors run out under thirty senders",
        promise="some are sent away for the moment; by trying again everybody gets rid of everything",
        trials={Scale.CI: 1, Scale.NIGHTLY: 20, Scale.RELEASE: 100},
        run=few_descriptors,
        requires=lambda: _needs("prlimit"),
    ),
)
