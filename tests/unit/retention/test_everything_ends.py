"""The end of a study, by time or by command: nothing of it is left in table or folder, and no other is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from desk_parts import hydrops_study
from kept_studies import STUDY, KeptStudies

from dicom_node import workflow
from dicom_node.audit import AuditAction
from dicom_node.cli import receiving
from dicom_node.database import metadata
from dicom_node.delivery.outbox import DeliveryState, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.examination import Examination, Examiner
from dicom_node.ledger import StudyState
from dicom_node.retention.study_rows import STAYS, tables_of_studies
from dicom_node.reviews import Reviews, Verdict

OTHER = "2.25.200"
MARKER = "ZZZTOPSECRET"

OF_NO_STUDY = {
    "users", "web_sessions", "web_searches", "sign_in_failures", "sign_in_addresses", "orthanc_cursor", "workers",
    "orthanc_replaced", "notice_channel", "notice_mark", "destination_form", "destination_asked",
    "commitment_transaction",
}  # fmt: skip
"""Tables that know no study: people, sessions, marks, destinations."""

BY_REFERENCE = {"outbox_delivery", "commitment", "commitment_reference", "spool_series"}
"""Tables that know a study by another row of it, and go with that."""


def rows_of(node: KeptStudies, study_uid: str) -> dict[str, int]:
    """How many rows each table has of a study."""
    with node.engine.connect() as connection:
        return {
            table.name: connection.scalar(
                sa.select(sa.func.count()).select_from(table).where(table.c.study_instance_uid == study_uid)
            )
            for table in tables_of_studies()
        }


def test_every_table_of_the_node_goes_with_its_study_or_has_a_reason_to_stay() -> None:
    assert receiving.Receiving
    assert workflow.StudyWorker
    known = {table.name for table in tables_of_studies()} | set(STAYS) | OF_NO_STUDY | BY_REFERENCE
    assert set(metadata.tables) == known


def test_s25_at_its_end_everything_of_a_study_goes_and_of_no_other(node: KeptStudies) -> None:
    node.finish_study()
    pictures = node.draw()
    accepted = {"reader": "rita", "verdict": Verdict.ACCEPTED, "comment": "", "at": 1.0}
    Reviews(node.engine).write(work_id=node.record().work_id, study_instance_uid=STUDY, **accepted)
    node.now += 50 * 86400
    node.finish_study(OTHER)
    node.round_after(49)
    assert node.ledger.get(STUDY) is not None
    assert pictures.is_dir()
    node.round_after(2)
    assert node.ledger.get(STUDY) is None
    assert {name: count for name, count in rows_of(node, STUDY).items() if count} == {}
    assert node.outbox.deliveries(STUDY) == []
    assert not pictures.exists()
    assert node.record(OTHER).state is StudyState.REFUSED
    assert len(node.result_files()) == len(node.outbox.deliveries(OTHER))
    assert all(node.outbox.read(one.sop_instance_uid) for one in node.outbox.deliveries(OTHER))
    said = [one.action for one in node.audit.entries()]
    assert said.count(AuditAction.STUDY_ERASED) == 1


def test_the_end_moves_when_the_images_come_again(node: KeptStudies) -> None:
    node.finish_study()
    first = node.keeping().results_until
    node.round_after(15)
    assert node.keeping().results_until == first
    node.now += 30 * 86400
    node.receive(hydrops_study())
    node.look_round_after()
    later = node.keeping().results_until
    assert first is not None
    assert later is not None
    assert later > first + 44 * 86400
    node.round_after(15)
    assert (node.spool.study(STUDY), node.keeping().results_until) == (None, later)


def test_a_study_that_is_sent_after_its_end_is_a_new_one_with_the_same_uids(node: KeptStudies) -> None:
    node.finish_study()
    revision = node.record().revision
    sent = {one.sop_instance_uid for one in node.outbox.deliveries(STUDY)}
    node.round_after(15)
    node.round_after(100)
    assert node.result_files() == []
    node.receive(hydrops_study())
    node.work_off()
    assert {one.sop_instance_uid for one in node.outbox.deliveries(STUDY)} == sent
    assert node.record().revision > revision, "the workflow engine may still know the runs of before"


def test_s25_after_the_command_nothing_of_the_patient_is_on_the_disk(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path)
    images = hydrops_study()
    for one in images:
        one.PatientName, one.PatientID = f"{MARKER}^NAME", f"{MARKER}ID"
    node.receive(images)
    node.work_off()
    card = node.cards.get(STUDY)
    assert card is not None
    assert MARKER in card.patient_name
    assert {name.partition("-")[0] for name in where(tmp_path)} == {"spool", "outbox", "node.db", "audit"}
    assert node.eraser.erase_study(STUDY, "root") == ""
    node.eraser.finish()
    node.eraser.scrub()
    assert where(tmp_path) == {"audit"}, "who was erased, by whom and when, is what the trail is for"
    assert f"{MARKER}^NAME".encode() not in b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir())


def where(folder: Path) -> set[str]:
    """Names of the files and folders of the state folder in which the marker stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).parts[0] for path in files if MARKER.encode() in path.read_bytes()}


