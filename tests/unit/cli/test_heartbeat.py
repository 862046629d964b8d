"""The worker's sign of life, written by one process and read by another."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from patience import PATIENCE_S

from dicom_node.cli.heartbeat import Heartbeat, WorkerSigns, worker_signs


def beat_once(folder: Path, worker_id: str, *dead: str) -> None:
    stop = threading.Event()

    def last_words() -> tuple[str, ...]:
        stop.set()
        return dead

    heartbeat = Heartbeat(folder, worker_id, dead_deliveries=last_words, stop=stop)
    heartbeat.start()
    heartbeat.join(PATIENCE_S)
    assert not heartbeat.is_alive()


def test_before_any_worker_ran_nothing_is_said(tmp_path: Path) -> None:
    assert worker_signs(tmp_path) == WorkerSigns(age_s=None, dead_deliveries=())


def test_a_sign_is_young_and_ages(tmp_path: Path) -> None:
    beat_once(tmp_path, "worker-1")
    age_s = worker_signs(tmp_path).age_s
    assert age_s is not None
    assert age_s < PATIENCE_S
    (path,) = tmp_path.iterdir()
    os.utime(path, (time.time() - 1000, time.time() - 1000))
    old_s = worker_signs(tmp_path).age_s
    assert old_s is not None
    assert 999.0 < old_s < 1000.0 + PATIENCE_S


def test_the_dead_deliveries_of_all_workers_are_told(tmp_path: Path) -> None:
    beat_once(tmp_path, "worker-1", "pacs", "archive")
    beat_once(tmp_path, "worker-2", "pacs")
    assert worker_signs(tmp_path).dead_deliveries == ("archive", "pacs")


def test_an_empty_sign_of_a_full_disk_still_counts_as_life(tmp_path: Path) -> None:
    (tmp_path / "worker-1.alive").touch()
    assert worker_signs(tmp_path).age_s is not None


def test_f28_a_worker_that_has_not_written_since_the_clock_was_set_back_counts_as_silent(tmp_path: Path) -> None:
    beat_once(tmp_path, "worker-1")
    (path,) = tmp_path.iterdir()
    os.utime(path, (time.time() + 86_400, time.time() + 86_400))
    age_s = worker_signs(tmp_path).age_s
    assert age_s is not None
    assert age_s > 86_000
    beat_once(tmp_path, "worker-2")
    age_s = worker_signs(tmp_path).age_s
    assert age_s is not None
    assert age_s < PATIENCE_S
