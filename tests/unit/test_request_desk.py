"""What becomes of requests on a real spool, ledger and outbox: exactly once, never against the table of moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from desk_parts import LOCALIZER, DeskParts, hydrops_study, series_of
from scanned_series import MRC, PEI, PPI

from dicom_node.audit import AuditAction, AuditOutcome
from dicom_node.delivery.outbox import DeliveryState, KeptObjects, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.examination import Work
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.study_requests import RequestState, StudyAction

STUDY = "2.25.100"
DELIVERED = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="status 0000H: stored", status=0)


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    return DeskParts(tmp_path)


def is_sent_once(parts: DeskParts) -> bool:
    """Whether a report is on its way, and no kind of object twice."""
    kinds = [one.kind for one in parts.outbox.deliveries(STUDY)]
    return "SR" in kinds and len(set(kinds)) == len(kinds)


def finished(parts: DeskParts) -> None:
    """The study was worked off, and its report is at the destination."""
    parts.receive(hydrops_study())
    parts.work_off()
    deliver_all(parts)


def deliver_all(parts: DeskParts) -> None:
    for delivery in parts.outbox.deliveries(STUDY):
        parts.outbox.record(delivery.delivery_id, DELIVERED, parts.now, RetryPolicy())


def answer(parts: DeskParts) -> tuple[RequestState, str]:
    """What became of the last request."""
    request = parts.requests.of_study(STUDY)[-1]
    return request.state, request.answer


def failed(parts: DeskParts) -> Work:
    """A study on which the node failed, and the work that failed."""
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    parts.desk.runs.fail(work, "MemoryError")
    assert parts.state() == (StudyState.FAILED, "INTERNAL")
    return work


def test_a_failed_study_is_computed_again_under_a_new_run(parts: DeskParts) -> None:
    first = failed(parts)
    assert parts.actions.retry(STUDY, "anna").accepted
    (again,) = parts.look_round_after()
    assert (again.work_id, again.revision, again.run) == (first.work_id, first.revision, 1)
    assert again.run_id == f"{first.run_id}:1"
    parts.desk.compute(again)
    assert parts.state()[0] is StudyState.REFUSED
    assert is_sent_once(parts)
    assert parts.look_round_after() == []
    line = parts.ledger.history(STUDY)[3]
    assert (line.event, line.detail) == (StudyEvent.RETRIED, "anna asked for it to be computed again")


def test_what_the_engine_still_holds_of_the_run_that_failed_changes_nothing_any_more(parts: DeskParts) -> None:
    first = failed(parts)
    parts.actions.retry(STUDY, "anna")
    (again,) = parts.look_round_after()
    parts.desk.compute(first)
    parts.desk.runs.fail(first, "MemoryError")
    assert parts.record().state is StudyState.QUEUED
    parts.desk.compute(again)
    assert parts.record().state is StudyState.REFUSED


def test_replaying_with_nothing_changed_sends_the_same_bytes_again(parts: DeskParts) -> None:
    finished(parts)
    before = parts.record()
    delivered = {
        one.sop_instance_uid: parts.outbox.read(one.sop_instance_uid) for one in parts.outbox.deliveries(STUDY)
    }
    parts.actions.replay(STUDY, "anna")
    assert parts.look_round_after() == []
    after = parts.record()
    assert (after.state, after.work_id, after.findings) == (before.state, before.work_id, before.findings)
    again = parts.outbox.deliveries(STUDY)
    assert {(one.state, one.attempts) for one in again} == {(DeliveryState.WAITING, 0)}
    assert {one.sop_instance_uid: parts.outbox.read(one.sop_instance_uid) for one in again} == delivered
    assert answer(parts) == (
        RequestState.DONE,
        "nothing that a result depends on has changed: the earlier outcome stands, "
        f"{len(delivered)} deliveries go again",
    )
    assert parts.events()[-2:] == [StudyEvent.REPLAYED, StudyEvent.REFUSED]


def test_replaying_with_other_settings_gives_a_new_result_beside_the_old(tmp_path: Path) -> None:
    before = DeskParts(tmp_path)
    finished(before)
    count = len(before.outbox.deliveries(STUDY))
    after = DeskParts(tmp_path, digest="1" * 64)
    after.now = before.now
    after.actions.replay(STUDY, "anna")
    (work,) = after.look_round_after()
    after.desk.compute(work)
    uids = {one.sop_instance_uid for one in after.outbox.deliveries(STUDY)}
    assert len(uids) == 2 * count
    assert [one.state for one in after.outbox.deliveries(STUDY)] == [
        *[DeliveryState.DELIVERED] * count,
        *[DeliveryState.WAITING] * count,
    ]
    assert answer(after)[1].startswith("rules, model, settings or images differ")


def test_a_study_of_something_else_is_judged_anew_by_a_replay(parts: DeskParts) -> None:
    parts.receive(series_of(LOCALIZER))
    parts.work_off()
    parts.actions.replay(STUDY, "anna")
    assert parts.look_round_after() == []
    assert parts.state()[0] is StudyState.NOT_OURS
    assert parts.events()[-2:] == [StudyEvent.REPLAYED, StudyEvent.NOT_OURS]


def waiting_for_counted_images(parts: DeskParts) -> None:
    """A set that could be computed, of which the source says that one more image exists."""
    parts.receive(hydrops_study())
    parts.spool.set_expected(f"{STUDY}.{PEI.number}", 9)
    assert parts.look_round_after() == []
    assert parts.record().state is StudyState.WAITING


def test_a_forced_study_is_worked_at_once_and_says_so_for_ever(parts: DeskParts) -> None:
    waiting_for_counted_images(parts)
    parts.actions.force(STUDY, "anna")
    (work,) = parts.look_round_after(0.0)
    parts.desk.compute(work)
    record = parts.record()
    assert record.state is StudyState.REFUSED  # nobody finds an ear in it; what counts is that it was worked on
    assert record.findings is not None
    (remark,) = record.findings["remarks"]
    assert remark["code"] == "BEGUN_ON_REQUEST"
    assert "1 images of the PEI series have not arrived, by source count" in remark["message"]
    assert parts.events()[1:3] == [StudyEvent.FORCED, StudyEvent.COMPLETED]


def test_a_forced_study_stays_as_it_is_when_a_count_is_stated_and_opens_when_an_image_comes(parts: DeskParts) -> None:
    waiting_for_counted_images(parts)
    parts.actions.force(STUDY, "anna")
    (work,) = parts.look_round_after(0.0)
    parts.spool.set_expected(f"{STUDY}.{PEI.number}", 10)
    parts.desk.compute(work)
    assert parts.record().state is StudyState.REFUSED
    assert parts.look_round_after() == []
    parts.spool.set_expected(f"{STUDY}.{PEI.number}", 11)
    assert parts.look_round_after() == []
    assert parts.record().state is StudyState.REFUSED
    late = series_of(PEI)[-1]
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = "2.25.424242"
    parts.receive([late])
    parts.look_round_after()
    assert parts.events()[-1] is StudyEvent.ARRIVED


def test_a_forced_study_that_is_replayed_keeps_its_outcome(parts: DeskParts) -> None:
    waiting_for_counted_images(parts)
    parts.actions.force(STUDY, "anna")
    (work,) = parts.look_round_after(0.0)
    parts.desk.compute(work)
    before = parts.record()
    parts.actions.replay(STUDY, "anna")
    assert parts.look_round_after(0.0) == []
    after = parts.record()
    assert (after.state, after.work_id, after.findings) == (before.state, before.work_id, before.findings)
    assert parts.look_round_after(10_000.0) == []
    assert is_sent_once(parts)


def test_a_study_that_cannot_be_computed_cannot_be_forced_and_goes_on_waiting(parts: DeskParts) -> None:
    parts.receive([*series_of(MRC), *series_of(PPI)])
    parts.look_round_after()
    assert parts.actions.force(STUDY, "anna").accepted
    assert parts.look_round_after() == []
    state, sentence = answer(parts)
    assert state is RequestState.DECLINED
    assert sentence.startswith("it cannot be computed with what is there: ")
    assert parts.record().state is StudyState.WAITING
    assert parts.events()[-1] is StudyEvent.DECLINED
    assert parts.sent() == []
    entry = list(parts.audit.entries())[-1]
    assert entry.action is AuditAction.STUDY_FORCE
    assert entry.message["EventIdentification"]["EventOutcomeIndicator"] == AuditOutcome.MINOR_FAILURE


def waits(parts: DeskParts) -> None:
    parts.receive([*series_of(MRC), *series_of(PPI)])
    parts.look_round_after()


def is_queued(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.look_round_after()


@pytest.mark.parametrize("stand", [waits, is_queued])
def test_a_canceled_study_publishes_nothing_and_stays_canceled(
    parts: DeskParts, stand: Callable[[DeskParts], None]
) -> None:
    stand(parts)
    parts.actions.cancel(STUDY, "anna")
    assert parts.look_round_after() == []
    assert parts.state() == (StudyState.CANCELED, "CANCELED")
    assert parts.record().detail == "canceled by anna"
    assert parts.desk.unfinished() == []
    assert parts.look_round_after(10_000.0) == []
    assert parts.sent() == []
    parts.spool.set_expected(f"{STUDY}.{MRC.number}", 8)
    assert parts.look_round_after() == []
    assert parts.record().state is StudyState.CANCELED


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_study_canceled_while_it_is_computed_stops_at_its_next_step(tmp_path: Path, step: int) -> None:
    steps: list[str] = []

    def canceled_in_the_middle() -> None:
        if desk_parts.record().state is StudyState.COMPUTING:
            steps.append(desk_parts.record().step)
            if len(steps) == step:
                desk_parts.actions.cancel(STUDY, "anna")
                desk_parts.desk.look_round()

    desk_parts = DeskParts(tmp_path, on_step=canceled_in_the_middle)
    desk_parts.receive(hydrops_study())
    (work,) = desk_parts.look_round_after()
    desk_parts.desk.compute(work)
    assert desk_parts.record().state is StudyState.CANCELED
    assert len(steps) == step
    assert desk_parts.sent() == []


def test_a_study_canceled_between_the_last_look_and_publishing_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = DeskParts(tmp_path)
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    keep = parts.outbox.keep

    def canceled_meanwhile(objects: Sequence[OutboxObject]) -> KeptObjects:
        kept = keep(objects)
        parts.actions.cancel(STUDY, "anna")
        parts.desk.look_round()
        return kept

    monkeypatch.setattr(parts.outbox, "keep", canceled_meanwhile)
    parts.desk.compute(work)
    assert parts.record().state is StudyState.CANCELED
    assert parts.sent() == []
    assert parts.ledger.finished(work.work_id) is None


def test_new_images_open_a_canceled_study_again(parts: DeskParts) -> None:
    waits(parts)
    parts.actions.cancel(STUDY, "anna")
    parts.look_round_after()
    parts.receive(series_of(PEI))
    parts.work_off()
    assert parts.record().state is StudyState.REFUSED
    assert is_sent_once(parts)


def test_a_study_canceled_by_mistake_is_opened_by_a_replay(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    parts.actions.cancel(STUDY, "anna")
    parts.look_round_after()
    parts.actions.replay(STUDY, "anna")
    (again,) = parts.look_round_after()
    assert again.run_id != work.run_id
    parts.desk.compute(work)  # what the engine still held of the first run
    assert parts.record().state is StudyState.QUEUED
    parts.desk.compute(again)
    assert is_sent_once(parts)


def test_resending_goes_to_the_one_destination_only(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, destinations=("pacs", "archive"))
    finished(parts)
    parts.actions.resend(STUDY, "pacs", "anna")
    assert parts.look_round_after() == []
    states = {one.destination: (one.state, one.attempts) for one in parts.outbox.deliveries(STUDY)}
    assert states == {"pacs": (DeliveryState.WAITING, 0), "archive": (DeliveryState.DELIVERED, 1)}
    assert parts.wakes == 2
    assert parts.ledger.history(STUDY)[-1].detail == "anna asked for its results to be sent to pacs again"
    assert parts.record().state is StudyState.REFUSED


def test_a_request_that_a_late_image_overtook_is_declined_and_the_study_tells_why(parts: DeskParts) -> None:
    finished(parts)
    parts.requests.ask(STUDY, StudyAction.RETRY, destination="", actor="anna", at=parts.now)
    parts.look_round_after()
    state, sentence = answer(parts)
    assert state is RequestState.DECLINED
    assert "what fits now is replay" in sentence
    assert parts.ledger.history(STUDY)[-1].detail == f"retry asked for by anna: {sentence}"


def test_a_fault_of_ours_in_a_request_declines_it_and_the_next_goes_on(parts: DeskParts) -> None:
    finished(parts)
    parts.receive(hydrops_study("2.25.200"))
    parts.work_off()
    fresh = DeskParts(parts.folder)  # it has read no header yet
    fresh.now = parts.now
    for instance in fresh.spool.instances(STUDY):
        instance.path.unlink()
    fresh.actions.replay(STUDY, "anna")
    fresh.actions.replay("2.25.200", "anna")
    fresh.look_round_after()
    assert fresh.requests.of_study(STUDY)[-1].state is RequestState.DECLINED
    assert "FileNotFoundError" in fresh.requests.of_study(STUDY)[-1].answer
    assert fresh.requests.of_study("2.25.200")[-1].state is RequestState.DONE


def test_a_study_whose_images_are_gone_is_not_replayed(parts: DeskParts) -> None:
    finished(parts)
    for instance in parts.spool.instances(STUDY):
        instance.path.unlink()
    parts.spool.sweep()
    parts.actions.replay(STUDY, "anna")
    parts.look_round_after()
    assert answer(parts) == (
        RequestState.DECLINED,
        "none of its images are kept here any more; send the study again",
    )
    assert parts.record().state is StudyState.REFUSED
