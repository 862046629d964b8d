"""`hydrops-node study`: what it prints and how it exits, with the desk's look round in a thread as the worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from desk_parts import DeskParts, hydrops_study
from patience import PATIENCE_S

from dicom_node.cli import main
from dicom_node.cli.os_user import os_user

STUDY = "2.25.100"
CONFIG = """
[[destinations]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = 104
called_ae = "PACS"
"""


@pytest.fixture
def parts(tmp_path: Path) -> DeskParts:
    """A refused study in the state folder of a configured node."""
    (tmp_path / "node.toml").write_text(CONFIG, encoding="utf-8")
    state = tmp_path / "state"
    state.mkdir()
    parts = DeskParts(state)
    parts.receive(hydrops_study())
    parts.work_off()
    return parts


def study(tmp_path: Path, *words: str) -> int:
    return main(["study", *words, "--config", str(tmp_path / "node.toml")])


@contextmanager
def worker(parts: DeskParts) -> Iterator[None]:
    stop = threading.Event()

    def look_round() -> None:
        while not stop.wait(0.05):
            parts.desk.look_round()

    thread = threading.Thread(target=look_round)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_became_of_a_request_is_printed(
    parts: DeskParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with worker(parts):
        assert study(tmp_path, "replay", STUDY, "--wait", str(PATIENCE_S)) == 0
        assert study(tmp_path, "resend", STUDY, "--destination", "pacs", "--wait", str(PATIENCE_S)) == 0
    replayed, resent = capsys.readouterr().out.splitlines()
    assert replayed.startswith("nothing that a result depends on has changed: the earlier outcome stands")
    assert resent.endswith("go to pacs again, as the same bytes")
    assert {request.actor for request in parts.requests.of_study(STUDY)} == {os_user()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retry", STUDY), "retry does not fit this study: it was refused; what fits now is replay"),
        (("cancel", "2.25.999"), "this study is unknown here"),
        (("resend", STUDY, "--destination", "moon"), "there is no destination 'moon'; known: pacs"),
    ],
)
def test_a_request_that_does_not_fit_exits_with_1_and_the_reason(
    parts: DeskParts, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert study(tmp_path, *words) == 1
    assert capsys.readouterr().out.startswith(said)


def test_without_a_worker_the_request_stays_and_the_command_says_so(
    parts: DeskParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(tmp_path, "replay", STUDY, "--wait", "0") == 1
    assert "no worker has seen to it yet; is the node running?" in capsys.readouterr().out
    assert len(parts.requests.open()) == 1


@pytest.mark.parametrize("words", [("resend", STUDY), ("retry", STUDY, "--destination", "pacs")])
def test_a_destination_belongs_to_resend_alone(
    parts: DeskParts, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert study(tmp_path, *words) == 2
    assert "resend needs --destination NAME; the other actions take none" in capsys.readouterr().err


def test_status_shows_what_goes_where_and_why_something_does_not(
    parts: DeskParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dicom_node.cli.wiring import destinations, load_settings
    from dicom_node.delivery.capabilities import Capabilities

    (pacs,) = destinations(load_settings(tmp_path / "node.toml"))
    Capabilities(parts.engine).learn(pacs, frozenset({"SR"}), at=1.0)
    assert main(["status", "--config", str(tmp_path / "node.toml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["destinations", "  pacs: gets SR; does not take SEG, SC, PDF"]
