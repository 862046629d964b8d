"""What people typed into the search box, kept with their session: a patient's name never stands in an address."""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import Column, Engine, Float, String, Table, delete, insert, select

from dicom_node.database import metadata, writing

MAX_CHARACTERS: Final = 128
"""Of one search."""

KEEP_S: Final = 86400.0
"""Longer than any session should live; what is older is swept out with the next search."""

_searches = Table(
    "web_searches",
    metadata,
    Column("search_id", String(32), primary_key=True),
    Column("session_id", String(64), nullable=False),
    Column("text", String(MAX_CHARACTERS), nullable=False),
    Column("made_at", Float, nullable=False),
)


class Searches:
    """The searches on one state database; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, session_id: str, text: str, *, at: float) -> str:
        """Keep a search; returns the random name under which this session finds it again."""
        search_id = secrets.token_urlsafe(12)
        row = {"search_id": search_id, "session_id": session_id, "text": text[:MAX_CHARACTERS], "made_at": at}
        with writing(self._engine) as connection:
            connection.execute(delete(_searches).where(_searches.c.made_at < at - KEEP_S))
            connection.execute(insert(_searches).values(**row))
        return search_id

    def text(self, session_id: str, search_id: str) -> str | None:
        """What was searched for, or None if this session has no such search."""
        query = select(_searches.c.text).where(_searches.c.search_id == search_id, _searches.c.session_id == session_id)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()
