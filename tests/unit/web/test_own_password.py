"""A signed-in person changes the own password, with the old one, and is then signed in here only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_parts import PASSWORD, Dashboard, make_parts, post, serving, sign_in

from dicom_node.audit import AuditOutcome

NEW = "staple under the moon"


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    with serving(make_parts(tmp_path)) as served:
        yield served


def told(dashboard: Dashboard) -> list[tuple[str, str, str]]:
    """Actor, outcome and sentence of every entry about a change of users."""
    messages = [one.message for one in dashboard.parts.audit.entries() if one.action.value == "user_changed"]
    return [
        (
            one["ActiveParticipant"][0]["UserID"],
            one["EventIdentification"]["EventOutcomeIndicator"],
            one["EventIdentification"]["EventOutcomeDescription"],
        )
        for one in messages
    ]


def test_the_new_password_holds_here_and_every_other_session_ends(dashboard: Dashboard) -> None:
    here, elsewhere, other_person = dashboard.client("vera"), dashboard.client("vera"), dashboard.client("rita")
    old_cookie = here.cookies["hydrops_session"]
    answer = post(here, "/password", page="/password", old=PASSWORD, new=NEW, again=NEW)
    assert (answer.status_code, answer.headers["location"]) == (303, "/password?changed=yes")
    assert "Your password is changed" in here.get("/password?changed=yes").text
    assert here.cookies["hydrops_session"] != old_cookie
    assert elsewhere.get("/studies").status_code == 303
    assert other_person.get("/studies").status_code == 200
    assert sign_in(dashboard.client(), "vera").status_code == 401
    assert sign_in(dashboard.client(), "vera", NEW).status_code == 303
    assert told(dashboard) == [("vera", AuditOutcome.SUCCESS.value, "vera, new password")]


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"old": "not the old one", "new": NEW, "again": NEW}, 403, "The old password is not right."),
        ({"old": PASSWORD, "new": NEW, "again": f"{NEW}!"}, 400, "not typed the same way twice"),
        ({"old": PASSWORD, "new": PASSWORD, "again": PASSWORD}, 400, "The new password is the old one."),
        ({"old": PASSWORD, "new": "short", "again": "short"}, 400, "expected 12 to 256 characters, found 5"),
        (
            {"old": PASSWORD, "new": "veravera" * 2, "again": "veravera" * 2},
            400,
            "something else than the user&#39;s name",
        ),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    dashboard: Dashboard, fields: dict[str, str], status: int, sentence: str
) -> None:
    here, elsewhere = dashboard.client("vera"), dashboard.client("vera")
    answer = post(here, "/password", page="/password", **fields)
    assert (answer.status_code, sentence in answer.text) == (status, True)
    assert not any(value in answer.text for value in fields.values())
    assert elsewhere.get("/studies").status_code == 200
    assert sign_in(dashboard.client(), "vera").status_code == 303


def test_guessing_the_old_password_in_an_open_session_is_slowed_down_and_audited(dashboard: Dashboard) -> None:
    here = dashboard.client("vera")
    answers = [post(here, "/password", page="/password", old="a guess", new=NEW, again=NEW) for _ in range(12)]
    assert [one.status_code for one in answers][:3] == [403, 403, 403]
    assert answers[-1].status_code == 429
    assert "please wait" in answers[-1].text
    failures = told(dashboard)
    assert 3 <= len(failures) < 12
    assert set(failures) == {("vera", AuditOutcome.MINOR_FAILURE.value, "vera, old password wrong")}


def test_without_a_session_or_its_token_nothing_is_changed(dashboard: Dashboard) -> None:
    fields = {"old": PASSWORD, "new": NEW, "again": NEW}
    assert dashboard.client().post("/password", data=fields).status_code == 303
    assert dashboard.client("vera").post("/password", data=fields).status_code == 403
    assert sign_in(dashboard.client(), "vera").status_code == 303
