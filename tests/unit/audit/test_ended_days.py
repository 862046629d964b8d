"""The oldest days of the trail end: they go, and what is left still proves that nothing else went."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.audit import AuditAction, AuditTrail

FIRST_DAY = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
A_DAY_S = 86400.0


class Days:
    """A trail of three entries a day, whose day the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = FIRST_DAY
        self.trail = AuditTrail(folder, source="NODE", clock=lambda: self.now)

    def work(self, days: int) -> None:
        for _ in range(days):
            for number in range(3):
                self.trail.record(AuditAction.STUDY_RETRY, actor="anna", study_instance_uid=f"2.25.{number}")
            self.now += A_DAY_S

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("audit-*.jsonl"))

    def sequences(self) -> list[int]:
        return [one.sequence for one in self.trail.entries()]

    def problems(self) -> list[str]:
        return [f"{one.where}: {one.sentence}" for one in self.trail.verify()]


@pytest.fixture
def days(tmp_path: Path) -> Days:
    found = Days(tmp_path / "audit")
    found.work(5)
    return found


def test_old_days_go_and_the_rest_is_still_proven_whole(days: Days) -> None:
    assert days.trail.erase_before(FIRST_DAY + 2 * A_DAY_S) == 2
    assert days.files()[0] == "audit-2026-03-03.jsonl"
    assert days.sequences() == [*range(7, 16), 16]
    assert list(days.trail.entries())[-1].action is AuditAction.AUDIT_ENTRIES_ERASED
    assert days.problems() == []
    days.work(2)
    assert days.trail.erase_before(FIRST_DAY + 4 * A_DAY_S) == 2
    assert days.problems() == []


def test_the_newest_file_stays_however_old_it_is(days: Days) -> None:
    assert days.trail.erase_before(FIRST_DAY + 1000 * A_DAY_S) == 4
    assert days.trail.erase_before(FIRST_DAY + 1000 * A_DAY_S) == 1, "the file that was newest before the statement"
    assert days.trail.erase_before(FIRST_DAY + 1000 * A_DAY_S) == 0
    assert days.problems() == []


@pytest.mark.parametrize(("sent", "erased"), [(0, 0), (5, 1), (6, 2), (15, 2)])
def test_s24_days_with_an_entry_that_has_not_left_this_machine_stay(days: Days, sent: int, erased: int) -> None:
    assert days.trail.erase_before(FIRST_DAY + 2 * A_DAY_S, up_to=sent) == erased
    assert days.sequences()[0] == 3 * erased + 1
    assert days.problems() == []


def test_nothing_is_said_where_nothing_is_old(days: Days) -> None:
    assert days.trail.erase_before(FIRST_DAY) == 0
    assert days.sequences() == [*range(1, 16)]
    assert AuditTrail(days.folder / "never").erase_before(FIRST_DAY) == 0


def remove_one_day_more(folder: Path) -> None:
    (folder / "audit-2026-03-03.jsonl").unlink()


def remove_one_line_more(folder: Path) -> None:
    path = folder / "audit-2026-03-03.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def begin_with_another_entry(folder: Path) -> None:
    other = Days(folder.parent / "other")
    other.now += 7.0
    other.work(3)
    (other.folder / "audit-2026-03-03.jsonl").replace(folder / "audit-2026-03-03.jsonl")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove_one_day_more, "entries 7 to 9 are missing before entry 10"),
        (remove_one_line_more, "entry 7 is missing before entry 8"),
        (begin_with_another_entry, "entry 7 does not follow from the last entry that was erased"),
    ],
)
def test_s24_whoever_takes_away_more_than_was_erased_is_found_out(
    days: Days, damage: Callable[[Path], None], expected: str
) -> None:
    days.trail.erase_before(FIRST_DAY + 2 * A_DAY_S)
    damage(days.folder)
    assert any(expected in problem for problem in days.problems())


def test_days_that_somebody_moved_away_are_missing(days: Days) -> None:
    (days.folder / "audit-2026-03-01.jsonl").unlink()
    assert days.problems() == ["audit-2026-03-02.jsonl, line 1: entries 1 to 3 are missing before entry 4"]


@pytest.mark.parametrize("left", [1, 2], ids=["all", "one"])
def test_a_kill_between_the_statement_and_the_files_is_no_damage_and_is_finished(days: Days, left: int) -> None:
    old = {name: (days.folder / name).read_bytes() for name in days.files()[:2]}
    days.trail.erase_before(FIRST_DAY + 2 * A_DAY_S)
    for name in sorted(old)[left - 1 :]:
        (days.folder / name).write_bytes(old[name])
    assert days.problems() == []
    assert days.trail.erase_before(FIRST_DAY + 2 * A_DAY_S) == 3 - left
    assert days.files()[0] == "audit-2026-03-03.jsonl"
    assert days.problems() == []


def test_nothing_goes_while_the_first_entry_that_would_stay_cannot_be_read(days: Days) -> None:
    path = days.folder / "audit-2026-03-03.jsonl"
    path.write_bytes(b"no entry\n" + path.read_bytes())
    assert days.trail.erase_before(FIRST_DAY + 2 * A_DAY_S) == 0
    assert days.files()[0] == "audit-2026-03-01.jsonl"
