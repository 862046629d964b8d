"""What a node does all day costs no more after years: counted in steps of SQLite's machine, not in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from desk_parts import DeskParts, hydrops_study
from sqlalchemy import event, insert

from dicom_node.database import writing
from dicom_node.delivery.outbox_rows import DeliveryState, delivery_rows, object_rows
from dicom_node.intake.spool_rows import instance_table, study_table
from dicom_node.ledger_rows import ledger_studies
from dicom_node.study_moves import StudyState
from dicom_node.unsettled import LATELY_S, LOOK_AT_ALL_LATEST_S

STEPS_A_CALL: Final = 20
"""How many steps SQLite makes between two calls of the counter."""

FEW, MANY = 25, 200


class Steps:
    """Counts the steps of every connection of an engine that is opened from now on."""

    def __init__(self, parts: DeskParts) -> None:
        self.counted = 0
        parts.engine.dispose()
        event.listen(parts.engine, "connect", self._watch)

    @contextmanager
    def of(self, did: list[int]) -> Iterator[None]:
        """Append what is done inside."""
        before = self.counted
        yield
        did.append(self.counted - before)

    def _watch(self, connection: Any, _record: object) -> None:
        connection.set_progress_handler(self._count, STEPS_A_CALL)

    def _count(self) -> int:
        self.counted += STEPS_A_CALL
        return 0


def old_studies(parts: DeskParts, numbers: range) -> None:
    """Computed long ago, two images each."""
    with writing(parts.engine) as connection:
        for number in numbers:
            study = f"2.25.7.{number}"
            images = [_image(study, which) for which in range(2)]
            connection.execute(insert(instance_table), images)
            connection.execute(insert(study_table).values(study_instance_uid=study, revision=1))
            connection.execute(
                insert(ledger_studies).values(
                    study_instance_uid=study,
                    state=StudyState.COMPUTED.value,
                    revision=1,
                    first_seen_at=0.0,
                    updated_at=1000.0,
                )
            )


def _image(study: str, which: int) -> dict[str, Any]:
    return {
        "file_name": f"{study}.{which}",
        "sop_instance_uid": f"{study}.{which}",
        "series_instance_uid": f"{study}.9",
        "study_instance_uid": study,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": "0" * 64,
        "source": "SCANNER",
        "received_at": 900.0,
        "conflict": False,
    }


def results(parts: DeskParts, numbers: range, state: DeliveryState) -> None:
    """A SEG and an SR of each study, on their way to one destination or there already."""
    with writing(parts.engine) as connection:
        for number in numbers:
            for order, kind in enumerate(("SEG", "SR")):
                uid = f"2.25.{number}.{order}"
                connection.execute(insert(object_rows).values(**_object(number, uid, kind, order)))
                connection.execute(insert(delivery_rows).values(**_delivery(uid, state)))


def _object(number: int, uid: str, kind: str, order: int) -> dict[str, Any]:
    return {
        "sop_instance_uid": uid,
        "key": f"work-{number}",
        "study_instance_uid": f"2.25.{number}",
        "series_instance_uid": f"{uid}.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4",
        "kind": kind,
        "send_order": order,
        "sha256": "0" * 64,
    }


def _delivery(uid: str, state: DeliveryState) -> dict[str, Any]:
    return {
        "sop_instance_uid": uid,
        "destination": "pacs",
        "state": state.value,
        "attempts": 0,
        "queued_at": 1.0,
        "next_attempt_at": 1.0,
        "last_attempt_at": 2.0,
        "last_detail": "",
    }


def test_a_look_round_costs_the_same_however_many_studies_have_ended(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    steps = Steps(parts)
    did: list[int] = []
    for numbers in (range(FEW), range(FEW, MANY)):
        old_studies(parts, numbers)
        parts.look_round_after(LOOK_AT_ALL_LATEST_S)  # this one is at all of them
        with steps.of(did):
            for _ in range(4):
                parts.look_round_after(1.0)
    few, many = did
    assert many < 1.5 * few + 10 * STEPS_A_CALL


def test_a_study_that_came_after_a_look_at_all_is_found_by_the_next_short_look(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    parts.look_round_after(0.0)
    parts.receive(hydrops_study())
    parts.look_round_after(1.0)
    assert parts.state()[0] is StudyState.WAITING


@pytest.mark.parametrize("held_up_s", [LATELY_S + 1.0, 86400.0])
def test_an_image_whose_row_came_long_after_its_receipt_waits_for_a_look_at_all_studies(
    tmp_path: Path, held_up_s: float
) -> None:
    parts = DeskParts(tmp_path)
    parts.look_round_after(0.0)
    parts.receive(hydrops_study(), at=parts.now - held_up_s)
    parts.look_round_after(1.0)
    assert parts.ledger.get("2.25.100") is None
    parts.look_round_after(LOOK_AT_ALL_LATEST_S)
    assert parts.ledger.get("2.25.100") is not None


def test_a_study_that_is_due_is_looked_at_however_long_ago_its_images_came(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    parts.receive(hydrops_study()[:10])  # no whole set: it waits for partners
    parts.look_round_after(1.0)
    due = parts.record().look_again_at
    assert due is not None
    parts.now = due - 2.0
    parts.look_round_after(1.0)  # at all studies: it is not due yet
    before = parts.record().updated_at
    parts.look_round_after(1.0)
    assert parts.record().updated_at > before


def test_after_the_clock_was_set_back_all_studies_are_looked_at(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    parts.look_round_after(0.0)
    parts.now -= 3600.0
    parts.receive(hydrops_study(), at=parts.now - 600.0)
    parts.look_round_after(1.0)
    assert parts.ledger.get("2.25.100") is not None


def test_what_waits_for_a_destination_that_is_away_is_gone_through_once_and_not_once_for_each(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path)
    steps = Steps(parts)
    did: list[int] = []
    for numbers in (range(FEW), range(FEW, MANY)):
        results(parts, numbers, DeliveryState.WAITING)
        with steps.of(did):
            found = parts.outbox.due("pacs", 2.0)
    assert [one.kind for one in found] == ["SEG"] * MANY
    few, many = did
    assert many < 1.5 * few * MANY / FEW


@pytest.mark.parametrize("what", ["holds", "objects", "stopped_since", "dead_letters"])
def test_a_question_to_the_outbox_costs_the_same_however_much_it_has_delivered(tmp_path: Path, what: str) -> None:
    parts = DeskParts(tmp_path)
    steps = Steps(parts)
    asked: Callable[[], object] = {
        "holds": lambda: parts.outbox.holds("work-1"),
        "objects": lambda: parts.outbox.objects("work-1"),
        "stopped_since": lambda: parts.outbox.stopped_since(0.0),
        "dead_letters": parts.outbox.dead_letters,
    }[what]
    did: list[int] = []
    for numbers in (range(FEW), range(FEW, MANY)):
        results(parts, numbers, DeliveryState.DELIVERED)
        with steps.of(did):
            for _ in range(10):
                asked()
    few, many = did
    assert many < 1.5 * few + 10 * STEPS_A_CALL
