"""The delivering side of the node: what goes where, how often it is tried, and who is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import Engine

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.cli.wiring import audit_trail, destinations, made_kinds
from dicom_node.delivery import orthanc_rest, store_scu
from dicom_node.delivery.capabilities import Capabilities, DestinationForms, FormChoice
from dicom_node.delivery.outbox import Delivery, Outbox, RetryPolicy
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.errors import TransientError
from dicom_node.settings import LoadedSettings
from dicom_node.study_cards import StudyCards

log = logging.getLogger(__name__)


def make_pump(loaded: LoadedSettings, outbox: Outbox, engine: Engine) -> DeliveryPump:
    """The pump to every configured destination."""
    settings = loaded.settings.delivery
    policy = RetryPolicy(
        first_retry_s=settings.first_retry_s,
        max_retry_s=settings.max_retry_s,
        give_up_after_s=settings.give_up_after_h * 3600.0,
    )
    senders = {"dicom": store_scu.store, "orthanc": orthanc_rest.upload}
    capabilities = Capabilities(engine, made=made_kinds(loaded.settings))
    choice = FormChoice(capabilities, store_scu.accepted_kinds, clock=time.time, on_answer=log_forms)
    return DeliveryPump(
        outbox,
        destinations(loaded),
        senders,
        policy=policy,
        clock=time.time,
        choice=choice,
        on_delivered=delivery_auditor(audit_trail(loaded), StudyCards(engine), loaded.settings.node.ae_title),
    )


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
