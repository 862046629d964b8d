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

from dicom_node.case import Case, CaseOptions
from dicom_node.casework import refuse_case
from dicom_node.database import DATABASE_AWAY
from dicom_node.delivery.outbox import Outbox, OutboxObject
from dicom_node.errors import Reason, Refusal, TransientError
from dicom_node.examination import Examiner
from dicom_node.intake.spool import Spool
from dicom_node.ledger import Ledger, StudyRecord
from dicom_node.owed_failures import MAX_BEGINNINGS, OwedFailure, OwedFailures, Turn, failure_key
from dicom_node.pipeline import StepTimer
from dicom_node.study_moves import OvertakenError, StudyEvent, StudyState
from inference.findings import ModelIdentity

log = logging.getLogger(__name__)

SAID: Final = "This says nothing about the images; whoever looks after the node can have the study measured again."
"""What exactly failed stands in the dashboard: words of an error message have no place in a patient's record."""

TROUBLE_PASSES_S: Final = 86400.0
"""A disk that has not taken the report by then counts as a fault: somebody has to hear of it."""


class FailureDesk:
    """Owes reports of failures, and lets them out. One thread at a time calls `tell`.

    Parameters
    ----------
    model, case_options
        What would have measured the study: part of the report's identity, as of every refusal.
    quiet_s, partner_wait_s
        Seconds without an image after which a study that had come to computing, or had not, is told of.
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
        spool: Spool,
        examiner: Examiner,
        model: ModelIdentity,
        case_options: CaseOptions,
        destinations: Sequence[str],
        send_not_computed: bool,
        quiet_s: float,
        partner_wait_s: float,
        clock: Callable[[], float],
        on_published: Callable[[], None],
    ) -> None:
        self._owed = owed
        self._ledger = ledger
        self._outbox = outbox
        self._spool = spool
        self._examiner = examiner
        self._model = model
        self._case_options = case_options
        self._destinations = tuple(destinations)
        self._send_not_computed = send_not_computed
        self._quiet_s = quiet_s
        self._partner_wait_s = partner_wait_s
        self._lost: list[OwedFailure] = []
        """Begun by this process, and broken off by trouble that passes: such a beginning does not count."""
        self._clock = clock
        self._on_published = on_published

    def owe(self, study_instance_uid: str, *, at: float, within: Connection) -> None:
        """Say, in the transaction in which a study fails, that this is to be told."""
        if self._send_not_computed:
            self._owed.owe(study_instance_uid, at=at, within=within)
        else:
            self._owed.forget(study_instance_uid, within=within)

    def tell(self) -> None:
        """Let out the report of the failure that is owed one longest; a study that was opened again owes none any more.

        One at a time: whoever calls has other studies to see to. Trouble that passes, as a full disk, is waited out.
        """
        while self._lost:
            self._owed.not_begun(self._lost[-1])
            self._lost.pop()
        for owed in self._owed.open():
            try:
                if self._see_to(owed):
                    return
            except DATABASE_AWAY:
                raise
            except OvertakenError:
                log.info("event=failure_overtaken study=%s", owed.study_instance_uid)
            except Exception:  # before it is begun: the others have their turn, and no study is blamed
                log.exception("event=failure_report_failed study=%s", owed.study_instance_uid)

    def _see_to(self, owed: OwedFailure) -> bool:
        """Whether this one was begun here: its report made, or tried in vain."""
        record = self._ledger.get(owed.study_instance_uid)
        if record is None or record.state is not StudyState.FAILED or not self._send_not_computed:
            self._owed.settle(owed)
            return False
        if not self._has_settled(record):
            return False
        turn = self._owed.begin(owed, at=self._clock())
        if turn is Turn.OVER:
            self._give_up(owed, record, f"{MAX_BEGINNINGS} beginnings ended without it; the log may say why")
        if turn is Turn.OURS:
            self._begin(owed, record)
        return turn is Turn.OURS

    def _has_settled(self, record: StudyRecord) -> bool:
        """Whether no image comes any more, which would open the study again and have it fail, and told, anew."""
        activity = self._spool.study(record.study_instance_uid)
        if activity is None:
            return True
        came_to_work = record.work.get("revision") == record.revision  # of these images: it was complete
        pause_s = self._quiet_s if came_to_work else self._partner_wait_s
        silent_s = self._clock() - activity.last_received_at
        return activity.revision == record.revision and not 0.0 <= silent_s < pause_s

    def _begin(self, owed: OwedFailure, record: StudyRecord) -> None:
        """Make the report.

        What fails here in a way that nobody foresaw may be this process and not the study, and what is gone now may be
        back: the next one to come, after a lease, tries once more. Trouble that passes is no beginning, for a day.
        """
        try:
            self._tell_of(owed, record)
        except DATABASE_AWAY:
            self._lost.append(owed)
            raise
        except OvertakenError:
            raise
        except Exception as error:  # another one is not begun by a process that may be to blame
            if not isinstance(error, (TransientError, OSError)) or isinstance(error, FileNotFoundError):
                log.exception("event=failure_report_failed study=%s", owed.study_instance_uid)
                return
            log.warning("event=failure_report_waits study=%s reason=%s", owed.study_instance_uid, error)
            if self._clock() - owed.failed_at < TROUBLE_PASSES_S:
                self._owed.not_begun(owed)

    def _tell_of(self, owed: OwedFailure, record: StudyRecord) -> None:
        study = owed.study_instance_uid
        if self._spool.study(study) is None:
            self._give_up(owed, record, "no image of it is whole on this node's disk any more")
            return
        case = self._examiner.open(study)
        refusal = case.assembly.refusal
        if refusal is not None and refusal.reason is Reason.NO_HYDROPS_STUDY:
            if record.work:
                self._give_up(owed, record, "what is left of it is no hydrops study")
            else:
                self._owed.settle(owed)  # nobody waits for a number
            return
        objects = self._report(case)
        self._examiner.forget(study)
        if objects:
            self._let_out(owed, record, objects)
        else:
            self._give_up(owed, record, "its images do not name it as a report has to")

    def _report(self, case: Case) -> tuple[OutboxObject, ...]:
        """The report and its page; nothing where the study's own UIDs are illegal."""
        now = self._clock()
        return refuse_case(
            case,
            (Refusal(reason=Reason.INTERNAL, detail=SAID),),
            model=self._model,
            options=self._case_options,
            step=StepTimer(self._clock),
            at=datetime.fromtimestamp(now).astimezone(),
        ).objects

    def _let_out(self, owed: OwedFailure, record: StudyRecord, objects: tuple[OutboxObject, ...]) -> None:
        """One transaction: the deliveries, and nothing is owed any more.

        Raises
        ------
        OvertakenError
            If the study has been opened again: nothing goes out, and the next look finds that nothing is owed.
        """
        study = owed.study_instance_uid
        kept = self._outbox.keep(objects)
        with self._ledger.transaction_at(study, record) as connection:
            told = self._owed.settle(owed, within=connection)
            if told:
                key, now = failure_key(study), self._clock()
                self._outbox.queue(key, study, kept, self._destinations, at=now, within=connection)
        self._outbox.clear_others(kept)
        if told:
            self._on_published()
            log.info("event=failure_told study=%s", study)

    def _give_up(self, owed: OwedFailure, record: StudyRecord, why: str) -> None:
        """Say in the study's history that its PACS was not told, and why."""
        study = owed.study_instance_uid
        with self._ledger.transaction_at(study, record) as connection:
            given_up = self._owed.settle(owed, within=connection)
            if given_up:
                self._ledger.note(study, StudyEvent.NOT_TOLD, why, at=self._clock(), within=connection)
        if given_up:
            log.error("event=failure_not_told study=%s", study)
