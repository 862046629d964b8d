"""A result is whole or not there, wherever the process is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from patience import PATIENCE_S

from dicom_node.cohort.result_folder import put_result, read_result, remove_unfinished

OLD = {"findings.json": b'{"n": 1}', "seg.dcm": b"old", "sr.dcm": b"old", "mrc.nii.gz": b"old"}
NEW = {"findings.json": b'{"n": 2}', "seg.dcm": b"new", "sr.dcm": b"new"}


class DeadlyFiles(Mapping[str, bytes]):
    """Files of which reading the content of one kills the process."""

    def __init__(self, files: Mapping[str, bytes], deadly: str) -> None:
        self._files, self._deadly = files, deadly

    def __getitem__(self, name: str) -> bytes:
        if name == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def killed_while_writing(folder: Path, deadly: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=put_result, args=(folder, DeadlyFiles(NEW, deadly)))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("deadly", NEW)
def test_a_killed_first_attempt_leaves_no_folder_and_the_next_one_succeeds(deadly: str, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "1.2.3"
    killed_while_writing(folder, deadly)
    assert not folder.exists()
    put_result(folder, NEW)
    assert content(folder) == NEW
    assert [path.name for path in folder.parent.iterdir()] == ["1.2.3"]


@pytest.mark.parametrize("deadly", NEW)
def test_a_killed_replacement_leaves_no_findings_that_do_not_belong(deadly: str, tmp_path: Path) -> None:
    folder = tmp_path / "1.2.3"
    put_result(folder, OLD)
    killed_while_writing(folder, deadly)
    assert read_result(folder) is None
    put_result(folder, NEW)
    assert content(folder) == NEW


def test_files_of_somebody_else_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    put_result(tmp_path, OLD)
    put_result(tmp_path, NEW)
    assert content(tmp_path) == {**NEW, "notes.txt": b"mine"}


def test_what_was_begun_by_a_killed_run_is_removed(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "1.2.3", "sr.dcm")
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-1.2.3"]
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_findings_that_are_no_json_object_are_none(said: bytes, tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_bytes(said)
    assert read_result(tmp_path) is None
