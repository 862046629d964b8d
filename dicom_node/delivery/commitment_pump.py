"""Asks receivers to vouch for what they took: a thread for each, so that one that keeps silent delays no other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pynetdicom import evt

from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.commitment_reports import ReportDesk
from dicom_node.delivery.commitments import CommitmentRequest, Commitments
from dicom_node.delivery.lane import Lane, Lanes
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.planned_times import PlannedTimes

LOGGER = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
"""Deliveries are confirmed by other threads, which do not know us; the first question may come this much late."""


class Asker(Protocol):
    """How to put a question to a receiver; it returns an outcome and does not raise because of a peer."""

    def __call__(
        self,
        asked: CommitmentRequest,
        destination: Destination,
        *,
        answer: Callable[[evt.Event], tuple[int, None]],
        is_answered: Callable[[], bool],
    ) -> DeliveryOutcome:
        """DELIVERED when the receiver took the question; its answer may have come through `answer` by then."""
        ...


class CommitmentPump(Lanes):
    """Puts due questions and notes what became of them, until stopped.

    Parameters
    ----------
    commitments
        Where questions and answers are written down.
    destinations
        Those that are to commit get a thread; of the others nothing is asked any more.
    reports
        What takes answers that come on our own associations.
    asker
        How to ask.
    clock, monotonic
        POSIX seconds, and seconds that nobody sets.
    """

    def __init__(
        self,
        commitments: Commitments,
        destinations: Sequence[Destination],
        *,
        reports: ReportDesk,
        asker: Asker,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commitments = commitments
        self._clock = clock
        self._not_asked = [one.name for one in destinations if not one.to_commit]
        super().__init__(
            [
                _CommitmentLane(commitments, one, reports=reports, asker=asker, clock=clock, monotonic=monotonic)
                for one in destinations
                if one.to_commit
            ]
        )

    def start(self) -> None:
        """Forget what is not to be asked any more, then start one thread for each destination that is to commit."""
        released = self._commitments.release(self._not_asked)
        if released:
            LOGGER.info("event=commitment_released objects=%d destinations=%s", released, ",".join(self._not_asked))
        self._commitments.sweep(self._clock())
        super().start()


class _CommitmentLane(Lane):
    """The thread that asks one destination."""

    def __init__(
        self,
        commitments: Commitments,
        destination: Destination,
        *,
        reports: ReportDesk,
        asker: Asker,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__("commitment", destination)
        self._commitments = commitments
        self._reports = reports
        self._asker = asker
        self._clock = clock
        self._times = PlannedTimes(
            commitments,
            destination.name,
            longest_s=commitments.longest_pause_s,
            clock=clock,
            monotonic=monotonic,
        )

    def work(self) -> float:
        while not self.stopping:
            self._times.look()
            asked = self._commitments.begin(self.destination, self._clock())
            if asked is None:
                break
            outcome = self._ask(asked)
            self._commitments.note(asked, outcome, self._clock())
            _log(asked, self.destination, outcome)
        soonest = self._commitments.next_ask_at(self.destination.name)
        return LOOK_EVERY_S if soonest is None else max(0.0, min(LOOK_EVERY_S, soonest - self._clock()))

    def _ask(self, asked: CommitmentRequest) -> DeliveryOutcome:
        try:
            return self._asker(
                asked,
                self.destination,
                answer=self._reports.answer,
                is_answered=lambda: self.stopping or self._commitments.is_answered(asked.transaction_uid),
            )
        except DATABASE_AWAY:
            raise
        except Exception as error:  # the net of this worker: one question must not end the thread of all others
            LOGGER.exception("event=asking_to_commit_failed destination=%s", self.destination.name)
            return DeliveryOutcome(
                kind=OutcomeKind.RETRY_LATER,
                detail=f"this node failed to ask ({type(error).__name__}); see its log",
            )


def _log(asked: CommitmentRequest, destination: Destination, outcome: DeliveryOutcome) -> None:
    LOGGER.log(
        logging.INFO if outcome.kind is OutcomeKind.DELIVERED else logging.WARNING,
        "event=commitment_asked destination=%s transaction=%s objects=%d outcome=%s answer=%s",
        destination.name,
        asked.transaction_uid,
        len(asked.references),
        outcome.kind,
        repr(outcome.detail) if outcome.status is None else f"{outcome.status:04X}H",
    )
