"""The trail on disk: one file a day (UTC), one JSON line an event, each line chained to the one before by SHA-256.

JSON lines and not the XML of PS3.15 A.5 itself: a line is a record that `grep` reads and whose bytes can be hashed
without an agreement on white space, and every field that the XML needs is in it under its own name.

Order of writing, under a lock that holds for threads and processes: the line (fsync), then the head (sequence and
digest of the last line, fsync). So the head never runs ahead of the lines: a line that the head names and that is not
there was taken away. What a chain cannot show is somebody who may write here and makes all of it anew; against
that, copies have to leave the machine.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from dicom_node.audit.ended_days import stated, statement
from dicom_node.audit.entry import (
    AuditEntry,
    NotAnEntry,
    canonical,
    digest_of,
    ends_with_newline,
    first_entry,
    last_entry,
    parsed,
    sequence_of,
)
from dicom_node.audit.events import AuditAction, AuditEvent, AuditOutcome
from dicom_node.durable_file import sync_directory
from dicom_node.errors import TransientError

FIRST_PREVIOUS: Final = "0" * 64
"""What the first entry of all is chained to."""

MAX_TEXT_CHARACTERS: Final = 1000
"""Longer texts are cut, so that one caller cannot fill the disk and the end of a file always holds a whole entry."""

_HEAD_NAME: Final = "head"
_HEAD_FORM: Final = re.compile(rb"(\d{12}) ([0-9a-f]{64})\n")
_DAY_FORM: Final = re.compile(r"audit-(\d{4}-\d{2}-\d{2})\.jsonl")


@dataclass(frozen=True, kw_only=True)
class AuditProblem:
    """Something that `verify` found: where (file and line, or the head), and a sentence about it."""

    where: str
    sentence: str


class AuditTrail:
    """Appends to, reads and checks the trail in one folder. Safe with several threads and processes.

    Parameters
    ----------
    folder
        Where the files lie; made (readable by its owner only) at the first entry.
    source
        Our AE title, the audit source of every entry.
    clock
        POSIX seconds.
    """

    def __init__(self, folder: Path, *, source: str = "HYDROPS", clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._source = source
        self._clock = clock

    def record(
        self,
        action: AuditAction,
        *,
        actor: str,
        study_instance_uid: str = "",
        detail: str = "",
        outcome: AuditOutcome = AuditOutcome.SUCCESS,
        patient_id: str = "",
        address: str = "",
        peer: str = "",
        query: str = "",
    ) -> None:
        """Append one event; when this returns it survives a power cut. The parameters are those of `AuditEvent`.

        Raises
        ------
        TransientError
            If the disk does not take it.
        """
        event = AuditEvent(
            action=action,
            actor=actor[:MAX_TEXT_CHARACTERS],
            at=self._clock(),
            outcome=outcome,
            study_instance_uid=study_instance_uid[:MAX_TEXT_CHARACTERS],
            patient_id=patient_id[:MAX_TEXT_CHARACTERS],
            address=address[:MAX_TEXT_CHARACTERS],
            peer=peer[:MAX_TEXT_CHARACTERS],
            detail=detail[:MAX_TEXT_CHARACTERS],
            query=query[:MAX_TEXT_CHARACTERS],
        )
        try:
            with self._locked_head() as head:
                self._add(head, event)
        except OSError as error:
            raise TransientError(f"audit trail on disk: {error.strerror}") from error

    def erase_before(self, at: float, *, up_to: int | None = None) -> int:
        """Erase the files of the days (UTC) before `at`; how many. The newest file always stays.

        With `up_to`, so does every file that holds a later entry than the one of that number.

        The statement about it is written first. Killed in between, the trail holds entries of which it says that they
        are gone; the next call erases them. Nothing is erased while the first entry that would stay cannot be read:
        the trail would begin with nothing to compare.

        Raises
        ------
        TransientError
            If the disk does not let it.
        """
        last_day = datetime.fromtimestamp(at, UTC).date()
        try:
            with self._locked_head() as head:
                files = self._day_files()
                old = [path for path in files[:-1] if _day_of(path) < last_day]
                while up_to is not None and old and not _ends_by(files[len(old)], up_to):
                    del old[-1]
                first = first_entry(files[len(old)]) if old else None
                if first is None:
                    return 0
                detail = statement(first.sequence - 1, first.previous)
                action = AuditAction.AUDIT_ENTRIES_ERASED
                self._add(head, AuditEvent(action=action, actor=self._source, at=self._clock(), detail=detail))
                for path in old:
                    path.unlink(missing_ok=True)
                sync_directory(self._folder)
        except OSError as error:
            raise TransientError(f"audit trail on disk: {error.strerror}") from error
        return len(old)

    def entries(self) -> Iterator[AuditEntry]:
        """Every entry that can be read, oldest first; what cannot be read is `verify`'s to tell."""
        for _, found in self._lines():
            if isinstance(found, AuditEntry):
                yield found

    def end(self) -> tuple[int, str] | None:
        """Number and digest of the last entry; None before the first, or when the mark of it is lost."""
        if not self._folder.is_dir():
            return None
        with self._locked_head() as head:
            return _read_head(head)

    def entries_after(self, sequence: int) -> Iterator[AuditEntry]:
        """The readable entries with higher numbers, in order; whole days before are passed over unread."""
        files = self._day_files()
        while len(files) > 1 and (following := first_entry(files[1])) is not None and following.sequence <= sequence:
            del files[0]
        for path in files:
            if not path.exists():
                continue  # erased since it was listed
            for line in path.read_bytes().splitlines(keepends=True):
                known = sequence_of(line)
                if known is not None and known <= sequence:
                    continue
                with suppress(NotAnEntry):
                    yield parsed(line)

    def verify(self) -> list[AuditProblem]:
        """Everything that is wrong with the trail: changed, missing and cut lines; empty when it is whole.

        It is the trail as it was when this was called: who writes meanwhile does not wait for the reading of years.
        """
        while self._folder.is_dir():
            with self._locked_head() as locked:
                head, sizes = _read_head(locked), {path: path.stat().st_size for path in self._day_files()}
            try:
                return list(self._problems(head, sizes))
            except FileNotFoundError:  # the oldest days were erased meanwhile; what says so is in the trail by now
                continue
        return []

    def _problems(self, head: tuple[int, str] | None, sizes: Mapping[Path, int]) -> Iterator[AuditProblem]:
        sequence, lines = 0, 0
        previous: str | None = FIRST_PREVIOUS
        beginning: tuple[str, int, str] | None = None
        erased = (0, "")
        for where, found in self._lines(sizes):
            lines += 1
            if isinstance(found, str):
                yield AuditProblem(where=where, sentence=found)
                sequence, previous = sequence + 1, None  # it stands where the next entry should
                continue
            erased = max(erased, stated(found.action, _detail(found)) or erased)
            if beginning is None:
                beginning = (where, found.sequence, found.previous)
                if found.sequence > lines:  # it does not begin with entry 1: judged when it is known what was erased
                    sequence, previous = found.sequence - 1, None
            if found.sequence != sequence + 1:
                yield AuditProblem(where=where, sentence=_gap(sequence, found.sequence))
            elif previous not in (None, found.previous):
                yield AuditProblem(
                    where=where, sentence=f"entry {found.sequence} does not follow from entry {sequence} as it is now"
                )
            sequence, previous = found.sequence, found.sha256
        if beginning is not None and beginning[1] > 1:
            yield from _missing_before(*beginning, erased)
        if head is None and lines:
            yield AuditProblem(where=_HEAD_NAME, sentence="the mark of the last entry is missing or unreadable")
        elif head is not None and head[0] > sequence:
            yield AuditProblem(
                where=_HEAD_NAME, sentence=f"the trail ends at entry {sequence}, but entry {head[0]} was written"
            )
        elif head is not None and head[0] == sequence and previous not in (None, head[1]):
            sentence = f"the last entry, {sequence}, is not the one that was written"
            yield AuditProblem(where=_HEAD_NAME, sentence=sentence)

    def _lines(self, sizes: Mapping[Path, int] | None = None) -> Iterator[tuple[str, AuditEntry | str]]:
        """Every line with its place: the entry, or a sentence about why it is none; of files as large as `sizes`."""
        for path in self._day_files() if sizes is None else sizes:
            if sizes is None and not path.exists():
                continue  # erased since it was listed
            text = path.read_bytes()[: None if sizes is None else sizes[path]]
            for number, line in enumerate(text.splitlines(keepends=True), start=1):
                try:
                    yield f"{path.name}, line {number}", parsed(line)
                except NotAnEntry as problem:
                    yield f"{path.name}, line {number}", str(problem)

    def _day_files(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("audit-*.jsonl") if _DAY_FORM.fullmatch(path.name))

    @contextmanager
    def _locked_head(self) -> Iterator[int]:
        """The open head file, locked against every other thread and process."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _HEAD_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _end(self, head: int) -> tuple[int, str, str]:
        """Sequence and digest of the last entry, and what is wrong at the end of the trail, if anything."""
        known = _read_head(head)
        files = self._day_files()
        if not files:
            return (*known, "all entries are gone") if known else (0, FIRST_PREVIOUS, "")
        last = last_entry(files[-1], drop_torn_after=known)
        if last is not None and (last.sequence, last.sha256) == known:
            return (*known, "")
        if last is not None and (last.sequence - 1, last.previous) == (known or (0, FIRST_PREVIOUS)):
            return last.sequence, last.sha256, ""  # killed between line and head
        if known is not None:
            return (*known, f"the last entry is not entry {known[0]} as it was written")
        if last is not None:
            return last.sequence, last.sha256, "the mark of the last entry was missing or unreadable"
        return 0, FIRST_PREVIOUS, "the mark of the last entry and that entry cannot be read"

    def _add(self, head: int, event: AuditEvent) -> None:
        """Append an event behind the last entry, and before it an alert if the trail was damaged."""
        sequence, previous, broken = self._end(head)
        if broken:
            sequence, previous = self._append(head, self._alert(broken), sequence, previous)
        self._append(head, event, sequence, previous)

    def _alert(self, broken: str) -> AuditEvent:
        return AuditEvent(
            action=AuditAction.AUDIT_CHAIN_BROKEN,
            actor=self._source,
            at=self._clock(),
            outcome=AuditOutcome.SERIOUS_FAILURE,
            detail=broken,
        )

    def _append(self, head: int, event: AuditEvent, sequence: int, previous: str) -> tuple[int, str]:
        """Write one line, then the head; returns what the next entry is chained to."""
        content = {
            "sequence": sequence + 1,
            "previous": previous,
            "action": event.action.value,
            "message": event.message(source=self._source, process_id=os.getpid()),
        }
        digest = digest_of(content)
        self._write_line(event.at, canonical(content | {"sha256": digest}))
        os.pwrite(head, b"%012d %s\n" % (sequence + 1, digest.encode()), 0)
        os.fsync(head)
        return sequence + 1, digest

    def _write_line(self, at: float, line: bytes) -> None:
        files = self._day_files()
        day = datetime.fromtimestamp(at, UTC).date()
        if files:  # a clock that was set back must not put a later entry into an earlier file
            day = max(day, _day_of(files[-1]))
        path = self._folder / f"audit-{day.isoformat()}.jsonl"
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not is_new and not ends_with_newline(path):
                line = b"\n" + line  # somebody cut the line before: it stays as it is found
            view = memoryview(line)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_directory(self._folder)


def _ends_by(following: Path, sequence: int) -> bool:
    """Whether the file before this one holds no later entry than that of number `sequence`."""
    first = first_entry(following)
    return first is not None and first.sequence - 1 <= sequence


def _day_of(path: Path) -> date:
    return date.fromisoformat(_DAY_FORM.sub(r"\1", path.name))


def _detail(entry: AuditEntry) -> str:
    return str(entry.message["EventIdentification"].get("EventOutcomeDescription", ""))


def _missing_before(where: str, sequence: int, previous: str, erased: tuple[int, str]) -> Iterator[AuditProblem]:
    """What is wrong with a trail that begins with a later entry than the first, and says that so many are erased."""
    before = sequence - 1
    if before > erased[0]:
        yield AuditProblem(where=where, sentence=_gap(erased[0], sequence))
    elif before == erased[0] and previous != erased[1]:
        yield AuditProblem(
            where=where, sentence=f"entry {sequence} does not follow from the last entry that was erased"
        )


def _gap(before: int, found: int) -> str:
    if found <= before:
        return f"entry {found} stands after entry {before}"
    missing = f"entry {before + 1} is" if found == before + 2 else f"entries {before + 1} to {found - 1} are"
    return f"{missing} missing before entry {found}"


def _read_head(descriptor: int) -> tuple[int, str] | None:
    found = _HEAD_FORM.fullmatch(os.pread(descriptor, 4096, 0))
    return None if found is None else (int(found[1]), found[2].decode())
