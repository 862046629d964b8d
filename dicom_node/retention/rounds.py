"""One round of erasing: a few studies, their files, and once a day what lies about that nobody uses.

A round is bounded, so that whoever runs it can be stopped and nothing waits for it; who is told that there is more
runs the next one soon.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, Select, select

from dicom_node.audit import AuditTrail
from dicom_node.delivery.object_files import UNKNOWN_AGE_S
from dicom_node.ledger_rows import ledger_results
from dicom_node.retention.clock_doubt import ClockDoubt
from dicom_node.retention.eraser import Eraser
from dicom_node.retention.keeping import perhaps_due
from dicom_node.retention.periods import A_DAY_S, Periods
from dicom_node.views.shelf import ViewShelf

log = logging.getLogger(__name__)

STUDIES_A_ROUND: Final = 20


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What was erased: the images of so many studies, so many studies with everything, so many files and bytes."""

    images_of: int = 0
    studies: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Erased) -> Erased:
        return Erased(
            images_of=self.images_of + other.images_of,
            studies=self.studies + other.studies,
            files=self.files + other.files,
            bytes=self.bytes + other.bytes,
        )


class RetentionRounds:
    """Rounds on one node; one thread calls `once`.

    Parameters
    ----------
    state_dir
        Folder of spool, outbox and views.
    sweeps
        What the outbox and others do at their start to remove what a kill left behind; here once a day. Given the time.
    periods
        How long what is kept; may be replaced between two rounds.
    audit_sent_up_to
        The number of the last audit entry that left this machine: later ones stay; None where none is to leave.
    clock, monotonic
        POSIX seconds, and seconds that nobody sets: how a clock that was put forward is noticed.
    """

    def __init__(
        self,
        engine: Engine,
        state_dir: Path,
        *,
        eraser: Eraser,
        sweeps: Sequence[Callable[[float], int]],
        audit: AuditTrail,
        periods: Periods,
        audit_sent_up_to: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.periods = periods
        self.erased = Erased()
        self._engine = engine
        self._state_dir = state_dir
        self._eraser = eraser
        self._sweeps = tuple(sweeps)
        self._views = ViewShelf(state_dir / "views")
        self._audit = audit
        self._audit_sent_up_to = audit_sent_up_to
        self._clock = clock
        self._monotonic = monotonic
        self._doubt = ClockDoubt(state_dir, clock=clock, monotonic=monotonic)
        self._tidied_at: float | None = None

    def once(self) -> bool:
        """Erase what is due, a few studies at most; True if there is more.

        While the clock is in doubt, nothing ends: by one that is far ahead everything would have.

        Raises
        ------
        OSError, TransientError
            If the disk does not let something go: the next round tries again.
        """
        now, periods = self._clock(), self.periods
        self._remove_files()
        if not self._doubt.is_over():
            return False
        images = self._erase(
            self._due(now, periods.inputs_days, with_images=True), lambda one: self._eraser.erase_images(one, periods)
        )
        studies = self._erase(
            self._due(now, periods.results_days, with_images=False), lambda one: self._eraser.erase_ended(one, periods)
        )
        self.erased += Erased(images_of=images, studies=studies)
        self._remove_files()
        if self._tidied_at is None or self._monotonic() - self._tidied_at >= A_DAY_S:
            self._tidy(now)
            self._tidied_at = self._monotonic()
        return max(images, studies) >= STUDIES_A_ROUND

    def _remove_files(self) -> None:
        removed = self._eraser.finish()
        if removed.files:
            self.erased += Erased(files=removed.files, bytes=removed.bytes)
            log.info("event=erased_files_removed files=%d bytes=%d", removed.files, removed.bytes)

    def _due(self, now: float, days: int, *, with_images: bool) -> Iterator[str]:
        """Studies that were decided so many days ago, the oldest first; none where nothing ends."""
        if not days:
            return
        with self._engine.connect() as connection:
            query = perhaps_due(
                now - days * A_DAY_S, with_images=with_images, results_end=bool(self.periods.results_days)
            )
            found = list(connection.scalars(query))
        yield from found

    def _erase(self, studies: Iterable[str], erase: Callable[[str], bool]) -> int:
        """Erase the first of these that are really due; those that something holds are passed over."""
        return sum(1 for _ in islice((one for one in studies if erase(one)), STUDIES_A_ROUND))

    def _tidy(self, now: float) -> None:
        """Remove what nobody uses any more: half-written and unknown files, damaged images, days of the audit trail."""
        for sweep in (*self._sweeps, self._views.sweep):
            sweep(now)
        self._remove_unknown_views(now)
        self._remove_damaged_images(now)
        if self.periods.audit_days:
            before = now - self.periods.audit_days * A_DAY_S
            days = self._audit.erase_before(before, up_to=self._audit_sent_up_to())
            if days:
                log.info("event=audit_days_erased days=%d", days)

    def _remove_unknown_views(self, now: float) -> None:
        """Remove pictures of work that never came to an outcome, or of a ledger that an older backup replaced."""
        for work_id in self._views.older_than(now - UNKNOWN_AGE_S):
            with self._engine.connect() as connection:
                known = connection.execute(_of_work(work_id)).first()
            if known is None:
                shutil.rmtree(self._state_dir / "views" / work_id)
                log.info("event=unknown_views_removed work=%s", work_id[:12])

    def _remove_damaged_images(self, now: float) -> None:
        """Remove images that were set aside as damaged so long ago that whoever wanted to look at them has."""
        folder = self._state_dir / "spool" / "damaged"
        if not self.periods.inputs_days or not folder.is_dir():
            return
        for path in folder.iterdir():
            if path.stat().st_ctime < now - max(self.periods.inputs_days * A_DAY_S, UNKNOWN_AGE_S):
                path.unlink()
                log.info("event=damaged_image_removed file=%s", path.name)


def _of_work(work_id: str) -> Select[str]:
    return select(ledger_results.c.work_id).where(ledger_results.c.work_id == work_id)
