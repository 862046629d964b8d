"""Workers of two versions on one database: each leaves the other's work alone while the other is there."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from computing_worker import the_stem
from desk_parts import DeskParts, hydrops_study
from patience import wait_until

from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.roster import MISSED_BEATS, Roster

NOBODY_LISTENS = 9
BEAT_S = 0.3
"""The one that lives is taken for dead after ten times this, which no busy machine makes it wait for its turn."""


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    parts = DeskParts(tmp_path, clock=time.time)
    parts.receive(hydrops_study(), at=time.time() - 60)
    return parts


def test_work_in_flight_is_left_to_its_version_and_begun_anew_when_the_last_worker_of_it_has_gone(
    parts: DeskParts,
) -> None:
    old = the_stem().fork(parts.folder, "old", NOBODY_LISTENS, "decode", "linger", version="0", beat_s=BEAT_S)
    new = 0
    try:
        wait_until(lambda: StudyEvent.STARTED in parts.events() and parts.record().step == "load images")
        new = the_stem().fork(parts.folder, "new", NOBODY_LISTENS, beat_s=BEAT_S)
        log = parts.folder / "new.log"
        wait_until(lambda: log.exists() and "event=worker_ready" in log.read_text())
        wait_until(lambda: beats(parts, "new") > 2 * MISSED_BEATS)
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
    assert sorted(parts.sent()) == [("SC", "pacs"), ("SR", "pacs")]


def beats(parts: DeskParts, worker_id: str) -> int:
    """How many signs of life a worker gave; it looks at the others as often."""
    return next(one.beats for one in Roster(parts.engine).workers() if one.worker_id == worker_id)
