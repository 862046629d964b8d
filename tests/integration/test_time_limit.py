"""A study that hangs ends its worker; its successors try once more and then leave it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from desk_parts import DeskParts, hydrops_study
from patience import STUDY_S

from dicom_node.ledger import StudyEvent, StudyState

STUDY = "2.25.100"
LIMIT_S = 5.0
"""Of a study that hangs; a busy machine, too, comes to where it hangs within so much time."""

SUPPORT = Path(__file__).parents[1] / "support"
HOLDS_THE_INTERPRETER = """
import sys
from pathlib import Path
from dicom_node.time_limit import TimeLimit
with TimeLimit(Path(sys.argv[1]), 0.5).guard("2.25.1:work:1"):
    pow(7, 10**10)  # one call into C that lets no other Python thread run
"""


def run(*words: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, timeout=STUDY_S, check=False
    ).returncode


def test_a_study_that_hangs_is_tried_twice_and_then_failed_with_a_sentence(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, clock=time.time)
    parts.receive(hydrops_study(), at=time.time() - 60)
    assert len(parts.desk.look_round()) == 1
    worker = (str(SUPPORT / "hanging_worker.py"), str(tmp_path), str(LIMIT_S))
    assert run(*worker) == 1
    assert parts.record().state is StudyState.COMPUTING
    assert run(*worker) == 1
    assert parts.events()[-1] is StudyEvent.STARTED
    assert run(*worker) == 0
    record = parts.record()
    assert record.state is StudyState.FAILED
    assert record.detail == (
        "computing took longer than 5 s (processing.time_limit_s) 2 times; "
        "it is not tried again unless somebody asks for a retry"
    )
    assert parts.events().count(StudyEvent.OVERRAN) == 2
    trace = (tmp_path / "worker-1.limit.trace").read_text()
    assert "hanging_worker.py" in trace
    parts.actions.retry(STUDY, "anna")
    (again,) = parts.desk.look_round()
    assert parts.record().state is StudyState.QUEUED
    parts.desk.compute(again)
    assert parts.record().state is StudyState.REFUSED


def test_a_library_that_holds_the_interpreter_is_ended_too(tmp_path: Path) -> None:
    path = tmp_path / "worker.limit"
    assert run("-c", HOLDS_THE_INTERPRETER, str(path)) == 1
    assert path.read_text().startswith("2.25.1:work:1\nTimeout (")
