"""A reader's word on a result: accepted, rejected, or a comment; kept with the piece of work, never changed.

Whoever thinks again writes another review, which stands in place of the earlier one; both stay.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Column, Engine, Float, Integer, String, Table, Text, insert, select

from dicom_node.database import metadata, writing
from dicom_node.errors import UnusableInput

MAX_COMMENT_CHARACTERS: Final = 4000


class Verdict(StrEnum):
    """What a reader says of a result. COMMENTED: neither accepted nor rejected, but something to note."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    COMMENTED = "commented"


@dataclass(frozen=True, kw_only=True)
class Review:
    """One review of one piece of work; `at` is POSIX seconds.

    `superseded` is True once the same reader has reviewed the same work again; a later comment supersedes no verdict.
    """

    review_id: int
    work_id: str
    study_instance_uid: str
    reader: str
    verdict: Verdict
    comment: str
    at: float
    superseded: bool


_reviews = Table(
    "review",
    metadata,
    Column("review_id", Integer, primary_key=True, autoincrement=True),
    Column("work_id", String(128), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("reader", String(64), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("comment", Text, nullable=False),
    Column("at", Float, nullable=False),
)


class Reviews:
    """The reviews on one state database; rows are only ever added."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(
        self, *, work_id: str, study_instance_uid: str, reader: str, verdict: Verdict, comment: str, at: float
    ) -> None:
        """Add one review.

        Raises
        ------
        UnusableInput
            If a comment or a rejection says nothing, or the comment is too long.
        """
        comment = _written(comment)
        if not comment and verdict is not Verdict.ACCEPTED:
            raise UnusableInput("A comment or a rejection needs words: what did you see?")
        if len(comment) > MAX_COMMENT_CHARACTERS:
            raise UnusableInput(f"A comment may have {MAX_COMMENT_CHARACTERS} characters; this one has {len(comment)}.")
        row = {
            "work_id": work_id,
            "study_instance_uid": study_instance_uid,
            "reader": reader,
            "verdict": verdict.value,
            "comment": comment,
            "at": at,
        }
        with writing(self._engine) as connection:
            connection.execute(insert(_reviews).values(**row))

    def of_work(self, work_id: str) -> list[Review]:
        """The reviews of one piece of work, oldest first."""
        return self._select(_reviews.c.work_id == work_id)

    def of_study(self, study_instance_uid: str) -> list[Review]:
        """The reviews of every result that a study ever had, oldest first."""
        return self._select(_reviews.c.study_instance_uid == study_instance_uid)

    def all(self) -> list[Review]:
        """Every review, oldest first."""
        return self._select()

    def standing(self, work_ids: Iterable[str]) -> dict[str, Verdict]:
        """The last verdict (not a comment) on each of these pieces of work that has one."""
        found = self._select(_reviews.c.work_id.in_(list(work_ids)), _reviews.c.verdict != Verdict.COMMENTED.value)
        return {one.work_id: one.verdict for one in found}

    def _select(self, *where: Any) -> list[Review]:
        query = select(_reviews).where(*where).order_by(_reviews.c.review_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        last = {(row["work_id"], row["reader"]): row["review_id"] for row in rows if row["verdict"] != "commented"}
        return [
            Review(
                **{**row, "verdict": Verdict(row["verdict"])},
                superseded=row["verdict"] != "commented" and last[row["work_id"], row["reader"]] != row["review_id"],
            )
            for row in rows
        ]


def _written(comment: str) -> str:
    """What a person wrote: lines end in one way, and characters that are none (PostgreSQL refuses NUL) are left out."""
    lines = comment.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs")).strip()
