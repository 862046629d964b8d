"""Whether anything was committed to a database since one looked last: asked for a fraction of what looking costs.

SQLite counts it (`PRAGMA data_version`), whichever process it was. PostgreSQL has no such count, but says which
transactions a statement sees: while that stays the same, so does everything else. There, what others do on the same
server seems to be a change, too; then one looks in vain.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Engine, PoolProxiedConnection

_QUESTION: Final = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT pg_current_snapshot()::text"}


class ChangeWatch:
    """Watches one database for one thread, by a connection of its own that never writes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: PoolProxiedConnection | None = None
        self._cursor: Any = None
        self._seen: object = None

    def changed(self) -> bool:
        """Whether anything was committed since the last call; True at the first, and where the database is away.

        What is committed after this call is told of by the next one. So ask first, and look then.
        """
        try:
            now = self._ask()
        except self._engine.dialect.loaded_dbapi.Error:  # whoever looks now finds out what it is
            self._forget()
            return True
        changed, self._seen = now != self._seen, now
        return changed

    def _ask(self) -> object:
        if self._cursor is None:
            self._connection = self._engine.raw_connection()
            self._connection.detach()  # it is not to come back to the pool as what it is made here
            if self._engine.dialect.name == "postgresql":
                driver: Any = self._connection.dbapi_connection
                driver.autocommit = True  # or the first answer would stand for ever
            self._cursor = self._connection.cursor()
        self._cursor.execute(_QUESTION[self._engine.dialect.name])
        return self._cursor.fetchone()

    def _forget(self) -> None:
        """Open a new connection at the next question."""
        lost, self._connection, self._cursor, self._seen = self._connection, None, None, None
        if lost is not None:
            lost.invalidate()
