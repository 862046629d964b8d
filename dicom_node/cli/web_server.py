"""The web server of receiving, on a thread of its own."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import Receive, Scope, Send

from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings
from dicom_node.web.app import create_app

if TYPE_CHECKING:
    from dicom_node.web.parts import WebParts


class WebServer:
    """Uvicorn on a thread of its own."""

    def __init__(self, loaded: LoadedSettings, parts: WebParts) -> None:
        web = loaded.settings.web
        self._app = create_app(parts)
        certificate, key = tls_files(loaded)
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            host=web.host,
            port=web.port,
            log_config=None,  # its own handlers would write what exceptions say; ours do not
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=bool(web.proxies),
            forwarded_allow_ips=list(web.proxies),
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def replace(self, parts: WebParts) -> None:
        """Answer from now on with pages built from these parts; what is being answered is finished as it began."""
        self._app = create_app(parts)

    def start(self, listening: socket.socket) -> None:
        """Serve from now on, on a socket that listens already."""
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="Web", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Answer what was asked, then end; waits at most `wait_s`."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(wait_s)


def tls_files(loaded: LoadedSettings) -> tuple[str | None, str | None]:
    """Certificate and key of [web] as paths, or None and None where it speaks plain HTTP.

    Raises
    ------
    ConfigError
        If a file is not there.
    """
    web = loaded.settings.web
    return _file(loaded, "web.tls_certificate", web.tls_certificate), _file(loaded, "web.tls_key", web.tls_key)


def _file(loaded: LoadedSettings, key: str, name: str) -> str | None:
    if not name:
        return None
    path = loaded.config_dir / name
    if not path.is_file():
        raise ConfigError(f"{key}: expected a PEM file, found nothing at {path}")
    return str(path)
