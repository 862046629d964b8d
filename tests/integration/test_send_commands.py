"""`hydrops-node send` and `echo` as an operator runs them, against real receivers."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_receivers import MR_IMAGE, SEG, Receiver, encoded
from free_ports import free_port

from dicom_node.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        path = tmp_path / "study" / f"series{number}" / "image.dcm"
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded(MR_IMAGE, sop_instance_uid=f"2.25.9{number}"))
    (tmp_path / "study" / "notes.txt").write_text("no DICOM", encoding="utf-8")
    return tmp_path / "study"


def test_a_folder_is_sent_to_its_depths_and_summed_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Receiver().listening() as receiver:
        status = main(["send", str(folder), "--to", f"PACS@127.0.0.1:{receiver.port}"])
    assert status == 0
    assert [uid for uid, _, _ in receiver.received] == ["2.25.90", "2.25.91", "2.25.92"]
    assert "3 of 3 DICOM files taken; 1 without DICOM left out" in capsys.readouterr().out


def test_a_single_file_may_be_sent(folder: Path) -> None:
    with Receiver().listening() as receiver:
        status = main(["send", str(folder / "series1" / "image.dcm"), "--to", f"PACS@127.0.0.1:{receiver.port}"])
    assert status == 0
    assert [uid for uid, _, _ in receiver.received] == ["2.25.91"]


def test_what_is_not_taken_is_told_once_for_each_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "seg.dcm").write_bytes(encoded(SEG))
    with Receiver(classes=(SEG,)).listening() as receiver:
        status = main(["send", str(folder), "--to", f"PACS@127.0.0.1:{receiver.port}"])
    assert status == 1
    output = capsys.readouterr().out
    assert "1 of 4 DICOM files taken" in output
    assert output.count("does not take MR Image Storage") == 1
    assert "and 2 more" in output


def test_warnings_of_the_receiver_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Receiver(answer=lambda: 0xB000).listening() as receiver:
        assert main(["send", str(folder), "--to", f"PACS@127.0.0.1:{receiver.port}"]) == 0
    assert capsys.readouterr().out.count("note: status B000H") == 1


def test_we_call_ourselves_as_we_were_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Receiver().listening(require_calling_aet=["SCANNER"]) as receiver:
        peer = f"PACS@127.0.0.1:{receiver.port}"
        assert main(["send", str(folder), "--to", peer]) == 1
        assert "'HYDROPS' is not known there" in capsys.readouterr().out
        assert main(["send", str(folder), "--to", peer, "--calling", "SCANNER"]) == 0


def test_a_folder_without_dicom_is_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = f"PACS@127.0.0.1:{free_port()}"
    assert main(["send", str(tmp_path / "none"), "--to", peer]) == 2
    (tmp_path / "notes.txt").write_text("no DICOM", encoding="utf-8")
    assert main(["send", str(tmp_path), "--to", peer]) == 2
    assert "none of its 1 files is a DICOM file" in capsys.readouterr().err


def test_echo_answers_with_its_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with Receiver().listening() as receiver:
        peer = f"PACS@127.0.0.1:{receiver.port}"
        assert main(["echo", peer]) == 0
    assert main(["echo", peer]) == 1
    output = capsys.readouterr().out
    assert f"{peer} answers" in output
    assert f"no connection to {peer}" in output


@pytest.mark.parametrize("peer", ["PACS", "PACS@host", "PACS@host:0", "PACS@host:65536", "@host:104", "A@-x y:104"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(
    peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["echo", peer])
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_a_too_long_ae_title_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["echo", "SEVENTEEN_LETTERS@127.0.0.1:104"])
    assert "1 to 16 printable characters" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_that_is_none_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["echo", "PACS@127.0.0.1:104", f"--timeout={seconds}"])
    assert "seconds" in capsys.readouterr().err
