"""Health and wake-up over HTTP: small, without a model, without CORS.

GET  /live           200 as soon as the process answers
GET  /health         200 when the node can do its work, else 503; either way the JSON says what it found, and what
                     quotes the configuration only to an admin who is signed in
POST /wake/orthanc   202 at once; a hint from Orthanc's hook that something changed, never the truth itself
"""

from __future__ import annotations

import hmac
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response, status
from fastapi.responses import JSONResponse

from dicom_node.web.access import PUBLIC, is_admin
from dicom_node.web.node_health import HealthSnapshot
from dicom_node.web.parts import WebParts


def router(parts: WebParts) -> APIRouter:
    """The three routes. An empty `parts.wake_token` lets every caller wake us; for loopback only."""
    found = APIRouter(dependencies=[PUBLIC])

    @found.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @found.get("/health")
    def health(request: Request) -> JSONResponse:  # not async: it asks disk and database, so it runs on a thread
        now = parts.health.snapshot()
        if not (now.database_ok and is_admin(request)):
            now = now.for_everybody()
        problems = now.problems()
        return JSONResponse(
            _document(now, problems),
            status_code=status.HTTP_503_SERVICE_UNAVAILABLE if problems else status.HTTP_200_OK,
            headers={"Cache-Control": "no-store"},
        )

    @found.post("/wake/orthanc")
    async def wake_orthanc(x_hydrops_token: Annotated[str, Header()] = "") -> Response:
        # compare_digest takes ASCII text or bytes; a header may hold anything.
        if parts.wake_token and not hmac.compare_digest(x_hydrops_token.encode(), parts.wake_token.encode()):
            return Response(status_code=status.HTTP_401_UNAUTHORIZED)
        parts.wake()
        return Response(status_code=status.HTTP_202_ACCEPTED)

    return found


def _document(now: HealthSnapshot, problems: tuple[str, ...]) -> dict[str, Any]:
    return {"status": "unhealthy" if problems else "healthy", "problems": list(problems), **asdict(now)}
