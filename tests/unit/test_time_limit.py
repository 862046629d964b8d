"""The file of the time limit: what it says after which end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.time_limit import MAX_DEATHS, EndsWorkersError, TimeLimit

DIES = """
import os, signal, sys
from pathlib import Path
from dicom_node.time_limit import TimeLimit
with TimeLimit(Path(sys.argv[1]), 60.0).guard(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_block_that_ends_in_time_leaves_nothing(tmp_path: Path) -> None:
    limit = TimeLimit(tmp_path / "worker.limit", 60.0)
    with limit.guard("2.25.1:work:1"):
        assert limit.overran() is None
    assert list(tmp_path.iterdir()) == []
    assert limit.overran() is None


def test_a_kill_is_not_taken_for_an_overrun(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    path.write_text("2.25.1:work:1\n")
    assert TimeLimit(path, 60.0).overran() is None


def test_an_overrun_names_its_run_until_the_trace_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    path.write_text("2.25.1:work:1\nTimeout (0:10:00)!\nThread 0x1:\n")
    limit = TimeLimit(path, 60.0)
    assert limit.overran() == "2.25.1:work:1"
    kept = limit.keep_trace()
    assert limit.overran() is None
    assert kept.read_text().startswith("2.25.1:work:1\nTimeout (")


def die_over(run_id: str, path: Path) -> None:
    command = [sys.executable, "-c", DIES, str(path), run_id]
    assert subprocess.run(command, env=dict(os.environ), check=False).returncode == -signal.SIGKILL


def test_a_study_that_takes_every_worker_with_it_is_not_begun_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    for _ in range(MAX_DEATHS):
        die_over("2.25.1:work:1", path)
    with pytest.raises(EndsWorkersError, match="5 processes"), TimeLimit(path, 60.0).guard("2.25.1:work:1"):
        pytest.fail("it was begun again")
    with TimeLimit(path, 60.0).guard("2.25.1:work:1:1"):  # somebody asked for a retry
        pass


def test_deaths_over_other_studies_and_orderly_stops_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    limit = TimeLimit(path, 60.0)
    for _ in range(MAX_DEATHS - 1):
        die_over("2.25.1:work:1", path)
    die_over("2.25.2:work:1", path)
    assert path.read_text() == "2.25.2:work:1\n"
    limit.stopped_in_order()
    with limit.guard("2.25.2:work:1"):
        assert path.read_text() == "2.25.2:work:1\n"


def test_an_overrun_after_a_death_still_names_its_run(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    path.write_text("2.25.1:work:1 2\nTimeout (0:10:00)!\n")
    assert TimeLimit(path, 60.0).overran() == "2.25.1:work:1"
