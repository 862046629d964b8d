"""Since when a study's results are where they belong, on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from queued_results import put
from sqlalchemy import Engine, update
from sqlalchemy.sql import ColumnElement

from dicom_node.database import open_database, writing
from dicom_node.delivery.commitment_rows import CommitmentState, commitment_rows
from dicom_node.delivery.completion import done_at, done_before
from dicom_node.delivery.outbox import Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind

STUDY = "2.25.100"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(f"sqlite:///{tmp_path / 'node.db'}")


@pytest.fixture
def outbox(tmp_path: Path, engine: Engine) -> Outbox:
    outbox = Outbox(tmp_path / "outbox", engine)
    put(outbox, "key", STUDY, [_object("SEG", 1), _object("SR", 2)], ["pacs"], at=0.0)
    return outbox


def test_a_study_is_done_when_the_last_of_its_objects_was_delivered(engine: Engine, outbox: Outbox) -> None:
    first, second = outbox.deliveries(STUDY)
    _record(outbox, first.delivery_id, OutcomeKind.DELIVERED, at=10.0)
    assert done_at(engine, STUDY) is None
    _record(outbox, second.delivery_id, OutcomeKind.DELIVERED, at=20.0)
    assert done_at(engine, STUDY) == 20.0


@pytest.mark.parametrize("kind", [OutcomeKind.RETRY_LATER, OutcomeKind.STOPPED])
def test_a_study_with_one_object_that_was_not_delivered_is_not_done(
    engine: Engine, outbox: Outbox, kind: OutcomeKind
) -> None:
    first, second = outbox.deliveries(STUDY)
    _record(outbox, first.delivery_id, OutcomeKind.DELIVERED, at=10.0)
    _record(outbox, second.delivery_id, kind, at=20.0)
    assert done_at(engine, STUDY) is None
    assert done_before(engine, 1e9) == {}


def test_an_object_that_a_destination_does_not_take_keeps_nothing_from_being_done(
    engine: Engine, outbox: Outbox
) -> None:
    first, second = outbox.deliveries(STUDY)
    _record(outbox, first.delivery_id, OutcomeKind.NOT_TAKEN, at=10.0)
    assert done_at(engine, STUDY) is None
    _record(outbox, second.delivery_id, OutcomeKind.DELIVERED, at=20.0)
    assert done_at(engine, STUDY) == 20.0


def test_a_study_of_which_nobody_took_anything_is_never_done(engine: Engine, outbox: Outbox) -> None:
    for one in outbox.deliveries(STUDY):
        _record(outbox, one.delivery_id, OutcomeKind.NOT_TAKEN, at=10.0)
    assert done_at(engine, STUDY) is None
    assert done_at(engine, "2.25.999") is None


def test_p19_where_commitment_is_asked_for_a_study_is_done_when_its_last_object_is_committed(
    engine: Engine, outbox: Outbox
) -> None:
    first, second = outbox.deliveries(STUDY)
    _record(outbox, first.delivery_id, OutcomeKind.DELIVERED, at=10.0)
    _record(outbox, second.delivery_id, OutcomeKind.DELIVERED, at=20.0, to_commit=True)
    of_second = commitment_rows.c.delivery_id == second.delivery_id
    assert done_at(engine, STUDY) is None
    _set(engine, of_second, state=CommitmentState.NOT_COMMITTED, last_at=25.0)
    assert done_at(engine, STUDY) is None
    _set(engine, of_second, state=CommitmentState.COMMITTED, last_at=30.0)
    assert done_at(engine, STUDY) == 30.0
    assert done_before(engine, 31.0) == {STUDY: 30.0}
    assert done_before(engine, 30.0) == {}


def test_p19_who_has_a_study_sent_again_has_to_have_it_committed_again(engine: Engine, outbox: Outbox) -> None:
    for one in outbox.deliveries(STUDY):
        _record(outbox, one.delivery_id, OutcomeKind.DELIVERED, at=10.0, to_commit=True)
    _set(engine, commitment_rows.c.commitment_id > 0, state=CommitmentState.COMMITTED, last_at=30.0)
    outbox.send_again("key", ["pacs"], at=40.0)
    assert [one.commitment for one in outbox.deliveries(STUDY)] == [None, None]
    for one in outbox.deliveries(STUDY):
        _record(outbox, one.delivery_id, OutcomeKind.DELIVERED, at=50.0, to_commit=True)
    assert done_at(engine, STUDY) is None


def _object(kind: str, number: int) -> OutboxObject:
    uid = f"{STUDY}.{number}"
    return OutboxObject(
        kind=kind, sop_class_uid=f"1.2.{number}", sop_instance_uid=uid, series_instance_uid=f"{uid}.1", data=b"x"
    )


def _record(outbox: Outbox, delivery_id: int, kind: OutcomeKind, *, at: float, to_commit: bool = False) -> None:
    outcome = DeliveryOutcome(kind=kind, detail="said so")
    outbox.record(delivery_id, outcome, at, RetryPolicy(), to_commit=to_commit)


def _set(engine: Engine, condition: ColumnElement[bool], **values: object) -> None:
    with writing(engine) as connection:
        connection.execute(update(commitment_rows).where(condition).values(**values))
