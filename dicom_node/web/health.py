"""Health and wake-up over HTTP: small, without a model, without documentation pages, without CORS.

GET  /live           200 as soon as the process answers
GET  /health         200 when the node can do its work, else 503; either way the JSON says what it found
POST /wake/orthanc   202 at once; a hint from Orthanc's hook that something changed, never the truth itself
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Header, Response, status
from fastapi.responses import JSONResponse

# A worker notes its heartbeat every few seconds; a study takes at most minutes. Silence for this long means it is gone.
WORKER_SILENT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class HealthSnapshot:
    """What the node knows of itself at one moment. None: that part is not run by this process, so not judged."""

    listener_up: bool | None
    database_ok: bool
    disk_free_bytes: int
    min_free_bytes: int
    worker_heartbeat_age_s: float | None
    queues: Mapping[str, int] = field(default_factory=dict)
    """Name to length, e.g. "studies_waiting", "deliveries_waiting", "dead_letters". Shown, not judged."""
    dead_deliveries: tuple[str, ...] = ()
    """Names of destinations whose delivery thread has ended by a fault."""
    orthanc_feed: str | None = None
    """How reading from Orthanc goes: "starting", "reading", "unreachable" or "denied"; None where it is not read."""
    orthanc_problem: str = ""
    """The sentence of its last failure; empty when all is well."""

    def problems(self) -> tuple[str, ...]:
        """Why the node cannot do its work, in words; empty when it can."""
        found = []
        if self.listener_up is False:
            found.append("the DICOM listener does not accept associations")
        if not self.database_ok:
            found.append("the database does not answer")
        if self.disk_free_bytes < self.min_free_bytes:
            found.append(f"{self.disk_free_bytes} bytes free on the state disk; {self.min_free_bytes} are required")
        if self.worker_heartbeat_age_s is not None and self.worker_heartbeat_age_s > WORKER_SILENT_S:
            found.append(f"the worker has been silent for {self.worker_heartbeat_age_s:.0f} s")
        if self.orthanc_problem:
            found.append(f"no images can be read from Orthanc: {self.orthanc_problem}")
        found.extend(f"nothing is sent to destination {name} any more" for name in self.dead_deliveries)
        return tuple(found)


class NodeHealth(Protocol):
    """Whoever can look at the node. It answers within a second and does not raise when a part is down."""

    def snapshot(self) -> HealthSnapshot:
        """The state of the node now."""
        ...


def create_app(state: NodeHealth, wake: Callable[[], None], wake_token: str) -> FastAPI:
    """The web application; run it with uvicorn on a loopback address.

    Parameters
    ----------
    state
        Asked on each ``GET /health``.
    wake
        Called on each accepted wake-up; must return at once (set an event).
    wake_token
        What ``X-Hydrops-Token`` has to say; an empty string accepts every caller, for loopback only.
    """
    app = FastAPI(title="Hydrops Node", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/health")
    def health() -> JSONResponse:  # not async: it asks disk and database, so it runs on a thread
        now = state.snapshot()
        problems = now.problems()
        return JSONResponse(
            _document(now, problems),
            status_code=status.HTTP_503_SERVICE_UNAVAILABLE if problems else status.HTTP_200_OK,
            headers={"Cache-Control": "no-store"},
        )

    @app.post("/wake/orthanc")
    async def wake_orthanc(x_hydrops_token: Annotated[str, Header()] = "") -> Response:
        # compare_digest takes ASCII text or bytes; a header may hold anything.
        if wake_token and not hmac.compare_digest(x_hydrops_token.encode(), wake_token.encode()):
            return Response(status_code=status.HTTP_401_UNAUTHORIZED)
        wake()
        return Response(status_code=status.HTTP_202_ACCEPTED)

    return app


def _document(now: HealthSnapshot, problems: tuple[str, ...]) -> dict[str, Any]:
    return {"status": "unhealthy" if problems else "healthy", "problems": list(problems), **asdict(now)}
