"""The index of the spool: one row per kept file, in SQLite or PostgreSQL by the same statements.

The statements are built once: building them for every image cost more than executing them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from dicom_node.assembly.completeness import Arrival
from dicom_node.database import metadata, writing
from dicom_node.errors import Reason, Refusal
from dicom_node.intake.erased_images import ErasedImageIndex, ErasedImages, leftovers, take_out
from dicom_node.intake.spool_rows import erased_table, instance_table, refusal_table, series_table, study_table
from dicom_node.intake.wire_check import InstanceIdentity


class StoredKind(StrEnum):
    """NEW: kept. DUPLICATE: had it already, byte for byte. CONFLICT: kept beside another content of that UID."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, kw_only=True)
class SpooledInstance:
    """One kept instance. `source` is who sent it: calling AE title, or the name of the Orthanc.

    `conflict` marks every instance whose SOP Instance UID has more than one content.
    """

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    path: Path
    source: str
    received_at: float
    conflict: bool


@dataclass(frozen=True, kw_only=True)
class StudyActivity:
    """One study. `revision` grows with every change of what is known about it and never shrinks."""

    study_instance_uid: str
    instances: int
    last_received_at: float
    revision: int


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What the index keeps about one file. `name` is its hash; times are POSIX seconds."""

    name: str
    identity: InstanceIdentity
    transfer_syntax_uid: str
    sha256: str
    source: str
    received_at: float


_of_name = instance_table.c.file_name == sa.bindparam("name")
_of_uid = instance_table.c.sop_instance_uid == sa.bindparam("uid")
_of_study = instance_table.c.study_instance_uid == sa.bindparam("study")
_HAS_NAME = sa.select(instance_table.c.file_name).where(_of_name)
_OF_NAME = sa.select(instance_table).where(_of_name)
_among_uids: sa.BindParameter[str] = sa.bindparam("uids", expanding=True)
_KNOWN_OF_UIDS = sa.union_all(
    *(
        sa.select(
            table.c.sop_instance_uid, table.c.file_name, table.c.study_instance_uid, sa.literal_column(is_here)
        ).where(table.c.sop_instance_uid.in_(_among_uids))
        for table, is_here in ((instance_table, "1"), (erased_table, "0"))
    )
)
_MARK_CONFLICT = instance_table.update().where(_of_uid).values(conflict=True)
_ADD = instance_table.insert()
_LOCK_UID = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:uid, 0))")
_LAST = sa.func.max(instance_table.c.received_at)
_DISTINCT = sa.func.count(sa.distinct(instance_table.c.sop_instance_uid))
_INSTANCES = (
    sa.select(instance_table).where(_of_study).order_by(instance_table.c.received_at, instance_table.c.file_name)
)
_UIDS = sa.select(instance_table.c.sop_instance_uid).where(_of_study)
_BY_SERIES = (
    sa.select(instance_table.c.series_instance_uid, _DISTINCT, _LAST, sa.func.max(series_table.c.expected))
    .outerjoin(series_table, series_table.c.series_instance_uid == instance_table.c.series_instance_uid)
    .group_by(instance_table.c.series_instance_uid)
)
_ARRIVALS = _BY_SERIES.where(_of_study)
_ARRIVAL = _BY_SERIES.where(instance_table.c.series_instance_uid == sa.bindparam("series"))
_STUDIES = (
    sa.select(study_table.c.study_instance_uid, _DISTINCT, _LAST, study_table.c.revision)
    .join(instance_table, instance_table.c.study_instance_uid == study_table.c.study_instance_uid)
    .group_by(study_table.c.study_instance_uid, study_table.c.revision)
    .order_by(_LAST)
)
_STUDY = _STUDIES.where(study_table.c.study_instance_uid == sa.bindparam("study"))


def received_since(at: float) -> sa.Select[str]:
    """A query for the studies of which an image came at `at` (POSIX seconds) or later."""
    return sa.select(instance_table.c.study_instance_uid).where(instance_table.c.received_at >= at)


class SpoolIndex:
    """The rows of a spool whose files have the names `path_of(name)` gives."""

    def __init__(self, engine: sa.Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._on_postgresql = engine.dialect.name == "postgresql"
        # Both dialects spell ON CONFLICT alike; SQLAlchemy's generic INSERT does not know it.
        insert = postgresql.insert if self._on_postgresql else sqlite.insert
        self._one_more_revision = (
            insert(study_table)
            .values(study_instance_uid=sa.bindparam("study"), revision=1)
            .on_conflict_do_update(index_elements=["study_instance_uid"], set_={"revision": study_table.c.revision + 1})
        )
        expecting = insert(series_table)
        self._set_expected = expecting.on_conflict_do_update(
            index_elements=["series_instance_uid"], set_={"expected": expecting.excluded.expected}
        )
        metadata.create_all(engine, tables=[instance_table, series_table, erased_table, refusal_table, study_table])

    def path_of(self, name: str) -> Path:
        """Where the file of that name lies."""
        return self._directory / name[:2] / f"{name}.dcm"

    def has(self, name: str, *, within: sa.Connection | None = None) -> bool:
        """Whether a file of that name has its row."""
        with self._engine.connect() if within is None else nullcontext(within) as connection:
            return connection.scalar(_HAS_NAME, {"name": name}) is not None

    def add(self, record: FileRecord) -> StoredKind:
        """Commit the row of one file; see `add_all`."""
        return self.add_all([record])[0]

    def add_all(self, records: Sequence[FileRecord]) -> list[StoredKind]:
        """Commit the rows of files that are already durable, in one transaction; what became of each, in order.

        Every content of a UID that has several is marked. A content that was erased counts: another one under its UID
        is a conflict, the same one again is none. However many rows a study gets at once, that is one change of it.
        """
        uids = sorted({record.identity.sop_instance_uid for record in records})
        with writing(self._engine) as connection:
            if self._on_postgresql:
                # One transaction at a time decides about a UID; SQLite has one writer at a time anyway. In the order
                # of the UIDs, so that two of them never wait for each other.
                for uid in uids:
                    connection.execute(_LOCK_UID, {"uid": uid})
            found = _Found(connection.execute(_KNOWN_OF_UIDS, {"uids": uids}))
            kinds = [found.add(record) for record in records]
            if found.rows:
                connection.execute(_ADD, found.rows)
            for uid in sorted(found.in_conflict):
                connection.execute(_MARK_CONFLICT, {"uid": uid})
            self._count_revision(connection, found.changed)
        return kinds

    def set_expected(self, series_instance_uid: str, count: int) -> None:
        """Remember how many instances the source says the series has; no revision when it says the same again."""
        of_series = instance_table.c.series_instance_uid == series_instance_uid
        known = sa.select(series_table.c.expected).where(series_table.c.series_instance_uid == series_instance_uid)
        studies = sa.select(instance_table.c.study_instance_uid).where(of_series).distinct()
        with writing(self._engine) as connection:
            if connection.scalar(known) == count:
                return
            connection.execute(self._set_expected, {"series_instance_uid": series_instance_uid, "expected": count})
            self._count_revision(connection, connection.scalars(studies).all())

    def set_refused(self, study_instance_uid: str, series_instance_uid: str, refusal: Refusal | None) -> None:
        """Remember why an image of the series cannot be had, or that all can; no revision when that is known."""
        of_series = refusal_table.c.series_instance_uid == series_instance_uid
        known = sa.select(refusal_table.c.reason, refusal_table.c.detail).where(of_series)
        with writing(self._engine) as connection:
            row = connection.execute(known).one_or_none()
            if row == (None if refusal is None else (refusal.reason.value, refusal.detail)):
                return
            connection.execute(refusal_table.delete().where(of_series))
            if refusal is not None:
                connection.execute(
                    refusal_table.insert().values(
                        series_instance_uid=series_instance_uid,
                        study_instance_uid=study_instance_uid,
                        reason=refusal.reason.value,
                        detail=refusal.detail,
                    )
                )
            self._count_revision(connection, [study_instance_uid])

    def refusals(self, study_instance_uid: str) -> list[Refusal]:
        """At most one of each series of a study, in the order of the series' UIDs."""
        of_study = refusal_table.c.study_instance_uid == study_instance_uid
        query = sa.select(refusal_table).where(of_study).order_by(refusal_table.c.series_instance_uid)
        with self._engine.connect() as connection:
            return [
                Refusal(reason=Reason(row.reason), detail=row.detail, series_instance_uid=row.series_instance_uid)
                for row in connection.execute(query)
            ]

    def instances(self, study_instance_uid: str) -> list[SpooledInstance]:
        """Every row of a study in order of receipt."""
        with self._engine.connect() as connection:
            return [self._instance(row) for row in connection.execute(_INSTANCES, {"study": study_instance_uid})]

    def sop_instance_uids(self, study_instance_uid: str) -> set[str]:
        """The UIDs that a study has rows of: a tenth of the time that `instances` takes."""
        with self._engine.connect() as connection:
            return set(connection.scalars(_UIDS, {"study": study_instance_uid}))

    def arrivals(self, study_instance_uid: str) -> dict[str, Arrival]:
        """Counts and times per series of a study."""
        with self._engine.connect() as connection:
            return {row[0]: _arrival(*row) for row in connection.execute(_ARRIVALS, {"study": study_instance_uid})}

    def arrival(self, series_instance_uid: str) -> Arrival | None:
        """Count and time of one series, or None if it has no rows."""
        with self._engine.connect() as connection:
            row = connection.execute(_ARRIVAL, {"series": series_instance_uid}).one_or_none()
        return None if row is None else _arrival(*row)

    def studies(
        self, *, but: sa.Select[tuple[str, int]] | None = None, among: sa.SelectBase | None = None
    ) -> list[StudyActivity]:
        """Every study that has rows, the one that changed last at the end; without those `but` names at a revision.

        With `among`, only studies whose UIDs this query gives: what the others have is not even looked at.
        """
        query = _STUDIES
        if among is not None:
            query = query.where(study_table.c.study_instance_uid.in_(among))
        if but is not None:
            done = but.subquery()
            at_this_revision = (
                done.c[0] == study_table.c.study_instance_uid,
                done.c[1] == study_table.c.revision,
            )
            query = query.where(~sa.exists().where(*at_this_revision))
        with self._engine.connect() as connection:
            return [_activity(*row) for row in connection.execute(query)]

    def study(self, study_instance_uid: str) -> StudyActivity | None:
        """One study, or None if it has no rows."""
        with self._engine.connect() as connection:
            row = connection.execute(_STUDY, {"study": study_instance_uid}).one_or_none()
        return None if row is None else _activity(*row)

    def images_by_source(self) -> Mapping[str, int]:
        """How many of the kept images each AE title sent; those read from an Orthanc stand under its name."""
        counted = sa.select(instance_table.c.source, sa.func.count()).group_by(instance_table.c.source)
        with self._engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(counted)}

    def names(self) -> set[str]:
        """The names of all files that have a row: of a million of them no more than that is read."""
        with self._engine.connect() as connection:
            return set(connection.scalars(sa.select(instance_table.c.file_name)))

    def of_names(self, names: Sequence[str]) -> list[SpooledInstance]:
        """The rows of these files, in this order."""
        with self._engine.connect() as connection:
            rows = (connection.execute(_OF_NAME, {"name": name}).one_or_none() for name in names)
            return [self._instance(row) for row in rows if row is not None]

    def forget(self, names: Sequence[str]) -> None:
        """Take out the rows of files that are gone, and count that as a change of their studies."""
        with writing(self._engine) as connection:
            for name in names:
                of_name = instance_table.c.file_name == name
                study = connection.scalar(sa.select(instance_table.c.study_instance_uid).where(of_name))
                if study is not None:
                    connection.execute(instance_table.delete().where(of_name))
                    self._count_revision(connection, [study])

    def take_out(self, study_instance_uid: str, *, at: float, within: sa.Connection) -> list[str]:
        """Take the images of a study out, and remember that they were here; the names of their files."""
        return take_out(within, study_instance_uid, at=at)

    def erased(self, study_instance_uid: str) -> ErasedImages | None:
        """What was erased of a study; None if nothing was."""
        return ErasedImageIndex(self._engine).of_study(study_instance_uid)

    def leftovers(self, files: Mapping[str, int]) -> set[str]:
        """Of files without a row, with the time (ns) of their last change: the names of images that were erased."""
        with self._engine.connect() as connection:
            return leftovers(connection, files)

    def _count_revision(self, connection: sa.Connection, studies: Iterable[str]) -> None:
        """One more change of each study; in the order of the UIDs, so that two writers never wait for each other."""
        for study in sorted(studies):
            connection.execute(self._one_more_revision, {"study": study})

    def _instance(self, row: sa.Row[tuple[object, ...]]) -> SpooledInstance:
        return SpooledInstance(
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            sop_class_uid=row.sop_class_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            sha256=row.sha256,
            path=self.path_of(row.file_name),
            source=row.source,
            received_at=row.received_at,
            conflict=row.conflict,
        )


