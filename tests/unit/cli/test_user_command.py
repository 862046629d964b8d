"""`hydrops-node user`: who may use the dashboard, without a password ever standing in a command."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.accounts.roles import Role
from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users
from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.cli import _parser, main
from dicom_node.database import open_database

User = Callable[..., int]
GOOD = "correct horse battery"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    (tmp_path / "node.toml").write_text("", encoding="utf-8")

    def run(*words: str, typed: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return main(["user", *words, "--config", str(tmp_path / "node.toml")])

    return run


@pytest.fixture
def users(tmp_path: Path) -> Users:
    (tmp_path / "state").mkdir()
    return Users(open_database(f"sqlite:///{tmp_path / 'state' / 'node.db'}"))


def test_a_new_user_signs_in_with_the_password_from_standard_input(user: User, users: Users) -> None:
    assert user("add", "ada", "--role", "admin", typed=f"{GOOD}\n") == 0
    found = users.verified("ada", GOOD)
    assert found is not None
    assert found.role is Role.ADMIN


def test_users_are_listed_and_their_passwords_are_not(
    user: User, users: Users, capsys: pytest.CaptureFixture[str]
) -> None:
    user("add", "ada", "--role", "admin", typed=GOOD)
    user("add", "rita", "--role", "reader", typed=GOOD)
    capsys.readouterr()
    assert user("list") == 0
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()] == [["ada", "admin"], ["rita", "reader"]]
    assert GOOD not in said


def test_without_users_the_list_says_how_to_make_one(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    assert user("list") == 0
    assert "hydrops-node user add NAME --role admin" in capsys.readouterr().out


def test_a_changed_role_password_and_removal_take_effect(user: User, users: Users) -> None:
    user("add", "ada", "--role", "admin", typed=GOOD)
    assert user("role", "ada", "--role", "viewer") == 0
    assert user("password", "ada", typed="another good one") == 0
    assert users.verified("ada", GOOD) is None
    changed = users.verified("ada", "another good one")
    assert changed is not None
    assert changed.role is Role.VIEWER
    assert user("remove", "ada") == 0
    assert users.all() == []


def test_a_session_opened_while_the_new_password_is_hashed_ends_with_the_old_one(
    user: User, users: Users, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user("add", "ada", "--role", "admin", typed=GOOD)
    sessions = Sessions(open_database(f"sqlite:///{tmp_path / 'state' / 'node.db'}"), SessionLimits())
    tokens: list[str] = []
    hashed = Users._hash

    def slowly(self: Users, password: str) -> str:
        tokens.append(sessions.open("ada", at=time.time()))
        return hashed(self, password)

    monkeypatch.setattr(Users, "_hash", slowly)
    assert user("password", "ada", typed="another good one") == 0
    assert sessions.visitor(tokens[0], at=time.time()) is None


@pytest.mark.parametrize(
    ("words", "typed", "expected"),
    [
        (["add", "ada", "--role", "admin"], "short", "expected 12 to 256 characters, found 5"),
        (["add", "adaadaada", "--role", "admin"], "adaadaadaadaadaada", "something else than the user's name"),
        (["add", "ada lovelace", "--role", "admin"], GOOD, "expected 1 to 64 letters"),
        (["add", "ada"], GOOD, "expected --role"),
        (["add"], GOOD, "expected a NAME"),
        (["remove", "nobody"], "", "there is no such user"),
        (["password", "nobody"], GOOD, "there is no such user"),
        (["role", "nobody", "--role", "admin"], "", "there is no such user"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    user: User, capsys: pytest.CaptureFixture[str], words: list[str], typed: str, expected: str
) -> None:
    assert user(*words, typed=typed) == 2
    assert expected in capsys.readouterr().err


def test_a_name_is_given_once(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    user("add", "ada", "--role", "viewer", typed=GOOD)
    assert user("add", "ada", "--role", "admin", typed=GOOD) == 2
    assert "exists" in capsys.readouterr().err


def test_every_change_is_in_the_audit_trail_and_no_password_is(user: User, users: Users, tmp_path: Path) -> None:
    user("add", "ada", "--role", "admin", typed=GOOD)
    user("password", "ada", typed="another good one")
    user("role", "ada", "--role", "reader")
    user("remove", "ada")
    entries = list(AuditTrail(tmp_path / "state" / "audit").entries())
    assert [one.action for one in entries] == [
        AuditAction.USER_ADDED,
        AuditAction.USER_CHANGED,
        AuditAction.USER_CHANGED,
        AuditAction.USER_REMOVED,
    ]
    written = "".join(path.read_text() for path in (tmp_path / "state" / "audit").glob("*.jsonl"))
    assert GOOD not in written
    assert "another good one" not in written


def test_no_option_takes_a_password() -> None:
    assert "--password" not in _parser("user").format_help()
