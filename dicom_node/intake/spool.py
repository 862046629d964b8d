"""The durable spool: every instance that was acknowledged, as it was sent, whatever happens to this machine.

The order is what makes it durable: write to a temporary name, fsync(file), rename, fsync(directory), commit the
index row, and only then say so. Files are named by our own hash, never by a value from the data set.

The files are the truth and the index can be rebuilt from them: `Spool.sweep` does so after a crash.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.assembly.completeness import Arrival
from dicom_node.database import metadata, writing
from dicom_node.errors import TransientError
from dicom_node.intake.durable_file import sync_directory, write_durably
from dicom_node.intake.part10 import file_header, split_file
from dicom_node.intake.wire_check import InstanceIdentity, UnstorableInstance, WireLimits, check_dataset

log = logging.getLogger(__name__)

_SUFFIX = ".dcm"
_TEMPORARY_SUFFIX = ".part"
_DAMAGED = "damaged"

instance_table = sa.Table(
    "spool_instance",
    metadata,
    sa.Column("file_name", sa.String(64), primary_key=True),
    sa.Column("sop_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("series_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("study_instance_uid", sa.String(64), nullable=False, index=True),
    sa.Column("sop_class_uid", sa.String(64), nullable=False),
    sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("conflict", sa.Boolean, nullable=False),
)
series_table = sa.Table(
    "spool_series",
    metadata,
    sa.Column("series_instance_uid", sa.String(64), primary_key=True),
    sa.Column("expected", sa.Integer, nullable=False),
)
study_table = sa.Table(
    "spool_study",
    metadata,
    sa.Column("study_instance_uid", sa.String(64), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
)


class StoredKind(StrEnum):
    """NEW: kept. DUPLICATE: had it already, byte for byte. CONFLICT: kept beside another content of that UID."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of one instance. `sha256` is of the data set alone; `path` is the DICOM file that holds it."""

    kind: StoredKind
    identity: InstanceIdentity
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SpooledInstance:
    """One kept instance. `conflict` marks every instance whose SOP Instance UID has more than one content."""

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    path: Path
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
class SweepReport:
    """What the start-up sweep found and put right.

    `reindexed`: SOP Instance UIDs of files whose row was missing. `missing`: rows whose file was gone; they were
    taken out, so that the study is no longer complete. `damaged`: files set aside because their content is not what
    their name says.
    """

    temporary_removed: int
    reindexed: tuple[str, ...]
    missing: tuple[SpooledInstance, ...]
    damaged: tuple[Path, ...]


