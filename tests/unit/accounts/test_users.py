"""Users, their sessions, the pauses after wrong passwords, and reviews, on real SQLite and PostgreSQL databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from dashboard_parts import PASSWORD, QUICK_HASHES
from local_postgresql import programs, running_postgresql
from sqlalchemy import Engine, text

from dicom_node.accounts.pauses import FIRST_PAUSE_S, LONGEST_PAUSE_S, PATIENCE, SignInPauses
from dicom_node.accounts.roles import Role
from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users, users_table
from dicom_node.database import open_database
from dicom_node.reviews import Reviews, Verdict

HERE, ELSEWHERE = "10.0.0.1", "203.0.113.9"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    else:
        if programs() is None:
            pytest.skip("PostgreSQL is not installed")
        opened = open_database(request.getfixturevalue("server"))
        with opened.begin() as connection:
            connection.execute(text("TRUNCATE users, web_sessions, sign_in_failures, sign_in_addresses, review"))
    yield opened
    opened.dispose()


@pytest.fixture
def users(engine: Engine) -> Users:
    found = Users(engine, hasher=QUICK_HASHES)
    found.add("ada", Role.ADMIN, PASSWORD, at=0.0)
    return found


@pytest.fixture
def sessions(engine: Engine, users: Users) -> Sessions:
    return Sessions(engine, SessionLimits(idle_s=600.0, lifetime_s=3600.0))


@pytest.fixture
def pauses(engine: Engine) -> SignInPauses:
    return SignInPauses(engine)


# --- Users ------------------------------------------------------------------------------------------------------------


def test_a_new_database_has_no_users(engine: Engine) -> None:
    assert Users(engine).count() == 0


def test_a_password_is_kept_as_argon2id_with_the_parameters_of_rfc_9106(engine: Engine) -> None:
    Users(engine).add("ada", Role.ADMIN, PASSWORD, at=0.0)
    with engine.connect() as connection:
        kept = connection.execute(users_table.select()).one().password_hash
    parameters = extract_parameters(kept)
    assert parameters.type is Type.ID
    assert (parameters.memory_cost, parameters.time_cost) == (65536, 3)
    assert PasswordHasher().verify(kept, PASSWORD)


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong wrong wrong"), ("nobody", PASSWORD), ("ADA", PASSWORD)])
def test_a_wrong_pair_is_nobody(users: Users, name: str, password: str) -> None:
    assert users.verified(name, password) is None


# --- Sessions ---------------------------------------------------------------------------------------------------------


def test_the_database_does_not_hold_the_token(engine: Engine, sessions: Sessions) -> None:
    token = sessions.open("ada", at=10.0)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM web_sessions")).all()
    assert len(rows) == 1
    assert token not in str(rows)


def test_a_session_ends_when_idle(sessions: Sessions) -> None:
    token = sessions.open("ada", at=10.0)
    assert sessions.visitor(token, at=600.0) is not None
    assert sessions.visitor(token, at=1190.0) is not None  # it was used in between
    assert sessions.visitor(token, at=1800.0) is None


def test_a_page_that_renews_itself_does_not_keep_a_session_open(sessions: Sessions) -> None:
    token = sessions.open("ada", at=0.0)
    for at in range(60, 600, 60):
        assert sessions.visitor(token, at=float(at), active=False) is not None
    assert sessions.visitor(token, at=601.0, active=False) is None


def test_a_session_ends_at_its_lifetime_however_busy(sessions: Sessions) -> None:
    token = sessions.open("ada", at=0.0)
    alive = [sessions.visitor(token, at=at * 100.0) is not None for at in range(1, 40)]
    assert alive == [True] * 36 + [False] * 3


def test_closing_removing_and_a_new_password_end_a_session(users: Users, sessions: Sessions) -> None:
    closed = sessions.open("ada", at=10.0)
    sessions.close(closed)
    assert sessions.visitor(closed, at=11.0) is None
    before = sessions.open("ada", at=12.0)
    users.set_password("ada", "another good one", at=13.0)
    assert sessions.visitor(before, at=14.0) is None
    after = sessions.open("ada", at=15.0)
    users.remove("ada")
    assert sessions.visitor(after, at=16.0) is None


def test_a_changed_role_holds_from_the_next_request(users: Users, sessions: Sessions) -> None:
    token = sessions.open("ada", at=10.0)
    users.set_role("ada", Role.VIEWER)
    visitor = sessions.visitor(token, at=11.0)
    assert visitor is not None
    assert visitor.role is Role.VIEWER


def test_a_forged_or_empty_token_is_nobody(sessions: Sessions) -> None:
    token = sessions.open("ada", at=10.0)
    assert sessions.visitor(token[:-1] + ("A" if token[-1] != "A" else "B"), at=11.0) is None
    assert sessions.visitor("", at=11.0) is None


def test_sessions_of_one_user_have_different_csrf_tokens(sessions: Sessions) -> None:
    found = [sessions.visitor(sessions.open("ada", at=10.0), at=11.0) for _ in range(2)]
    first, second = (one.csrf_token for one in found if one is not None)
    assert first != second


# --- Pauses -----------------------------------------------------------------------------------------------------------


def fail(pauses: SignInPauses, times: int, *, account: str = "ada", address: str = HERE, at: float = 0.0) -> None:
    for _ in range(times):
        pauses.failed(account, address, at=at)


def test_the_fifth_wrong_password_makes_a_pause_that_doubles_up_to_a_quarter_of_an_hour(pauses: SignInPauses) -> None:
    fail(pauses, 4)
    assert pauses.remaining_s("ada", HERE, at=0.0) == 0.0
    fail(pauses, 1)
    assert pauses.remaining_s("ada", HERE, at=0.0) == FIRST_PAUSE_S
    fail(pauses, 1)
    assert pauses.remaining_s("ada", HERE, at=0.0) == 2 * FIRST_PAUSE_S
    fail(pauses, 30)
    assert pauses.remaining_s("ada", HERE, at=0.0) == LONGEST_PAUSE_S
    assert pauses.remaining_s("ada", HERE, at=LONGEST_PAUSE_S) == 0.0


def test_guessing_many_accounts_from_one_address_is_paused_too(pauses: SignInPauses) -> None:
    for number in range(PATIENCE["address"]):
        pauses.failed(f"user{number}", ELSEWHERE, at=0.0)
    assert pauses.remaining_s("ada", ELSEWHERE, at=0.0) > 0.0
    assert pauses.remaining_s("ada", HERE, at=0.0) == 0.0


def test_guessing_one_account_from_many_addresses_is_paused_too(pauses: SignInPauses) -> None:
    for number in range(PATIENCE["account"]):
        pauses.failed("ada", f"203.0.113.{number}", at=0.0)
    assert pauses.remaining_s("ada", "198.51.100.1", at=0.0) > 0.0


def test_attackers_elsewhere_cannot_keep_the_admin_out_of_the_usual_place(pauses: SignInPauses) -> None:
    pauses.succeeded("ada", HERE, at=0.0)
    for number in range(500):
        pauses.failed("ada", f"203.0.113.{number}", at=1.0)
    assert pauses.remaining_s("ada", HERE, at=2.0) == 0.0
    assert 0.0 < pauses.remaining_s("ada", "198.51.100.1", at=2.0) <= LONGEST_PAUSE_S


def test_signing_in_and_clearing_forget_failures(pauses: SignInPauses) -> None:
    fail(pauses, 4)
    pauses.succeeded("ada", HERE, at=0.0)
    fail(pauses, 4)
    assert pauses.remaining_s("ada", HERE, at=0.0) == 0.0
    fail(pauses, 4)
    pauses.clear("ada")
    assert pauses.remaining_s("ada", HERE, at=0.0) == 0.0


# --- The clock is set -------------------------------------------------------------------------------------------------

A_DAY_S = 86_400.0
NOON = 1_800_000_000.0


def test_f28_wrong_passwords_before_the_clock_was_set_back_keep_nobody_out_for_longer(pauses: SignInPauses) -> None:
    fail(pauses, 5, at=NOON)
    assert pauses.remaining_s("ada", HERE, at=NOON - A_DAY_S) == FIRST_PAUSE_S
    assert pauses.remaining_s("ada", HERE, at=NOON - A_DAY_S + FIRST_PAUSE_S) == 0.0


def test_f28_a_session_ends_when_the_clock_is_set_back_behind_its_last_request(sessions: Sessions) -> None:
    token = sessions.open("ada", at=NOON)
    assert sessions.visitor(token, at=NOON - 30.0) is not None  # another machine, whose clock is a little behind
    assert sessions.visitor(token, at=NOON - A_DAY_S) is None
    assert sessions.visitor(token, at=NOON) is None


def test_f28_whoever_changed_the_password_before_the_clock_was_set_back_can_sign_in(
    users: Users, sessions: Sessions
) -> None:
    users.set_password("ada", PASSWORD, at=NOON)
    token = sessions.open("ada", at=NOON - A_DAY_S)
    assert sessions.visitor(token, at=NOON - A_DAY_S + 60.0) is not None


# --- Reviews ----------------------------------------------------------------------------------------------------------


def test_a_comment_keeps_its_lines_and_loses_what_is_no_character(engine: Engine) -> None:
    reviews = Reviews(engine)
    written = {"work_id": "w", "study_instance_uid": "2.25.1", "reader": "rita", "at": 1.0}
    reviews.write(verdict=Verdict.COMMENTED, comment="one\r\ntwo\x00\x1b[31m", **written)
    reviews.write(verdict=Verdict.REJECTED, comment="a vessel", **written)
    assert [one.comment for one in reviews.of_work("w")] == ["one\ntwo[31m", "a vessel"]
    assert reviews.standing(["w", "another"]) == {"w": Verdict.REJECTED}
