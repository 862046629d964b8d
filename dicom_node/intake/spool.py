"""The durable spool: every instance that was acknowledged, as it was sent, whatever happens to this machine.

The order is what makes it durable: write to a temporary name, fsync(file), rename, fsync(directory), commit the
index row, and only then say so. Rows of images that are kept at the same time are committed at once. Their folders are
flushed each by its own thread: the file system makes one flush of flushes that meet, but not of those in a row (376
against 232 images/s of 4 associations). Files are named by our own hash, never by a value from the data set.

The files are the truth and the index can be rebuilt from them: `Spool.sweep` does so after a crash.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, Select, SelectBase
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dicom_node.assembly.completeness import Arrival
from dicom_node.durable_file import make_folders, sync_directory, write_durably
from dicom_node.errors import Refusal, TransientError
from dicom_node.intake.damaged_images import DamagedImages
from dicom_node.intake.erased_images import ErasedImages
from dicom_node.intake.group_commit import GroupCommit
from dicom_node.intake.part10 import file_header, split_file
from dicom_node.intake.spool_index import FileRecord, SpooledInstance, SpoolIndex, StoredKind, StudyActivity
from dicom_node.intake.sweep_report import SweepReport
from dicom_node.intake.wire_check import InstanceIdentity, UnstorableInstance, WireLimits, check_dataset

__all__ = ["ErasedImages", "Spool", "SpooledInstance", "Stored", "StoredKind", "StudyActivity", "SweepReport"]

log = logging.getLogger(__name__)

_TEMPORARY_SUFFIX = ".part"
_DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of one instance. `sha256` is of the data set alone; `path` is the DICOM file that holds it."""

    kind: StoredKind
    identity: InstanceIdentity
    path: Path
    sha256: str


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
        self, directory: Path, engine: Engine, *, min_free_bytes: int = 0, limits: WireLimits | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.min_free_bytes = min_free_bytes
        self.limits = limits or WireLimits()
        self._index = SpoolIndex(engine, self.directory)
        self._damage = DamagedImages(engine)
        self._commit = GroupCommit(self._index.add_all)
        self._token = secrets.token_hex(8)
        self._counter = itertools.count()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # All 256 at once: making a folder when its first image comes would cost that image one more flush.
        make_folders([self.directory / f"{n:02x}" for n in range(256)])

    def store(self, part10: bytes, *, source: str, at: float) -> Stored:
        """Keep the data set of a DICOM file; its own preamble and File Meta Information are not kept.

        Parameters, return value and errors are those of `store_dataset`.
        """
        parts = split_file(part10)
        return self.store_dataset(parts.dataset, parts.transfer_syntax_uid, source=source, at=at)

    def store_dataset(
        self,
        dataset: bytes | bytearray,
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
        known = identity or check_dataset(dataset, transfer_syntax_uid, limits=self.limits)
        sha256 = hashlib.sha256(dataset).hexdigest()
        name = _file_name(sha256, transfer_syntax_uid)
        path = self._index.path_of(name)
        record = FileRecord(
            name=name,
            identity=known,
            transfer_syntax_uid=transfer_syntax_uid,
            sha256=sha256,
            source=source,
            received_at=at,
        )
        with _storage_failures_as_transient():
            # Touched before the row is looked up: an erasure that takes the row away right after it finds that out.
            if _touch(path, at) and self._index.has(name):
                return Stored(kind=StoredKind.DUPLICATE, identity=known, path=path, sha256=sha256)
            self._require_space(len(dataset))
            parts = [file_header(known, transfer_syntax_uid, source=source), dataset]
            with self._commit.coming():
                self._write(path, parts, at)
            kind = self._commit(record)
            if not path.exists():  # an erasure of the same image took it before the row was there; now nobody does
                self._write(path, parts, at)
        return Stored(kind=kind, identity=known, path=path, sha256=sha256)

    def _write(self, path: Path, parts: Sequence[bytes | bytearray], at: float) -> None:
        temporary = f"{self._token}-{next(self._counter)}{_TEMPORARY_SUFFIX}"
        # The same image may come by two associations at once: what one was promised, the other's failure leaves alone.
        write_durably(path, temporary, parts, modified_at=at, is_counted_on=lambda: self._index.has(path.stem))

    def free_bytes(self) -> int:
        """Space left for this process on the disk of the spool."""
        return shutil.disk_usage(self.directory).free

    def instances(self, study_instance_uid: str) -> list[SpooledInstance]:
        """Every kept instance of a study in order of receipt, both contents of a conflict included."""
        return self._index.instances(study_instance_uid)

    def sop_instance_uids(self, study_instance_uid: str) -> set[str]:
        """Of every kept instance of a study."""
        return self._index.sop_instance_uids(study_instance_uid)

    def erased(self, study_instance_uid: str) -> ErasedImages | None:
        """What was erased of a study, and what came of it since; None if nothing was."""
        return self._index.erased(study_instance_uid)

    def set_expected(self, series_instance_uid: str, count: int) -> None:
        """Remember how many instances the source says the series has; asked again, the last answer counts."""
        self._index.set_expected(series_instance_uid, count)

    def set_refused(self, study_instance_uid: str, series_instance_uid: str, refusal: Refusal | None) -> None:
        """Remember why an image of a series cannot be had from its source; None takes that back."""
        self._index.set_refused(study_instance_uid, series_instance_uid, refusal)

    def refusals(self, study_instance_uid: str) -> list[Refusal]:
        """Why images of a study cannot be had: not from their source, or not any more from this node's disk."""
        return self._index.refusals(study_instance_uid) + self._damage.refusals(study_instance_uid)

    def set_damaged_aside(self, study_instance_uid: str) -> list[str]:
        """Read every image of a study to the last byte, and set aside those that are not what was received.

        All of them: a header that the disk damaged may say that its image belongs to another series, which is not used.

        Returns
        -------
        list[str]
            SOP Instance UIDs of what was set aside. The study has changed then, and `refusals` names the images until
            they come again.

        Raises
        ------
        TransientError
            Disk or database do not let us.
        """
        kept = self._index.instances(study_instance_uid)
        with _storage_failures_as_transient():
            damaged = [one for one in kept if not _is_whole(one.path)]
            if damaged:
                self._damage.note(study_instance_uid, damaged)
                for one in damaged:
                    if one.path.exists():
                        self._set_aside(one.path)
                self._index.forget([one.path.stem for one in damaged])
        for one in damaged:
            log.error("event=spool_file_damaged file=%s sop=%s", one.path.name, one.sop_instance_uid)
        return [one.sop_instance_uid for one in damaged]

    def arrivals(self, study_instance_uid: str) -> dict[str, Arrival]:
        """What has arrived of each series of a study; two contents of one SOP Instance UID count once."""
        return self._index.arrivals(study_instance_uid)

    def arrival(self, series_instance_uid: str) -> Arrival | None:
        """What has arrived of one series, in whichever study; None if nothing has."""
        return self._index.arrival(series_instance_uid)

    def studies(
        self, *, but: Select[tuple[str, int]] | None = None, among: SelectBase | None = None
    ) -> list[StudyActivity]:
        """Every study that has instances, the one that changed last at the end.

        `but` selects studies and revisions of them: what stands at that revision is left out, by the database, so
        that a look at what is new does not count the images of all that is old. `among` selects the only studies
        that are asked about: then the look does not even come past the others.
        """
        return self._index.studies(but=but, among=among)

    def study(self, study_instance_uid: str) -> StudyActivity | None:
        """One study, or None if it has no instances."""
        return self._index.study(study_instance_uid)

    def images_by_source(self) -> Mapping[str, int]:
        """How many of the kept images each AE title sent."""
        return self._index.images_by_source()

    def sweep(self) -> SweepReport:
        """Make disk and index agree again after a crash; call it once before receiving starts.

        A store that runs at the same time in another process may fail and be answered "try later"; it loses nothing.
        """
        unseen = self._index.names()
        temporary, others = self._files(unseen)
        for path in temporary:
            path.unlink(missing_ok=True)
        reindexed: list[str] = []
        damaged: list[Path] = []
        without_row = _modified_ns(others)
        erased = self._index.leftovers(without_row)
        for name in erased:
            others[name].unlink(missing_ok=True)
        for name in sorted(without_row.keys() - erased):
            uid = self._reindex(name, others[name])
            if uid is None:
                damaged.append(self._set_aside(others[name]))
            else:
                reindexed.append(uid)
        # Asked for once more by name: an image that was erased and sent again meanwhile has its row and its file back.
        gone = sorted(name for name in unseen if not self._index.path_of(name).exists())
        missing = tuple(self._index.of_names(gone))
        self._index.forget(gone)
        report = SweepReport(
            temporary_removed=len(temporary),
            erased=len(erased),
            reindexed=tuple(reindexed),
            missing=missing,
            damaged=tuple(damaged),
        )
        report.log()
        return report

    def take_out(self, study_instance_uid: str, *, at: float, within: Connection) -> dict[Path, str]:
        """Take a study's images out of the index, as part of a transaction: their files by path, with their names.

        Nobody finds the images from that commit on; their files are `Removals`' to remove.
        """
        names = self._index.take_out(study_instance_uid, at=at, within=within)
        return {self._index.path_of(name): name for name in names}

    def set_aside(self, study_instance_uid: str, *, within: Connection) -> dict[Path, str]:
        """Files of a study's damaged images, with a name that no image has: no image sent since is a use of them."""
        names = self._damage.names(study_instance_uid, within=within)
        return {self.directory / _DAMAGED / f"{name}.dcm": _DAMAGED for name in names}

    def is_here(self, connection: Connection, name: str) -> bool:
        """Whether the file of that name has its row."""
        return self._index.has(name, within=connection)

    def take_back(self, path: Path) -> None:
        """Give a file its row back: it was sent again, and acknowledged, while an erasure took its row away."""
        self._reindex(path.stem, path)

    def _require_space(self, wanted: int) -> None:
        free = self.free_bytes()
        if free - wanted < self.min_free_bytes:
            raise TransientError(f"disk of the spool: {free} bytes free, {self.min_free_bytes} must stay free")

    def _files(self, unseen: set[str]) -> tuple[list[Path], dict[str, Path]]:
        """Temporary files, and other files by name; those whose names are `unseen` are taken out of there instead."""
        temporary: list[Path] = []
        others: dict[str, Path] = {}
        for folder in self.directory.glob("??/"):
            with os.scandir(folder) as files:  # plain text: a path for each of a million files takes ten times as long
                for file in files:
                    name = file.name.removesuffix(".dcm")
                    if name in unseen:
                        unseen.remove(name)
                    elif name.endswith(_TEMPORARY_SUFFIX):
                        temporary.append(folder / file.name)
                    else:
                        others[name] = folder / file.name
        return temporary, others

    def _reindex(self, name: str, path: Path) -> str | None:
        """Give a file its row back: SOP Instance UID, or None when the content is not what the name says."""
        try:
            parts = split_file(path.read_bytes())
            identity = check_dataset(parts.dataset, parts.transfer_syntax_uid, limits=self.limits)
        except UnstorableInstance:
            return None
        sha256 = hashlib.sha256(parts.dataset).hexdigest()
        if _file_name(sha256, parts.transfer_syntax_uid) != name:
            return None
        self._index.add(
            FileRecord(
                name=name,
                identity=identity,
                transfer_syntax_uid=parts.transfer_syntax_uid,
                sha256=sha256,
                source=parts.source,
                received_at=path.stat().st_mtime,
            )
        )
        return identity.sop_instance_uid

    def _set_aside(self, path: Path) -> Path:
        folder = self.directory / _DAMAGED
        folder.mkdir(exist_ok=True, mode=0o700)
        target = folder / path.name
        path.rename(target)
        sync_directory(folder)
        return target


def _file_name(sha256: str, transfer_syntax_uid: str) -> str:
    """Name on disk: a hash of content and encoding, so that a hostile UID can name no path (CVE-2026-56445)."""
    return hashlib.sha256(f"{transfer_syntax_uid}\n{sha256}".encode()).hexdigest()


def _touch(path: Path, at: float) -> bool:
    """Say on the file itself that it was sent at this time; False if it is not there."""
    try:
        os.utime(path, (at, at))
    except FileNotFoundError:
        return False
    return True


def _modified_ns(files: Mapping[str, Path]) -> dict[str, int]:
    """When each file was changed last; an erasure that runs at the same time may have removed some since."""
    found: dict[str, int] = {}
    for name, path in files.items():
        with suppress(FileNotFoundError):
            found[name] = path.stat().st_mtime_ns
    return found


def _is_whole(path: Path) -> bool:
    """Whether a file of the spool still is what its name, a hash of content and encoding, says."""
    try:
        parts = split_file(path.read_bytes())
    except (FileNotFoundError, UnstorableInstance):
        return False
    return _file_name(hashlib.sha256(parts.dataset).hexdigest(), parts.transfer_syntax_uid) == path.stem


@contextmanager
def _storage_failures_as_transient() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"spool on disk: {error.strerror or type(error).__name__}") from error
    except (DBAPIError, PoolTimeoutError) as error:  # whatever it says, damage and a lost connection too
        raise TransientError(f"spool index: {type(error).__name__}") from error
