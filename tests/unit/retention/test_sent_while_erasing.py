"""An image that is sent in the very moment in which it is erased: acknowledged is acknowledged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from desk_parts import hydrops_study
from kept_studies import A_DAY_S, STUDY, KeptStudies

from dicom_node.intake.spool import StoredKind


@pytest.fixture
def node(tmp_path: Path) -> KeptStudies:
    """A study whose time has ended, and that nobody has erased yet."""
    parts = KeptStudies(tmp_path)
    parts.finish_study()
    parts.now += 15 * A_DAY_S
    return parts


def send_one(node: KeptStudies) -> StoredKind:
    buffer = io.BytesIO()
    hydrops_study()[0].save_as(buffer, enforce_file_format=True)
    return node.spool.store(buffer.getvalue(), source="SCANNER", at=node.now).kind


def is_kept(node: KeptStudies) -> bool:
    """Whether the one image that was sent last is here, row and file, and whole at the next start."""
    (image,) = node.spool.instances(STUDY)
    report = node.spool.sweep()
    return image.path.exists() and not report.missing and not report.damaged


def test_a_known_image_acknowledged_just_before_the_row_went_is_taken_back(node: KeptStudies) -> None:
    image = node.spool.instances(STUDY)[0]
    assert node.eraser.erase_images(STUDY, node.periods)
    # What its receiver had done by then: touched the file, and found the row that was still there.
    image.path.touch()
    node.eraser.finish()
    assert is_kept(node)


def test_a_known_image_acknowledged_just_before_a_kill_is_taken_back_at_the_start(node: KeptStudies) -> None:
    image = node.spool.instances(STUDY)[0]
    assert node.eraser.erase_images(STUDY, node.periods)
    image.path.touch()
    assert node.spool.sweep().reindexed == (image.sop_instance_uid,)
    node.eraser.finish()
    assert is_kept(node)


def test_an_image_sent_between_row_and_file_is_written_again(node: KeptStudies) -> None:
    assert node.eraser.erase_images(STUDY, node.periods)
    assert send_one(node) is StoredKind.NEW
    node.eraser.finish()
    assert is_kept(node)


def test_a_file_that_goes_between_its_writing_and_its_row_is_written_once_more(
    node: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.eraser.erase_images(STUDY, node.periods)
    write, written = node.spool._write, []

    def write_and_lose_the_first(path: Path, parts: Sequence[bytes], at: float) -> None:
        write(path, parts, at)
        if not written:
            path.unlink()
        written.append(path)

    monkeypatch.setattr(node.spool, "_write", write_and_lose_the_first)
    assert send_one(node) is StoredKind.NEW
    assert len(written) == 2
    node.eraser.finish()
    assert is_kept(node)


def test_an_image_sent_to_the_end_before_is_not_erased(node: KeptStudies) -> None:
    assert send_one(node) is StoredKind.DUPLICATE
    assert node.eraser.erase_images(STUDY, node.periods) is False
    assert len(node.image_files()) == len(hydrops_study())
