"""The configuration pages over HTTP, on a desk that holds the files in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_parts import Dashboard, hidden, make_parts, post, serving

from dicom_node.errors import ConfigError
from dicom_node.web.configuration_desk import (
    Backup,
    ConfigurationProblem,
    ConfigurationTexts,
    FoundConfiguration,
    RunningConfiguration,
    Saved,
    Verdict,
)
from dicom_node.web.configuration_sheet import MAX_ROWS, ROWS, SCALARS

COUNTS = {f"{table}-count": "0" for table in ROWS}
PAGE = "/configuration"


class Desk:
    """Two files; whatever names the AE title BAD is wrong."""

    def __init__(self) -> None:
        self.texts = ConfigurationTexts(settings="", rules="")
        self.digest = "first"
        self.unreadable = ""

    def found(self) -> FoundConfiguration:
        if self.unreadable:
            raise ConfigError(self.unreadable)
        return FoundConfiguration(texts=self.texts, digest=self.digest, settings_path="node.toml", rules_path="r.toml")

    def running(self) -> RunningConfiguration:
        return RunningConfiguration(since=0.0, problem="", restart_needed=())

    def judge(self, texts: ConfigurationTexts) -> Verdict:
        wrong = ConfigurationProblem(key="node.ae_title", sentence="node.ae_title: not this one")
        return Verdict(problems=(wrong,)) if "BAD" in texts.settings else Verdict()

    def save(self, texts: ConfigurationTexts, *, digest: str, actor: str) -> Saved:
        return Saved(done=False, sentence=f"Nothing was written for {actor}.")

    def backups(self) -> tuple[Backup, ...]:
        return ()

    def backup(self, name: str) -> ConfigurationTexts:
        raise KeyError(name)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def dashboard(tmp_path: Path, desk: Desk) -> Iterator[Dashboard]:
    with serving(make_parts(tmp_path, configuration=desk)) as served:
        yield served


def scalars(**changes: str) -> dict[str, str]:
    return {kind.key: kind.absent for kind in SCALARS} | COUNTS | changes


def test_who_corrects_a_field_is_still_shown_what_another_changed_meanwhile(dashboard: Dashboard, desk: Desk) -> None:
    client = dashboard.client("ada")
    desk.digest = "second"
    for path, bad, good in (
        (f"{PAGE}/forms", scalars(**{"node.ae_title": "BAD"}), scalars(**{"node.ae_title": "GOOD"})),
        (f"{PAGE}/files", {"settings": "# BAD", "rules": ""}, {"settings": "# GOOD", "rules": ""}),
        (f"{PAGE}/forms", scalars(**{"listener.port": "many"}), scalars(**{"listener.port": "105"})),
    ):
        answer = post(client, path, page=PAGE, digest="first", **bad)
        assert answer.status_code == 422
        again = post(client, path, page=PAGE, digest=hidden(answer.text, "digest"), **good)
        assert again.status_code == 409, path
        assert "changed on disk since you opened them" in again.text


def test_a_file_that_is_no_text_is_told_in_words_on_every_page(dashboard: Dashboard, desk: Desk) -> None:
    client = dashboard.client("ada")
    token = hidden(client.get(PAGE).text, "csrf_token")
    desk.unreadable = "node.toml: expected a text in UTF-8, found byte 0xfc in line 2"
    answers = [client.get(path) for path in (PAGE, f"{PAGE}/files")]
    for path in ("forms", "files", "restore", "save"):
        answers.append(client.post(f"{PAGE}/{path}", data={"csrf_token": token, "settings": "# x", "rules": ""}))
    for answer in answers:
        assert (answer.status_code, "found byte 0xfc in line 2." in answer.text) == (409, True)


def test_after_a_save_that_failed_the_page_still_knows_which_files_it_was_made_from(
    dashboard: Dashboard, desk: Desk
) -> None:
    desk.digest = "second"
    answer = post(dashboard.client("ada"), f"{PAGE}/save", page=PAGE, digest="first", settings="# x", rules="")
    assert answer.status_code == 409
    assert hidden(answer.text, "digest") == "first"


@pytest.mark.parametrize(("count", "expected"), [(str(MAX_ROWS + 1), 413), ("", 400), ("9" * 5000, 400)])
def test_a_form_that_could_not_bring_every_row_removes_none(dashboard: Dashboard, count: str, expected: int) -> None:
    entered = scalars(**{"peers-count": count})
    answer = post(dashboard.client("ada"), f"{PAGE}/forms", page=PAGE, digest="first", **entered)
    assert answer.status_code == expected
