"""Users of the dashboard in the state database. Passwords are kept as Argon2id hashes; there is no default user."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Engine, Float, String, Table, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.accounts.roles import ROLES, Role
from dicom_node.database import metadata, writing
from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_PASSWORD_CHARACTERS: Final = 12
"""NIST SP 800-63B asks for 8 behind a second factor and 15 without; guessing is throttled here, so 12."""

MAX_PASSWORD_CHARACTERS: Final = 256
"""Nobody types more; an unbounded one would be an hour of hashing."""

HASHES_AT_ONCE: Final = 2
"""One Argon2 hash takes 64 MiB; a burst of sign-ins must not take the memory that a study needs."""

users_table = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(256), nullable=False),
    Column("made_at", Float, nullable=False),
    Column("password_at", Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class User:
    """One person. Times are POSIX seconds."""

    name: str
    role: Role
    made_at: float
    password_at: float


class Users:
    """The users on one state database; every method is one transaction.

    Parameters
    ----------
    engine
        From `open_database`.
    hasher
        Argon2id with the library's parameters (RFC 9106, low memory) when left out.
    """

    def __init__(self, engine: Engine, *, hasher: PasswordHasher | None = None) -> None:
        self._engine = engine
        self._given_hasher = hasher
        self._hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)

    def add(self, name: str, role: Role, password: str, *, at: float) -> User:
        """A new user.

        Raises
        ------
        UnusableInput
            If the name or password is unsuitable, or the name is taken.
        """
        check_name(name)
        check_password(name, password)
        row = {"name": name, "role": role.word, "password_hash": self._hash(password), "made_at": at, "password_at": at}
        try:
            with writing(self._engine) as connection:
                connection.execute(insert(users_table).values(**row))
        except IntegrityError:
            raise UnusableInput(
                f"user {name!r} exists; `hydrops-node user password {name}` changes the password"
            ) from None
        return User(name=name, role=role, made_at=at, password_at=at)

    def remove(self, name: str) -> None:
        """Take a user away; sessions that are open end with the next request.

        Raises
        ------
        UnusableInput
            If there is no such user.
        """
        with writing(self._engine) as connection:
            if connection.execute(delete(users_table).where(users_table.c.name == name)).rowcount == 0:
                raise _unknown(name)

    def set_password(self, name: str, password: str, *, at: float) -> None:
        """Replace the password; sessions opened before end with the next request.

        Raises
        ------
        UnusableInput
            If the password is unsuitable or there is no such user.
        """
        check_password(name, password)
        self._change(name, password_hash=self._hash(password), password_at=at)

    def set_role(self, name: str, role: Role) -> None:
        """Give another role, which holds from the next request.

        Raises
        ------
        UnusableInput
            If there is no such user.
        """
        self._change(name, role=role.word)

    def get(self, name: str) -> User | None:
        """One user, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(select(users_table).where(users_table.c.name == name)).mappings().one_or_none()
        return None if row is None else _user(row)

    def all(self) -> list[User]:
        """Every user by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(users_table).order_by(users_table.c.name)).mappings().all()
        return [_user(row) for row in rows]

    def count(self) -> int:
        """How many there are."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(users_table)) or 0

    def verified(self, name: str, password: str) -> User | None:
        """The user if the password is right. An unknown name takes as long as a wrong password."""
        from argon2.exceptions import InvalidHashError, VerificationError

        with self._engine.connect() as connection:
            row = connection.execute(select(users_table).where(users_table.c.name == name)).mappings().one_or_none()
        stored = self._hash_of_nobody if row is None else row["password_hash"]
        try:
            with self._hashing:
                self._hasher.verify(stored, password[:MAX_PASSWORD_CHARACTERS])
        except (VerificationError, InvalidHashError):
            return None
        return None if row is None else _user(row)

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher  # 20 ms that the first C-ECHO need not wait for

        return self._given_hasher or PasswordHasher()

    @cached_property
    def _hash_of_nobody(self) -> str:
        return self._hasher.hash("nobody has this password")

    def _hash(self, password: str) -> str:
        with self._hashing:
            return self._hasher.hash(password)

    def _change(self, name: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            changed = connection.execute(update(users_table).where(users_table.c.name == name).values(**values))
            if changed.rowcount == 0:
                raise _unknown(name)


def is_name(name: str) -> bool:
    """True for 1 to 64 letters, digits, '-', '_', '.' or '@'."""
    return re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", name) is not None


def check_name(name: str) -> None:
    """Raise UnusableInput unless `name` can be one."""
    if not is_name(name):
        raise UnusableInput(f"user name: expected 1 to 64 letters, digits, '-', '_', '.' or '@', found {name!r}")


def check_password(name: str, password: str) -> None:
    """Raise UnusableInput if `password` is too short, too long, or made of the user's name."""
    length = len(password)
    if not MIN_PASSWORD_CHARACTERS <= length <= MAX_PASSWORD_CHARACTERS:
        raise UnusableInput(
            f"password: expected {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters, found {length}"
        )
    if len(set(password)) < 4 or password.lower().replace(name.lower(), "") == "":
        raise UnusableInput("password: expected something else than the user's name or a few repeated characters")


def _unknown(name: str) -> UnusableInput:
    return UnusableInput(f"user {name!r}: there is no such user; `hydrops-node user list` shows all")


def _user(row: Any) -> User:
    return User(name=row["name"], role=ROLES[row["role"]], made_at=row["made_at"], password_at=row["password_at"])
