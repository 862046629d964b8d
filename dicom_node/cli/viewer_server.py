"""The viewer beside the dashboard: OHIF on a port and a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Engine

from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users
from dicom_node.cli.exposure import LOOPBACK
from dicom_node.cli.serving_thread import ServingThread
from dicom_node.cli.viewer_place import why_no_viewer
from dicom_node.cli.wiring import audit_trail
from dicom_node.settings import LoadedSettings
from dicom_node.study_cards import StudyCards
from dicom_node.web.viewer.access import Doors, Onlooker, SessionGate
from dicom_node.web.viewer.archive import Archive
from dicom_node.web.viewer.installation import viewer_folder
from dicom_node.web.viewer.origin import ViewerParts, create_viewer_app
from dicom_node.web.viewing_audit import ViewingAudit

log = logging.getLogger(__name__)

GRACEFUL_S: Final = 5
"""Frames on their way may end; a browser that reads slowly does not hold up the node's end."""


def archive_of(loaded: LoadedSettings) -> Archive | None:
    """The DICOMweb archive that the viewer shows: the one that is configured, else that of the Orthanc we read."""
    viewer, orthanc = loaded.settings.viewer, loaded.settings.orthanc
    if viewer.dicomweb_url:
        password = loaded.secrets.get("HYDROPS_VIEWER_PASSWORD", "")
        return Archive(
            url=viewer.dicomweb_url.rstrip("/"),
            username=viewer.username,
            password=password,
            timeout_s=viewer.timeout_s,
        )
    if not orthanc.url:
        return None
    return Archive(
        url=f"{orthanc.url.rstrip('/')}/dicom-web",
        username=orthanc.username,
        password=loaded.secrets.get("HYDROPS_ORTHANC_PASSWORD", ""),
        timeout_s=viewer.timeout_s,
    )


def make_viewer(loaded: LoadedSettings, engine: Engine) -> ServingThread | None:
    """The viewer, not started; None, with a line in the log, where there is none."""
    archive, reason = archive_of(loaded), why_no_viewer(loaded)
    if archive is None or reason:
        log.info("event=no_viewer reason=%s", reason)
        return None
    # Its lines would quote every search, and searches name patients.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    viewer, web = loaded.settings.viewer, loaded.settings.web
    limits = SessionLimits(idle_s=web.session_idle_s, lifetime_s=web.session_lifetime_s)
    gate = SessionGate(
        Users(engine),
        Sessions(engine, limits),
        open_without_users=viewer.host in LOOPBACK and not viewer.address,
    )
    opened, searched = viewing_audits(loaded, engine, archive)
    parts = ViewerParts(
        files=viewer_folder(),
        archive=archive,
        doors=doors_of(loaded),
        onlooker=gate.onlooker,
        opened=opened,
        searched=searched,
    )
    return ServingThread("Viewer", create_viewer_app(parts), loaded, graceful_s=GRACEFUL_S)


def doors_of(loaded: LoadedSettings) -> Doors:
    """Under which names the viewer answers, and where the dashboard is; behind a proxy we do not know its address."""
    viewer, web = loaded.settings.viewer, loaded.settings.web
    scheme = "https" if web.tls_certificate else "http"
    return Doors(
        host=viewer.host,
        dashboard_url=lambda name: "" if viewer.address else f"{scheme}://{name}:{web.port}/",
        proxy_name=urlsplit(viewer.address).hostname or "",
    )


Noting = Callable[[Onlooker, str, str], None]
"""Takes the onlooker, what is looked at (Study Instance UID) or searched (path and query), and from which address."""


def viewing_audits(loaded: LoadedSettings, engine: Engine, archive: Archive) -> tuple[Noting, Noting]:
    """Writes down who opened which study in the viewer, and who searched the archive through it."""
    viewing, cards = ViewingAudit(audit_trail(loaded), where="in the viewer"), StudyCards(engine)

    def opened(who: Onlooker, study_instance_uid: str, address: str) -> None:
        viewing.note(
            name=who.name,
            session_id=who.session_id,
            address=address,
            study_instance_uid=study_instance_uid,
            find_card=lambda: cards.get(study_instance_uid),
        )

    def searched(who: Onlooker, query: str, address: str) -> None:
        host = urlsplit(archive.url).netloc.rpartition("@")[2]
        viewing.note_search(name=who.name, session_id=who.session_id, address=address, query=query, archive=host)

    return opened, searched
