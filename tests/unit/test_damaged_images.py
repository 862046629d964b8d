"""Images that the disk damaged: found before anything is computed or said, named, and cured by sending them again."""

from __future__ import annotations

from pathlib import Path

import pytest
from desk_parts import LOCALIZER, PARTNER_WAIT_S, DeskParts, hydrops_study, series_of

from dicom_node.ledger import StudyState

STUDY = "2.25.100"
ROWS = b"\x28\x00\x10\x00"
"""Tag (0028,0010); in explicit VR its value begins four bytes later."""


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    return DeskParts(tmp_path)


@pytest.mark.parametrize("place", [-2, 500, None], ids=["pixels", "header", "gone"])
def test_f12_an_image_damaged_on_disk_is_found_before_computing_and_cured_by_sending_it_again(
    parts: DeskParts, place: int | None
) -> None:
    images = hydrops_study()
    parts.receive(images)
    (work,) = parts.look_round_after()
    victim = parts.spool.instances(STUDY)[3]
    damage_file(victim.path, place)
    parts.desk.compute(work)
    assert parts.state()[0] is StudyState.WAITING
    assert parts.sent() == []
    parts.work_off()
    state, reason = parts.state()
    assert (state, reason) == (StudyState.REFUSED, "SOURCE_CORRUPT")
    assert victim.sop_instance_uid in parts.record().detail
    parts.receive(images)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "CONTENT")
    assert parts.spool.refusals(STUDY) == []


def test_f12_a_header_read_from_a_damaged_file_is_read_anew_with_the_image(parts: DeskParts) -> None:
    images = hydrops_study()
    parts.receive(images)
    victim = parts.spool.instances(STUDY)[3]
    row_of_pixels = parts.desk._examiner.open(STUDY).files[victim.sop_instance_uid].header.Rows
    parts = DeskParts(parts.folder)  # a worker that begins anew, after the disk has turned a bit
    content = victim.path.read_bytes()
    damage_file(victim.path, content.index(ROWS) + len(ROWS) + 4)
    (work,) = parts.look_round_after()
    assert parts.desk._examiner.open(STUDY).files[victim.sop_instance_uid].header.Rows != row_of_pixels
    parts.desk.compute(work)
    assert parts.sent() == []
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "SOURCE_CORRUPT")
    parts.receive(images)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "CONTENT")


def test_f12_a_header_damaged_after_the_decision_is_found_too(parts: DeskParts) -> None:
    images = hydrops_study()
    parts.receive(images)
    (work,) = parts.look_round_after()
    victim = parts.spool.instances(STUDY)[3]
    damage_file(victim.path, victim.path.read_bytes().index(ROWS) + len(ROWS) + 4)
    parts.desk.compute(work)  # the case is refused now, for a matrix that no scanner gave
    assert parts.sent() == []
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "SOURCE_CORRUPT")
    assert victim.sop_instance_uid in parts.record().detail


def test_f12_damage_in_a_series_that_is_not_used_leaves_the_study_alone(parts: DeskParts) -> None:
    localizer_images = series_of(LOCALIZER)
    parts.receive([*hydrops_study(), *localizer_images])
    localizer = {image.SOPInstanceUID for image in localizer_images}
    (work,) = parts.look_round_after()
    victim = next(one for one in parts.spool.instances(STUDY) if one.sop_instance_uid in localizer)
    damage_file(victim.path, -2)
    parts.desk.compute(work)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "CONTENT")  # that is how a study without ears must end
    assert parts.sent() == [("SR", "pacs")]
    assert not victim.path.exists()


def test_f12_an_image_with_an_unreadable_header_is_not_left_out_in_silence(parts: DeskParts) -> None:
    images = hydrops_study()
    parts.receive(images)
    victim = parts.spool.instances(STUDY)[0]
    damage_file(victim.path, 129)  # the letters DICM
    damage_file(victim.path, victim.path.read_bytes().index(victim.sop_instance_uid.encode()) + 1)
    for work in parts.look_round_after(PARTNER_WAIT_S):
        parts.desk.compute(work)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "SOURCE_CORRUPT")
    parts.receive(images)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "CONTENT")


def test_f12_a_study_without_one_whole_image_fails_and_is_cured_by_resending(parts: DeskParts) -> None:
    images = hydrops_study()
    parts.receive(images)
    (work,) = parts.look_round_after()
    for instance in parts.spool.instances(STUDY):
        instance.path.unlink()
    parts.desk.compute(work)
    assert parts.state() == (StudyState.FAILED, "INTERNAL")
    assert parts.record().detail.startswith("no image of it is whole on this node's disk any more")
    parts.receive(images)
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "CONTENT")


def test_f12_an_image_damaged_between_two_starts_refuses_its_study(parts: DeskParts) -> None:
    parts.receive(hydrops_study())
    (work,) = parts.look_round_after()
    damage_file(parts.spool.instances(STUDY)[0].path, -2)
    parts.desk.compute(work)
    report = parts.spool.sweep()
    assert report.damaged == () == report.missing
    parts.work_off()
    assert parts.state() == (StudyState.REFUSED, "SOURCE_CORRUPT")


def damage_file(path: Path, place: int | None) -> None:
    """Turn one bit of the byte at `place`, or take the file away."""
    if place is None:
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
