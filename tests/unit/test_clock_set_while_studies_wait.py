"""The clock is set while studies wait: none waits for a day, none is closed early, and the result is the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk_parts import PARTNER_WAIT_S, QUIET_S, DeskParts, hydrops_study, series_of
from scanned_series import MRC

from dicom_node.ledger import StudyEvent, StudyState

STUDY = "2.25.100"
DAY_S = 86_400.0
END_OF_32_BITS = 2_147_483_647.0 + 10.0
"""2038-01-19, ten seconds after a signed 32-bit clock has run over."""


@pytest.mark.parametrize("forth", [DAY_S, 3600.0, END_OF_32_BITS - 1_000_000.0], ids=["a day", "an hour", "2038"])
def test_f28_a_clock_that_jumps_gives_one_result_under_the_same_uids(tmp_path: Path, forth: float) -> None:
    for name in ("undisturbed", "jumping"):
        (tmp_path / name).mkdir()
    undisturbed, jumping = DeskParts(tmp_path / "undisturbed"), DeskParts(tmp_path / "jumping")
    for parts in (undisturbed, jumping):
        parts.receive(hydrops_study())
    undisturbed.work_off()
    jumping.now += forth
    jumping.work_off()
    jumping.now -= forth + DAY_S
    jumping.receive(hydrops_study())
    jumping.work_off()
    jumping.work_off()
    assert [results_of(parts) for parts in (undisturbed, jumping)] == [results_of(undisturbed)] * 2
    assert jumping.state() == undisturbed.state()


@pytest.mark.parametrize("back_s", [3600.0, DAY_S, END_OF_32_BITS], ids=["an hour", "a day", "since 1970"])
def test_f28_a_study_that_waits_while_the_clock_is_set_back_waits_for_one_quiet_time_more(
    tmp_path: Path, back_s: float
) -> None:
    parts = DeskParts(tmp_path)
    parts.receive(series_of(MRC))
    assert not parts.look_round_after(1.0)
    parts.set_clock(-back_s)
    assert not parts.look_round_after(1.0)
    assert parts.state()[0] is StudyState.WAITING
    assert not parts.look_round_after(PARTNER_WAIT_S - 1.0)
    assert len(parts.look_round_after(2.0)) == 1


def test_f28_a_complete_study_is_computed_soon_after_the_clock_was_set_back(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    parts.receive(hydrops_study())
    assert not parts.look_round_after(1.0)
    parts.set_clock(-DAY_S)
    parts.look_round_after(0.5)
    assert len(parts.look_round_after(QUIET_S + 1.0)) == 1


def test_f28_a_worker_that_starts_with_a_clock_set_back_waits_from_its_start_on(tmp_path: Path) -> None:
    before = DeskParts(tmp_path)
    before.receive(hydrops_study())
    assert not before.look_round_after(1.0)
    after = DeskParts(tmp_path)
    after.now = before.now - DAY_S
    assert not after.look_round_after(1.0)
    assert len(after.look_round_after()) == 1


def test_f28_a_clock_put_forward_closes_no_study_early(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    first, *others = hydrops_study()
    parts.receive([first])
    assert not parts.look_round_after(1.0)
    parts.set_clock(DAY_S)
    assert not parts.look_round_after(1.0)
    assert parts.state()[0] is StudyState.WAITING
    parts.receive(others)
    parts.work_off()
    assert parts.state()[0] in {StudyState.COMPUTED, StudyState.REFUSED}
    assert parts.events().count(StudyEvent.ARRIVED) == 2


def test_f28_a_sender_whose_machine_is_ahead_of_the_workers_is_not_closed_early(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    for one in hydrops_study()[:12]:
        parts.receive([one], at=parts.now + 60.0)
        assert not parts.look_round_after(QUIET_S - 1.0)
    assert parts.state()[0] is StudyState.WAITING


def test_f28_images_that_come_after_the_clock_was_set_back_open_a_canceled_study_again(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    images = hydrops_study()
    parts.receive(images[:3])
    parts.look_round_after(1.0)
    assert parts.actions.cancel(STUDY, "reader").accepted
    parts.look_round_after(1.0)
    assert parts.state()[0] is StudyState.CANCELED
    parts.set_clock(-DAY_S)
    parts.receive(images[3:])
    parts.look_round_after(1.0)
    assert parts.state()[0] is not StudyState.CANCELED


def results_of(parts: DeskParts) -> list[tuple[str, str, str]]:
    """UID, kind and destination of everything that is to be delivered."""
    return [(one.sop_instance_uid, one.kind, one.destination) for one in parts.outbox.deliveries(STUDY)]