class _Found:
    """What is known of some SOP Instance UIDs, and what new records change of it.

    `rows` are to be inserted, every row of the UIDs `in_conflict` is to be marked, and the studies `changed` count one
    more revision.
    """

    def __init__(self, known: Iterable[Sequence[Any]]) -> None:
        self.rows: list[dict[str, object]] = []
        self.in_conflict: set[str] = set()
        self.changed: set[str] = set()
        self._here: dict[str, dict[str, str]] = {}
        self._erased: dict[str, set[str]] = {}
        for uid, name, study, is_here in known:
            if is_here:
                self._here.setdefault(uid, {})[name] = study
            else:
                self._erased.setdefault(uid, set()).add(name)

    def add(self, record: FileRecord) -> StoredKind:
        """Decide about one record, as if those before it had been added already."""
        uid, study = record.identity.sop_instance_uid, record.identity.study_instance_uid
        others = self._here.setdefault(uid, {})
        if record.name in others:
            return StoredKind.DUPLICATE
        conflict = bool(others) or bool(self._erased.get(uid, set()) - {record.name})
        self.rows.append(_row(record, conflict=conflict))
        if others:
            self.in_conflict.add(uid)
        self.changed.update(others.values(), (study,))
        others[record.name] = study
        return StoredKind.CONFLICT if conflict else StoredKind.NEW


def _arrival(series: str, received: int, last: float, expected: int | None) -> Arrival:
    return Arrival(series_instance_uid=series, received=received, last_received_at=last, expected=expected)


def _activity(study: str, count: int, at: float, revision: int) -> StudyActivity:
    return StudyActivity(study_instance_uid=study, instances=count, last_received_at=at, revision=revision)


def _row(record: FileRecord, *, conflict: bool) -> dict[str, object]:
    return {
        "file_name": record.name,
        "sop_instance_uid": record.identity.sop_instance_uid,
        "series_instance_uid": record.identity.series_instance_uid,
        "study_instance_uid": record.identity.study_instance_uid,
        "sop_class_uid": record.identity.sop_class_uid,
        "transfer_syntax_uid": record.transfer_syntax_uid,
        "sha256": record.sha256,
        "source": record.source,
        "received_at": record.received_at,
        "conflict": conflict,
    }
