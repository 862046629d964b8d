"""Files that are to go: listed in the transaction that takes them out of use, removed after it, then struck off.

Row first, file second. A kill between the two leaves a file that nobody uses and that stands on this list, and the next
round removes it. The other way round it would leave a row without its file: an image that seems to be here and is not.

What somebody takes into use again in between stays: the same image may be sent again, or the same result be made again,
at any moment. Whoever does so either has its row by then, or has touched the file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
)

from dicom_node.database import metadata, writing
from dicom_node.durable_file import sync_directory

AT_A_TIME: Final = 32
"""Files removed under one write lock, which receiving waits for: some milliseconds."""

ASIDE: Final = ".unfinished-"
"""A folder takes this name before it is emptied, so that nobody finds half of it; the shelf's sweep knows the name."""

removal_rows = Table(
    "file_removal",
    metadata,
    Column("path", String(300), primary_key=True),
    Column("known_as", String(64), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("asked_at", Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Room:
    """How one folder below the state folder takes a file into use again.

    `in_use`: whether the database says so of the file known under this name. `touched`: told of a file that somebody
    has touched since it was listed, and that stays for this reason.
    """

    in_use: Callable[[Connection, str], bool]
    touched: Callable[[Path], None] = lambda _path: None


@dataclass(frozen=True, kw_only=True)
class Removed:
    """How much a call of `carry_out` removed."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(files=self.files + other.files, bytes=self.bytes + other.bytes)


class Removals:
    """The list on one state database, of files and folders below `state_dir`.

    Parameters
    ----------
    rooms
        By the first folder of a path: "spool", "outbox", "views".
    """

    def __init__(self, engine: Engine, state_dir: Path, rooms: Mapping[str, Room]) -> None:
        self._engine = engine
        self._state_dir = state_dir
        self._rooms = rooms

    def add(self, files: Mapping[Path, str], study_instance_uid: str, *, at: float, within: Connection) -> None:
        """List files or folders by path and the name they are known as; those that are not there are left out."""
        rows = []
        for path, known_as in files.items():
            try:
                modified_ns = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            rows.append(
                {
                    "path": str(path.relative_to(self._state_dir)),
                    "known_as": known_as,
                    "study_instance_uid": study_instance_uid,
                    "modified_ns": modified_ns,
                    "asked_at": at,
                }
            )
        if rows:
            # Listed already, by an erasure that was cut off before a study came again: what is true now counts.
            listed = [{"listed": row["path"]} for row in rows]
            within.execute(delete(removal_rows).where(removal_rows.c.path == bindparam("listed")), listed)
            within.execute(insert(removal_rows), rows)

    def waiting(self) -> int:
        """How many files are still to go."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(removal_rows)) or 0

    def carry_out(self) -> Removed:
        """Remove everything on the list, a few files at a time; killed at any point, the next call goes on.

        Raises
        ------
        OSError
            If the disk does not let a file go; it stays on the list.
        """
        done = Removed()
        while True:
            with self._engine.connect() as connection:
                paths = connection.scalars(select(removal_rows.c.path).order_by(removal_rows.c.path).limit(AT_A_TIME))
                listed = list(paths)
            if not listed:
                return done
            done += self._take(listed)

    def _take(self, listed: Sequence[str]) -> Removed:
        """Remove these, make that durable, and only then strike them off.

        The write lock is held while it is looked whether a file is used again and while it goes: who takes it into use
        commits a row before that, and then it stays, or after it, and then finds it gone.
        """
        done, touched = Removed(), []
        of_these = removal_rows.c.path.in_(listed)
        with writing(self._engine) as connection:
            for row in connection.execute(select(removal_rows).where(of_these).with_for_update()).all():
                path, room = self._state_dir / row.path, self._room(row.path)
                if room.in_use(connection, row.known_as):
                    continue
                removed = _remove(path, row.modified_ns)
                if removed is None:
                    touched.append(path)
                else:
                    done += removed
        _sync_folders({(self._state_dir / one).parent for one in listed})
        for path in touched:
            self._room(str(path.relative_to(self._state_dir))).touched(path)
        with writing(self._engine) as connection:
            connection.execute(delete(removal_rows).where(of_these))
        return done

    def _room(self, path: str) -> Room:
        return self._rooms[path.partition("/")[0]]


def _remove(path: Path, modified_ns: int) -> Removed | None:
    """Remove a file or folder, if it is there; None if somebody has touched it since it was listed."""
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        status = path.stat()
    except FileNotFoundError:
        return _emptied(aside)  # a folder over which the last round was killed
    if status.st_mtime_ns != modified_ns:
        return None
    if path.is_dir():
        path.rename(aside)
        return _emptied(aside)
    path.unlink(missing_ok=True)
    return Removed(files=1, bytes=status.st_size)


def _emptied(folder: Path) -> Removed:
    """Remove a folder with all that is in it, if it is there."""
    if not folder.is_dir():
        return Removed()
    sizes = [one.stat().st_size for one in folder.rglob("*") if one.is_file()]
    shutil.rmtree(folder)
    return Removed(files=len(sizes), bytes=sum(sizes))


def _sync_folders(folders: Iterable[Path]) -> None:
    """Without this a power cut could bring back a file whose row on the list is gone already."""
    for folder in folders:
        if folder.is_dir():
            sync_directory(folder)
