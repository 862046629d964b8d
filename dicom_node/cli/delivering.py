"""The delivering side of the node: what goes where, how often it is tried, and who is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import Engine

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.cli.wiring import audit_trail, destinations, made_kinds, retry_policy
from dicom_node.delivery import commitment_scu, orthanc_rest, store_scu
from dicom_node.delivery.capabilities import Capabilities, DestinationForms, FormChoice
from dicom_node.delivery.commitment_pump import CommitmentPump
from dicom_node.delivery.commitment_reports import ReportDesk
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import Delivery, Outbox
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.errors import TransientError
from dicom_node.settings import LoadedSettings
from dicom_node.study_cards import StudyCards

log = logging.getLogger(__name__)


class Outgoing:
    """What leaves the node: the pump that sends, and the one that asks who was sent to to vouch for keeping it."""

    def __init__(self, loaded: LoadedSettings, outbox: Outbox, engine: Engine) -> None:
        receivers, policy = destinations(loaded), retry_policy(loaded.settings)
        commitments = Commitments(engine, policy=policy)
        self._asking = CommitmentPump(
            commitments,
            receivers,
            reports=ReportDesk(commitments, clock=time.time),
            asker=commitment_scu.ask,
            clock=time.time,
        )
        self._audit = delivery_auditor(audit_trail(loaded), StudyCards(engine), loaded.settings.node.ae_title)
        capabilities = Capabilities(engine, made=made_kinds(loaded.settings))
        self._sending = DeliveryPump(
            outbox,
            receivers,
            {"dicom": store_scu.store, "orthanc": orthanc_rest.upload},
            policy=policy,
            clock=time.time,
            choice=FormChoice(capabilities, store_scu.accepted_kinds, clock=time.time, on_answer=log_forms),
            on_delivered=self._delivered,
        )

    def start(self) -> None:
        """Send and ask from now on; what was left by the last run comes first."""
        self._asking.start()
        self._sending.start()

    def wake(self) -> None:
        """Look at the outbox now. Returns at once."""
        self._sending.wake()

    def stop(self) -> bool:
        """Finish what is under way, begin nothing else; whether all threads ended in time."""
        return all((self._sending.stop(), self._asking.stop()))

    def dead(self) -> tuple[str, ...]:
        """Names of destinations of which a thread ended by a fault of ours."""
        return tuple(dict.fromkeys((*self._sending.dead(), *self._asking.dead())))

    def _delivered(self, delivery: Delivery) -> None:
        self._audit(delivery)
        self._asking.wake()


def report_desk(loaded: LoadedSettings, engine: Engine) -> ReportDesk:
    """What answers the reports that come to our listener."""
    return ReportDesk(Commitments(engine, policy=retry_policy(loaded.settings)), clock=time.time)


def log_forms(forms: DestinationForms) -> None:
    """Say what a destination takes; an alarm where a person could read nothing of it."""
    sent = ",".join(answer.kind for answer in forms.answers if answer.sent) or "nothing"
    log.info("event=destination_asked destination=%s gets=%s", forms.destination, sent)
    if not forms.readable:
        log.error(
            "event=destination_without_readable_form destination=%s gets=%s hint=let it accept SR, SC or PDF",
            forms.destination,
            sent,
        )


def delivery_auditor(trail: AuditTrail, cards: StudyCards, ae_title: str) -> Callable[[Delivery], None]:
    """What writes the entry "instances transferred" about each confirmed delivery.

    An entry that the disk does not take is told in the log; the object is at its destination by then.
    """

    def record(delivery: Delivery) -> None:
        card = cards.get(delivery.study_instance_uid)
        try:
            trail.record(
                AuditAction.RESULTS_SENT,
                actor=ae_title,
                study_instance_uid=delivery.study_instance_uid,
                patient_id="" if card is None else card.patient_id,
                peer=delivery.destination,
                detail=f"{delivery.kind} {delivery.sop_instance_uid}",
            )
        except TransientError as error:
            log.error("event=audit_failed action=results_sent reason=%s", error)

    return record
