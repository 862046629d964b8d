"""Uvicorn on a thread of its own, as the dashboard and the viewer are served."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from dicom_node.cli.tls_files import web_tls
from dicom_node.settings import LoadedSettings


class ServingThread:
    """One ASGI application, served with the TLS and the proxies of [web].

    Parameters
    ----------
    name
        Of the thread.
    app
        An ASGI 3 application.
    graceful_s
        How long answers under way may take at the end; None waits for them.

    Raises
    ------
    ConfigError
        If a TLS file is missing or unusable; see `web_tls`.
    """

    def __init__(self, name: str, app: ASGIApp, loaded: LoadedSettings, *, graceful_s: int | None = None) -> None:
        web, tls = loaded.settings.web, web_tls(loaded)
        config = uvicorn.Config(
            app,
            interface="asgi3",
            log_config=None,  # its own handlers would write what exceptions say; ours do not
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(web.proxies),
            forwarded_allow_ips=list(web.proxies),
            ssl_certfile=None if tls is None else str(tls.certificate),
            ssl_keyfile=None if tls is None else str(tls.key),
            timeout_graceful_shutdown=graceful_s,
        )
        self._name = name
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self, listening: socket.socket) -> None:
        """Serve from now on, on a socket that listens already."""
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name=self._name, daemon=True)
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Answer what was asked, then end; waits at most `wait_s`."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(wait_s)
