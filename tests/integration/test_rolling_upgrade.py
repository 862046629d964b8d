"""Workers of two versions on one database: each leaves the other's work alone while the other is there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from computing_worker import BEAT_S, the_stem
from desk_parts import DeskParts, hydrops_study

from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.roster import MISSED_BEATS

NOBODY_LISTENS = 9


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    parts = DeskParts(tmp_path, clock=time.time)
    parts.receive(hydrops_study(), at=time.time() - 60)
    return parts


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_work_in_flight_is_left_to_its_version_and_begun_anew_when_the_last_worker_of_it_has_gone(
    parts: DeskParts,
) -> None:
    old = the_stem().fork(parts.folder, "old", NOBODY_LISTENS, "decode", "linger", version="0")
    new = 0
    try:
        wait_until(lambda: StudyEvent.STARTED in parts.events() and parts.record().step == "load images")
        new = the_stem().fork(parts.folder, "new", NOBODY_LISTENS)
        log = parts.folder / "new.log"
        wait_until(lambda: log.exists() and "event=worker_ready" in log.read_text())
        time.sleep(2 * MISSED_BEATS * BEAT_S)
        assert parts.events().count(StudyEvent.STARTED) == 1
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: parts.record().state is StudyState.REFUSED)
    finally:
        for pid in filter(None, (old, new)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    told = [line.detail for line in parts.ledger.history("2.25.100") if line.event is StudyEvent.TAKEN_OVER]
    assert told == ["new took it over from old"]
    assert parts.events().count(StudyEvent.FAILED) == 0
    assert parts.sent() == [("SR", "pacs")]
