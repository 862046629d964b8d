"""Page and pictures after SEG and SR are out: owed until they are drawn, drawn once, whoever has to."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from desk_parts import DeskParts
from kept_studies import KeptStudies
from phantom_patients import images_of
from pydicom.dataset import Dataset
from small_studies import SMALL_EARS
from sqlalchemy import select, update

from dicom_node.casework import Drawing
from dicom_node.delivery.outbox import OutboxObject
from dicom_node.encoding.measurements import StudyMeasurements, read_measurements
from dicom_node.errors import OutputMismatch, Reason, TransientError
from dicom_node.examination import Work
from dicom_node.ledger import StudyEvent, StudyState
from dicom_node.ledger_rows import ledger_results
from dicom_node.owed_pictures import MAX_BEGINNINGS
from dicom_node.picture_desk import PictureDesk
from dicom_node.views.shelf import ViewShelf
from inference.phantom import make_study

SEG_AND_SR = [("SEG", "pacs"), ("SR", "pacs")]
ALL = [*SEG_AND_SR, ("SC", "pacs")]


class KilledError(Exception):
    """The worker ends here, as by kill -9."""


def kill(*_arguments: object) -> None:
    raise KilledError


def not_as_drawn(_drawing: Drawing) -> None:
    raise OutputMismatch("the letter R is not where it was drawn")


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    return images_of(make_study(SMALL_EARS), "MRC", "PPI", "PEI")


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory, images) -> Path:
    """A state folder whose worker was killed between letting SEG and SR out and drawing."""
    folder: Path = tmp_path_factory.mktemp("cut-off")
    parts = DeskParts(folder, summary=True)
    parts.receive(images)
    (work,) = parts.look_round_after()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PictureDesk, "draw", kill)
        with pytest.raises(KilledError):
            parts.desk.compute(work)
    parts.engine.dispose()
    return folder


@pytest.fixture
def study(images) -> str:
    return str(images[0].StudyInstanceUID)


@pytest.fixture
def parts(cut_off: Path, tmp_path: Path) -> Iterator[KeptStudies]:
    """The next worker on such a folder."""
    shutil.copytree(cut_off, tmp_path / "state")
    found = KeptStudies(tmp_path / "state", summary=True)
    found.now += 100.0
    yield found
    found.engine.dispose()


@contextmanager
def second_worker(parts: DeskParts) -> Iterator[DeskParts]:
    other = DeskParts(parts.folder, summary=True, worker_id="worker-2")
    other.now = parts.now + 7.0  # another time of encoding, and so other bytes
    yield other
    other.engine.dispose()


def owed_work(parts: DeskParts) -> Work:
    (work,) = parts.desk.undrawn()
    return work


def bytes_of(parts: DeskParts, study: str) -> dict[str, bytes]:
    return {one.kind: parts.outbox.read(one.sop_instance_uid) for one in parts.outbox.deliveries(study)}


def notes(parts: DeskParts, study: str) -> list[str]:
    return [line.detail for line in parts.ledger.history(study) if line.event is StudyEvent.NOT_DRAWN]


def test_seg_and_sr_are_let_out_before_anything_is_drawn(parts: KeptStudies, study: str) -> None:
    assert parts.state(study)[0] is StudyState.COMPUTED
    assert parts.sent(study) == SEG_AND_SR
    assert parts.views.manifest(parts.record(study).work_id) is None


def test_an_undisturbed_study_owes_nothing_in_the_end(tmp_path: Path, images, study: str) -> None:
    parts = DeskParts(tmp_path, summary=True)
    parts.receive(images)
    parts.work_off()
    assert (parts.sent(study), parts.desk.undrawn(), parts.wakes) == (ALL, [], 2)
    assert parts.views.manifest(parts.record(study).work_id) is not None


def test_f03_what_a_killed_worker_owed_is_drawn_by_the_next_one_and_nothing_else_is_done_again(
    parts: KeptStudies, study: str
) -> None:
    before = bytes_of(parts, study)
    parts.desk.compute(owed_work(parts))
    after = bytes_of(parts, study)
    assert {kind: after[kind] for kind in before} == before
    assert parts.sent(study) == ALL
    assert parts.views.manifest(parts.record(study).work_id) is not None
    assert parts.desk.undrawn() == []
    assert parts.events(study).count(StudyEvent.STARTED) == parts.events(study).count(StudyEvent.COMPUTED) == 1


def test_f03_drawn_again_after_it_was_drawn_it_is_left_alone(parts: KeptStudies, study: str) -> None:
    work = owed_work(parts)
    parts.desk.compute(work)
    before = bytes_of(parts, study)
    with second_worker(parts) as other:
        other.desk.compute(work)
    assert (bytes_of(parts, study), parts.sent(study)) == (before, ALL)


@pytest.mark.parametrize("before", ["put", "keep"])
def test_f27_of_two_workers_that_draw_the_same_page_one_lets_it_out(
    parts: KeptStudies, study: str, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = owed_work(parts)
    owner = {"put": parts.views, "keep": parts.outbox}[before]
    goes_on = getattr(owner, before)

    def overtaken(*words):
        monkeypatch.undo()
        with second_worker(parts) as other:
            other.desk.compute(work)
        return goes_on(*words)

    monkeypatch.setattr(owner, before, overtaken)
    parts.desk.compute(work)
    assert parts.sent(study) == ALL
    assert len(list((parts.folder / "outbox").iterdir())) == len(ALL)
    assert parts.wakes == 0
    assert parts.desk.undrawn() == []


def test_f27_bytes_of_a_page_that_another_one_let_out_meanwhile_go(
    parts: KeptStudies, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, outbox = owed_work(parts), parts.folder / "outbox"
    keep, there = parts.outbox.keep, set((parts.folder / "outbox").iterdir())

    def keep_and_be_overtaken(objects):
        kept = keep(objects)
        (written,) = set(outbox.iterdir()) - there
        aside = written.rename(parts.folder / written.name)  # as if the other one had looked before it was there
        with second_worker(parts) as other:
            other.desk.compute(work)
        aside.rename(written)
        assert len(list(outbox.iterdir())) == len(ALL) + 1
        return kept

    monkeypatch.setattr(parts.outbox, "keep", keep_and_be_overtaken)
    parts.desk.compute(work)
    assert len(list(outbox.iterdir())) == len(ALL)
    assert set(bytes_of(parts, study)) == {"SEG", "SR", "SC"}
    assert parts.sent(study) == ALL


@contextmanager
def pages_drawn() -> Iterator[list[StudyMeasurements]]:
    """What every page says that is drawn meanwhile."""
    page, said = Drawing.page, []

    def noted(drawing: Drawing) -> tuple[OutboxObject, ...]:
        said.append(drawing.measurements)
        return page(drawing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "page", noted)
        yield said


def an_examination_before(images: list[Dataset]) -> list[Dataset]:
    """The same patient a year earlier."""
    before = copy.deepcopy(images)
    for one in before:
        one.StudyDate = "20200101"
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            one[name].value = f"{one[name].value}.1"
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    return before


def test_a_page_drawn_after_a_kill_compares_with_what_its_report_compares_with(
    parts: KeptStudies, study: str, images: list[Dataset]
) -> None:
    work = owed_work(parts)
    parts.receive(an_examination_before(images))  # sent late: the report knows nothing of it
    parts.work_off()
    assert parts.record(f"{study}.1").state is StudyState.COMPUTED
    with pages_drawn() as said:
        parts.desk.compute(work)
    assert said == [read_measurements(parts.record(study).findings)]
    assert [ear.previous for ear in said[0].ears] == [None, None]
    assert parts.sent(study) == ALL


def test_the_page_of_a_forced_study_says_so_when_it_is_drawn_long_after(
    tmp_path: Path, study: str, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = DeskParts(tmp_path, summary=True)
    parts.receive(images)
    series, counted = images[-1].SeriesInstanceUID, Counter(one.SeriesInstanceUID for one in images)
    parts.spool.set_expected(series, counted[series] + 1)
    assert parts.look_round_after() == []
    assert parts.actions.force(study, "anna").accepted
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "page", not_as_drawn)
        parts.work_off()
    assert parts.sent(study) == SEG_AND_SR
    parts.spool.set_expected(series, counted[series])  # by now nobody would have to force it
    assert parts.look_round_after() == []
    assert parts.actions.replay(study, "anna").accepted
    with pages_drawn() as said:
        parts.work_off()
    assert [sentence for sentence in said[0].quality if Reason.BEGUN_ON_REQUEST.sentence in sentence]
    assert said == [read_measurements(parts.record(study).findings)]
    assert sorted(parts.sent(study)) == sorted(ALL)


def test_a_page_whose_numbers_come_out_otherwise_is_not_drawn(parts: KeptStudies, study: str) -> None:
    work_id = owed_work(parts).work_id
    with parts.ledger.transaction() as connection:
        row = ledger_results.c.work_id == work_id
        findings = json.loads(connection.execute(select(ledger_results.c.findings).where(row)).scalar_one())
        findings["ears"]["left"]["eh_ratio"]["value"] += 0.1
        connection.execute(update(ledger_results).where(row).values(findings=json.dumps(findings)))
    parts.desk.compute(owed_work(parts))
    assert "the numbers are others" in notes(parts, study)[0]
    assert parts.sent(study) == SEG_AND_SR


def test_f24_a_page_that_ends_its_workers_is_given_up_and_told_and_a_replay_draws_it(
    parts: KeptStudies, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = owed_work(parts)
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "page", kill)
        for _ in range(MAX_BEGINNINGS - 1):
            with second_worker(parts) as other, pytest.raises(KilledError):
                other.desk.compute(work)
    parts.desk.compute(work)
    assert notes(parts, study) == ["SEG and SR stand; 3 beginnings ended without them; memory may be short"]
    assert (parts.state(study)[0], parts.sent(study), parts.desk.undrawn()) == (StudyState.COMPUTED, SEG_AND_SR, [])
    assert parts.actions.replay(study, "anna").accepted
    parts.work_off()
    assert sorted(parts.sent(study)) == sorted(ALL)
    assert parts.events(study).count(StudyEvent.STARTED) == 1


def test_a_page_that_was_not_written_as_drawn_leaves_seg_and_sr_as_they_are_and_is_told(
    parts: KeptStudies, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drawing, "page", not_as_drawn)
    parts.desk.compute(owed_work(parts))
    assert notes(parts, study) == ["SEG and SR stand; the letter R is not where it was drawn"]
    assert (parts.state(study)[0], parts.sent(study)) == (StudyState.COMPUTED, SEG_AND_SR)


def test_f15_while_the_disk_of_the_pictures_is_full_they_stay_owed_and_are_drawn_later(
    parts: KeptStudies, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = owed_work(parts)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ViewShelf, "put", full)
        for _ in range(MAX_BEGINNINGS + 1):  # a disk that is full is no beginning that ended
            with pytest.raises(TransientError, match="No space left"):
                parts.desk.compute(work)
    assert parts.sent(study) == SEG_AND_SR
    parts.desk.compute(work)
    assert parts.sent(study) == ALL


def test_a_fault_of_the_node_while_it_draws_is_kept_with_the_study_whose_results_stand(
    parts: KeptStudies, study: str
) -> None:
    parts.desk.fail(owed_work(parts), "MemoryError")
    assert notes(parts, study) == ["SEG and SR stand; the node failed on it (MemoryError)"]
    assert parts.state(study)[0] is StudyState.COMPUTED


def test_f24_a_page_that_workers_fail_on_is_left_to_the_next_one_and_given_up_when_three_have_begun_it(
    parts: KeptStudies, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_drawing: Drawing) -> None:
        raise MemoryError

    monkeypatch.setattr(Drawing, "page", refused)
    begun = 1  # by the worker that was killed
    while parts.desk.undrawn():
        begun += 1
        work = owed_work(parts)
        with pytest.raises(MemoryError):
            parts.desk.compute(work)
        again = parts.desk.fault(work, "MemoryError")
        assert [again] == (parts.desk.undrawn() or [None])
        assert again is None or again.run_id != work.run_id  # or the engine would not run it
    assert begun == MAX_BEGINNINGS
    assert notes(parts, study) == [
        "SEG and SR stand; 3 workers failed on it or ended over it, the last one because of this: MemoryError"
    ]
    assert (parts.state(study)[0], parts.sent(study)) == (StudyState.COMPUTED, SEG_AND_SR)
    assert StudyEvent.FAULTED not in parts.events(study)


def test_what_is_owed_of_images_that_are_gone_by_now_is_given_up_and_told(parts: KeptStudies, study: str) -> None:
    parts.spool.instances(study)[0].path.unlink()
    parts.desk.compute(owed_work(parts))
    (said,) = notes(parts, study)
    assert "differ by now" in said
    assert parts.sent(study) == SEG_AND_SR


def test_images_that_a_page_still_needs_are_not_erased(parts: KeptStudies, study: str) -> None:
    parts.deliver()
    parts.deliver()
    parts.round_after(days=15)
    assert parts.spool.instances(study)
    assert "being drawn" in parts.eraser.erase_study(study, "root")
    parts.desk.compute(owed_work(parts))
    parts.deliver()
    parts.round_after(days=15)
    assert not parts.spool.instances(study)
    assert parts.eraser.erase_study(study, "root") == ""
