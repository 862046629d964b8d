"""The desk on a real spool, ledger and outbox: what is computed when, what is dropped, what is sent."""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from desk_parts import LOCALIZER, PARTNER_WAIT_S, QUIET_S, DeskParts, hydrops_study, series_of
from scanned_series import MRC, PEI, PPI

from dicom_node.arrival_times import ArrivalTimes
from dicom_node.assembly.site_rules import read_rules
from dicom_node.audit import AuditAction
from dicom_node.case import CaseOptions
from dicom_node.errors import Reason, Refusal
from dicom_node.examination import Examination, Examiner, Work
from dicom_node.ledger import StudyEvent, StudyState
from inference.segmentation import ThresholdSegmenter

STUDY = "2.25.100"
OTHER_STUDY = "2.25.200"


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    return DeskParts(tmp_path)


def test_a_study_without_ears_gives_one_report_for_each_destination(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, destinations=("pacs", "archive"))
    parts.receive(hydrops_study())
    parts.work_off()
    assert parts.state()[0] is StudyState.REFUSED
    assert sorted(parts.sent()) == [("SR", "archive"), ("SR", "pacs")]
    assert parts.events() == [StudyEvent.ARRIVED, StudyEvent.COMPLETED, StudyEvent.STARTED, StudyEvent.REFUSED]


def test_every_series_is_kept_with_the_number_and_description_by_which_a_pacs_lists_it(parts: DeskParts) -> None:
    images = hydrops_study()
    for one in images:
        if one.SeriesNumber == PPI.number:
            one.SeriesDescription = "ppi\x07hostile"  # a character that acts instead of being shown
        if one.SeriesNumber == PEI.number:
            del one.SeriesNumber, one.SeriesDescription
    parts.receive(images)
    parts.work_off()
    kept = {one["series_instance_uid"]: one for one in parts.record().decisions}
    names = {uid: (one["series_number"], one["series_description"]) for uid, one in kept.items()}
    assert names == {
        f"{STUDY}.{MRC.number}": (MRC.number, MRC.name),
        f"{STUDY}.{PPI.number}": (PPI.number, "ppi\ufffdhostile"),
        f"{STUDY}.{PEI.number}": (None, ""),
    }


def test_a_site_that_wants_no_refusals_gets_none(tmp_path: Path) -> None:
    parts = DeskParts(tmp_path, send_not_computed=False)
    parts.receive(hydrops_study())
    parts.work_off()
    assert parts.state()[0] is StudyState.REFUSED
    assert parts.sent() == []


def test_a_study_of_something_else_is_not_ours_and_nothing_is_said_about_it(parts: DeskParts) -> None:
    parts.receive(series_of(LOCALIZER))
    parts.work_off()
    assert parts.state() == (StudyState.NOT_OURS, "NO_HYDROPS_STUDY")
    assert parts.sent() == []


