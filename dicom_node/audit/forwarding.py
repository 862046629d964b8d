"""Sends the trail to the audit record repository: the trail on disk is the queue, this keeps the place in it.

The place is the number and the digest of the last entry that the repository has read. It is written after the
repository said so: a kill in between sends one batch twice and loses nothing. Whoever writes entries never waits for
any of this.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from dicom_node.audit.audit_repository import RepositoryUnavailable
from dicom_node.audit.entry import AuditEntry
from dicom_node.audit.events import AuditAction, AuditOutcome
from dicom_node.audit.trail import FIRST_PREVIOUS, AuditTrail
from dicom_node.errors import TransientError

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
FIRST_RETRY_S: Final = 5.0
MAX_RETRY_S: Final = 300.0
BATCH: Final = 500
"""Entries in one session, about a megabyte: so many may come twice after a kill."""

_PLACE_NAME: Final = "sent"
_PLACE_FORM: Final = re.compile(rb"(\d{12}) ([0-9a-f]{64})\n")
_BEGINNING: Final = (0, FIRST_PREVIOUS)


class Repository(Protocol):
    """Where entries go."""

    def send(self, entries: list[AuditEntry]) -> None:
        """Return when they were read; raise `RepositoryUnavailable` when that is not known."""
        ...


class TrailForwarder(threading.Thread):
    """Runs beside whatever writes the trail; of several processes on one trail, one at a time forwards.

    Parameters
    ----------
    trail, folder
        The trail, and where it lies; the place is kept in `folder/sent`.
    repository
        Where entries go.
    """

    def __init__(self, trail: AuditTrail, folder: Path, repository: Repository) -> None:
        super().__init__(name="AuditForwarder", daemon=True)
        self._trail = trail
        self._folder = folder
        self._repository = repository
        self._stop_asked = threading.Event()
        self._failures = 0

    def run(self) -> None:
        """Forward until told to stop, and once more then, so that the last entry of an orderly end goes out."""
        while not self._stop_asked.wait(self._pause_s()):
            self.once()
        self.once()

    def stop(self, wait_s: float) -> None:
        """Ask it to end and wait so long; what is not sent then is sent after the next start."""
        self._stop_asked.set()
        self.join(wait_s)

    def once(self) -> None:
        """Send what is waiting, unless another process is at it; a repository that is away is told once, and later."""
        try:
            with _held_place(self._folder) as place:
                if place is not None:
                    self._forward(place)
        except RepositoryUnavailable as error:
            self._failures += 1
            log.warning('event=audit_not_sent again_in_s=%.0f reason="%s"', self._pause_s(), error)
        except (TransientError, OSError) as error:  # our own disk; the entries that are there stay there
            self._failures += 1
            log.error('event=audit_forwarding_paused again_in_s=%.0f reason="%s"', self._pause_s(), error)
        else:
            if self._failures:
                log.info("event=audit_sent_again after_failures=%d", self._failures)
            self._failures = 0

    def _pause_s(self) -> float:
        if not self._failures:
            return LOOK_EVERY_S
        return min(FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 30), MAX_RETRY_S)

    def _forward(self, place: int) -> None:
        sent, end = _read_place(place), self._trail.end()
        if end in (None, sent):
            return
        if not self._continues(sent, end):
            self._tell_rewritten(sent[0])
            sent = _BEGINNING
        waiting = self._trail.entries_after(sent[0])
        while batch := list(islice(waiting, BATCH)):
            self._repository.send(batch)
            _write_place(place, batch[-1].sequence, batch[-1].sha256)

    def _continues(self, sent: tuple[int, str], end: tuple[int, str]) -> bool:
        """Whether the trail goes on from what was sent. That entry itself may be erased by now: days are, in time."""
        if end[0] <= sent[0]:
            return False
        there = next(self._trail.entries_after(sent[0] - 1), None)
        return there is None or there.sequence != sent[0] or there.sha256 == sent[1]

    def _tell_rewritten(self, sequence: int) -> None:
        """An alert in the trail, which the repository then gets with everything that is here now."""
        self._trail.record(
            AuditAction.AUDIT_CHAIN_BROKEN,
            actor="audit forwarder",
            outcome=AuditOutcome.SERIOUS_FAILURE,
            detail=f"entry {sequence} is not the one that was sent to the repository; all that is here is sent again",
        )


def sent_up_to(folder: Path) -> int:
    """The number of the last entry of the trail in `folder` that the repository has read; 0 before the first.

    Raises
    ------
    OSError
        If our disk does not say.
    """
    try:
        descriptor = os.open(folder / _PLACE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return _read_place(descriptor)[0]
    finally:
        os.close(descriptor)


@contextmanager
def _held_place(folder: Path) -> Iterator[int | None]:
    """The open file with the place, locked; None while another process has it, or when there is no trail yet."""
    if not folder.is_dir():
        yield None
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / _PLACE_NAME, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_place(descriptor: int) -> tuple[int, str]:
    """Number and digest of the last entry that was sent; unreadable counts as nothing sent, so nothing is lost."""
    found = _PLACE_FORM.fullmatch(os.pread(descriptor, 4096, 0))
    return _BEGINNING if found is None else (int(found[1]), found[2].decode())


def _write_place(descriptor: int, sequence: int, sha256: str) -> None:
    os.pwrite(descriptor, b"%012d %s\n" % (sequence, sha256.encode()), 0)
    os.fsync(descriptor)
