"""Packs on disk are complete or absent, and only listed files can be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_node.views.shelf import ORPHAN_AGE_S, ViewShelf

WORK = "ab" * 32
MANIFEST = json.dumps({"files": {"a.png": {"bytes": 3, "sha256": "00", "media_type": "image/png"}}}).encode()
FILES = {"a.png": b"abc", "manifest.json": MANIFEST}


@pytest.fixture
def shelf(tmp_path: Path) -> ViewShelf:
    return ViewShelf(tmp_path / "views")


def test_a_pack_that_was_put_is_found_with_its_files(shelf):
    shelf.put(WORK, FILES)
    file = shelf.file(WORK, "a.png")
    assert file is not None
    assert (file.path.read_bytes(), file.media_type, file.sha256) == (b"abc", "image/png", "00")


def test_the_same_work_again_leaves_the_pack_alone(shelf, tmp_path):
    shelf.put(WORK, FILES)
    before = (tmp_path / "views" / WORK / "a.png").stat().st_ino
    shelf.put(WORK, FILES)
    assert (tmp_path / "views" / WORK / "a.png").stat().st_ino == before


def test_a_pack_that_lost_a_file_counts_as_absent_and_is_made_again(shelf, tmp_path):
    shelf.put(WORK, FILES)
    (tmp_path / "views" / WORK / "a.png").unlink()
    assert shelf.manifest(WORK) is None
    shelf.put(WORK, FILES)
    assert shelf.file(WORK, "a.png") is not None


def test_a_damaged_manifest_counts_as_absent(shelf, tmp_path):
    shelf.put(WORK, FILES)
    (tmp_path / "views" / WORK / "manifest.json").write_bytes(MANIFEST[:20])
    assert shelf.manifest(WORK) is None


@pytest.mark.parametrize("name", ["../node.db", "manifest.json", "a.png/", "/etc/passwd", "", "a.png\0"])
def test_only_listed_names_lead_to_a_file(shelf, name):
    shelf.put(WORK, FILES)
    assert shelf.file(WORK, name) is None


@pytest.mark.parametrize("work", ["..", "", "ab", "AB" * 32, f"{WORK}-NO_MRC", f"{WORK}/../{WORK}"])
def test_only_a_work_id_leads_to_a_pack(shelf, work):
    shelf.put(WORK, FILES)
    assert shelf.manifest(work) is None
    with pytest.raises(ValueError, match="work id"):
        shelf.put(work, FILES)


def test_a_killed_worker_leaves_nothing_that_counts_and_its_folder_goes_in_time(shelf, tmp_path):
    unfinished = tmp_path / "views" / ".unfinished-0123"
    unfinished.mkdir()
    (unfinished / "a.png").write_bytes(b"abc")
    made = unfinished.stat().st_mtime
    assert shelf.sweep(made + 1.0) == 0
    assert shelf.sweep(made + ORPHAN_AGE_S + 1.0) == 1
    assert not unfinished.exists()


def test_a_disk_that_refuses_leaves_no_half_a_pack(shelf, tmp_path):
    name = "a" * 300 + ".png"  # longer than any file system takes: the write fails half way through the pack
    with pytest.raises(OSError, match="too long"):
        shelf.put(WORK, {**FILES, name: b"x"})
    assert shelf.manifest(WORK) is None
    assert list((tmp_path / "views").iterdir()) == []
