"""How an outcome leaves the desk: files first, then everything that says so in one transaction, fenced by a claim.

What is drawn of a computed study follows (`picture_desk`); the same transaction says that it is owed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dicom_node.casework import CaseResult
from dicom_node.claims import Claim, Claims, TakenOverError
from dicom_node.delivery.outbox import KeptObjects, Outbox
from dicom_node.errors import TransientError
from dicom_node.examination import Work
from dicom_node.ledger import Ledger
from dicom_node.picture_desk import PictureDesk
from dicom_node.study_cards import EarResult, StudyCards, ear_results
from dicom_node.study_moves import StudyEvent

log = logging.getLogger(__name__)


class Publisher:
    """Lets outcomes out.

    Parameters
    ----------
    destinations
        Names of the configured destinations.
    send_not_computed
        Whether the report that says why nothing was computed is sent as well.
    on_published
        Called when something new waits in the outbox.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        claims: Claims,
        cards: StudyCards,
        outbox: Outbox,
        pictures: PictureDesk,
        destinations: Sequence[str],
        send_not_computed: bool,
        on_published: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._claims = claims
        self._cards = cards
        self._outbox = outbox
        self._pictures = pictures
        self._destinations = tuple(destinations)
        self._send_not_computed = send_not_computed
        self._on_published = on_published

    def publish(self, work: Work, claim: Claim, result: CaseResult, *, at: float) -> None:
        """Make the outcome known, and what is to be sent of it.

        Raises
        ------
        TakenOverError
            If another worker has taken the study over: nothing of this outcome is known then.
        IllegalMoveError
            If the study was canceled or re-opened before the transaction: the same.
        TransientError
            If the disk of the outbox does not take the files.
        """
        sends = result.findings is not None or self._send_not_computed
        kept = self._keep_objects(result) if sends else None
        try:
            self._make_known(work, claim, result, kept, at)
        except TakenOverError:
            if kept is not None:
                self._outbox.clear_others(kept)
            raise
        if kept is not None:
            self._outbox.clear_others(kept)
        self._on_published()
        reason = result.refusals[0].reason.value if result.refusals else ""
        log.info("event=study_finished study=%s reason=%s", work.study_instance_uid, reason)

    def _make_known(self, work: Work, claim: Claim, result: CaseResult, kept: KeptObjects | None, at: float) -> None:
        """One transaction: claim still ours, outcome, deliveries, numbers, what is still to be drawn."""
        study = work.study_instance_uid
        ears = self._ear_results(work, result, at)
        first = result.refusals[0] if result.refusals else None
        with self._ledger.transaction() as connection:
            self._claims.require(claim, within=connection)
            self._ledger.move(
                study,
                StudyEvent.COMPUTED if first is None else StudyEvent.REFUSED,
                at=at,
                within=connection,
                of_work=work.as_json(),
                reason="" if first is None else first.reason.value,
                detail="" if first is None else first.detail,
                findings=result.document,
            )
            if kept is not None:
                self._outbox.queue(work.work_id, study, kept, self._destinations, at=at, within=connection)
            self._cards.put_results(ears, within=connection)
            if result.drawing is not None:
                self._pictures.owe(work, result.drawing, at=at, within=connection)

    def _ear_results(self, work: Work, result: CaseResult, now: float) -> list[EarResult]:
        """Each ear's numbers for the tables; none for a refused study."""
        if result.findings is None:
            return []
        card = self._cards.get(work.study_instance_uid)
        assert card is not None, "a study is examined, and so has its card, before it is computed"
        return ear_results(work.work_id, card, result.findings, at=now)

    def _keep_objects(self, result: CaseResult) -> KeptObjects:
        """The objects on disk, where nobody knows of them yet."""
        try:
            return self._outbox.keep(result.objects)
        except OSError as error:
            raise TransientError(f"outbox on disk: {error.strerror}") from error
