"""Series of an Orthanc into the spool: what it lacks of them is fetched, and how many images they have is told it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial

from dicom_node.errors import Refusal
from dicom_node.intake.images_ahead import ImagesAhead
from dicom_node.intake.instance_fetcher import InstanceFetcher, Wanted
from dicom_node.intake.orthanc_instance import InstanceOutcome, Taken
from dicom_node.intake.replaced_images import ReplacedImages
from dicom_node.intake.series_memory import Reading, SeriesMemory, Settled
from dicom_node.intake.series_questions import QuestionFailed, SeriesQuestions
from dicom_node.intake.spool import Spool
from dicom_node.intake.wire_check import is_legal_uid
from dicom_node.orthanc_client import Change, OrthancClient, OrthancSeries

log = logging.getLogger(__name__)


class SeriesTaker:
    """Takes series, by the rows of the change log that name them or by comparison; one thread uses it.

    Parameters
    ----------
    client, spool
        From where to where.
    fetcher
        Brings single images; was told of those `replaced`.
    replaced
        Remembers images beyond a restart that a comparison by UIDs would not miss.

    attempts
        A series that Orthanc fails on in so many looks, while it answers otherwise, is left to the next comparison.
    quiet_s
        How long a series must have been seen unchanged before its number of images is taken for the whole of it.

    Attributes
    ----------
    quiet_s
        The same; may be set from any thread.
    ahead
        Images that were fetched ahead of their rows.
    owed
        How often Orthanc failed on something in this look that is not given up: the log waits for it.
    """

    def __init__(
        self,
        client: OrthancClient,
        spool: Spool,
        fetcher: InstanceFetcher,
        replaced: ReplacedImages,
        *,
        attempts: int,
        quiet_s: float,
    ) -> None:
        self._client = client
        self._spool = spool
        self._fetcher = fetcher
        self._replaced = replaced
        self._questions = SeriesQuestions(client, attempts=attempts)
        self.quiet_s = quiet_s
        self.ahead = ImagesAhead()
        self.owed = 0
        self._memory = SeriesMemory()
        self._nameless: set[str] = set()

    def begin_look(self) -> None:
        """A look at the log, or at what arrives, begins."""
        self.owed = 0
        self._questions.begin_look()

    def begin_anew(self) -> None:
        """Forget what was seen: it is another database now."""
        self._memory.clear()
        self.ahead.clear()
        self._replaced.clear()

    def take_arriving(self) -> int:
        """Look again at the series that had not come to rest; how many images are new."""
        return self._take(self._series(self._memory.arriving()))

    def now(self) -> float:
        """For `compare`: seconds of a clock that is never set."""
        return self._memory.clock()

    def compare(self, series: OrthancSeries, *, listed_at: float) -> int:
        """Fetch what the spool lacks of this series, also what was given up; how many images are new.

        Orthanc listed it not before `listed_at`, of `now`.
        """
        settled = self._memory.settled(series)
        if settled is not None and self._is_still_whole(series, settled):
            return 0
        return self._take([series], listed_at=listed_at, insist=True)

    def take_changes(self, changes: Sequence[Change]) -> int:
        """Fetch the instances of these rows, and what else the spool lacks of their series."""
        named = dict.fromkeys(c.resource_id for c in changes if c.kind in ("NewSeries", "StableSeries"))
        rows = self.ahead.not_ahead(changes)
        series = self._series(named)
        homeless = set(rows).difference(*(one.instance_ids for one in series))
        while homeless:
            found = self._series_of(homeless.pop())
            homeless.difference_update(*(one.instance_ids for one in found))
            series += found
        # Where the spool has an image that is new in Orthanc, Orthanc has replaced it: take the bytes again.
        new = self.ahead.undone(rows)
        try:
            return self._take(series, again=frozenset(new))
        finally:
            self.ahead.had_their_rows(new)

    def _series(self, series_ids: Iterable[str]) -> list[OrthancSeries]:
        """Those of them that are still there, and that Orthanc does not fail on."""
        found = []
        for series_id in series_ids:
            try:
                series = self._questions.ask(series_id, partial(self._client.series, series_id))
            except QuestionFailed as failed:
                self._miss(failed, series_id=series_id)
                continue
            if series is None:
                self._memory.forget(series_id)
            else:
                found.append(series)
        return found

    def _series_of(self, instance_id: str) -> list[OrthancSeries]:
        """The series of an instance; none where one of them is gone or Orthanc fails on one of them."""
        try:
            series_id = self._questions.ask(instance_id, partial(self._client.series_of_instance, instance_id))
            if series_id is None:
                return []
            series = self._questions.ask(series_id, partial(self._client.series, series_id))
        except QuestionFailed as failed:
            self._miss(failed, again={instance_id})
            return []
        return [] if series is None else [series]

    def _miss(self, failed: QuestionFailed, *, series_id: str = "", again: Set[str] = frozenset()) -> None:
        """Orthanc failed on a series: the log waits for it, or goes on and leaves it to the next comparison."""
        if not failed.given_up:
            self.owed += failed.is_new
            return
        self._memory.pass_over(series_id)
        self._replaced.add(again)
        self._fetcher.give_up(again)

    def _is_still_whole(self, series: OrthancSeries, settled: Settled) -> bool:
        """Whether the spool has what it had of a series; also if that was erased, which is not to be undone."""
        arrived = self._spool.arrival(series.series_instance_uid)
        kept = 0 if arrived is None else arrived.received
        return kept >= settled.kept or self._spool.erased(settled.study_uid) is not None

    def _take(
        self,
        several: Iterable[OrthancSeries],
        *,
        again: frozenset[str] = frozenset(),
        listed_at: float | None = None,
        insist: bool = False,
    ) -> int:
        """Fetch what the spool lacks of these, and `again` in any case; `insist` also tries what was given up.

        All of them together: the images of a study may come in any order, a few of each series between two looks.
        """
        at = self._memory.clock() if listed_at is None else listed_at
        found = [
            self._reading(series, again.intersection(series.instance_ids), listed_at=at, insist=insist)
            for series in several
        ]
        readings = [one for one in found if one is not None]
        studies = {one.study_uid for one in readings}
        had = {study: self._spool.sop_instance_uids(study) for study in studies}
        wanted = [
            Wanted(
                study_instance_uid=one.study_uid,
                series_instance_uid=one.series.series_instance_uid,
                instance_ids=one.again | self._worth_asking(one, had[one.study_uid], insist=insist),
            )
            for one in readings
        ]
        outcomes: dict[str, Taken | Refusal] = {}
        try:
            self._fetcher.fetch(wanted, outcomes)
        finally:
            self._note_replaced(again, outcomes)
            ended = {one for one in outcomes if not self._fetcher.has_failed(one)}
            self._note_ahead(readings, ended & again)
        if not insist:  # in a comparison most have had their rows already: the next ones mean "replaced"
            self._note_ahead(readings, ended)
        self.owed += sum(self._fetcher.is_owed(one) for one in outcomes)
        return sum(self._conclude(reading, outcomes) for reading in readings)

    def _worth_asking(self, reading: Reading, had: Set[str], *, insist: bool) -> set[str]:
        """What the spool, which has these UIDs, lacks of a series; with `insist` also versions that it never had."""
        worth = self._fetcher.worth_asking(reading.lacking(had))
        return worth | self._fetcher.unfinished(reading.series.instance_ids) if insist else worth

    def _note_ahead(self, readings: Iterable[Reading], ended: Set[str]) -> None:
        for one in readings:
            self.ahead.add(one.series, ended & set(one.series.instance_ids))

    def _note_replaced(self, again: Set[str], outcomes: Mapping[str, Taken | Refusal]) -> None:
        """Write down what was not had of `again`, and strike off what was had: before the cursor passes their rows."""
        had = {one for one, outcome in outcomes.items() if isinstance(outcome, Taken)}
        had -= self._fetcher.unfinished(had)
        self._replaced.strike(had)
        self._replaced.add(one for one in again & outcomes.keys() if one not in had and not self._fetcher.is_owed(one))

    def _reading(
        self, series: OrthancSeries, again: frozenset[str], *, listed_at: float, insist: bool
    ) -> Reading | None:
        """What is to be compared with the spool; None where nothing is."""
        if series.modality != "MR" or series.orthanc_id in self._nameless:
            self.ahead.add(series, series.instance_ids)
            return None
        if not again and not insist and self._memory.settled(series) is not None:
            return None
        unchanged_s = self._memory.unchanged_s(series, listed_at=listed_at)
        before = self._memory.before(series)
        known = {} if before is None else before.sop_uids
        sop_uids: dict[str, str] | None = known
        ask = partial(self._questions.ask, series.orthanc_id, insist=insist)
        try:
            study_uid = (
                ask(lambda: self._client.study_instance_uid(series.study_id)) if before is None else before.study_uid
            )
            if set(series.instance_ids) - again - known.keys():
                sop_uids = ask(lambda: self._client.instances_of_series(series.orthanc_id))
        except QuestionFailed as failed:
            self._miss(failed, series_id=series.orthanc_id, again=again)
            return None
        self._questions.answered(series.orthanc_id)
        if study_uid is None or sop_uids is None:
            self._memory.forget(series.orthanc_id)
            return None
        if not (_is_legal(study_uid) and _is_legal(series.series_instance_uid)):
            self._pass_over(series)
            return None
        return Reading(series=series, study_uid=study_uid, sop_uids=sop_uids, again=again, unchanged_s=unchanged_s)

    def _pass_over(self, series: OrthancSeries) -> None:
        """Leave a series alone that no row of the state database can name: Orthanc asks for less than we do."""
        log.warning(
            "event=orthanc_series_passed_over id=%s reason=its Study or Series Instance UID is no UID",
            series.orthanc_id,
        )
        self._nameless.add(series.orthanc_id)
        self._memory.forget(series.orthanc_id)
        self.ahead.add(series, series.instance_ids)

    def _conclude(self, reading: Reading, outcomes: Mapping[str, Taken | Refusal]) -> int:
        """Tell the spool what its series lacks; how many images are new."""
        series, ids = reading.series, reading.series.instance_ids
        refused = min(self._fetcher.left_out.keys() & ids, default=None)
        refusal = None if refused is None else self._fetcher.left_out[refused]
        has_failed = any(self._fetcher.has_failed(one) for one in ids)
        if refusal is not None or not has_failed:  # what Orthanc failed on may be what was refused before a restart
            self._spool.set_refused(reading.study_uid, series.series_instance_uid, refusal)
        ended = {one: taken for one in ids if isinstance(taken := outcomes.get(one), Taken)}
        reading.sop_uids.update({one: taken.sop_instance_uid for one, taken in ended.items() if taken.sop_instance_uid})
        kinds = Counter(taken.kind for taken in ended.values())
        if kinds[InstanceOutcome.SPOOLED]:
            level = logging.DEBUG if self._memory.before(series) else logging.INFO
            new = kinds[InstanceOutcome.SPOOLED]
            log.log(level, "event=orthanc_series_read series=%s new=%d", series.series_instance_uid, new)
        deleted = {one for one, taken in ended.items() if taken.kind is InstanceOutcome.DELETED}
        self._settle(reading, deleted=deleted, is_complete=not self._fetcher.unfinished(ids) and not deleted)
        return kinds[InstanceOutcome.SPOOLED]

    def _settle(self, reading: Reading, *, deleted: Set[str], is_complete: bool) -> None:
        """Tell the spool how many to expect once no new image has been seen for a while, by Orthanc and by us."""
        series = reading.series
        images = len(set(series.instance_ids) - self._fetcher.foreign - deleted)
        if not series.is_stable or not self._is_at_rest(reading, images):
            self._memory.arrives(reading)
            return
        self._spool.set_expected(series.series_instance_uid, images)
        settled = None
        if is_complete:
            arrived = self._spool.arrival(series.series_instance_uid)
            settled = Settled(study_uid=reading.study_uid, kept=0 if arrived is None else arrived.received)
        self._memory.rests(series, settled)
        log.info("event=orthanc_series_at_rest series=%s images=%d", series.series_instance_uid, images)

    def _is_at_rest(self, reading: Reading, images: int) -> bool:
        """Whether a series that Orthanc calls stable was unchanged for the quiet time, or once at rest with so many."""
        if reading.unchanged_s >= self.quiet_s:
            return True
        arrived = self._spool.arrival(reading.series.series_instance_uid)
        return arrived is not None and arrived.expected == images


def _is_legal(uid: str) -> bool:
    return is_legal_uid(uid.encode("ascii", "replace"))
