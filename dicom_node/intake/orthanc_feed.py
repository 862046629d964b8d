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
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from dicom_node.errors import Refusal, TransientError
from dicom_node.intake.change_cursor import Cursor, CursorStore
from dicom_node.intake.feed_pace import FeedPace
from dicom_node.intake.instance_fetcher import InstanceFetcher, Wanted, log_refusal
from dicom_node.intake.orthanc_instance import InstanceOutcome, InstanceTaker, Taken
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
    answers otherwise, is given up until the next reconciliation, so that one bad file does not hold up all studies.
    """

    source: str = "ORTHANC"
    poll_interval_s: float = 5.0
    reconcile_interval_s: float = 300.0
    reconcile_window_h: float = 72.0
    page_size: int = 1000
    parallel: int = 8
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


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A series as Orthanc has it: its SOP Instance UIDs by Orthanc id, but for those new `again`, which are fetched."""

    series: OrthancSeries
    study_uid: str
    sop_uids: dict[str, str]
    again: frozenset[str]

    def lacking(self, had: Set[str]) -> set[str]:
        """The ids of which the spool, which has these UIDs, has nothing."""
        return {one for one in self.series.instance_ids if one in self.sop_uids and self.sop_uids[one] not in had}


def _state(series: OrthancSeries) -> tuple[float | None, int]:
    """Equal as long as nothing has happened to a series."""
    return series.last_update, len(series.instance_ids)


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
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._condition = FeedCondition.STARTING
        self._detail = ""
        self._owed = 0
        self._arriving: dict[str, _Reading] = {}
        self._ahead: set[str] = set()
        self._ahead_before: set[str] = set()
        self._dealt_with: set[int] = set()
        self._settled: dict[str, tuple[float | None, int]] = {}
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

    def run(self, stop: threading.Event) -> None:
        """Poll and reconcile until `stop`; failures of Orthanc, network or disk are waited out."""
        self._stop = stop
        pace = FeedPace(interval_s=self._options.poll_interval_s)
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
        taken = self._take_series(self._series(sorted(self._arriving)))
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
                self._dealt_with.clear()
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
                taken += self._take_series([series], insist=True)
        return taken

    # -- cursor -------------------------------------------------------------------------------------------------

    def _cursor(self) -> Cursor:
        return self._cursors.load(self._client.url) or self._begin_anew()

    def _begin_anew(self) -> Cursor:
        cursor = Cursor(ignore_before=self._horizon())
        self._cursors.save(self._client.url, cursor)
        self._arriving.clear()
        self._settled.clear()
        self._ahead.clear()
        self._ahead_before.clear()
        self._dealt_with.clear()
        return cursor

    def _horizon(self) -> float:
        return self._clock() - self._options.reconcile_window_h * 3600

    # -- changes -> series -> instances -------------------------------------------------------------------------

    def _take_changes(self, changes: Sequence[Change]) -> int:
        """Fetch the instances of these rows, and what else the spool lacks of their series."""
        named = dict.fromkeys(c.resource_id for c in changes if c.kind in ("NewSeries", "StableSeries"))
        rows = {c.resource_id: c.seq for c in changes if c.kind == "NewInstance" and not self._came_ahead(c)}
        series = self._series(named)
        homeless = set(rows).difference(*(one.instance_ids for one in series))
        while homeless:
            series_id = self._client.series_of_instance(homeless.pop())
            found = self._series([] if series_id is None else [series_id])
            homeless.difference_update(*(one.instance_ids for one in found))
            series += found
        # Where the spool has an image that is new in Orthanc, Orthanc has replaced it: take the bytes again.
        new = {one: seq for one, seq in rows.items() if seq not in self._dealt_with}
        try:
            return self._take_series(series, again=frozenset(new))
        finally:
            self._dealt_with.update(seq for one, seq in new.items() if one in self._ahead)
            self._ahead -= new.keys()  # these were their rows; the next ones mean "replaced"

    def _came_ahead(self, row: Change) -> bool:
        """Whether its image was taken with its series ahead of this row of the log; true once for each taking.

        The row counts as dealt with then: should this look fail, the next one does not take the image again.
        """
        ahead = row.resource_id in self._ahead or row.resource_id in self._ahead_before
        self._ahead.discard(row.resource_id)
        self._ahead_before.discard(row.resource_id)
        if ahead:
            self._dealt_with.add(row.seq)
        return ahead

    def _series(self, series_ids: Iterable[str]) -> list[OrthancSeries]:
        """Those of them that are still there."""
        found = []
        for series_id in series_ids:
            series = self._client.series(series_id)
            if series is None:
                self._arriving.pop(series_id, None)
            else:
                found.append(series)
        return found

    def _take_series(
        self, several: Iterable[OrthancSeries], *, again: frozenset[str] = frozenset(), insist: bool = False
    ) -> int:
        """Fetch what the spool lacks of these, and `again` in any case; `insist` also tries what was given up.

        All of them together: the images of a study may come in any order, a few of each series between two looks.
        """
        found = [self._reading(series, again.intersection(series.instance_ids)) for series in several]
        readings = [one for one in found if one is not None]
        studies = {one.study_uid for one in readings}
        had = {study: self._spool.sop_instance_uids(study) for study in studies}
        wanted = [
            Wanted(
                study_instance_uid=one.study_uid,
                series_instance_uid=one.series.series_instance_uid,
                instance_ids=one.again | self._fetcher.worth_asking(one.lacking(had[one.study_uid]), insist=insist),
            )
            for one in readings
        ]
        outcomes: dict[str, Taken | Refusal] = {}
        try:
            self._fetcher.fetch(wanted, outcomes)
        finally:
            ended = {one for one in outcomes if not self._fetcher.has_failed(one)}
            self._ahead |= ended & again
        if not insist:  # in a comparison most have had their rows already: the next ones mean "replaced"
            self._ahead |= ended
        self._owed += sum(self._fetcher.is_owed(one) for one in outcomes)
        return sum(self._conclude(reading, outcomes) for reading in readings)

    def _reading(self, series: OrthancSeries, again: frozenset[str]) -> _Reading | None:
        """What is to be compared with the spool; None where nothing is."""
        if series.modality != "MR":
            self._ahead.update(series.instance_ids)
            return None
        if not again and self._settled.get(series.orthanc_id) == _state(series):
            return None
        before = self._arriving.get(series.orthanc_id)
        study_uid = self._client.study_instance_uid(series.study_id) if before is None else before.study_uid
        known = {} if before is None else before.sop_uids
        unknown = set(series.instance_ids) - again - known.keys()
        sop_uids = self._client.instances_of_series(series.orthanc_id) if unknown else known
        if study_uid is None or sop_uids is None:
            self._arriving.pop(series.orthanc_id, None)
            return None
        return _Reading(series=series, study_uid=study_uid, sop_uids=sop_uids, again=again)

    def _conclude(self, reading: _Reading, outcomes: Mapping[str, Taken | Refusal]) -> int:
        """Tell the spool what its series lacks; how many images are new."""
        series, ids = reading.series, reading.series.instance_ids
        refused = min(self._fetcher.left_out.keys() & ids, default=None)
        refusal = None if refused is None else self._fetcher.left_out[refused]
        self._spool.set_refused(reading.study_uid, series.series_instance_uid, refusal)
        ended = {one: taken for one in ids if isinstance(taken := outcomes.get(one), Taken)}
        reading.sop_uids.update({one: taken.sop_instance_uid for one, taken in ended.items() if taken.sop_instance_uid})
        kinds = Counter(taken.kind for taken in ended.values())
        has_failed = any(self._fetcher.has_failed(one) for one in ids)
        if kinds[InstanceOutcome.SPOOLED]:
            level = logging.DEBUG if series.orthanc_id in self._arriving else logging.INFO
            new = kinds[InstanceOutcome.SPOOLED]
            log.log(level, "event=orthanc_series_read series=%s new=%d", series.series_instance_uid, new)
        self._settle(reading, is_complete=not has_failed)
        return kinds[InstanceOutcome.SPOOLED]

    def _settle(self, reading: _Reading, *, is_complete: bool) -> None:
        """Tell the spool how many to expect once Orthanc has seen no new image for a while."""
        series = reading.series
        if not series.is_stable:
            self._arriving[series.orthanc_id] = reading
            return
        self._arriving.pop(series.orthanc_id, None)
        images = len(set(series.instance_ids) - self._fetcher.foreign)
        self._spool.set_expected(series.series_instance_uid, images)
        if is_complete:
            self._settled[series.orthanc_id] = _state(series)
        log.info("event=orthanc_series_at_rest series=%s images=%d", series.series_instance_uid, images)

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
