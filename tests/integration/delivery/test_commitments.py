"""Questions and answers about commitment in the state database, SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from committing_node import SEG_UID, SR_UID, STUDY, archive_at, result
from local_postgresql import running_postgresql
from queued_results import put
from sqlalchemy import Engine, text

from dicom_node.database import open_database
from dicom_node.delivery.commitment_answers import CommitmentReport, Reference
from dicom_node.delivery.commitment_rows import Commitment, CommitmentState
from dicom_node.delivery.commitments import KEEP_TRANSACTIONS_S, CommitmentRequest, Commitments
from dicom_node.delivery.completion import commitment_counts
from dicom_node.delivery.outbox import DeliveryState, Outbox, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind

POLICY = RetryPolicy(jitter=0.0)
PACS = archive_at(104)
DELIVERED = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="stored", status=0)
TABLES = "commitment_reference, commitment_transaction, commitment, outbox_delivery, outbox_object"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: Any, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    else:
        opened = open_database(request.getfixturevalue("postgresql"))
        with opened.begin() as connection:
            connection.execute(text(f"TRUNCATE {TABLES}"))
    yield opened
    opened.dispose()


@pytest.fixture
def outbox(tmp_path: Path, engine: Engine) -> Outbox:
    return Outbox(tmp_path / "outbox", engine)


@pytest.fixture
def commitments(engine: Engine, outbox: Outbox) -> Commitments:
    """Two results were delivered at 100 s to a destination that is to commit."""
    put(outbox, "key", STUDY, [result("SEG"), result("SR")], ["pacs"], at=90.0)
    _deliver(outbox, at=100.0)
    return Commitments(engine, policy=POLICY)


def test_p19_questions_come_at_once_then_after_pauses_that_double_up_to_the_cap(commitments: Commitments) -> None:
    times, transactions = [], set()
    for _ in range(7):
        at = commitments.next_ask_at("pacs")
        assert at is not None
        assert commitments.begin(PACS, at - 0.1) is None
        times.append(at)
        transactions.add(_begin(commitments, at).transaction_uid)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 100.0
    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0]
    assert len(transactions) == 7


def test_p19_after_72_hours_it_is_given_up_and_a_later_answer_still_counts(
    commitments: Commitments, outbox: Outbox
) -> None:
    asked = _begin(commitments, 100.0)
    end = 100.0 + 72 * 3600.0
    assert commitments.begin(PACS, end) is not None
    assert commitments.begin(PACS, end + 3600.0) is None
    assert _states(outbox) == [CommitmentState.NOT_COMMITTED] * 2
    assert commitments.next_ask_at("pacs") is None
    assert "given up after 72 h and 2 requests" in _of(outbox, SEG_UID).last_detail
    commitments.take(_report(asked, {SR_UID: 0x0110}), peer_ae="PACS", now=end + 7200.0)
    assert _states(outbox) == [CommitmentState.COMMITTED, CommitmentState.NOT_COMMITTED]


def test_p19_what_is_given_up_keeps_nothing_else_from_being_asked_about(
    commitments: Commitments, outbox: Outbox
) -> None:
    end = 100.0 + 72 * 3600.0 + 1.0
    later = replace(result("SR"), sop_instance_uid=f"{SR_UID}.1")
    put(outbox, "later", STUDY, [later], ["pacs"], at=end - 20.0)
    _deliver(outbox, at=end - 10.0)
    assert [one.sop_instance_uid for one in _begin(commitments, end).references] == [later.sop_instance_uid]
    assert _states(outbox) == [CommitmentState.NOT_COMMITTED] * 2


def test_p19_a_study_is_asked_about_when_each_of_its_objects_was_tried(engine: Engine, outbox: Outbox) -> None:
    commitments = Commitments(engine, policy=POLICY)
    put(outbox, "key", STUDY, [result("SEG"), result("SR")], ["pacs"], at=90.0)
    first, second = outbox.deliveries(STUDY)
    outbox.record(first.delivery_id, DELIVERED, 100.0, POLICY, to_commit=True)
    assert commitments.next_ask_at("pacs") is None
    assert commitments.begin(PACS, 110.0) is None
    away = DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail="nobody there")
    outbox.record(second.delivery_id, away, 120.0, POLICY, to_commit=True)
    assert [one.sop_instance_uid for one in _begin(commitments, 120.0).references] == [SEG_UID]


@pytest.mark.parametrize("reason", [0x0110, 0x0131, 0x0213])
def test_p19_a_failure_that_may_pass_is_asked_about_again_at_its_time(
    commitments: Commitments, outbox: Outbox, reason: int
) -> None:
    commitments.take(_report(_begin(commitments, 100.0), {SEG_UID: reason}), peer_ae="PACS", now=101.0)
    assert _states(outbox) == [CommitmentState.AWAITED, CommitmentState.COMMITTED]
    assert commitments.begin(PACS, 129.0) is None
    assert [one.sop_instance_uid for one in _begin(commitments, 130.0).references] == [SEG_UID]
    assert f"{reason:04X}H" in _of(outbox, SEG_UID).last_detail


@pytest.mark.parametrize("reason", [0x0119, 0x0122, 0x4711])
def test_p19_a_failure_that_does_not_pass_ends_visibly(commitments: Commitments, outbox: Outbox, reason: int) -> None:
    commitments.take(_report(_begin(commitments, 100.0), {SEG_UID: reason}), peer_ae="PACS", now=101.0)
    assert _states(outbox) == [CommitmentState.NOT_COMMITTED, CommitmentState.COMMITTED]
    assert commitments.next_ask_at("pacs") is None
    (told,) = outbox.not_committed_since(100.0)
    assert told.commitment is not None
    assert (told.sop_instance_uid, told.commitment.last_reason) == (SEG_UID, reason)


def test_p19_what_was_lost_there_is_queued_again_as_the_same_object(commitments: Commitments, outbox: Outbox) -> None:
    asked = _begin(commitments, 100.0)
    commitments.take(_report(asked, {SEG_UID: 0x0112}), peer_ae="PACS", now=101.0)
    (lost,) = outbox.due("pacs", 101.0)
    assert (lost.sop_instance_uid, lost.attempts) == (SEG_UID, 0)
    assert commitments.begin(PACS, 10000.0) is None
    _deliver(outbox, at=200.0)
    again = _begin(commitments, 200.0)
    assert commitments.take(_report(asked, {}), peer_ae="PACS", now=201.0).repeated == 2
    assert commitments.take(_report(again, {}), peer_ae="PACS", now=202.0).committed == 1
    assert _states(outbox) == [CommitmentState.COMMITTED] * 2


@pytest.mark.parametrize("kind", [OutcomeKind.STOPPED, OutcomeKind.NOT_TAKEN])
def test_p19_a_request_that_is_refused_for_good_is_not_made_again(
    commitments: Commitments, outbox: Outbox, kind: OutcomeKind
) -> None:
    asked = _begin(commitments, 100.0)
    commitments.note(asked, DeliveryOutcome(kind=kind, detail="not allowed", status=0x0124), 101.0)
    assert _states(outbox) == [CommitmentState.NOT_COMMITTED] * 2
    assert commitments.begin(PACS, 1e6) is None


@pytest.mark.parametrize("status", [0x0110, 0x0213])
def test_p19_a_request_that_is_refused_for_now_is_made_again(
    commitments: Commitments, outbox: Outbox, status: int
) -> None:
    later = DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail="busy", status=status)
    commitments.note(_begin(commitments, 100.0), later, 101.0)
    assert _states(outbox) == [CommitmentState.AWAITED] * 2
    assert _of(outbox, SEG_UID).last_detail == "busy"
    assert commitments.begin(PACS, 130.0) is not None


def test_p19_an_answer_that_overtakes_the_note_about_its_question_stands(
    commitments: Commitments, outbox: Outbox
) -> None:
    asked = _begin(commitments, 100.0)
    assert not commitments.is_answered(asked.transaction_uid)
    commitments.take(_report(asked, {}), peer_ae="PACS", now=101.0)
    assert commitments.is_answered(asked.transaction_uid)
    commitments.note(asked, DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="broke off", status=None), 102.0)
    assert _states(outbox) == [CommitmentState.COMMITTED] * 2


def test_p19_only_the_title_that_was_asked_may_answer(commitments: Commitments, outbox: Outbox) -> None:
    asked = _begin(commitments, 100.0)
    assert not commitments.take(_report(asked, {}), peer_ae="OTHER", now=101.0).known
    invented = CommitmentReport(transaction_uid="2.25.4711", answers=_report(asked, {}).answers)
    assert not commitments.take(invented, peer_ae="PACS", now=101.0).known
    assert _states(outbox) == [CommitmentState.AWAITED] * 2


def test_p19_many_workers_ask_one_question(commitments: Commitments) -> None:
    with ThreadPoolExecutor(8) as workers:
        asked = [one for one in workers.map(lambda _: commitments.begin(PACS, 100.0), range(16)) if one is not None]
    assert len(asked) == 1


def test_p19_a_delivery_that_another_worker_repeats_leaves_what_was_committed(
    commitments: Commitments, outbox: Outbox
) -> None:
    commitments.take(_report(_begin(commitments, 100.0), {}), peer_ae="PACS", now=101.0)
    for one in outbox.deliveries(STUDY):
        outbox.record(one.delivery_id, DELIVERED, 102.0, POLICY, to_commit=True)
    assert _states(outbox) == [CommitmentState.COMMITTED] * 2


def test_counts_are_by_destination_and_state(commitments: Commitments, engine: Engine) -> None:
    commitments.take(_report(_begin(commitments, 100.0), {SEG_UID: 0x0119}), peer_ae="PACS", now=101.0)
    assert commitment_counts(engine) == {
        ("pacs", CommitmentState.COMMITTED): 1,
        ("pacs", CommitmentState.NOT_COMMITTED): 1,
    }


def test_questions_are_forgotten_when_no_answer_to_them_can_come_any_more(
    commitments: Commitments, outbox: Outbox
) -> None:
    asked = _begin(commitments, 100.0)
    assert commitments.sweep(99.0 + KEEP_TRANSACTIONS_S) == 0
    assert commitments.sweep(101.0 + KEEP_TRANSACTIONS_S) == 1
    assert not commitments.take(_report(asked, {}), peer_ae="PACS", now=1e7).known
    assert _states(outbox) == [CommitmentState.AWAITED] * 2


def _deliver(outbox: Outbox, *, at: float) -> None:
    for one in outbox.deliveries(STUDY):
        if one.state is DeliveryState.WAITING:
            outbox.record(one.delivery_id, DELIVERED, at, POLICY, to_commit=True)


def _begin(commitments: Commitments, at: float) -> CommitmentRequest:
    asked = commitments.begin(PACS, at)
    assert asked is not None
    return asked


def _report(asked: CommitmentRequest, reasons: dict[str, int]) -> CommitmentReport:
    """What the archive says of these objects; 0 of those without a reason."""
    answers: dict[Reference, int] = {one: reasons.get(one.sop_instance_uid, 0) for one in asked.references}
    return CommitmentReport(transaction_uid=asked.transaction_uid, answers=answers)


def _of(outbox: Outbox, sop_instance_uid: str) -> Commitment:
    (found,) = (one.commitment for one in outbox.deliveries(STUDY) if one.sop_instance_uid == sop_instance_uid)
    assert found is not None
    return found


def _states(outbox: Outbox) -> list[CommitmentState]:
    """SEG, then SR."""
    return [_of(outbox, uid).state for uid in (SEG_UID, SR_UID)]
