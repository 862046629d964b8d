"""The web application: health and wake-up for machines, the dashboard for people. It never runs a model."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from dicom_node.web import (
    configuration,
    downloads,
    drift_page,
    health,
    metrics,
    own_password,
    patient_history,
    reviewing,
    sign_in,
    studies,
    study_actions,
    study_page,
    study_views,
    workers,
)
from dicom_node.web.access import check_every_route
from dicom_node.web.errors import answer_errors
from dicom_node.web.headers import GuardHeaders
from dicom_node.web.parts import WebParts
from dicom_node.web.viewing_audit import ViewingAudit


class PageFiles(StaticFiles):
    """Style sheets, scripts and icons: they hold nothing of a patient, so a browser may keep them for some minutes."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """One file, with leave to be kept."""
        answer = super().file_response(*args, **options)
        answer.headers["Cache-Control"] = "public, max-age=300"
        return answer


def create_app(parts: WebParts) -> FastAPI:
    """The application; run it with uvicorn.

    Raises
    ------
    RuntimeError
        If a route does not say who may use it.
    """
    app = FastAPI(title="Hydrops Node", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.parts = parts
    app.state.viewing_audit = ViewingAudit(parts.audit)
    app.include_router(health.router(parts))
    app.include_router(metrics.router(parts))
    if parts.dashboard:
        app.mount("/static", PageFiles(packages=[("dicom_node.web", "static")]), name="static")
        app.include_router(sign_in.router(parts))
        app.include_router(own_password.router(parts))
        app.include_router(studies.router(parts))
        app.include_router(study_page.router(parts))
        app.include_router(study_actions.router(parts))
        app.include_router(reviewing.router(parts))
        app.include_router(downloads.router(parts))
        app.include_router(study_views.router(parts))
        app.include_router(configuration.router(parts))
        app.include_router(patient_history.router(parts))
        app.include_router(drift_page.router(parts))
        app.include_router(workers.router(parts))
    answer_errors(app)
    check_every_route(app)
    app.add_middleware(GuardHeaders)
    return app
