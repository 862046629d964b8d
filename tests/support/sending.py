"""A sender that keeps its own ledger of what was acknowledged, and a look at what a receiver really kept."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from exact_sender import ExactSender, associated
from mr_images import STUDY, data_set_bytes, encode, make_mr

from dicom_node.database import open_database
from dicom_node.intake.spool import Spool

RECEIVER = Path(__file__).with_name("receiver_process.py")

Acknowledged = dict[str, str]
"""SOP Instance UID to SHA-256 of the data set that was sent."""


@contextmanager
def receiver(folder: Path, *, under: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A receiver on the state in `folder`, in a process of its own, and its port; `under` goes before its command."""
    command = [*under, sys.executable, str(RECEIVER), str(folder)]
    # In a session of its own: what goes before the command (strace, prlimit) is its parent, and both must end.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise ReceiverEnded(f"exit status {process.wait(10)}")
        yield process, int(line)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


class ReceiverEnded(Exception):
    """The receiver ended before it listened."""


def send_until_refused(sender: ExactSender, ledger: Acknowledged, *, size: int = 256, most: int = 10_000) -> int | None:
    """Send new images until one is not taken; its status, None when the association ended, 0 after `most` images."""
    for _ in range(most):
        image = make_mr(size=size)
        dataset = encode(image)
        status, _ = sender.store(dataset, sop_instance=image.SOPInstanceUID)
        if status != 0x0000:
            return status
        ledger[image.SOPInstanceUID] = hashlib.sha256(dataset).hexdigest()
    return 0x0000


def send_while_it_lives(port: int, ledger: Acknowledged, *, size: int = 256) -> None:
    """Send on one association until the receiver is gone."""
    with suppress(OSError), associated(port) as sender:
        send_until_refused(sender, ledger, size=size)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a state folder holds of a ledger, after the start-up sweep of a fresh process would have run."""

    lost: int
    doubled: int
    left_over: int
    problems: tuple[str, ...]


def look_at(folder: Path, ledger: Mapping[str, str], *, sweep: bool = True, studies: Sequence[str] = (STUDY,)) -> Kept:
    """Compare the spool in `folder` with what was acknowledged: rows, files, bytes, and nothing else on the disk."""
    engine = open_database(f"sqlite:///{folder / 'node.db'}")
    try:
        spool = Spool(folder / "spool", engine)
        problems = []
        if sweep:
            report = spool.sweep()
            problems += [f"missing file {one}" for one in report.missing]
            problems += [f"damaged file {one}" for one in report.damaged]
        rows = [one for study in studies for one in spool.instances(study)]
        kept = {one.sop_instance_uid: one for one in rows}
        lost = sum(not _is_there(kept.get(uid), sha256) for uid, sha256 in ledger.items())
        on_disk = {path for path in spool.directory.rglob("*") if path.is_file()}
        left_over = len(on_disk - {one.path for one in rows})
        problems += [f"{path.name} has no bytes" for path in on_disk if path.stat().st_size == 0]
    finally:
        engine.dispose()
    with sqlite3.connect(folder / "node.db") as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        problems.append(f"integrity_check: {verdict}")
    return Kept(lost=lost, doubled=len(rows) - len(kept), left_over=left_over, problems=tuple(problems))


def _is_there(row: object, sha256: str) -> bool:
    """Row, file and bytes are those that were sent."""
    path: Path | None = getattr(row, "path", None)
    if path is None or not path.is_file():
        return False
    return hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest() == sha256
