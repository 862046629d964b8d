"""The viewer beside the dashboard: OHIF on a port and a thread of its own."""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING, Final

import uvicorn
from sqlalchemy import Engine

from dicom_node.accounts.sessions import SessionLimits, Sessions
from dicom_node.accounts.users import Users
from dicom_node.cli.exposure import LOOPBACK
from dicom_node.cli.viewer_place import why_no_viewer
from dicom_node.cli.web_server import tls_files
from dicom_node.settings import LoadedSettings
from dicom_node.web.viewer.access import Doors, SessionGate
from dicom_node.web.viewer.archive import Archive
from dicom_node.web.viewer.installation import viewer_folder
from dicom_node.web.viewer.origin import ViewerParts, create_viewer_app

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger(__name__)

STOP_S: Final = 5.0
"""Frames on their way may end; a browser that reads slowly does not hold up the node's end."""


class ViewerServer:
    """Uvicorn with the viewer, on a thread of its own."""

    def __init__(self, loaded: LoadedSettings, app: Starlette) -> None:
        viewer, web = loaded.settings.viewer, loaded.settings.web
        certificate, key = tls_files(loaded)
        config = uvicorn.Config(
            app,
            host=viewer.host,
            port=viewer.port,
            log_config=None,  # its own handlers would write what exceptions say; ours do not
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(web.proxies),
            forwarded_allow_ips=list(web.proxies),
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=int(STOP_S),
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self, listening: socket.socket) -> None:
        """Serve from now on, on a socket that listens already."""
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="Viewer", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Answer what was asked, then end; waits at most `wait_s`."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(wait_s)


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


def make_viewer(loaded: LoadedSettings, engine: Engine) -> ViewerServer | None:
    """The viewer, not started; None, with a line in the log, where there is none."""
    archive, reason = archive_of(loaded), why_no_viewer(loaded)
    if archive is None or reason:
        log.info("event=no_viewer reason=%s", reason)
        return None
    # Its lines would quote every search, and searches name patients.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    viewer, web = loaded.settings.viewer, loaded.settings.web
    limits = SessionLimits(idle_s=web.session_idle_s, lifetime_s=web.session_lifetime_s)
    scheme = "https" if web.tls_certificate else "http"
    gate = SessionGate(
        Users(engine),
        Sessions(engine, limits),
        open_without_users=viewer.host in LOOPBACK,
    )
    parts = ViewerParts(
        files=viewer_folder(),
        archive=archive,
        doors=Doors(host=viewer.host, dashboard_url=lambda name: f"{scheme}://{name}:{web.port}/"),
        may_look=gate.may_look,
    )
    return ViewerServer(loaded, create_viewer_app(parts))
