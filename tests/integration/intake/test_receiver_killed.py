"""F01: what was acknowledged is there, whenever the receiver is killed. The ledger is the sender's."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exact_sender import ExactSender, associated
from mr_images import STUDY, data_set_bytes, encode, make_mr

from dicom_node.database import open_database
from dicom_node.intake.spool import Spool

KILLS = 10
RECEIVER = Path(__file__).parents[2] / "support" / "receiver_process.py"


@contextmanager
def receiver(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen([sys.executable, str(RECEIVER), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def send_until_killed(sender: ExactSender, ledger: dict[str, str]) -> None:
    """Send new images; each success goes into the ledger as SOP Instance UID -> SHA-256 of what was sent."""
    while True:
        image = make_mr(size=256)
        dataset = encode(image)
        status, _ = sender.store(dataset, sop_instance=image.SOPInstanceUID)
        if status != 0x0000:
            return
        ledger[image.SOPInstanceUID] = hashlib.sha256(dataset).hexdigest()


def test_f01_every_acknowledged_image_survives_kill_9_at_random_moments(tmp_path):
    moments = random.Random(20261122)
    ledger: dict[str, str] = {}
    for _ in range(KILLS):
        with receiver(tmp_path) as (process, port):
            killer = threading.Timer(moments.uniform(0.05, 0.6), lambda p=process: p.send_signal(signal.SIGKILL))
            with suppress(ConnectionRefusedError), associated(port, timeout_s=2) as sender:
                killer.start()
                send_until_killed(sender, ledger)
            killer.join()
    spool = Spool(tmp_path / "spool", open_database(f"sqlite:///{tmp_path / 'node.db'}"))
    report = spool.sweep()
    kept = {one.sop_instance_uid: one for one in spool.instances(STUDY)}
    assert len(ledger) > KILLS
    assert report.missing == ()
    assert report.damaged == ()
    for uid, sha256 in ledger.items():
        assert kept[uid].sha256 == sha256
        assert hashlib.sha256(data_set_bytes(kept[uid].path.read_bytes())).hexdigest() == sha256
    assert not any(one.conflict for one in kept.values())
    on_disk = {path for path in spool.directory.rglob("*") if path.is_file()}
    assert on_disk == {one.path for one in kept.values()}


def test_a_killed_receiver_answers_echo_again_a_moment_after_its_start(tmp_path):
    with receiver(tmp_path):
        pass
    started_s = time.monotonic()
    with receiver(tmp_path) as (_, port), associated(port) as sender:
        assert sender.echo() == 0x0000
    assert time.monotonic() - started_s < 5
