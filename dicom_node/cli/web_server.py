"""The web server of receiving: pages that can be exchanged while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from dicom_node.cli.serving_thread import ServingThread
from dicom_node.settings import LoadedSettings
from dicom_node.web.app import create_app

if TYPE_CHECKING:
    from dicom_node.web.parts import WebParts


class WebServer(ServingThread):
    """The dashboard, health and metrics.

    Raises
    ------
    ConfigError
        If a TLS file of [web] is missing or unusable; see `web_tls`.
    """

    def __init__(self, loaded: LoadedSettings, parts: WebParts) -> None:
        self._app = create_app(parts)
        super().__init__("Web", self._serve, loaded)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def replace(self, parts: WebParts) -> None:
        """Answer from now on with pages built from these parts; what is being answered is finished as it began."""
        self._app = create_app(parts)
