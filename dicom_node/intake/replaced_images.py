"""Images that an Orthanc may have replaced and has not given: remembered beyond a restart, and asked for again.

A comparison by SOP Instance UIDs does not miss them, because the spool has the version before; and once the cursor has
passed their rows of the change log, nothing else says that there is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import sqlalchemy as sa

from dicom_node.database import metadata, writing

_replaced = sa.Table(
    "orthanc_replaced",
    metadata,
    sa.Column("url", sa.String(512), primary_key=True),
    sa.Column("instance_id", sa.String(64), primary_key=True),
    sa.Column("noted_at", sa.Float, nullable=False),
)


class ReplacedImages:
    """Those of one Orthanc, by their Orthanc ids; ask for those `waiting` first.

    Parameters
    ----------
    engine
        State database.
    url
        Which Orthanc.
    clock
        POSIX seconds.
    """

    def __init__(self, engine: sa.Engine, url: str, *, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._url = url
        self._ours = _replaced.c.url == url
        metadata.create_all(engine, tables=[_replaced])
        self._known: set[str] = set()

    def waiting(self, *, since: float) -> frozenset[str]:
        """Those noted since (POSIX seconds); what is older is forgotten, as no comparison comes to it any more."""
        with writing(self._engine) as connection:
            connection.execute(_replaced.delete().where(self._ours, _replaced.c.noted_at < since))
            self._known = set(connection.scalars(sa.select(_replaced.c.instance_id).where(self._ours)))
        return frozenset(self._known)

    def add(self, instance_ids: Iterable[str]) -> None:
        """These were not given; it survives a power cut when this returns."""
        new = sorted(set(instance_ids) - self._known)
        if new:
            now = self._clock()
            with writing(self._engine) as connection:
                connection.execute(
                    _replaced.insert(), [{"url": self._url, "instance_id": one, "noted_at": now} for one in new]
                )
            self._known.update(new)

    def strike(self, instance_ids: Iterable[str]) -> None:
        """These were taken, or Orthanc has them no longer."""
        done = sorted(self._known.intersection(instance_ids))
        if done:
            of_one = _replaced.c.instance_id == sa.bindparam("one")
            with writing(self._engine) as connection:
                connection.execute(_replaced.delete().where(self._ours, of_one), [{"one": one} for one in done])
            self._known.difference_update(done)

    def clear(self) -> None:
        """It is another database now."""
        self.strike(frozenset(self._known))
