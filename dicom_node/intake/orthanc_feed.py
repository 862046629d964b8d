"""From Orthanc into the spool: a stored cursor over its change log, and a look at what it holds at every start.

Orthanc keeps its "stable" events in memory and loses them in a restart, and the hook inside Orthanc only wakes us.
So neither is relied on: new instances are read from the change log, which survives, and the series that changed
lately are compared with the spool when the feed starts and every few minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from dicom_node.database import DATABASE_AWAY
from dicom_node.errors import Refusal, TransientError
from dicom_node.intake.change_cursor import Cursor, CursorStore
from dicom_node.intake.feed_options import FeedOptions
from dicom_node.intake.feed_pace import FeedPace
from dicom_node.intake.instance_fetcher import InstanceFetcher, log_refusal
from dicom_node.intake.orthanc_instance import InstanceTaker
from dicom_node.intake.replaced_images import ReplacedImages
from dicom_node.intake.series_taker import SeriesTaker
from dicom_node.intake.spool import Spool
from dicom_node.orthanc_client import OrthancClient
from dicom_node.orthanc_http import OrthancAccessDenied

__all__ = ["FeedCondition", "FeedOptions", "FeedStatus", "OrthancFeed"]

log = logging.getLogger(__name__)

ACCESS_DENIED_DELAY_S = 60.0
COMPARE_AGAIN_S = 60.0  # after a comparison that Orthanc failed on, if the interval is not shorter
AWAY = (TransientError, *DATABASE_AWAY)  # waited out
WAKE_CHECK_S = 0.5  # how late a stop may be noticed; a wake-up is noticed at once


class FeedCondition(StrEnum):
    """STARTING: not asked yet. READING: all well. UNREACHABLE, DENIED and FAILED (by a fault of ours): tried again."""

    STARTING = "starting"
    READING = "reading"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class FeedStatus:
    """For health pages: `detail` is the sentence of the last failure, empty when all is well.

    `behind` is how many changes of Orthanc's log were still to be read when it was last looked at; `read_at` (POSIX
    seconds) when it was last read to its end, None before the first time.
    """

    condition: FeedCondition
    detail: str
    fetched: int
    left_out: int
    behind: int = 0
    read_at: float | None = None


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
        self._cursors = CursorStore(engine)
        self._options = options or FeedOptions()
        taker = InstanceTaker(
            client=client,
            spool=spool,
            source=self._options.source,
            max_instance_bytes=self._options.max_instance_bytes,
            transfer_syntaxes=self._options.transfer_syntaxes,
            clock=clock,
        )
        self._fetcher = InstanceFetcher(
            taker,
            parallel=self._options.parallel,
            attempts_per_instance=self._options.attempts_per_instance,
            on_refusal=on_refusal,
        )
        self._clock = clock
        replaced = ReplacedImages(engine, client.url, clock=clock)
        self._fetcher.give_up(replaced.waiting(since=self._horizon()))
        self._series = SeriesTaker(
            client,
            spool,
            self._fetcher,
            replaced,
            attempts=self._options.attempts_per_instance,
            quiet_s=self._options.quiet_s,
        )
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._condition = FeedCondition.STARTING
        self._detail = ""
        self._next_comparison = 0.0
        self._comparison_failure: Exception | None = None
        self._behind = 0
        self._read_at: float | None = None

    def status(self) -> FeedStatus:
        """How it goes."""
        return FeedStatus(
            condition=self._condition,
            detail=self._detail,
            fetched=self._fetcher.fetched,
            left_out=len(self._fetcher.left_out),
            behind=self._behind,
            read_at=self._read_at,
        )

    def wake(self) -> None:
        """Look now instead of at the next interval; returns at once."""
        self._wake.set()

    def rest_after(self, quiet_s: float) -> None:
        """From now on, take series for whole after this quiet time; may be called from any thread."""
        self._series.quiet_s = quiet_s

    def run(self, stop: threading.Event) -> None:
        """Poll and reconcile until `stop`; failures of Orthanc, network, disk or database are waited out."""
        self._stop = stop
        self._next_comparison = time.monotonic()
        pace = FeedPace(interval_s=self._options.poll_interval_s)
        while not stop.is_set():
            self._wake.clear()
            try:
                at_all = pace.begin()
                taken = self.poll_once() if at_all else self.look_once()
                self._compare_at_times()
                delay = pace.end(taken, at_all=at_all)
                self._tell(self._comparison_failure)
            except AWAY as error:
                self._tell(error)
                denied = isinstance(error, OrthancAccessDenied)
                delay = ACCESS_DENIED_DELAY_S if denied else pace.fail()
            self._pause(delay)

    def fail(self, error: Exception) -> None:
        """Show that a fault that nobody foresaw stopped the reading; not its text, which may quote an image."""
        self._note(FeedCondition.FAILED, f"a fault of this node ({type(error).__name__}); its log says where")

    def poll_once(self) -> int:
        """Look again at the series that had not come to rest, whose event may be lost, and do as `look_once`."""
        self._series.begin_look()
        cursor = self._cursor()
        taken = self._series.take_arriving()
        return taken + self._read_on(cursor)

    def look_once(self) -> int:
        """Read the change log from the cursor to its end; returns how many instances are new in the spool.

        Raises
        ------
        TransientError
            Orthanc, network, disk or database failed; the cursor then stands before what is still owed.
        """
        self._series.begin_look()
        return self._read_on(self._cursor())

    def _read_on(self, cursor: Cursor) -> int:
        taken = 0
        while True:
            # One before the cursor, so that we see by its own row whether this is still the same database.
            page = self._client.changes(since=max(cursor.seq - 1, 0), limit=self._options.page_size)
            emptied = not page.changes and page.last < cursor.seq and self._client.last_change() < cursor.seq
            if emptied or cursor.contradicted_by(page):
                log.warning("event=orthanc_database_reset url=%s cursor=%d", self._client.url, cursor.seq)
                cursor = self._begin_anew()
                continue
            fresh = [change for change in page.changes if change.seq > cursor.seq]
            self._behind = max(self._behind, len(fresh))
            taken += self._series.take_changes([c for c in fresh if c.at is None or c.at >= cursor.ignore_before])
            if self._series.owed:
                failed = f"{self._series.owed} instances or series"
                raise TransientError(f"Orthanc at {self._client.url} failed on {failed}; asked again later")
            if fresh:
                cursor = cursor.advanced_to(fresh[-1])
                self._cursors.save(self._client.url, cursor)
                self._series.ahead.page_ended()
            if page.done or not fresh or self._stop.is_set():
                self._series.ahead.look_ended()
                self._behind, self._read_at = 0, self._clock()
                return taken

    def reconcile_once(self) -> int:
        """Compare the MR series that changed within the window with the spool and fetch what is missing.

        Returns and raises as `poll_once`, but is not held up by instances and series that Orthanc fails on.
        """
        horizon = self._horizon()
        taken = 0
        began = self._series.now()  # a page of the list may be minutes old when its last series is looked at
        for series in self._client.mr_series():
            if self._stop.is_set():
                break
            if series.last_update is None or series.last_update >= horizon:
                taken += self._series.compare(series, listed_at=began)
        return taken

    # -- cursor -------------------------------------------------------------------------------------------------

    def _cursor(self) -> Cursor:
        return self._cursors.load(self._client.url) or self._begin_anew()

    def _begin_anew(self) -> Cursor:
        cursor = Cursor(ignore_before=self._horizon())
        self._cursors.save(self._client.url, cursor)
        self._series.begin_anew()
        return cursor

    def _horizon(self) -> float:
        return self._clock() - self._options.reconcile_window_h * 3600

    # -- running ------------------------------------------------------------------------------------------------

    def _compare_at_times(self) -> None:
        """Compare if it is time. What Orthanc fails on there does not keep us from reading its log in between."""
        if time.monotonic() < self._next_comparison:
            return
        pause_s = self._options.reconcile_interval_s
        try:
            self.reconcile_once()
            self._comparison_failure = None
        except AWAY as error:
            self._comparison_failure = error
            pause_s = min(pause_s, COMPARE_AGAIN_S)
        self._next_comparison = time.monotonic() + pause_s

    def _tell(self, error: Exception | None) -> None:
        """How it goes, by what was met last."""
        if error is None:
            self._note(FeedCondition.READING, "")
        elif isinstance(error, OrthancAccessDenied):
            self._note(FeedCondition.DENIED, str(error))
        elif isinstance(error, TransientError):
            self._note(FeedCondition.UNREACHABLE, str(error))
        else:
            self._note(FeedCondition.UNREACHABLE, f"the state database is away ({type(error).__name__})")

    def _note(self, condition: FeedCondition, detail: str) -> None:
        if condition is not self._condition:
            level = logging.INFO if condition is FeedCondition.READING else logging.WARNING
            log.log(level, "event=orthanc_feed condition=%s url=%s detail=%s", condition, self._client.url, detail)
        self._condition, self._detail = condition, detail

    def _pause(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._wake.wait(min(left, WAKE_CHECK_S)):
                return
