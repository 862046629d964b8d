"""Images are erased so many days after their study's results arrived, and never while anybody needs them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from desk_parts import hydrops_study
from kept_studies import A_DAY_S, PERIODS, STUDY, KeptStudies

from dicom_node.audit import AuditAction
from dicom_node.delivery.outbox import RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.retention import Periods
from dicom_node.retention.clock_doubt import ClockDoubt
from dicom_node.retention.keeping import perhaps_due


def test_s25_images_go_so_many_days_after_delivery_and_nothing_else_does(node: KeptStudies) -> None:
    node.finish_study()
    decided, results = node.record(), [path.read_bytes() for path in node.result_files()]
    assert node.keeping().images_until == node.now + 14 * 86400
    node.round_after(13.9)
    assert len(node.image_files()) == len(hydrops_study())
    node.round_after(0.2)
    assert node.image_files() == []
    assert node.spool.study(STUDY) is None
    assert node.record() == decided, "what was decided stands"
    assert [path.read_bytes() for path in node.result_files()] == results
    assert node.events()[-1] is StudyEvent.ERASED
    entry = next(one for one in node.audit.entries() if one.action is AuditAction.IMAGES_ERASED)
    assert entry.message["ParticipantObjectIdentification"][0]["ParticipantObjectID"] == STUDY
    assert entry.message["EventIdentification"]["EventActionCode"] == "D"
    erased = node.keeping().erased
    assert erased is not None
    assert (erased.missing, erased.known, erased.fresh) == (len(hydrops_study()), len(hydrops_study()), 0)
    assert node.keeping().images_until is None
    assert node.keeping().results_until is not None


def test_a_refused_study_without_destination_goes_so_many_days_after_the_decision(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path, destinations=())
    node.finish_study(deliver=False)
    assert node.record().state is StudyState.REFUSED
    node.round_after(13.9)
    assert node.image_files()
    node.round_after(0.2)
    assert node.image_files() == []


def fail_it(node: KeptStudies) -> None:
    node.receive(hydrops_study())
    (work,) = node.look_round_after()
    node.desk.runs.fail(work, "MemoryError")


def leave_it_queued(node: KeptStudies) -> None:
    node.receive(hydrops_study())
    node.look_round_after()


def leave_it_waiting(node: KeptStudies) -> None:
    node.receive(hydrops_study()[:1])
    node.look_round_after()


def leave_it_undelivered(node: KeptStudies) -> None:
    node.finish_study(deliver=False)


def have_it_refused_by_the_pacs(node: KeptStudies) -> None:
    node.finish_study(deliver=False)
    node.deliver(OutcomeKind.STOPPED)


def send_another_content(node: KeptStudies) -> None:
    images = hydrops_study()
    images[0].SeriesDescription = "another content"
    node.finish_study()
    node.receive(images[:1])
    node.work_off()
    node.deliver()


def ask_for_a_replay(node: KeptStudies) -> None:
    node.finish_study()
    assert node.actions.replay(STUDY, "anna").accepted


def send_an_image_that_nobody_has_looked_at(node: KeptStudies) -> None:
    node.finish_study()
    late = hydrops_study()[0]
    late.SOPInstanceUID = "2.25.999"
    node.receive([late])


@pytest.mark.parametrize(
    ("hold", "because"),
    [
        (fail_it, "the node failed on it"),
        (leave_it_queued, "it is not computed yet"),
        (leave_it_waiting, "it waits for images"),
        (leave_it_undelivered, "its results are not everywhere yet"),
        (have_it_refused_by_the_pacs, "its results are not everywhere yet"),
        (send_another_content, "more than one content"),
        (ask_for_a_replay, "somebody has asked"),
        (send_an_image_that_nobody_has_looked_at, "images came that nobody has looked at"),
    ],
)
def test_s25_what_somebody_still_needs_is_kept_for_as_long_as_it_takes(
    node: KeptStudies, hold: Callable[[KeptStudies], None], because: str
) -> None:
    hold(node)
    files = node.image_files()
    node.round_after(1000)
    assert node.image_files() == files
    assert because in node.keeping().held_because


def test_a_study_that_is_held_lets_later_ones_pass(node: KeptStudies) -> None:
    node.finish_study("2.25.1", deliver=False)
    node.deliver(OutcomeKind.STOPPED)
    for number in range(2, 5):
        node.finish_study(f"2.25.{number}")
    node.round_after(15)
    assert [node.spool.study(f"2.25.{number}") is None for number in range(1, 5)] == [False, True, True, True]


def test_a_round_erases_a_few_studies_and_says_that_there_are_more(
    node: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.retention.rounds.STUDIES_A_ROUND", 2)
    for number in range(1, 4):
        node.finish_study(f"2.25.{number}")
    assert node.round_after(15) is True
    assert node.spool.study("2.25.3") is not None
    assert node.round_after(0) is False
    assert node.image_files() == []
    assert node.rounds.erased.images_of == 3
    assert node.rounds.erased.files == 3 * len(hydrops_study())


def test_days_count_anew_when_the_same_images_are_sent_once_more(node: KeptStudies) -> None:
    node.finish_study()
    node.now += 10 * 86400
    node.receive(hydrops_study()[:1])
    assert node.spool.study(STUDY).revision == node.record().revision, "a known image is no change"
    node.round_after(10)
    assert node.image_files()
    node.round_after(5)
    assert node.image_files() == []


def test_zero_days_keep_for_good(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path, periods=Periods(inputs_days=0, results_days=0, audit_days=0))
    node.finish_study()
    node.round_after(100_000)
    assert node.image_files()
    assert (node.keeping().images_until, node.keeping().results_until) == (None, None)


def test_studies_that_never_end_are_not_looked_at_in_every_round(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path, periods=Periods(inputs_days=14, results_days=0, audit_days=0))
    node.finish_study("2.25.1", deliver=False)
    node.deliver(OutcomeKind.NOT_TAKEN)
    node.finish_study("2.25.2")
    node.now += 15 * A_DAY_S
    with node.engine.connect() as connection:
        query = perhaps_due(node.now - 14 * A_DAY_S, with_images=True, results_end=False)
        assert list(connection.scalars(query)) == ["2.25.2"]
    node.round_after(0)
    assert [node.spool.study(one) is None for one in ("2.25.1", "2.25.2")] == [False, True]


def test_s25_images_whose_results_no_destination_takes_are_kept_as_long_as_these(node: KeptStudies) -> None:
    node.finish_study(deliver=False)
    node.deliver(OutcomeKind.NOT_TAKEN)
    node.round_after(PERIODS.results_days - 1)
    assert len(node.image_files()) == len(hydrops_study())
    assert node.keeping().images_until == node.keeping().results_until
    while node.round_after(1.1) or node.ledger.get(STUDY) is not None:
        assert node.now < 1_000_000.0 + (PERIODS.results_days + 10) * A_DAY_S
    assert (node.image_files(), node.result_files()) == ([], [])


def test_s25_one_destination_that_takes_them_is_enough_for_the_images_to_go_at_their_time(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path, destinations=("pacs", "archive"))
    node.finish_study(deliver=False)
    (pacs,) = node.outbox.due("pacs", node.now)
    (archive,) = node.outbox.due("archive", node.now)
    for one, kind in ((pacs, OutcomeKind.DELIVERED), (archive, OutcomeKind.NOT_TAKEN)):
        node.outbox.record(one.delivery_id, DeliveryOutcome(kind=kind, detail=""), node.now, RetryPolicy())
    node.round_after(PERIODS.inputs_days + 1)
    assert node.image_files() == []


def test_a_clock_that_jumps_ahead_ends_nothing_for_a_day(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path)
    node.finish_study()
    node.round_after(1)
    node.put_forward_s += 365 * 86400
    node.round_after(365)
    node.round_after(0.9)
    assert len(node.image_files()) == len(hydrops_study())
    node.round_after(0.2)
    assert node.image_files() == [], "nobody set it back: it was wrong before"


def test_a_clock_that_is_set_back_is_gone_by_at_once(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path)
    node.finish_study()
    node.round_after(1)
    node.put_forward_s += 365 * 86400
    node.round_after(365)
    node.put_forward_s -= 365 * 86400
    node.round_after(-365)
    assert len(node.image_files()) == len(hydrops_study())
    node.round_after(13.5)
    assert node.image_files() == []


def test_f28_a_node_that_starts_with_a_clock_far_ahead_ends_nothing_for_a_day(tmp_path: Path) -> None:
    before = KeptStudies(tmp_path)
    before.finish_study()
    before.round_after(1)
    after = KeptStudies(tmp_path)
    after.now = before.now + 365 * 86400
    after.round_after(0)
    after.round_after(0.9)
    again = KeptStudies(tmp_path)
    again.now = after.now  # starting once more is no way round it, and does not begin the day anew
    again.round_after(0)
    again.round_after(0.05)
    assert len(again.image_files()) == len(hydrops_study())
    again.round_after(0.1)
    assert again.image_files() == []


def test_f28_a_doubt_of_the_clock_does_not_end_while_the_node_is_off_and_nobody_sees_it(tmp_path: Path) -> None:
    before = KeptStudies(tmp_path)
    before.finish_study()
    before.round_after(1)
    doubting = KeptStudies(tmp_path)
    doubting.now = before.now + 365 * A_DAY_S
    doubting.round_after(0)
    doubting.round_after(0.5)
    after = KeptStudies(tmp_path)
    after.now = doubting.now + 3 * A_DAY_S  # over a long weekend
    after.round_after(0)
    after.round_after(0.45)
    assert len(after.image_files()) == len(hydrops_study())
    after.round_after(0.1)
    assert after.image_files() == []


def test_f28_a_node_that_ends_while_it_writes_its_doubt_down_doubts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_year_ago = time.time() - 365 * A_DAY_S
    assert ClockDoubt(tmp_path, clock=lambda: a_year_ago, monotonic=lambda: 5.0).is_over()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as power:
        power.setattr(os, "utime", killed)
        with pytest.raises(KeyboardInterrupt):
            ClockDoubt(tmp_path, clock=time.time, monotonic=lambda: 5.0).is_over()
    assert not ClockDoubt(tmp_path, clock=time.time, monotonic=lambda: 5.0).is_over()


def test_a_node_that_starts_anew_every_night_goes_by_its_clock(tmp_path: Path) -> None:
    first = KeptStudies(tmp_path)
    first.finish_study()
    now = first.now
    for _ in range(15):
        node = KeptStudies(tmp_path)
        node.now = now
        node.round_after(0.95)
        now = node.now
    assert node.image_files() == []
