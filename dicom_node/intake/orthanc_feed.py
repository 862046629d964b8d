"""From Orthanc into the spool: a stored cursor over its change log, and a look at what it holds at every start.

Orthanc keeps its "stable" events in memory and loses them in a restart, and the hook inside Orthanc only wakes us.
So neither is relied on: new instances are read from the change log, which survives, and the series that changed
lately are compared with the spool when the feed starts and every few minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from dicom_node.errors import Refusal, TransientError
from dicom_node.intake.change_cursor import Cursor, CursorStore
from dicom_node.intake.look_pace import LookPace
from dicom_node.intake.orthanc_instance import InstanceOutcome, InstanceRefused, InstanceTaker
from dicom_node.intake.spool import Spool
from dicom_node.orthanc_client import Change, OrthancClient, OrthancSeries
from dicom_node.orthanc_http import OrthancAccessDenied

log = logging.getLogger(__name__)

ACCESS_DENIED_DELAY_S = 60.0
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
        self._taker = InstanceTaker(
            client=client,
            spool=spool,
            source=self._options.source,
            max_instance_bytes=self._options.max_instance_bytes,
            transfer_syntaxes=self._options.transfer_syntaxes,
            clock=clock,
        )
        self._clock = clock
        self._on_refusal = on_refusal
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._condition = FeedCondition.STARTING
        self._detail = ""
        self._fetched = 0
        self._owed = 0
        self._unstable: set[str] = set()
        self._ahead: set[str] = set()
        self._ahead_before: set[str] = set()
        self._left_out: dict[str, Refusal] = {}
        self._foreign: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._settled: dict[str, tuple[float | None, int]] = {}
        self._behind = 0
        self._read_at: float | None = None

    def status(self) -> FeedStatus:
        """How it goes."""
        return FeedStatus(
            condition=self._condition,
            detail=self._detail,
            fetched=self._fetched,
            left_out=len(self._left_out),
            behind=self._behind,
            read_at=self._read_at,
        )

    def wake(self) -> None:
        """Look now instead of at the next interval; returns at once."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Poll and reconcile until `stop`; failures of Orthanc, network or disk are waited out."""
        self._stop = stop
        pace = LookPace(interval_s=self._options.poll_interval_s)
        next_reconcile = time.monotonic()
        while not stop.is_set():
            self._wake.clear()
            try:
                at_all = pace.begin()
                taken = self.poll_once() if at_all else self.look_once()
                if time.monotonic() >= next_reconcile:
                    self.reconcile_once()
                    next_reconcile = time.monotonic() + self._options.reconcile_interval_s
                delay = pace.end(taken, at_all=at_all)
                self._note(FeedCondition.READING, "")
            except OrthancAccessDenied as error:
                self._note(FeedCondition.DENIED, str(error))
                delay = ACCESS_DENIED_DELAY_S
            except (TransientError, OperationalError) as error:
                self._note(FeedCondition.UNREACHABLE, str(error))
                delay = pace.fail()
            self._pause(delay)

    def poll_once(self) -> int:
        """Look again at the series that had not come to rest, whose event may be lost, and do as `look_once`."""
        self._owed = 0
        cursor = self._cursor()
        taken = sum(self._take_series_by_id(one) for one in sorted(self._unstable))
        return taken + self._read_on(cursor)

    def look_once(self) -> int:
        """Read the change log from the cursor to its end; returns how many instances are new in the spool.

        Raises
        ------
        TransientError
            Orthanc, network, disk or database failed; the cursor then stands before what is still owed.
        """
        self._owed = 0
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
            taken += self._take_changes([c for c in fresh if c.at is None or c.at >= cursor.ignore_before])
            if self._owed:
                raise TransientError(
                    f"Orthanc at {self._client.url} failed on {self._owed} instances; asked again later"
                )
            if fresh:
                cursor = cursor.advanced_to(fresh[-1])
                self._cursors.save(self._client.url, cursor)
            if page.done or not fresh or self._stop.is_set():
                self._ahead_before, self._ahead = self._ahead, set()
                self._behind, self._read_at = 0, self._clock()
                return taken

    def reconcile_once(self) -> int:
        """Compare the MR series that changed within the window with the spool and fetch what is missing.

        Returns and raises as `poll_once`, but is not held up by instances that Orthanc fails on.
        """
        horizon = self._horizon()
        taken = 0
        for series in self._client.mr_series():
            if self._stop.is_set():
                break
            if series.last_update is None or series.last_update >= horizon:
                taken += self._take_series(series, insist=True)
        return taken

    # -- cursor -------------------------------------------------------------------------------------------------

    def _cursor(self) -> Cursor:
        return self._cursors.load(self._client.url) or self._begin_anew()

    def _begin_anew(self) -> Cursor:
        cursor = Cursor(ignore_before=self._horizon())
        self._cursors.save(self._client.url, cursor)
        self._unstable.clear()
        self._settled.clear()
        self._ahead.clear()
        self._ahead_before.clear()
        return cursor

    def _horizon(self) -> float:
        return self._clock() - self._options.reconcile_window_h * 3600

    # -- changes -> series -> instances -------------------------------------------------------------------------

    def _take_changes(self, changes: Sequence[Change]) -> int:
        whole_series = [c.resource_id for c in changes if c.kind in ("NewSeries", "StableSeries")]
        taken = sum(self._take_series_by_id(one) for one in dict.fromkeys(whole_series))
        for change in changes:
            if change.kind == "NewInstance" and not self._came_ahead(change.resource_id):
                series_id = self._client.series_of_instance(change.resource_id)
                if series_id is not None:
                    # Where the spool has the image, Orthanc has replaced it: take the bytes again.
                    taken += self._take_series_by_id(series_id, again=change.resource_id)
                    self._ahead.discard(change.resource_id)  # this was its row; the next one means "replaced"
        return taken

    def _came_ahead(self, instance_id: str) -> bool:
        """Whether it was taken with its series ahead of this row of the change log; true once for each taking."""
        ahead = instance_id in self._ahead or instance_id in self._ahead_before
        self._ahead.discard(instance_id)
        self._ahead_before.discard(instance_id)
        return ahead

    def _take_series_by_id(self, series_id: str, *, again: str | None = None) -> int:
        series = self._client.series(series_id)
        if series is None:
            self._unstable.discard(series_id)
            return 0
        return self._take_series(series, again=again)

    def _take_series(self, series: OrthancSeries, *, again: str | None = None, insist: bool = False) -> int:
        """Fetch what the spool lacks of a series, and `again` in any case; `insist` also tries what was given up."""
        if series.modality != "MR":
            self._ahead.update(series.instance_ids)
            return 0
        state = (series.last_update, len(series.instance_ids))
        if again is None and self._settled.get(series.orthanc_id) == state:
            return 0
        study_uid = self._client.study_instance_uid(series.study_id)
        listed = self._client.instances_of_series(series.orthanc_id)
        if study_uid is None or listed is None:
            self._unstable.discard(series.orthanc_id)
            return 0
        had = {one.sop_instance_uid for one in self._spool.instances(study_uid)}
        missing = [one for one, sop_uid in listed.items() if sop_uid not in had]
        hopeless = self._left_out.keys() | self._foreign
        wanted = {one for one in missing if one not in hopeless and (insist or not self._is_given_up(one))}
        wanted |= listed.keys() & {again}
        outcomes = self._take_instances(wanted, study_uid, series)
        refused = sorted(listed.keys() & self._left_out.keys())
        self._spool.set_refused(study_uid, series.series_instance_uid, self._left_out[refused[0]] if refused else None)
        self._ahead.update(outcomes)
        taken = sum(outcome is InstanceOutcome.SPOOLED for outcome in outcomes.values())
        complete = InstanceOutcome.OWED not in outcomes.values()
        self._settle(series, len(listed.keys() - self._foreign), state if complete else None)
        if taken:
            log.info("event=orthanc_series_read series=%s new=%d", series.series_instance_uid, taken)
        return taken

    def _settle(self, series: OrthancSeries, images: int, state: tuple[float | None, int] | None) -> None:
        """Tell the spool how many to expect once Orthanc has seen no new image for a while."""
        if not series.is_stable:
            self._unstable.add(series.orthanc_id)
            return
        self._unstable.discard(series.orthanc_id)
        self._spool.set_expected(series.series_instance_uid, images)
        if state is not None:
            self._settled[series.orthanc_id] = state

    def _take_instances(
        self, wanted: Iterable[str], study_uid: str, series: OrthancSeries
    ) -> dict[str, InstanceOutcome | Refusal]:
        """Several at once: what became of each, or why it cannot be taken."""
        with ThreadPoolExecutor(self._options.parallel, thread_name_prefix="orthanc-fetch") as pool:
            running = {one: pool.submit(self._taker.take, one) for one in wanted}
            try:
                outcomes = {one: self._outcome(future, study_uid, series) for one, future in running.items()}
            finally:
                pool.shutdown(cancel_futures=True)  # when Orthanc is gone, do not wait for it once per image
        for one, outcome in outcomes.items():
            self._remember(one, outcome, series)
        return outcomes

    def _outcome(
        self, future: Future[InstanceOutcome], study_uid: str, series: OrthancSeries
    ) -> InstanceOutcome | Refusal:
        try:
            return future.result()
        except InstanceRefused as refused:
            uid = series.series_instance_uid
            refusal = Refusal(reason=refused.reason, detail=refused.detail, series_instance_uid=uid)
            self._on_refusal(study_uid, refusal)
            return refusal

    def _remember(self, instance_id: str, outcome: InstanceOutcome | Refusal, series: OrthancSeries) -> None:
        if outcome is InstanceOutcome.OWED:
            self._failures[instance_id] += 1
            given_up = self._is_given_up(instance_id)
            self._owed += not given_up
            log.warning(
                "event=orthanc_instance_failed series=%s instance=%s attempt=%d given_up=%s",
                series.series_instance_uid,
                instance_id,
                self._failures[instance_id],
                given_up,
            )
            return
        self._failures.pop(instance_id, None)
        self._left_out.pop(instance_id, None)
        if isinstance(outcome, Refusal):
            self._left_out[instance_id] = outcome
        if outcome is InstanceOutcome.FOREIGN:
            self._foreign.add(instance_id)
        self._fetched += outcome is InstanceOutcome.SPOOLED

    def _is_given_up(self, instance_id: str) -> bool:
        return self._failures[instance_id] >= self._options.attempts_per_instance

    # -- running ------------------------------------------------------------------------------------------------

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
