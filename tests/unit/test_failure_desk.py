"""What a PACS hears of a study that the node failed on: one report, from headers alone, and none too many."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
import pytest
from desk_parts import LOCALIZER, PARTNER_WAIT_S, DeskParts, hydrops_study, series_of
from phantom_patients import report_text
from pydicom.dataset import Dataset
from sqlalchemy.exc import OperationalError

from dicom_node.delivery.outbox import DeliveryState, KeptObjects, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.errors import Reason, TransientError
from dicom_node.examination import Work
from dicom_node.failure_desk import TROUBLE_PASSES_S
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.owed_failures import LEASE_S, MAX_BEGINNINGS, OwedFailure, OwedFailures, Turn
from dicom_node.study_actions import sent_key

STUDY = "2.25.100"
PROBLEM = "KeyError: 'DOE^JANE'"


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    return DeskParts(tmp_path)


def begun(parts: DeskParts) -> Work:
    """A study whose computing has begun."""
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    parts.desk.runs.begin(work)
    return work


def report(parts: DeskParts) -> pydicom.Dataset:
    """The one that waits for the PACS."""
    (delivery,) = (one for one in parts.outbox.deliveries(STUDY) if one.kind == "SR")
    return pydicom.dcmread(io.BytesIO(parts.outbox.read(delivery.sop_instance_uid)))


def test_a_failed_study_gets_a_report_that_says_so_without_the_words_of_the_fault(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    assert parts.look_round_after() == []
    assert parts.sent() == [("SR", "pacs")]
    found = report(parts)
    assert (found.StudyInstanceUID, found.PatientID) == (STUDY, hydrops_study()[0].PatientID)
    said = report_text(found)
    assert Reason.INTERNAL.sentence in said
    assert Reason.INTERNAL.value in said
    assert "JANE" not in str(found) + said
    assert parts.wakes == 1


def test_it_is_told_once(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    parts.look_round_after()
    before = [(one.sop_instance_uid, one.state, one.attempts) for one in parts.outbox.deliveries(STUDY)]
    for _ in range(3):
        parts.look_round_after()
    DeskParts(parts.folder, worker_id="worker-2").look_round_after()
    assert [(one.sop_instance_uid, one.state, one.attempts) for one in parts.outbox.deliveries(STUDY)] == before
    assert parts.wakes == 1


def test_the_same_failure_after_a_retry_is_the_same_report(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    parts.look_round_after()
    first = report(parts)
    assert parts.actions.retry(STUDY, "anna").accepted
    (work,) = parts.look_round_after()
    parts.desk.runs.begin(work)
    parts.desk.runs.fail(work, PROBLEM)
    parts.look_round_after()
    assert report(parts) == first


def test_a_retry_that_comes_to_an_outcome_lets_it_out_beside_the_report_of_the_failure(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    parts.look_round_after()
    failed = parts.record()
    assert [one.kind for one in parts.outbox.objects(sent_key(failed, parts.outbox))] == ["SR"]
    assert parts.actions.retry(STUDY, "anna").accepted
    parts.work_off()
    ended = parts.record()
    assert ended.state is StudyState.REFUSED
    (of_failure,), (of_outcome,) = (parts.outbox.objects(sent_key(one, parts.outbox)) for one in (failed, ended))
    assert of_failure.kind == of_outcome.kind == "SR"
    assert of_failure.sop_instance_uid != of_outcome.sop_instance_uid


def test_a_failed_study_whose_retry_was_faster_owes_no_report(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    assert parts.actions.retry(STUDY, "anna").accepted
    parts.work_off()  # requests come before failures
    assert parts.state()[0] is StudyState.REFUSED
    assert len(parts.sent()) == 1
    assert Reason.INTERNAL.value not in report_text(report(parts))


def test_a_site_that_wants_no_such_reports_gets_none(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, send_not_computed=False)
    parts.desk.runs.fail(begun(parts), PROBLEM)
    parts.look_round_after()
    assert parts.sent() == []
    assert parts.owed_failures.open() == []


def test_the_report_can_be_sent_again(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    parts.look_round_after()
    assert parts.actions.resend(STUDY, "pacs", "anna").accepted
    parts.look_round_after()
    assert parts.wakes == 2


def test_a_stopped_report_of_a_failure_goes_again_with_the_outcome_of_the_retry(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    parts.look_round_after()
    (delivery,) = parts.outbox.due("pacs", parts.now)
    refused = DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="0xA900")
    parts.outbox.record(delivery.delivery_id, refused, parts.now, RetryPolicy())
    assert parts.actions.retry(STUDY, "anna").accepted
    parts.work_off()
    assert parts.actions.resend(STUDY, "pacs", "anna").accepted
    parts.look_round_after()
    states = [one.state for one in parts.outbox.deliveries(STUDY)]
    assert states == [DeliveryState.WAITING, DeliveryState.WAITING]


def test_a_fault_while_telling_has_it_tried_once_more_and_then_given_up_with_a_line_of_history(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    begun_here = []

    def refused(*_arguments: object) -> None:
        begun_here.append(parts.now)
        raise MemoryError

    monkeypatch.setattr(parts.desk._examiner, "open", refused)
    for _ in range(MAX_BEGINNINGS + 2):
        parts.look_round_after(LEASE_S)
    assert len(begun_here) == MAX_BEGINNINGS
    assert (parts.sent(), parts.owed_failures.open()) == ([], [])
    assert parts.events()[-1] is StudyEvent.NOT_TOLD
    monkeypatch.undo()
    parts.receive(hydrops_study("2.25.200"))
    (work,) = parts.look_round_after()
    parts.desk.runs.fail(work, PROBLEM)
    parts.look_round_after()
    assert parts.outbox.deliveries("2.25.200")


def test_a_fault_of_one_moment_does_not_keep_it_from_being_told(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)

    def refused(*_arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(parts.desk._examiner, "open", refused)
        parts.look_round_after()
    parts.look_round_after(LEASE_S)
    assert parts.sent() == [("SR", "pacs")]


def failed_at_looking(parts: DeskParts, images: list[Dataset]) -> None:
    """The study is FAILED before anything was decided about it."""
    with pytest.MonkeyPatch.context() as patch:

        def refused(*_arguments: object, **_named: object) -> None:
            raise MemoryError

        patch.setattr(parts.desk._examiner, "examine", refused)
        parts.receive(images)
        for _ in range(2):
            parts.look_round_after()
    assert parts.record().state is StudyState.FAILED


def test_nobody_is_told_of_a_study_that_is_no_hydrops_study(parts: DeskParts) -> None:
    failed_at_looking(parts, series_of(LOCALIZER))
    parts.look_round_after(PARTNER_WAIT_S)
    assert (parts.sent(), parts.owed_failures.open()) == ([], [])
    assert StudyEvent.NOT_TOLD not in parts.events()


def test_a_study_that_failed_while_its_images_came_is_told_of_once_when_no_more_come(parts: DeskParts) -> None:
    images = hydrops_study()
    failed_at_looking(parts, images[:-1])
    parts.look_round_after()
    assert parts.sent() == []
    failed_at_looking(parts, images[-1:])
    parts.look_round_after()
    assert parts.sent() == []
    parts.look_round_after(PARTNER_WAIT_S)
    assert parts.sent() == [("SR", "pacs")]


def test_it_is_not_told_beside_a_study_that_is_computed(parts: DeskParts) -> None:
    failed = begun(parts)
    parts.receive(hydrops_study("2.25.200"))
    (neighbor,) = parts.look_round_after()
    parts.desk.runs.fail(failed, PROBLEM)
    with parts.desk._at_work:  # as while its worker is at another study
        parts.look_round_after()
        assert parts.sent() == []
    parts.desk.compute(neighbor)
    assert parts.sent() == [("SR", "pacs")]


def test_a_study_of_which_no_image_is_left_is_given_up(parts: DeskParts) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    for instance in parts.spool.instances(STUDY):
        instance.path.write_bytes(b"damaged")
    parts.spool.set_damaged_aside(STUDY)
    parts.look_round_after()
    assert (parts.sent(), parts.owed_failures.open()) == ([], [])


def test_it_is_not_told_while_a_study_waits_to_be_tried_again(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = begun(parts)
    parts.receive(hydrops_study("2.25.200"))
    (neighbor,) = parts.look_round_after()
    parts.desk.runs.fail(failed, PROBLEM)
    monkeypatch.setattr(parts.desk._failures, "tell", lambda: None)  # before the neighbor begins, nothing is owed yet

    def full(*_arguments: object, **_named: object) -> None:
        raise TransientError("outbox on disk: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parts.desk._publisher, "publish", full)
        with pytest.raises(TransientError):
            parts.desk.compute(neighbor)
    monkeypatch.undo()
    parts.look_round_after()
    assert parts.sent() == []
    parts.desk.compute(neighbor)  # as the engine does, some seconds later
    parts.look_round_after()
    assert parts.sent() == [("SR", "pacs")]


def test_one_failure_is_told_at_a_time(parts: DeskParts) -> None:
    studies = [f"2.25.{n}" for n in (100, 101, 102)]
    for study in studies:
        parts.receive(hydrops_study(study))
    for work in parts.look_round_after():
        parts.desk.runs.fail(work, PROBLEM)
    told = []
    for _ in studies:
        parts.look_round_after()
        told.append(sum(bool(parts.outbox.deliveries(study)) for study in studies))
    assert told == [1, 2, 3]


def test_a_fault_while_telling_begins_no_other_report(parts: DeskParts, monkeypatch: pytest.MonkeyPatch) -> None:
    for study in (STUDY, "2.25.101"):
        parts.receive(hydrops_study(study))
    for work in parts.look_round_after():
        parts.desk.runs.fail(work, PROBLEM)
    begun_here = []

    def refused(study: str) -> None:
        begun_here.append(study)
        raise MemoryError

    monkeypatch.setattr(parts.desk._examiner, "open", refused)
    parts.look_round_after()
    assert len(begun_here) == 1


def test_trouble_that_does_not_pass_in_a_day_is_told_to_somebody(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)

    def forbidden(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(parts.desk._examiner, "open", forbidden)
    for _ in range(MAX_BEGINNINGS + 2):
        parts.look_round_after(LEASE_S)
    assert parts.owed_failures.owes(STUDY)
    parts.now += TROUBLE_PASSES_S
    for _ in range(MAX_BEGINNINGS + 1):
        parts.look_round_after(LEASE_S)
    assert not parts.owed_failures.owes(STUDY)
    assert parts.events()[-1] is StudyEvent.NOT_TOLD


def test_late_images_over_which_the_node_fails_are_waited_for_like_a_new_study(parts: DeskParts) -> None:
    images = hydrops_study()
    parts.receive(images[:-1])
    parts.work_off()
    parts.now += PARTNER_WAIT_S
    parts.work_off()
    before = parts.sent()
    failed_at_looking(parts, images[-1:])
    parts.look_round_after()
    assert parts.sent() == before
    parts.look_round_after(PARTNER_WAIT_S)
    assert len(parts.sent()) == len(before) + 1


@pytest.mark.parametrize("step", ["keep", "queue"])
def test_f08_a_full_disk_is_waited_for(parts: DeskParts, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)

    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parts.outbox, step, full)
        for _ in range(MAX_BEGINNINGS + 2):
            parts.look_round_after(LEASE_S)
        parts.receive(hydrops_study("2.25.200"))
        assert [one.study_instance_uid for one in parts.look_round_after()] == ["2.25.200"]  # nothing else is held up
    parts.look_round_after(LEASE_S)
    assert parts.sent() == [("SR", "pacs")]


def test_f24_telling_that_ends_workers_is_left_after_the_second_one(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledHere(BaseException):
        pass

    def killed(*_arguments: object) -> None:
        raise KilledHere

    parts.desk.runs.fail(begun(parts), PROBLEM)
    for _ in range(MAX_BEGINNINGS):
        now, parts = parts.now, DeskParts(parts.folder)  # a new process
        parts.now = now
        monkeypatch.setattr(parts.desk._examiner, "open", killed)
        with pytest.raises(KilledHere):
            parts.look_round_after(LEASE_S)
    now, parts = parts.now, DeskParts(parts.folder)
    parts.now = now
    parts.receive(series_of(LOCALIZER, "2.25.300"))
    parts.look_round_after(LEASE_S)
    assert (parts.sent(), parts.owed_failures.open()) == ([], [])
    assert parts.record("2.25.300").state is StudyState.NOT_OURS


def test_f15_a_database_that_is_away_is_waited_for(parts: DeskParts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)

    def away(*_arguments: object, **_named: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(parts.outbox, "queue", away)
        for _ in range(MAX_BEGINNINGS + 2):
            with pytest.raises(OperationalError):
                parts.look_round_after(LEASE_S)
    parts.look_round_after(LEASE_S)
    assert parts.sent() == [("SR", "pacs")]


def told_meanwhile(other: DeskParts) -> None:
    """The worker was taken for ended, and another one has told."""
    other.look_round_after(LEASE_S)
    assert other.sent() == [("SR", "pacs")]


def opened_again(other: DeskParts) -> None:
    """Somebody asked for a retry."""
    assert other.actions.retry(STUDY, "anna").accepted
    other.look_round_after(0.0)


@pytest.mark.parametrize("meanwhile", [told_meanwhile, opened_again])
def test_f27_a_worker_that_comes_too_late_lets_nothing_out(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[DeskParts], None]
) -> None:
    parts.desk.runs.fail(begun(parts), PROBLEM)
    other = DeskParts(parts.folder, worker_id="worker-2")
    other.now = parts.now + 30.0  # other bytes: another time of encoding
    keep, outbox, before = parts.outbox.keep, parts.folder / "outbox", []

    def keep_and_be_overtaken(objects: Sequence[OutboxObject]) -> KeptObjects:
        kept: KeptObjects = keep(objects)
        (written,) = outbox.iterdir()
        aside = written.rename(parts.folder / written.name)  # as if the other one had looked before it was there
        meanwhile(other)
        before.extend(other.sent())
        aside.rename(written)
        return kept

    monkeypatch.setattr(parts.outbox, "keep", keep_and_be_overtaken)
    parts.look_round_after(0.0)
    assert (parts.sent(), parts.wakes) == (before, 0)
    if before:
        (file,) = outbox.iterdir()  # the bytes of the late one are gone
        assert other.outbox.read(report(parts).SOPInstanceUID) == file.read_bytes()
    parts.look_round_after()
    assert parts.owed_failures.open() == []


def owed_at(parts: DeskParts, failed_at: float) -> OwedFailure:
    """The study as one that failed then."""
    with parts.ledger.transaction() as connection:
        parts.owed_failures.owe(STUDY, at=failed_at, within=connection)
    (found,) = parts.owed_failures.open()
    return found


def test_a_later_failure_is_owed_anew(parts: DeskParts) -> None:
    owed, first = parts.owed_failures, owed_at(parts, 1.0)
    second = owed_at(parts, 2.0)
    assert owed.begin(first, at=3.0) is Turn.ANOTHERS
    assert not owed.settle(first)
    assert owed.begin(second, at=3.0) is Turn.OURS
    assert owed.settle(second)


def test_one_worker_at_a_time_tells_and_the_next_one_waits_for_its_lease(parts: DeskParts) -> None:
    owed, failure = OwedFailures(parts.engine), owed_at(parts, 1.0)
    turns = [owed.begin(failure, at=at) for at in (10.0, 10.1, 9.0 + LEASE_S, 10.0 + LEASE_S, 11.0 + LEASE_S)]
    assert turns == [Turn.OURS, Turn.ANOTHERS, Turn.ANOTHERS, Turn.OURS, Turn.ANOTHERS]
    assert owed.begin(failure, at=10.0 + 2 * LEASE_S) is Turn.OVER


def test_of_workers_that_begin_in_one_moment_one_tells_whatever_their_clocks_say(parts: DeskParts) -> None:
    failure = owed_at(parts, 1.0)
    turns = [parts.owed_failures.begin(failure, at=at) for at in (100.001, 100.0, 99.9)]
    assert turns == [Turn.OURS, Turn.ANOTHERS, Turn.ANOTHERS]


def test_f28_a_clock_that_was_set_back_does_not_hold_it_up(parts: DeskParts) -> None:
    failure = owed_at(parts, 1e6)
    assert parts.owed_failures.begin(failure, at=1e6) is Turn.OURS
    assert parts.owed_failures.begin(failure, at=1e6 - 86400.0) is Turn.OURS
