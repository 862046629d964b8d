"""From Orthanc into the spool: a stored cursor over its change log, and a look at what it holds at every start.

Orthanc keeps its "stable" events in memory and loses them in a restart, and the hook inside Orthanc only wakes us.
So neither is relied on: new instances are read from the change log, which survives, and the series that changed
lately are compared with the spool when the feed starts and every few minutes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from dicom_node.errors import Reason, Refusal, TransientError
from dicom_node.intake.change_cursor import Cursor, CursorStore
from dicom_node.intake.part10 import split_file
from dicom_node.intake.spool import Spool, StoredKind
from dicom_node.intake.wire_check import UnstorableInstance, check_dataset
from dicom_node.orthanc_client import (
    Change,
    OrthancAccessDenied,
    OrthancClient,
    OrthancSeries,
    OrthancTooLarge,
    OrthancUnavailable,
)

log = logging.getLogger(__name__)

MR_SOP_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"})
"""MR Image Storage and Enhanced MR Image Storage: never SEG, SR or anything else, so never our own results."""

INTERNAL_SERVER_ERROR = 500
ACCESS_DENIED_DELAY_S = 60.0
MAX_DELAY_S = 60.0
WAKE_CHECK_S = 0.5  # how late a stop may be noticed; a wake-up is noticed at once


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """How often and how much.

    `source` is what the spool notes as sender. `transfer_syntaxes` are those that the listener offers; None takes
    every one that the spool can keep. An instance that Orthanc fails on `attempts_per_instance` times, while it
    answers for others, is given up until the next reconciliation, so that one bad file does not hold up all studies.
    """

    source: str = "ORTHANC"
    poll_interval_s: float = 5.0
    reconcile_interval_s: float = 300.0
    reconcile_window_h: float = 72.0
    page_size: int = 1000
    parallel: int = 4
    max_instance_bytes: int = 2**30
    transfer_syntaxes: frozenset[str] | None = None
    attempts_per_instance: int = 5


class FeedCondition(StrEnum):
    """STARTING: not asked yet. READING: all well. UNREACHABLE and DENIED: tried again by itself."""

    STARTING = "starting"
    READING = "reading"
    UNREACHABLE = "unreachable"
    DENIED = "denied"


@dataclass(frozen=True, kw_only=True)
class FeedStatus:
    """For health pages: `detail` is the sentence of the last failure, empty when all is well."""

    condition: FeedCondition
    detail: str
    fetched: int
    left_out: int


class _Outcome(StrEnum):
    """What became of one instance: spooled now, had before, deleted at the source, not for us, or to be retried."""

    SPOOLED = "spooled"
    KNOWN = "known"
    DELETED = "deleted"
    LEFT_OUT = "left_out"
    OWED = "owed"


def log_refusal(study_instance_uid: str, refusal: Refusal) -> None:
    """Says in the log that an instance could not be taken."""
    log.error(
        "event=orthanc_instance_refused study=%s series=%s reason=%s detail=%s",
        study_instance_uid,
        refusal.series_instance_uid,
        refusal.reason,
        refusal.detail,
    )


class OrthancFeed:
    """Brings the MR images of one Orthanc into the spool. One thread runs it; `wake` may be called from any.

    Parameters
    ----------
    client
        The Orthanc.
    spool
        Where instances go.
    engine
        State database, for the cursor.
    options
        See `FeedOptions`.
    clock
        POSIX seconds.
    on_refusal
        Told (Study Instance UID, refusal) when an image of an MR series cannot be taken: damaged at the source,
        too large, or in a form that is not offered.
    """

    def __init__(
        self,
        client: OrthancClient,
        spool: Spool,
        engine: sa.Engine,
        *,
        options: FeedOptions | None = None,
        clock: Callable[[], float] = time.time,
        on_refusal: Callable[[str, Refusal], None] = log_refusal,
    ) -> None:
        self._client = client
        self._spool = spool
        self._cursors = CursorStore(engine)
        self._options = options or FeedOptions()
        self._clock = clock
        self._on_refusal = on_refusal
        self._wake = threading.Event()
        self._condition = FeedCondition.STARTING
        self._detail = ""
        self._fetched = 0
        self._unstable: set[str] = set()
        self._ahead: set[str] = set()
        self._left_out: dict[str, bool] = {}
        self._attempts: Counter[str] = Counter()
        self._settled: dict[str, tuple[float | None, int]] = {}

    def status(self) -> FeedStatus:
        """How it goes."""
        return FeedStatus(
            condition=self._condition, detail=self._detail, fetched=self._fetched, left_out=len(self._left_out)
        )

    def wake(self) -> None:
        """Look now instead of at the next interval; returns at once."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Poll and reconcile until `stop`; failures of Orthanc, network or disk are waited out."""
        next_reconcile = time.monotonic()
        failures = 0
        while not stop.is_set():
            self._wake.clear()
            delay = self._options.poll_interval_s
            try:
                self.poll_once()
                if time.monotonic() >= next_reconcile:
                    self.reconcile_once()
                    next_reconcile = time.monotonic() + self._options.reconcile_interval_s
                failures = 0
                self._note(FeedCondition.READING, "")
            except OrthancAccessDenied as error:
                self._note(FeedCondition.DENIED, str(error))
                delay = ACCESS_DENIED_DELAY_S
            except (TransientError, OperationalError) as error:
                self._note(FeedCondition.UNREACHABLE, str(error))
                delay = min(delay * 2**failures, MAX_DELAY_S)
                failures += 1
            self._pause(stop, delay)

    def poll_once(self) -> int:
        """Read the change log from the cursor to its end; returns how many instances are new in the spool.

        Raises
        ------
        TransientError
            Orthanc, network, disk or database failed; the cursor then stands before what is still owed.
        """
        cursor = self._cursor()
        taken = sum(self._take_series_by_id(one) for one in sorted(self._unstable))
        while True:
            # One before the cursor, so that we see by its own row whether this is still the same database.
            page = self._client.changes(since=max(cursor.seq - 1, 0), limit=self._options.page_size)
            emptied = not page.changes and page.last < cursor.seq and self._client.last_change() < cursor.seq
            if emptied or cursor.contradicted_by(page):
                log.warning("event=orthanc_database_reset url=%s cursor=%d", self._client.url, cursor.seq)
                cursor = self._begin_anew()
                continue
            fresh = [change for change in page.changes if change.seq > cursor.seq]
            taken += self._take_changes([c for c in fresh if c.at is None or c.at >= cursor.ignore_before])
            if fresh:
                cursor = cursor.advanced_to(fresh[-1])
                self._cursors.save(self._client.url, cursor)
            if page.done or not fresh:
                return taken

    def reconcile_once(self) -> int:
        """Compare the MR series that changed within the window with the spool and fetch what is missing.

        Returns and raises as `poll_once`.
        """
        self._attempts.clear()
        horizon = self._horizon()
        taken = 0
        for series in self._client.mr_series():
            unchanged = self._settled.get(series.orthanc_id) == (series.last_update, len(series.instance_ids))
            if unchanged or (series.last_update is not None and series.last_update < horizon):
                continue
            taken += self._take_series(series)
        return taken

    # -- cursor -------------------------------------------------------------------------------------------------

    def _cursor(self) -> Cursor:
        return self._cursors.load(self._client.url) or self._begin_anew()

    def _begin_anew(self) -> Cursor:
        cursor = Cursor(ignore_before=self._horizon())
        self._cursors.save(self._client.url, cursor)
        for memory in (self._unstable, self._ahead, self._left_out, self._attempts, self._settled):
            memory.clear()
        return cursor

    def _horizon(self) -> float:
        return self._clock() - self._options.reconcile_window_h * 3600

    # -- changes -> series -> instances -------------------------------------------------------------------------

    def _take_changes(self, changes: Sequence[Change]) -> int:
        taken = 0
        for change in changes:
            if change.kind in ("NewSeries", "StableSeries"):
                taken += self._take_series_by_id(change.resource_id)
        for change in changes:
            if change.kind == "NewInstance":
                taken += self._take_new_instance(change.resource_id)
        return taken

    def _take_new_instance(self, instance_id: str) -> int:
        if instance_id in self._ahead:  # came with its series a moment ago
            self._ahead.discard(instance_id)
            return 0
        series_id = self._client.series_of_instance(instance_id)
        if series_id is None:
            return 0
        # Where the spool has it already, Orthanc may have replaced it: ask for the bytes again.
        taken = self._take_series_by_id(series_id, again=instance_id)
        self._ahead.discard(instance_id)
        return taken
