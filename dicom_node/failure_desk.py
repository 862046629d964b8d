"""How a PACS hears of a study that the node failed on: a "not computed" report and page, from headers alone.

A radiologist who waits for a number shall not wait in vain. Nothing of what failed is done here: no pixel is read, no
network asked. What ends the telling too is given up after `owed_failures.MAX_BEGINNINGS`; the study's page and the
admins' notices tell of the failure in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from dicom_node.case import CaseOptions
from dicom_node.casework import refuse_case
from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.outbox import Outbox, OutboxObject
from dicom_node.errors import Reason, Refusal, TransientError
from dicom_node.examination import Examiner
from dicom_node.ledger import Ledger, StudyRecord
from dicom_node.owed_failures import OwedFailure, OwedFailures, Turn
from dicom_node.pipeline import StepTimer
from dicom_node.study_moves import OvertakenError, StudyState
from inference.findings import ModelIdentity

log = logging.getLogger(__name__)

SAID: Final = "This says nothing about the images; whoever looks after the node can have the study measured again."
"""What exactly failed stands in the dashboard: words of an error message have no place in a patient's record."""


class FailureDesk:
    """Owes reports of failures, and lets them out. One thread at a time calls `tell`.

    Parameters
    ----------
    model, case_options
        What would have measured the study: part of the report's identity, as of every refusal.
    destinations
        Names of the configured destinations.
    send_not_computed
        Whether the site wants such reports.
    on_published
        Called when something new waits in the outbox.
    """

    def __init__(
        self,
        *,
        owed: OwedFailures,
        ledger: Ledger,
        outbox: Outbox,
        examiner: Examiner,
        model: ModelIdentity,
        case_options: CaseOptions,
        destinations: Sequence[str],
        send_not_computed: bool,
        clock: Callable[[], float],
        on_published: Callable[[], None],
    ) -> None:
        self._owed = owed
        self._ledger = ledger
        self._outbox = outbox
        self._examiner = examiner
        self._model = model
        self._case_options = case_options
        self._destinations = tuple(destinations)
        self._send_not_computed = send_not_computed
        self._clock = clock
        self._on_published = on_published

    def owe(self, study_instance_uid: str, *, at: float, within: Connection) -> None:
        """Say, in the transaction in which a study fails, that this is to be told."""
        if self._send_not_computed:
            self._owed.owe(study_instance_uid, at=at, within=within)

    def tell(self) -> None:
        """Let out the report of every failure that is owed one; a study that was opened again owes none any more.

        Trouble that passes, as a full disk, is waited out, and holds up nothing else.
        """
        for owed in self._owed.open():
            record = self._ledger.get(owed.study_instance_uid)
            if record is None or record.state is not StudyState.FAILED:
                self._owed.settle(owed)
                continue
            turn = self._owed.begin(owed, at=self._clock())
            if turn is Turn.OURS:
                self._tell_of(owed, record)
            elif turn is Turn.OVER:
                self._give_up(owed, "whoever began it ended")

    def _tell_of(self, owed: OwedFailure, record: StudyRecord) -> None:
        try:
            objects = self._report(owed.study_instance_uid)
            if objects:
                self._let_out(owed, record, objects)
            else:
                self._give_up(owed, "it cannot be named in a report")
        except DATABASE_AWAY:
            raise
        except TransientError as error:
            self._owed.not_begun(owed)
            log.warning("event=failure_report_waits study=%s reason=%s", owed.study_instance_uid, error)
        except Exception as error:  # what made the node fail lies in the headers: telling fails over it as well
            log.exception("event=failure_report_failed study=%s", owed.study_instance_uid)
            self._give_up(owed, type(error).__name__)

    def _report(self, study_instance_uid: str) -> tuple[OutboxObject, ...]:
        """The report and its page; nothing where no image is left, or the study's own UIDs are illegal."""
        case = self._examiner.open(study_instance_uid)
        if not case.files:
            return ()
        refused = refuse_case(
            case,
            (Refusal(reason=Reason.INTERNAL, detail=SAID),),
            model=self._model,
            options=self._case_options,
            step=StepTimer(self._clock),
            at=datetime.fromtimestamp(self._clock()).astimezone(),
        )
        self._examiner.forget(study_instance_uid)
        return refused.objects

    def _let_out(self, owed: OwedFailure, record: StudyRecord, objects: tuple[OutboxObject, ...]) -> None:
        """One transaction: the deliveries, and nothing is owed any more; nothing if the study has been opened again."""
        study = owed.study_instance_uid
        try:
            kept = self._outbox.keep(objects)
        except OSError as error:
            raise TransientError(f"outbox on disk: {error.strerror}") from error
        try:
            with self._ledger.transaction_at(study, record) as connection:
                told = self._owed.settle(owed, within=connection)
                if told:
                    key, now = record.results_key, self._clock()
                    self._outbox.queue(key, study, kept, self._destinations, at=now, within=connection)
        except OvertakenError:  # the next look finds that it is owed no more
            told = False
        self._outbox.clear_others(kept)
        if told:
            self._on_published()
            log.info("event=failure_told study=%s", study)

    def _give_up(self, owed: OwedFailure, why: str) -> None:
        self._owed.settle(owed)
        log.error("event=failure_not_told study=%s reason=%s", owed.study_instance_uid, why)
