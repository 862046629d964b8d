"""What `process` says of a cohort: a bar on a terminal, lines elsewhere, and how it is stopped."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mr_images import STUDY
from patience import STUDY_S, wait_until
from small_studies import quick_config, write_small_study

from dicom_node.cli.cohort_report import Reporter
from dicom_node.cohort.outcome import SourceOutcome, SourceState


def command(folder: Path, studies: int) -> list[str]:
    """To process so many small studies, `folder / "in"`, into `folder / "out"`."""
    for number in range(studies):
        write_small_study(folder / "in", number)
    words = ["process", str(folder / "in"), "--out", str(folder / "out"), "--config", str(quick_config(folder))]
    return [sys.executable, "-m", "dicom_node.cli", *words]


def everything_read_from(descriptor: int) -> str:
    """Until the other side of the terminal is closed, which Linux reports as an error."""
    said = b""
    while True:
        try:
            said += os.read(descriptor, 4096)
        except OSError:
            return said.decode()


def test_a_terminal_shows_a_bar_and_a_line_for_each_study(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    run = subprocess.Popen(command(tmp_path, 2), stderr=theirs, env=environment)
    os.close(theirs)
    said = everything_read_from(ours)
    os.close(ours)
    assert run.wait(STUDY_S) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    assert "━" in plain
    assert "2/2" in plain
    assert len(re.findall(rf"{re.escape(STUDY)}\.\d: refused, \d+ s: ", plain)) == 2
    assert "2 studies: 2 refused" in plain


def test_without_a_terminal_every_study_is_a_plain_line(tmp_path: Path) -> None:
    run = subprocess.run(
        command(tmp_path, 2),
        capture_output=True, text=True, check=True, timeout=STUDY_S,
    )  # fmt: skip
    lines = run.stderr.splitlines()
    assert [line[:5] for line in lines[:2]] == ["[1/2]", "[2/2]"]
    assert "\x1b" not in run.stderr
    assert "MARKER" not in run.stderr


def test_stopping_says_how_to_go_on_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = subprocess.Popen(command(tmp_path, 40), stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: list(out.glob("1.*")), seconds=STUDY_S)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: everybody gets it
    _, said = run.communicate(timeout=STUDY_S)
    assert run.returncode == 130
    assert said.rstrip().endswith("stopped; the same command goes on from here")
    assert "Traceback" not in said
    finished = list(out.glob("1.*"))
    assert 0 < len(finished) < 40
    assert all((folder / "findings.json").is_file() for folder in finished)


def test_the_summary_counts_reasons_and_names_every_problem() -> None:
    refused = {"status": "refused", "reasons": [{"code": "LOSSY", "message": ""}, {"code": "LOSSY", "message": ""}]}
    outcomes = [
        SourceOutcome(name="a", folder="in", state=SourceState.REFUSED, findings=refused, done_before=True),
        SourceOutcome(name="b", folder="in", state=SourceState.REFUSED, findings=refused),
        SourceOutcome(name="c", folder="in", state=SourceState.UNUSABLE, problem="mrc.nii.gz: no image"),
    ]
    assert Reporter(quiet=True).summary(outcomes) == [
        "3 studies: 2 refused, 1 unusable (1 of them done before)",
        "  refused with LOSSY: 2",
        "  unusable: c: mrc.nii.gz: no image",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(quiet=True)
    reporter.say("a line")
    with reporter.working(1) as on_done:
        on_done(SourceOutcome(name="c", folder="in", state=SourceState.UNUSABLE, problem="no image"))
    assert capsys.readouterr().err == ""