def test_a_study_is_left_alone_until_its_sender_pauses(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    assert parts.look_round_after(0.1) == []
    assert parts.ledger.get(STUDY) is None


def test_headers_are_read_while_the_other_images_still_come(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    assert parts.look_round_after(0.1) == []
    assert parts.desk.settling
    for instance in parts.spool.instances(STUDY):
        instance.path.unlink()  # whoever reads a header only now finds nothing
    assert len(parts.look_round_after()) == 1
    assert not parts.desk.settling


def test_a_case_is_opened_anew_only_when_its_images_changed(parts: DeskParts) -> None:
    examiner = Examiner(
        spool=parts.spool,
        model=ThresholdSegmenter().identity,
        case_options=CaseOptions(rules=read_rules(""), digest="0" * 64),
        arrival_times=ArrivalTimes(clock=time.time, monotonic=time.monotonic),
        quiet_s=QUIET_S,
        partner_wait_s=PARTNER_WAIT_S,
    )
    parts.receive(hydrops_study())
    case = examiner.open(STUDY)
    assert examiner.open(STUDY) is case
    parts.receive(series_of(LOCALIZER))
    assert len(examiner.open(STUDY).files) > len(case.files)


def test_what_was_read_of_a_study_is_let_go_when_it_is_done(parts: DeskParts) -> None:
    def headers_held() -> int:
        gc.collect()
        return sum(type(one) is pydicom.FileDataset for one in gc.get_objects())

    before = headers_held()
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    assert headers_held() >= before + len(parts.spool.instances(STUDY))
    parts.desk.compute(work)
    assert parts.state()[0] is StudyState.REFUSED
    assert headers_held() == before


def test_images_sent_again_change_nothing(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.work_off()
    before = parts.record(), parts.events(), parts.sent()
    parts.receive(hydrops_study())
    assert parts.look_round_after() == []
    assert (parts.record(), parts.events(), parts.sent()) == before


def test_a_series_that_is_not_used_does_not_start_the_work_again(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.work_off()
    parts.receive(series_of(LOCALIZER))
    assert parts.look_round_after() == []
    assert parts.state()[0] is StudyState.REFUSED
    assert parts.events().count(StudyEvent.ARRIVED) == 1


def test_work_done_before_is_recalled_when_its_inputs_come_back(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.work_off()
    first = parts.record()
    damaged = Refusal(reason=Reason.SOURCE_CORRUPT, detail="instance abc: other MD5")
    parts.spool.set_refused(STUDY, f"{STUDY}.{MRC.number}", damaged)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "SOURCE_CORRUPT")
    parts.spool.set_refused(STUDY, f"{STUDY}.{MRC.number}", None)
    assert parts.look_round_after() == []
    again = parts.record()
    assert (again.state, again.reason, again.work_id) == (first.state, first.reason, first.work_id)
    assert again.findings == first.findings
    assert parts.events().count(StudyEvent.STARTED) == 2
    assert len(parts.sent()) == 2


def test_a_late_image_while_the_study_is_queued_drops_the_work(parts: DeskParts) -> None:
    images = hydrops_study()
    late = images.pop()  # the last slice of PEI; the others look complete without it
    for scan in (MRC, PPI):
        images.remove(next(one for one in images if one.SeriesInstanceUID.endswith(f".{scan.number}")))
    parts.receive(images)
    (work,) = parts.look_round_after()
    parts.receive([late])
    parts.desk.compute(work)
    assert parts.record().state is StudyState.WAITING
    assert parts.sent() == []
    assert parts.events()[-1] is StudyEvent.SUPERSEDED


def test_a_late_image_while_the_study_is_computed_keeps_its_result_from_being_sent(tmp_path: Path) -> None:
    late = series_of(MRC)

    def image_comes() -> None:
        if parts.record().state is StudyState.COMPUTING and late:
            parts.receive([late.pop()])

    parts = DeskParts(tmp_path, on_step=image_comes)
    parts.receive([*series_of(MRC)[:-1], *series_of(PPI)[:-1], *series_of(PEI)[:-1]])
    (work,) = parts.look_round_after()
    parts.desk.compute(work)
    assert parts.record().state is StudyState.WAITING
    assert parts.sent() == []
    assert parts.events()[-2:] == [StudyEvent.STARTED, StudyEvent.SUPERSEDED]
    parts.receive([series_of(PPI)[-1], series_of(PEI)[-1]])
    parts.work_off()
    assert parts.sent() == [("SR", "pacs")]


def test_a_stated_count_that_changes_nothing_does_not_disturb_the_work(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    parts.spool.set_expected(f"{STUDY}.{MRC.number}", 8)
    parts.desk.compute(work)
    assert parts.record().state is StudyState.REFUSED
    parts.spool.set_expected(f"{STUDY}.{PPI.number}", 8)
    assert parts.look_round_after() == []
    assert StudyEvent.SUPERSEDED not in parts.events()
    assert parts.events().count(StudyEvent.ARRIVED) == 1


@pytest.mark.parametrize("killed_in", [StudyState.QUEUED, StudyState.COMPUTING])
def test_work_that_a_kill_cut_short_is_there_again_under_its_id(tmp_path: Path, killed_in: StudyState) -> None:
    before = DeskParts(tmp_path)
    before.receive(hydrops_study())
    (work,) = before.look_round_after()
    if killed_in is StudyState.COMPUTING:
        before.ledger.move(STUDY, StudyEvent.STARTED, at=before.now)
    after = DeskParts(tmp_path)
    after.now = before.now
    assert after.desk.look_round() == []
    assert after.desk.unfinished() == [work]
    after.desk.compute(work)
    assert after.record().state is StudyState.REFUSED
    assert after.desk.unfinished() == []


def test_work_that_was_done_is_not_done_again(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    parts.desk.compute(work)
    before = parts.events()
    parts.desk.compute(work)
    assert parts.events() == before


def test_work_survives_its_way_through_json() -> None:
    for refusal in (None, ("CONFLICT", "two contents")):
        work = Work(work_id="abc", study_instance_uid=STUDY, revision=3, refusal=refusal)
        assert Work.from_json(work.as_json()) == work


def test_two_contents_of_one_image_refuse_the_study(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    changed = series_of(MRC)[3]
    changed.PixelData = bytes(len(changed.PixelData))
    parts.receive([changed])
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "CONFLICT")
    assert changed.SOPInstanceUID in parts.record().detail
    assert parts.sent() == [("SR", "pacs")]


def test_one_image_in_two_studies_refuses_both(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.receive(hydrops_study(OTHER_STUDY))
    twin = series_of(MRC, OTHER_STUDY)[3]
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = series_of(MRC)[3].SOPInstanceUID
    parts.receive([twin])
    parts.work_off()
    for study in (STUDY, OTHER_STUDY):
        assert parts.state(study) == (StudyState.REFUSED, "CONFLICT")
        assert parts.sent(study) == [("SR", "pacs")]


def test_an_image_that_its_source_cannot_give_refuses_the_study_after_a_pause(parts: DeskParts) -> None:
    images = hydrops_study()
    parts.receive(images[1:])
    mrc = f"{STUDY}.{MRC.number}"
    parts.spool.set_expected(mrc, 8)
    parts.spool.set_refused(STUDY, mrc, Refusal(reason=Reason.TS_UNSUPPORTED, detail="instance abc: deflated"))
    assert parts.look_round_after(1.0) == []
    assert parts.record().state is StudyState.WAITING
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "TS_UNSUPPORTED")
    (delivery,) = parts.outbox.deliveries(STUDY)
    assert b"TS_UNSUPPORTED" in parts.outbox.read(delivery.sop_instance_uid)


def test_a_series_that_its_source_cannot_give_at_all_is_named_as_the_reason(parts: DeskParts) -> None:
    parts.receive([*series_of(PPI), *series_of(PEI)])
    parts.spool.set_refused(STUDY, f"{STUDY}.9", Refusal(reason=Reason.SIZE_LIMIT, detail="instance abc: 2 GiB"))
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "SIZE_LIMIT")


def test_an_unreadable_image_of_a_series_that_is_not_used_is_no_reason(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.spool.set_refused(STUDY, f"{STUDY}.9", Refusal(reason=Reason.TS_UNSUPPORTED, detail="instance abc"))
    parts.work_off()
    assert parts.record().reason != "TS_UNSUPPORTED"


def test_an_unreadable_image_in_a_study_of_something_else_is_not_reported(parts: DeskParts) -> None:
    parts.receive(series_of(LOCALIZER))
    parts.spool.set_refused(STUDY, f"{STUDY}.9", Refusal(reason=Reason.TS_UNSUPPORTED, detail="instance abc"))
    parts.work_off()
    assert parts.record().state is StudyState.NOT_OURS
    assert parts.sent() == []


def test_images_that_lack_are_waited_for_while_a_partner_may_come(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.spool.set_expected(f"{STUDY}.{PEI.number}", 9)
    assert parts.look_round_after() == []
    parts.work_off()
    assert parts.record().state is StudyState.WAITING
    parts.now += PARTNER_WAIT_S
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "INCOMPLETE")


def test_a_fault_of_ours_with_one_study_is_kept_with_it_and_the_next_one_goes_on(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.receive(hydrops_study(OTHER_STUDY))
    parts.spool.instances(STUDY)[0].path.unlink()
    parts.work_off()
    assert (parts.state()[0], parts.desk.faulted) == (StudyState.WAITING, True)
    assert parts.record(OTHER_STUDY).state is StudyState.REFUSED
    assert parts.look_round_after() == []
    assert (parts.state(), parts.desk.faulted) == ((StudyState.FAILED, "INTERNAL"), False)
    assert "2 workers failed on it" in parts.record().detail
    assert "FileNotFoundError" in parts.record().detail
    assert parts.look_round_after() == []


def test_f24_a_study_that_memory_was_refused_for_while_it_was_examined_is_examined_once_more(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object, **_named: object) -> None:
        raise MemoryError

    parts.receive(hydrops_study())
    with monkeypatch.context() as patch:
        patch.setattr(parts.desk._examiner, "examine", refused)
        parts.work_off()
    assert parts.desk.faulted
    assert "memory ran out (MemoryError)" in parts.record().detail
    parts.work_off()
    assert parts.state()[0] is StudyState.REFUSED
    assert not parts.desk.faulted


def test_a_failed_study_is_examined_anew_when_an_image_comes(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    lost = parts.spool.instances(STUDY)[0].path
    content = lost.read_bytes()
    lost.unlink()
    parts.work_off()
    parts.work_off()
    assert parts.record().state is StudyState.FAILED
    lost.write_bytes(content)
    parts.receive(series_of(LOCALIZER))
    parts.work_off()
    assert parts.record().state is StudyState.REFUSED


def test_the_report_says_the_study_and_the_patient_that_it_is_about(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    parts.work_off()
    (delivery,) = parts.outbox.deliveries(STUDY)
    report = pydicom.dcmread(io.BytesIO(parts.outbox.read(delivery.sop_instance_uid)))
    assert (report.StudyInstanceUID, report.PatientID) == (STUDY, "PHANTOM-1")


def test_what_arrived_is_audited_with_its_sender_and_patient_but_without_a_name(parts: DeskParts) -> None:
    images = hydrops_study()
    for one in images:
        one.PatientID, one.PatientName = "P-4711", "Marker^Name"
    parts.receive(images)
    parts.work_off()
    (entry,) = parts.audit.entries()
    assert entry.action is AuditAction.IMAGES_RECEIVED
    assert entry.message["ActiveParticipant"][0]["UserID"] == "SCANNER"
    objects = [one["ParticipantObjectID"] for one in entry.message["ParticipantObjectIdentification"]]
    assert objects == [STUDY, "P-4711"]
    assert entry.message["EventIdentification"]["EventOutcomeDescription"] == "24 images of this study are here"
    assert "Marker" not in str(entry.message)


class SlowDesk(DeskParts):
    """A second worker on the same state, which another one overtakes while it examines a study."""

    def let_overtake(self, monkeypatch: pytest.MonkeyPatch, other_worker: Callable[[], object]) -> None:
        """Have `other_worker` act between this one's examination and what it makes of it."""
        examine, begun = self.desk._examiner.examine, []

        def examined_slowly(*arguments: Any, **named: Any) -> Examination:
            examination = examine(*arguments, **named)
            if not begun:
                begun.append(True)
                other_worker()
            return examination

        monkeypatch.setattr(self.desk._examiner, "examine", examined_slowly)


@pytest.mark.parametrize("waited_before", [False, True])
@pytest.mark.parametrize("computes", [False, True])
def test_a_worker_that_is_slower_than_another_leaves_the_study_to_it(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch, *, waited_before: bool, computes: bool
) -> None:
    slow = SlowDesk(parts.folder)
    parts.receive(hydrops_study())
    if waited_before:
        assert parts.look_round_after(0.6) == []
        assert parts.state()[0] is StudyState.WAITING
    parts.now += QUIET_S + 1.0
    slow.now = parts.now

    def act() -> None:
        for work in parts.desk.look_round():
            if computes:
                parts.desk.compute(work)

    slow.let_overtake(monkeypatch, act)
    assert slow.desk.look_round() == []
    assert parts.state()[0] is (StudyState.REFUSED if computes else StudyState.QUEUED)
    events = parts.events()
    assert [events.count(one) for one in (StudyEvent.ARRIVED, StudyEvent.COMPLETED, StudyEvent.FAILED)] == [1, 1, 0]
    assert slow.desk.look_round() == []
    assert parts.events() == events


def test_a_fault_of_the_slower_worker_does_not_fail_a_study_that_the_other_one_computes(
    parts: DeskParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowDesk(parts.folder)
    parts.receive(hydrops_study())
    parts.now += QUIET_S + 1.0
    slow.now = parts.now

    def act_and_break() -> None:
        parts.desk.look_round()
        raise MemoryError

    slow.let_overtake(monkeypatch, act_and_break)
    assert slow.desk.look_round() == []
    assert parts.state()[0] is StudyState.QUEUED
    assert StudyEvent.FAILED not in parts.events()


def test_a_look_round_does_not_read_what_is_settled_however_much_that_is(parts: DeskParts) -> None:
    def statements_of_a_look() -> int:
        said.clear()
        assert parts.look_round_after() == []
        return len(said)

    said: list[str] = []
    sa.event.listen(parts.engine, "before_cursor_execute", lambda *words: said.append(words[2]))
    parts.receive(series_of(LOCALIZER))
    parts.work_off()
    with_one = statements_of_a_look()
    for number in range(101, 105):
        parts.receive(series_of(LOCALIZER, f"2.25.{number}"))
    parts.work_off()
    assert {parts.state(f"2.25.{number}")[0] for number in range(100, 105)} == {StudyState.NOT_OURS}
    assert statements_of_a_look() == with_one
