"""How a study gets its summary page and pictures once SEG and SR are out: drawn once, whoever has to draw them.

The row of `owed_pictures` is the fence. Two workers may draw the same page, one of them long after the other; the page
that is let out is that of whoever strikes the row off, and the bytes of the other one go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection

from dicom_node.casework import Drawing
from dicom_node.delivery.outbox import Outbox, OutboxObject
from dicom_node.errors import OutputMismatch, RejectedStudy, TransientError, left_by
from dicom_node.examination import Work
from dicom_node.ledger import Ledger
from dicom_node.owed_pictures import MAX_BEGINNINGS, OwedPictures, PicturesLostError
from dicom_node.pipeline import StepTimer
from dicom_node.study_moves import StudyEvent
from dicom_node.views.pack import build_view_pack
from dicom_node.views.shelf import ViewShelf

log = logging.getLogger(__name__)

BEGUN_TOO_OFTEN: Final = f"{MAX_BEGINNINGS} beginnings ended without them; memory may be short"


class PictureDesk:
    """Draws what is owed. One thread at a time.

    Parameters
    ----------
    destinations
        Names of the configured destinations.
    on_published
        Called when something new waits in the outbox.
    """

    def __init__(
        self,
        *,
        owed: OwedPictures,
        ledger: Ledger,
        outbox: Outbox,
        views: ViewShelf,
        destinations: Sequence[str],
        clock: Callable[[], float],
        on_published: Callable[[], None],
    ) -> None:
        self._owed = owed
        self._ledger = ledger
        self._outbox = outbox
        self._views = views
        self._destinations = tuple(destinations)
        self._clock = clock
        self._on_published = on_published
        self._in_hand: tuple[Work, Drawing] | None = None

    def owe(self, work: Work, drawing: Drawing, *, at: float, within: Connection) -> None:
        """Say, in the transaction that lets SEG and SR out, that page and pictures follow."""
        self._owed.owe(work.work_id, work.study_instance_uid, work.as_json(), at=at, within=within)
        self._in_hand = (work, drawing)

    def owes(self, work: Work) -> bool:
        """Whether this very run of the work has let SEG and SR out, and lacks page and pictures."""
        owed = self._owed.of_work(work.work_id)
        return owed is not None and not owed.given_up and Work.from_json(owed.work) == work

    def undrawn(self) -> list[Work]:
        """The work of which page and pictures are owed."""
        return [Work.from_json(one.work) for one in self._owed.open()]

    def draw(self, work: Work, step: StepTimer, compute_again: Callable[[Mapping[str, Any]], Drawing]) -> None:
        """Draw what this work owes and let it out; what cannot be drawn is given up, and told.

        `compute_again` makes what is to be drawn where this process has not got it: it was computed by another one. It
        is given the findings document that was let out then.

        Raises
        ------
        TransientError
            If the disk of outbox or views does not take the files: the same call goes on later.
        """
        try:
            drawing = self._drawing(work, compute_again)
            if drawing is None:
                self.give_up(work, BEGUN_TOO_OFTEN)
                return
            with step("draw summary"):
                page = drawing.page()
            with step("draw pictures"):
                self._keep_views(work, drawing)
        except (OutputMismatch, RejectedStudy, PicturesLostError) as error:
            self._in_hand = None
            self.give_up(work, str(error))
            return
        self._let_out(work, page)
        self._in_hand = None

    def fault(self, work: Work, problem: str) -> Work | None:
        """Leave the drawing to a worker that begins anew, after a fault that nobody foresaw, or give it up.

        Returns the run that is to draw; None if it was begun too often, or is drawn.
        """
        self._in_hand = None
        again = replace(work, faults=work.faults + 1)
        with self._ledger.transaction() as connection:
            left = self._owed.leave(work.work_id, again.as_json(), within=connection)
        if left:
            log.error("event=pictures_left_to_fresh_worker study=%s problem=%s", work.study_instance_uid, problem)
            return again
        self.give_up(work, left_by(MAX_BEGINNINGS, problem))
        return None

    def give_up(self, work: Work, why: str) -> bool:
        """Say in the study's history that its page is not drawn, and why; False if it is not owed any more."""
        with self._ledger.transaction() as connection:
            if not self._owed.give_up(work.work_id, why, within=connection):
                return False
            sentence = f"SEG and SR stand; {why}"
            study, now = work.study_instance_uid, self._clock()
            self._ledger.note(study, StudyEvent.NOT_DRAWN, sentence, at=now, within=connection)
        log.error("event=pictures_given_up study=%s work=%s", work.study_instance_uid, work.work_id[:12])
        return True

    def _drawing(self, work: Work, compute_again: Callable[[Mapping[str, Any]], Drawing]) -> Drawing | None:
        """What is to be drawn, in hand or computed once more; None if that has ended too many workers."""
        if self._in_hand is not None and self._in_hand[0] == work:
            return self._in_hand[1]
        if not self._owed.begin(work.work_id):
            return None
        outcome = self._ledger.finished(work.work_id)
        drawing = compute_again({} if outcome is None else outcome.findings)
        self._in_hand = (work, drawing)
        return drawing

    def _let_out(self, work: Work, page: tuple[OutboxObject, ...]) -> None:
        """One transaction: the page's deliveries, and nothing is owed any more; nothing if another one was faster."""
        study, now = work.study_instance_uid, self._clock()
        try:
            kept = self._outbox.keep(page)
        except OSError as error:
            raise TransientError(f"outbox on disk: {error.strerror}") from error
        with self._ledger.transaction() as connection:
            drawn = self._owed.settle(work.work_id, within=connection)
            if drawn:
                self._outbox.queue(work.work_id, study, kept, self._destinations, at=now, within=connection)
        self._outbox.clear_others(kept)
        if drawn:
            self._on_published()
            log.info("event=pictures_drawn study=%s work=%s", study, work.work_id[:12])
        else:
            log.warning("event=work_came_too_late study=%s reason=its page is drawn already", study)

    def _keep_views(self, work: Work, drawing: Drawing) -> None:
        """What the dashboard shows, before the page is let out: nothing is owed only when all of it is there."""
        pack = build_view_pack(drawing.findings, drawing.mrc_grid)
        try:
            self._views.put(work.work_id, pack.files)
        except OSError as error:
            raise TransientError(f"views on disk: {error.strerror}") from error
