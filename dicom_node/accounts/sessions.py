"""Sessions of signed-in users: a random token in the browser's cookie, only its hash in the database."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Engine, Float, String, Table, delete, insert, or_, select, update

from dicom_node.accounts.roles import ROLES, Role
from dicom_node.accounts.users import users_table
from dicom_node.database import metadata, writing

NOTE_ACTIVITY_EVERY_S: Final = 60.0
"""Activity is written down at most this often: a page must not cost a durable write."""

CLOCKS_APART_S: Final = 60.0
"""Processes on several machines may share the sessions; farther apart than this their clocks are not right."""

_sessions = Table(
    "web_sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_name", String(64), nullable=False, index=True),
    Column("opened_at", Float, nullable=False),
    Column("active_at", Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """A session ends after `idle_s` without a request, and `lifetime_s` after it was opened in any case.

    It ends as well when the clock is set back behind its last request: nobody could say how old it is.
    """

    idle_s: float = 1800.0
    lifetime_s: float = 43200.0


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who makes a request: `csrf_token` has to come with whatever changes something, `session_id` is no secret."""

    name: str
    role: Role
    csrf_token: str
    session_id: str


class Sessions:
    """The sessions on one state database; every method is one transaction."""

    def __init__(self, engine: Engine, limits: SessionLimits) -> None:
        self._engine = engine
        self.limits = limits

    def open(self, user_name: str, *, at: float) -> str:
        """A new session; returns the token for the cookie. Sessions that ended are swept out by the way."""
        token = secrets.token_urlsafe(32)
        password_at = select(users_table.c.password_at).where(users_table.c.name == user_name)
        ended = or_(
            _sessions.c.opened_at < at - self.limits.lifetime_s, _sessions.c.active_at < at - self.limits.idle_s
        )
        with writing(self._engine) as connection:
            connection.execute(delete(_sessions).where(ended))
            # A password that was changed before the clock was set back is no younger than this session.
            opened_at = max(at, connection.scalar(password_at) or at)
            row = {"token_hash": _hash(token), "user_name": user_name, "opened_at": opened_at, "active_at": at}
            connection.execute(insert(_sessions).values(**row))
        return token

    def visitor(self, token: str, *, at: float, active: bool = True) -> Visitor | None:
        """Whose session this is, with the role of this moment; None if it ended, or user or password changed.

        `active` False: the request was made by a page that renews itself, and does not keep the session open.
        """
        query = (
            select(_sessions, users_table.c.role, users_table.c.password_at)
            .join(users_table, users_table.c.name == _sessions.c.user_name)
            .where(_sessions.c.token_hash == _hash(token))
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None or row["opened_at"] < row["password_at"]:
            return None
        if at - row["opened_at"] > self.limits.lifetime_s or at - row["active_at"] > self.limits.idle_s:
            return None
        if row["active_at"] - at > CLOCKS_APART_S:
            self.close(token)
            return None
        if active and at - row["active_at"] > min(NOTE_ACTIVITY_EVERY_S, self.limits.idle_s / 2):
            self._note_activity(row["token_hash"], at)
        return Visitor(
            name=row["user_name"],
            role=ROLES[row["role"]],
            csrf_token=hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest(),
            session_id=row["token_hash"],
        )

    def close(self, token: str) -> None:
        """End one session."""
        with writing(self._engine) as connection:
            connection.execute(delete(_sessions).where(_sessions.c.token_hash == _hash(token)))

    def close_all(self, user_name: str) -> None:
        """End every session of one user."""
        with writing(self._engine) as connection:
            connection.execute(delete(_sessions).where(_sessions.c.user_name == user_name))

    def _note_activity(self, token_hash: str, at: float) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(_sessions).where(_sessions.c.token_hash == token_hash).values(active_at=at))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
