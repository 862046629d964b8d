"""Several images at once from Orthanc into the spool, and what became of those that the spool does not have."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dicom_node.errors import Reason, Refusal
from dicom_node.intake.orthanc_instance import InstanceOutcome, InstanceRefused, InstanceTaker, Taken

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Instances of one series, by their Orthanc ids."""

    study_instance_uid: str
    series_instance_uid: str
    instance_ids: frozenset[str]


def log_refusal(study_instance_uid: str, refusal: Refusal) -> None:
    """Says in the log that an instance could not be taken."""
    log.error(
        "event=orthanc_instance_refused study=%s series=%s reason=%s detail=%s",
        study_instance_uid,
        refusal.series_instance_uid,
        refusal.reason,
        refusal.detail,
    )


class InstanceFetcher:
    """Takes instances by several threads; one thread uses it.

    Parameters
    ----------
    taker
        Takes one.
    parallel
        How many at once.
    attempts_per_instance
        An instance that Orthanc fails on so often, while it answers otherwise, is given up.
    on_refusal
        Told (Study Instance UID, refusal) when an image cannot be taken.

    Attributes
    ----------
    left_out, foreign
        Instances that cannot be taken, with the reason, and those that are no MR images, by their Orthanc ids.
    fetched
        How many are in the spool because of us.
    """

    def __init__(
        self,
        taker: InstanceTaker,
        *,
        parallel: int,
        attempts_per_instance: int,
        on_refusal: Callable[[str, Refusal], None],
    ) -> None:
        self._taker = taker
        self._parallel = parallel
        self._attempts = attempts_per_instance
        self._on_refusal = on_refusal
        self._failures: Counter[str] = Counter()
        self.left_out: dict[str, Refusal] = {}
        self.foreign: set[str] = set()
        self.fetched = 0

    def worth_asking(self, instance_ids: Iterable[str]) -> set[str]:
        """Those that are not known to be out of reach."""
        hopeless = self.left_out.keys() | self.foreign
        return {one for one in instance_ids if one not in hopeless and not self._is_given_up(one)}

    def unfinished(self, instance_ids: Iterable[str]) -> set[str]:
        """Those that Orthanc failed on when they were asked for last, and those that were damaged: both may heal."""
        return {one for one in instance_ids if self.has_failed(one) or self._was_damaged(one)}

    def give_up(self, instance_ids: Iterable[str]) -> None:
        """Hold these for given up: Orthanc failed on them before this process began."""
        self._failures.update(dict.fromkeys(instance_ids, self._attempts))

    def is_owed(self, instance_id: str) -> bool:
        """Whether Orthanc failed on it when it was asked last, and it is not given up."""
        return self.has_failed(instance_id) and not self._is_given_up(instance_id)

    def has_failed(self, instance_id: str) -> bool:
        """Whether Orthanc failed on it when it was asked last, given up or not."""
        return instance_id in self._failures

    def fetch(self, wanted: Sequence[Wanted], outcomes: dict[str, Taken | Refusal]) -> None:
        """Note in `outcomes` what became of each instance, or why it cannot be taken; before a failure, of the first.

        Raises
        ------
        TransientError
            Orthanc, network, disk or database failed.
        """
        places = {instance_id: one for one in wanted for instance_id in sorted(one.instance_ids)}
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="orthanc-fetch") as pool:
            running = {instance_id: pool.submit(self._taker.take, instance_id) for instance_id in places}
            owed = {}
            try:
                for instance_id, future in running.items():
                    outcome = self._outcome(instance_id, future, places[instance_id])
                    if isinstance(outcome, Taken) and outcome.kind is InstanceOutcome.OWED:
                        owed[instance_id] = outcome  # counted only where Orthanc answers for all others
                    else:
                        outcomes[instance_id] = outcome
                        self._remember(instance_id, outcome)
            finally:
                pool.shutdown(cancel_futures=True)  # when Orthanc is gone, do not wait for it once per image
        for instance_id, outcome in owed.items():
            self._count_failure(instance_id, places[instance_id], outcome.failure)
        outcomes |= owed

    def _outcome(self, instance_id: str, future: Future[Taken], place: Wanted) -> Taken | Refusal:
        try:
            return future.result()
        except InstanceRefused as refused:
            uid = place.series_instance_uid
            refusal = Refusal(reason=refused.reason, detail=refused.detail, series_instance_uid=uid)
            if self.left_out.get(instance_id) != refusal:  # the same again is no news
                self._on_refusal(place.study_instance_uid, refusal)
            return refusal

    def _count_failure(self, instance_id: str, place: Wanted, failure: str) -> None:
        self._failures[instance_id] += 1
        log.warning(
            'event=orthanc_instance_failed series=%s instance=%s attempt=%d given_up=%s reason="%s"',
            place.series_instance_uid,
            instance_id,
            self._failures[instance_id],
            self._is_given_up(instance_id),
            failure,
        )

    def _remember(self, instance_id: str, outcome: Taken | Refusal) -> None:
        self._failures.pop(instance_id, None)
        self.left_out.pop(instance_id, None)
        if isinstance(outcome, Refusal):
            self.left_out[instance_id] = outcome
        elif outcome.kind is InstanceOutcome.FOREIGN:
            self.foreign.add(instance_id)
        else:
            self.fetched += outcome.kind is InstanceOutcome.SPOOLED

    def _was_damaged(self, instance_id: str) -> bool:
        refusal = self.left_out.get(instance_id)
        return refusal is not None and refusal.reason is Reason.SOURCE_CORRUPT

    def _is_given_up(self, instance_id: str) -> bool:
        return self._failures[instance_id] >= self._attempts
