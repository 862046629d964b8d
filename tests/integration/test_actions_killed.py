"""Actions carried out by a real worker that is killed before one of its commits, and by its successor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from desk_parts import DeskParts, hydrops_study
from patience import STUDY_S

from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.study_requests import RequestState

STUDY = "2.25.100"
SCRIPT = Path(__file__).parents[1] / "support" / "acting_worker.py"
TODAY, CHANGED = "0" * 64, "1" * 64


def work(folder: Path, *, kill_at: int = 0, digest: str = TODAY) -> int:
    """Run a worker to its end; returns its exit status."""
    command = [sys.executable, str(SCRIPT), str(folder), str(kill_at), digest]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=STUDY_S, check=False).returncode


@pytest.mark.parametrize("kill_at", [2, 5])
def test_a_retry_survives_a_kill_before_any_commit_and_gives_one_result(tmp_path: Path, kill_at: int) -> None:
    parts = DeskParts(tmp_path, clock=time.time)
    parts.receive(hydrops_study(), at=time.time() - 60)
    (failed,) = parts.look_round_after()
    parts.desk.runs.fail(failed, "MemoryError")
    assert parts.actions.retry(STUDY, "anna").accepted
    assert work(tmp_path, kill_at=kill_at) == -signal.SIGKILL
    assert work(tmp_path) == 0
    assert parts.record().state is StudyState.REFUSED
    assert parts.sent().count(("SR", "pacs")) == 1
    assert len(set(parts.sent())) == len(parts.sent())
    events = parts.events()
    assert [events.count(one) for one in (StudyEvent.RETRIED, StudyEvent.REFUSED, StudyEvent.FAILED)] == [1, 1, 1]
    assert [one.state for one in parts.requests.of_study(STUDY)] == [RequestState.DONE]


@pytest.mark.parametrize("kill_at", [2])
def test_a_replay_with_other_settings_survives_a_kill_and_gives_one_new_result(tmp_path: Path, kill_at: int) -> None:
    parts = DeskParts(tmp_path, clock=time.time)
    parts.receive(hydrops_study(), at=time.time() - 60)
    parts.work_off()
    assert parts.actions.replay(STUDY, "anna").accepted
    assert work(tmp_path, kill_at=kill_at, digest=CHANGED) == -signal.SIGKILL
    assert work(tmp_path, digest=CHANGED) == 0
    assert parts.sent().count(("SR", "pacs")) == 2
    uids = [one.sop_instance_uid for one in parts.outbox.deliveries(STUDY)]
    assert len(set(uids)) == len(uids) == 2 * len(set(parts.sent()))
    assert parts.events().count(StudyEvent.REFUSED) == 2
    assert parts.events().count(StudyEvent.REPLAYED) == 1


def test_a_cancel_survives_a_kill_and_nothing_is_published(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, clock=time.time)
    parts.receive(hydrops_study(), at=time.time() - 60)
    (queued,) = parts.look_round_after()
    assert parts.record().work == queued.as_json()
    assert parts.actions.cancel(STUDY, "anna").accepted
    assert work(tmp_path, kill_at=1) == -signal.SIGKILL
    assert work(tmp_path) == 0
    assert parts.record().state is StudyState.CANCELED
    assert parts.sent() == []
    assert StudyEvent.STARTED not in parts.events()