class Spool:
    """Instances on disk under `directory`, their index in the database of `engine`.

    Safe for many threads, and for several processes on one directory and database.

    Parameters
    ----------
    directory
        Folder of the files; made when missing.
    engine
        From `dicom_node.database.open_database`.
    min_free_bytes
        Free space that `store` leaves on the disk of `directory`: below it, it raises before damage is done.
    limits
        Bounds on nesting and number of elements.
    """

    def __init__(
        self, directory: Path, engine: sa.Engine, *, min_free_bytes: int = 0, limits: WireLimits | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.min_free_bytes = min_free_bytes
        self._engine = engine
        self._limits = limits or WireLimits()
        self._token = secrets.token_hex(8)
        self._counter = itertools.count()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        metadata.create_all(engine, tables=[instance_table, series_table, study_table])

    def store(self, part10: bytes, *, source: str, at: float) -> Stored:
        """Keep the data set of a DICOM file; its own preamble and File Meta Information are not kept.

        Parameters, return value and errors are those of `store_dataset`.
        """
        parts = split_file(part10)
        return self.store_dataset(parts.dataset, parts.transfer_syntax_uid, source=source, at=at)

    def store_dataset(
        self,
        dataset: bytes,
        transfer_syntax_uid: str,
        *,
        source: str,
        at: float,
        identity: InstanceIdentity | None = None,
    ) -> Stored:
        """Keep one encoded data set; when this returns, it survives a power cut.

        Parameters
        ----------
        dataset
            Encoded data set, kept byte for byte.
        transfer_syntax_uid
            How it is encoded.
        source
            Who sent it: calling AE title, or the name of the Orthanc.
        at
            Time of receipt, POSIX seconds.
        identity
            What `check_dataset` said about these bytes, when it was asked before.

        Raises
        ------
        UnstorableInstance
            The data set cannot be read to its end or named.
        TransientError
            Disk full, below the watermark, read-only or failing; database busy or gone. Nothing is promised then.
        """
        known = identity or check_dataset(dataset, transfer_syntax_uid, limits=self._limits)
        sha256 = hashlib.sha256(dataset).hexdigest()
        name = _file_name(sha256, transfer_syntax_uid)
        path = self._path(name)
        kept = Stored(kind=StoredKind.DUPLICATE, identity=known, path=path, sha256=sha256)
        with _storage_failures_as_transient():
            if path.exists() and self._has_row(name):
                return kept
            self._require_space(len(dataset))
            header = file_header(known, transfer_syntax_uid, source=source)
            write_durably(path, f"{self._token}-{next(self._counter)}{_TEMPORARY_SUFFIX}", [header, dataset])
            kind = self._index(name, known, transfer_syntax_uid, sha256=sha256, source=source, at=at)
        return Stored(kind=kind, identity=known, path=path, sha256=sha256)

    def free_bytes(self) -> int:
        """Space left for this process on the disk of the spool."""
        return shutil.disk_usage(self.directory).free

    def instances(self, study_instance_uid: str) -> list[SpooledInstance]:
        """Every kept instance of a study in order of receipt, both contents of a conflict included."""
        query = (
            sa.select(instance_table)
            .where(instance_table.c.study_instance_uid == study_instance_uid)
            .order_by(instance_table.c.received_at, instance_table.c.file_name)
        )
        with self._engine.connect() as connection:
            return [self._instance(row) for row in connection.execute(query)]

    def set_expected(self, series_instance_uid: str, count: int) -> None:
        """Remember how many instances the source says the series has; asked again, the last answer counts."""
        with writing(self._engine) as connection:
            known = connection.scalar(
                sa.select(series_table.c.expected).where(series_table.c.series_instance_uid == series_instance_uid)
            )
            if known == count:
                return
            insert = _insert(self._engine, series_table).values(series_instance_uid=series_instance_uid, expected=count)
            connection.execute(
                insert.on_conflict_do_update(index_elements=["series_instance_uid"], set_={"expected": count})
            )
            studies = sa.select(instance_table.c.study_instance_uid).where(
                instance_table.c.series_instance_uid == series_instance_uid
            )
            self._count_revision(connection, connection.scalars(studies.distinct()))

    def arrivals(self, study_instance_uid: str) -> dict[str, Arrival]:
        """What has arrived of each series of a study; two contents of one SOP Instance UID count once."""
        query = (
            sa.select(
                instance_table.c.series_instance_uid,
                sa.func.count(sa.distinct(instance_table.c.sop_instance_uid)),
                sa.func.max(instance_table.c.received_at),
                sa.func.max(series_table.c.expected),
            )
            .outerjoin(series_table, series_table.c.series_instance_uid == instance_table.c.series_instance_uid)
            .where(instance_table.c.study_instance_uid == study_instance_uid)
            .group_by(instance_table.c.series_instance_uid)
        )
        with self._engine.connect() as connection:
            return {
                series: Arrival(series_instance_uid=series, received=received, last_received_at=last, expected=expected)
                for series, received, last, expected in connection.execute(query)
            }

    def studies(self) -> list[StudyActivity]:
        """Every study that has instances, the one that changed last at the end."""
        last = sa.func.max(instance_table.c.received_at)
        query = (
            sa.select(
                study_table.c.study_instance_uid,
                sa.func.count(sa.distinct(instance_table.c.sop_instance_uid)),
                last,
                study_table.c.revision,
            )
            .join(instance_table, instance_table.c.study_instance_uid == study_table.c.study_instance_uid)
            .group_by(study_table.c.study_instance_uid, study_table.c.revision)
            .order_by(last)
        )
        with self._engine.connect() as connection:
            return [
                StudyActivity(study_instance_uid=study, instances=count, last_received_at=at, revision=revision)
                for study, count, at, revision in connection.execute(query)
            ]

    def sweep(self) -> SweepReport:
        """Make disk and index agree again after a crash; call it once before receiving starts.

        A store that runs at the same time in another process may fail and be answered "try later"; it loses nothing.
        """
        with self._engine.connect() as connection:
            rows = {row.file_name: row for row in connection.execute(sa.select(instance_table))}
        temporary, files = self._files()
        for path in temporary:
            path.unlink(missing_ok=True)
        reindexed: list[str] = []
        damaged: list[Path] = []
        for name in sorted(files.keys() - rows.keys()):
            uid = self._reindex(name, files[name])
            if uid is None:
                damaged.append(self._set_aside(files[name]))
            else:
                reindexed.append(uid)
        missing = [self._instance(rows[name]) for name in sorted(rows.keys() - files.keys())]
        self._forget(missing)
        report = SweepReport(
            temporary_removed=len(temporary),
            reindexed=tuple(reindexed),
            missing=tuple(missing),
            damaged=tuple(damaged),
        )
        _log_sweep(report)
        return report

    def _path(self, name: str) -> Path:
        return self.directory / name[:2] / f"{name}{_SUFFIX}"

    def _instance(self, row: sa.Row[tuple[object, ...]]) -> SpooledInstance:
        return SpooledInstance(
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            sop_class_uid=row.sop_class_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            sha256=row.sha256,
            path=self._path(row.file_name),
            received_at=row.received_at,
            conflict=row.conflict,
        )

    def _has_row(self, name: str) -> bool:
        query = sa.select(instance_table.c.file_name).where(instance_table.c.file_name == name)
        with self._engine.connect() as connection:
            return connection.scalar(query) is not None

    def _require_space(self, wanted: int) -> None:
        free = self.free_bytes()
        if free - wanted < self.min_free_bytes:
            raise TransientError(f"disk of the spool: {free} bytes free, {self.min_free_bytes} must stay free")

    def _index(
        self, name: str, identity: InstanceIdentity, syntax: str, *, sha256: str, source: str, at: float
    ) -> StoredKind:
        """Commit the row of a file that is already durable, and mark every content of a UID that has several."""
        uid = identity.sop_instance_uid
        same_uid = instance_table.c.sop_instance_uid == uid
        with writing(self._engine) as connection:
            _lock_uid(connection, uid)
            others = connection.execute(
                sa.select(instance_table.c.file_name, instance_table.c.study_instance_uid).where(same_uid)
            ).all()
            if any(other.file_name == name for other in others):
                return StoredKind.DUPLICATE
            connection.execute(
                instance_table.insert().values(
                    file_name=name,
                    sop_instance_uid=uid,
                    series_instance_uid=identity.series_instance_uid,
                    study_instance_uid=identity.study_instance_uid,
                    sop_class_uid=identity.sop_class_uid,
                    transfer_syntax_uid=syntax,
                    sha256=sha256,
                    source=source,
                    received_at=at,
                    conflict=bool(others),
                )
            )
            if others:
                connection.execute(instance_table.update().where(same_uid).values(conflict=True))
            studies = {other.study_instance_uid for other in others} | {identity.study_instance_uid}
            self._count_revision(connection, studies)
        return StoredKind.CONFLICT if others else StoredKind.NEW

    def _count_revision(self, connection: sa.Connection, studies: Iterable[str]) -> None:
        """One more change of each study; in the order of the UIDs, so that two writers never wait for each other."""
        for study in sorted(studies):
            insert = _insert(self._engine, study_table).values(study_instance_uid=study, revision=1)
            one_more = {"revision": study_table.c.revision + 1}
            connection.execute(insert.on_conflict_do_update(index_elements=["study_instance_uid"], set_=one_more))

    def _files(self) -> tuple[list[Path], dict[str, Path]]:
        """Temporary files, and instance files by name."""
        temporary: list[Path] = []
        files: dict[str, Path] = {}
        for path in self.directory.glob("??/*"):
            if path.suffix == _TEMPORARY_SUFFIX:
                temporary.append(path)
            else:
                files[path.stem] = path
        return temporary, files

    def _reindex(self, name: str, path: Path) -> str | None:
        """Give a file its row back: SOP Instance UID, or None when the content is not what the name says."""
        try:
            parts = split_file(path.read_bytes())
            identity = check_dataset(parts.dataset, parts.transfer_syntax_uid, limits=self._limits)
        except UnstorableInstance:
            return None
        sha256 = hashlib.sha256(parts.dataset).hexdigest()
        if _file_name(sha256, parts.transfer_syntax_uid) != name:
            return None
        at = path.stat().st_mtime
        self._index(name, identity, parts.transfer_syntax_uid, sha256=sha256, source=parts.source, at=at)
        return identity.sop_instance_uid

    def _set_aside(self, path: Path) -> Path:
        folder = self.directory / _DAMAGED
        folder.mkdir(exist_ok=True, mode=0o700)
        target = folder / path.name
        path.rename(target)
        sync_directory(folder)
        return target

    def _forget(self, missing: Sequence[SpooledInstance]) -> None:
        if not missing:
            return
        names = [instance.path.stem for instance in missing]
        with writing(self._engine) as connection:
            gone = instance_table.c.file_name.in_(names)
            studies = connection.scalars(sa.select(instance_table.c.study_instance_uid).where(gone).distinct()).all()
            connection.execute(instance_table.delete().where(gone))
            self._count_revision(connection, studies)


def _file_name(sha256: str, transfer_syntax_uid: str) -> str:
    """Name on disk: a hash of content and encoding, so that a hostile UID can name no path (CVE-2026-56445)."""
    return hashlib.sha256(f"{transfer_syntax_uid}\n{sha256}".encode()).hexdigest()


def _insert(engine: sa.Engine, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT; SQLite and PostgreSQL spell it alike, the generic one lacks it."""
    return postgresql.insert(table) if engine.dialect.name == "postgresql" else sqlite.insert(table)


def _lock_uid(connection: sa.Connection, uid: str) -> None:
    """Let one transaction at a time decide about a SOP Instance UID; SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:uid, 0))"), {"uid": uid})


@contextmanager
def _storage_failures_as_transient() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"spool on disk: {error.strerror or type(error).__name__}") from error
    except (OperationalError, PoolTimeoutError) as error:
        raise TransientError(f"spool index: {type(error).__name__}") from error


def _log_sweep(report: SweepReport) -> None:
    for instance in report.missing:
        log.error("event=spool_file_missing sop=%s sha256=%s", instance.sop_instance_uid, instance.sha256)
    for path in report.damaged:
        log.error("event=spool_file_damaged file=%s", path.name)
    log.info(
        "event=spool_swept temporary_removed=%d reindexed=%d missing=%d damaged=%d",
        report.temporary_removed,
        len(report.reindexed),
        len(report.missing),
        len(report.damaged),
    )