def test_a_command_takes_what_is_not_delivered_and_the_pump_copes(node: KeptStudies) -> None:
    node.finish_study(deliver=False)
    under_way = node.outbox.due("pacs", node.now)[0]
    assert node.eraser.erase_study(STUDY, "root") == ""
    outcome = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="it had just been sent")
    assert node.outbox.record(under_way.delivery_id, outcome, node.now, RetryPolicy()) is None
    assert node.outbox.due("pacs", node.now) == []


def test_a_study_that_a_worker_is_at_is_not_erased_by_command(node: KeptStudies) -> None:
    node.receive(hydrops_study())
    node.look_round_after()
    assert "cancel it first: hydrops-node study cancel 2.25.100" in node.eraser.erase_study(STUDY, "root")
    assert node.actions.cancel(STUDY, "anna").accepted
    node.work_off()
    assert node.eraser.erase_study(STUDY, "root") == ""
    assert node.eraser.finish().files == len(hydrops_study())


def test_freed_pages_of_the_database_are_overwritten(tmp_path: Path) -> None:
    node = KeptStudies(tmp_path)
    with node.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar_one() == 1


@pytest.mark.parametrize("state", ["half-written", "of no study"])
def test_what_lies_about_for_a_month_goes_once_a_day(tmp_path: Path, state: str) -> None:
    node = KeptStudies(tmp_path)
    names = {"half-written": "outbox/abc.part", "of no study": f"views/{'a' * 64}/manifest.json"}
    path = tmp_path / names[state]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    node.now = path.stat().st_mtime + 1
    node.rounds.once()
    assert path.exists()
    node.round_after(31)
    assert not path.exists()


def test_a_delivery_that_ends_after_its_study_was_erased_is_not_noted_at_another_one(node: KeptStudies) -> None:
    node.finish_study(deliver=False)
    under_way = node.outbox.due("pacs", node.now)[0]
    assert node.eraser.erase_study(STUDY, "root") == ""
    node.finish_study(OTHER, deliver=False)
    outcome = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="the erased study's")
    assert node.outbox.record(under_way.delivery_id, outcome, node.now, RetryPolicy()) is None
    assert {one.state for one in node.outbox.deliveries(OTHER)} == {DeliveryState.WAITING}


def test_s25_images_that_were_set_aside_as_damaged_go_with_their_study(node: KeptStudies) -> None:
    node.finish_study()
    image = node.spool.instances(STUDY)[0]
    image.path.write_bytes(image.path.read_bytes()[:-1] + b"?")
    assert node.spool.set_damaged_aside(STUDY) == [image.sop_instance_uid]
    aside = node.folder / "spool" / "damaged" / image.path.name
    assert aside.exists()
    assert node.eraser.erase_study(STUDY, "root") == ""
    node.eraser.finish()
    assert not aside.exists()


def test_s25_a_study_erased_while_it_is_examined_leaves_no_card(
    node: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.receive(hydrops_study())
    node.now += 1
    node.desk.look_round()
    assert node.record().state is StudyState.WAITING
    examine = Examiner.examine

    def examine_and_lose(examiner: Examiner, *arguments: Any, **named: Any) -> Examination:
        examination = examine(examiner, *arguments, **named)
        assert node.eraser.erase_study(STUDY, "root") == ""
        return examination

    monkeypatch.setattr(Examiner, "examine", examine_and_lose)
    node.now += 3600
    assert node.desk.look_round() == []
    assert (node.cards.get(STUDY), node.ledger.get(STUDY)) == (None, None)
