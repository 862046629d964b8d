"""How far we have read in the change log of each Orthanc, kept in the state database."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.database import metadata, writing
from dicom_node.orthanc_client import Change, ChangePage

_cursors = sa.Table(
    "orthanc_cursor",
    metadata,
    sa.Column("url", sa.String(512), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.String(128), nullable=False),
    sa.Column("ignore_before", sa.Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Everything up to change `seq` is in the spool.

    `fingerprint` is that change's, by which we know the database again. Changes older than `ignore_before` (POSIX
    seconds) are passed over: a node that meets an archive for the first time does not fetch its whole past.
    """

    seq: int = 0
    fingerprint: str = ""
    ignore_before: float = 0.0

    def advanced_to(self, change: Change) -> Cursor:
        """The cursor after `change`."""
        return Cursor(seq=change.seq, fingerprint=change.fingerprint, ignore_before=self.ignore_before)

    def contradicted_by(self, page: ChangePage) -> bool:
        """Whether another change now stands at our number, so that this is not the database we read from.

        The change itself may have gone (Orthanc drops the changes of deleted images, and the older of two
        "stable" ones); a gap is no contradiction.
        """
        return any(change.seq == self.seq and change.fingerprint != self.fingerprint for change in page.changes)


class CursorStore:
    """Cursors by URL of the Orthanc."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        metadata.create_all(engine, tables=[_cursors])

    def load(self, url: str) -> Cursor | None:
        """The cursor, or None when we never read from there."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_cursors).where(_cursors.c.url == url)).one_or_none()
        if row is None:
            return None
        return Cursor(seq=row.seq, fingerprint=row.fingerprint, ignore_before=row.ignore_before)

    def save(self, url: str, cursor: Cursor) -> None:
        """Keep the cursor; it survives a power cut when this returns."""
        values = {"seq": cursor.seq, "fingerprint": cursor.fingerprint, "ignore_before": cursor.ignore_before}
        with writing(self._engine) as connection:
            changed = connection.execute(_cursors.update().where(_cursors.c.url == url).values(values))
            if changed.rowcount == 0:
                connection.execute(_cursors.insert().values(url=url, **values))
