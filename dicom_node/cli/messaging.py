"""Settings to channels and the thread that tells people; and what counts as a condition worth telling."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from dicom_node.notices.channels import Channel, MailChannel, MailEncryption, WebhookChannel
from dicom_node.notices.digest import DigestOptions, nothing_of_the_patient
from dicom_node.notices.messenger import Messenger, MessengerOptions
from dicom_node.notices.notice import NoticeKind
from dicom_node.notices.notice_book import NoticeBook
from dicom_node.notices.watch import Conditions, Watch
from dicom_node.study_cards import StudyCards
from dicom_node.web.node_health import WORKER_SILENT_S, HealthSnapshot, NodeHealth

if TYPE_CHECKING:
    import threading

    from sqlalchemy import Engine

    from dicom_node.delivery.outbox import Outbox
    from dicom_node.ledger import Ledger
    from dicom_node.settings import LoadedSettings

NEARLY: Final = 2
"""A disk with less than this many times the required space is told of, while images are still taken."""


def channels_of(loaded: LoadedSettings) -> tuple[Channel, ...]:
    """The configured ways out; empty when notices are off."""
    settings = loaded.settings.notices
    found: list[Channel] = []
    if settings.mail_host:
        found.append(
            MailChannel(
                host=settings.mail_host,
                port=settings.mail_port,
                encryption=MailEncryption(settings.mail_encryption),
                sender=settings.mail_from,
                recipients=settings.mail_to,
                username=settings.mail_username,
                password=loaded.secrets.get("HYDROPS_MAIL_PASSWORD", ""),
            )
        )
    if settings.webhook_url:
        found.append(WebhookChannel(url=settings.webhook_url, token=loaded.secrets.get("HYDROPS_WEBHOOK_TOKEN", "")))
    return tuple(found)


def digest_options(loaded: LoadedSettings, cards: StudyCards | None) -> DigestOptions:
    """What messages say; of the patient only where the settings ask for it, and `cards` are there."""
    settings = loaded.settings.notices

    def patient(study_instance_uid: str) -> str:
        card = cards.get(study_instance_uid) if cards is not None else None
        if card is None:
            return ""
        return ", ".join(part for part in (card.written_name, card.patient_id, card.accession_number) if part)

    return DigestOptions(
        node_name=loaded.settings.results.device_name,
        dashboard_url=settings.dashboard_url,
        patient=patient if settings.include_patient else nothing_of_the_patient,
    )


def make_messenger(
    loaded: LoadedSettings,
    engine: Engine,
    *,
    ledger: Ledger,
    outbox: Outbox,
    health: NodeHealth,
    stop: threading.Event,
) -> Messenger | None:
    """The thread that tells people, or None when no channel is configured."""
    channels = channels_of(loaded)
    if not channels:
        return None
    book = NoticeBook(engine)
    watch = Watch(
        book,
        ledger=ledger,
        outbox=outbox,
        conditions=lambda: conditions_of(health.snapshot()),
        about=frozenset(NoticeKind(one) for one in loaded.settings.notices.about),
    )
    options = MessengerOptions(
        every_s=loaded.settings.notices.every_s, digest=digest_options(loaded, StudyCards(engine))
    )
    return Messenger(book, watch, channels, options=options, clock=time.time, stop=stop)


def conditions_of(now: HealthSnapshot) -> Conditions:
    """What is wrong with the node, as sentences; a part that has not been heard of yet is left out."""
    disk = ""
    if now.disk_free_bytes < NEARLY * now.min_free_bytes:
        free_gb, least_gb = now.disk_free_bytes / 1e9, now.min_free_bytes / 1e9
        disk = f"{free_gb:.1f} GB are free on the state disk; below {least_gb:.1f} GB every image is refused."
    found = {NoticeKind.DISK_LOW: disk}
    age_s = now.worker_heartbeat_age_s
    if age_s is not None:
        gone = f"No worker has given a sign of life for {age_s / 60:.0f} minutes; nothing is computed or delivered."
        found[NoticeKind.WORKER_GONE] = gone if age_s > WORKER_SILENT_S else ""
    if now.orthanc_feed in ("unreachable", "denied", "failed"):
        found[NoticeKind.ORTHANC_UNREACHABLE] = f"No images can be read from Orthanc: {now.orthanc_problem}"
    elif now.orthanc_feed == "reading":
        found[NoticeKind.ORTHANC_UNREACHABLE] = ""
    return found
