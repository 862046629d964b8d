"""What is to be told and how far each channel has told it, in the state database: nothing is lost or told twice.

A channel (mail, webhook) has one mark: everything up to that number is sent. Before a message goes out the numbers it
will hold are noted; killed in between, the node sends exactly the same message again under the same identification, by
which the receiver can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Engine, Float, Integer, String, Table, Text, delete, func, insert, select, update

from dicom_node.database import metadata, writing
from dicom_node.notices.notice import Notice, NoticeKind

_notices = Table(
    "notice",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("key", String(200), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("text", Text, nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    sqlite_autoincrement=True,  # a number is never given out again, even after the last ones were removed
)

_channels = Table(
    "notice_channel",
    metadata,
    Column("channel", String(32), primary_key=True),
    Column("sent_up_to", Integer, nullable=False),
    Column("sending_up_to", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("next_try_at", Float, nullable=False),
)

_marks = Table(
    "notice_mark",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class ChannelMark:
    """How far a channel is; `sending_up_to` is above `sent_up_to` while a message is under way."""

    sent_up_to: int
    sending_up_to: int
    failures: int
    next_try_at: float


class NoticeBook:
    """The tables; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, kind: NoticeKind, *, key: str, at: float, text: str, study_instance_uid: str = "") -> None:
        """Write a notice down; one with the same `key` is there already and stays as it is."""
        with writing(self._engine) as connection:
            if connection.execute(select(_notices.c.number).where(_notices.c.key == key)).first() is None:
                connection.execute(
                    insert(_notices).values(
                        key=key, kind=kind.value, at=at, text=text, study_instance_uid=study_instance_uid
                    )
                )

    def open_channel(self, channel: str) -> ChannelMark:
        """The mark of a channel; a channel that is new begins with what comes from now on."""
        with writing(self._engine) as connection:
            row = connection.execute(select(_channels).where(_channels.c.channel == channel)).mappings().first()
            if row is None:
                last = connection.scalar(select(func.max(_notices.c.number))) or 0
                values: dict[str, Any] = {
                    "sent_up_to": last,
                    "sending_up_to": last,
                    "failures": 0,
                    "next_try_at": 0.0,
                }
                connection.execute(insert(_channels).values(channel=channel, **values))
                return ChannelMark(**values)
        return ChannelMark(**{name: row[name] for name in ("sent_up_to", "sending_up_to", "failures", "next_try_at")})

    def waiting(self, mark: ChannelMark) -> list[Notice]:
        """What the next message holds: the one that was under way, else everything that is not sent yet."""
        query = select(_notices).where(_notices.c.number > mark.sent_up_to).order_by(_notices.c.number)
        if mark.sending_up_to > mark.sent_up_to:
            query = query.where(_notices.c.number <= mark.sending_up_to)
        with self._engine.connect() as connection:
            return [_notice(row) for row in connection.execute(query).mappings()]

    def sending(self, channel: str, notices: Sequence[Notice]) -> None:
        """Note which notices go out now."""
        self._change(channel, sending_up_to=notices[-1].number)

    def sent(self, channel: str, notices: Sequence[Notice], *, next_try_at: float) -> None:
        """They are out; the next message goes at `next_try_at` at the earliest."""
        self._change(channel, sent_up_to=notices[-1].number, failures=0, next_try_at=next_try_at)

    def not_sent(self, channel: str, *, failures: int, next_try_at: float) -> None:
        """It did not work for the `failures`-th time; the same message is tried again at `next_try_at`."""
        self._change(channel, failures=failures, next_try_at=next_try_at)

    def close_channels(self, *, but: Sequence[str]) -> None:
        """Forget the marks of channels that are no longer configured: nobody waits for what they have not sent."""
        with writing(self._engine) as connection:
            connection.execute(delete(_channels).where(_channels.c.channel.not_in(list(but))))

    def forget_before(self, at: float) -> int:
        """Remove notices that every channel has sent and that are older than `at`; how many."""
        with writing(self._engine) as connection:
            told = connection.scalar(select(func.min(_channels.c.sent_up_to))) or 0
            old = delete(_notices).where(_notices.c.at < at, _notices.c.number <= told)
            return connection.execute(old).rowcount

    def mark(self, name: str) -> float | None:
        """A number that was kept under this name, or None."""
        with self._engine.connect() as connection:
            value: float | None = connection.scalar(select(_marks.c.value).where(_marks.c.name == name))
        return value

    def set_mark(self, name: str, value: float | None) -> None:
        """Keep a number; None removes it."""
        with writing(self._engine) as connection:
            connection.execute(delete(_marks).where(_marks.c.name == name))
            if value is not None:
                connection.execute(insert(_marks).values(name=name, value=value))

    def _change(self, channel: str, **values: float) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(_channels).where(_channels.c.channel == channel).values(**values))


def _notice(row: Any) -> Notice:
    return Notice(
        number=row["number"],
        kind=NoticeKind(row["kind"]),
        at=row["at"],
        text=row["text"],
        study_instance_uid=row["study_instance_uid"],
    )
