"""The page of workers: who is on duty, where, since when, at which study, and from whom it was taken over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dicom_node.duties import Duty, duties
from dicom_node.web.access import Role, parts_of, require
from dicom_node.web.parts import WebParts
from dicom_node.web.plain_words import Words
from dicom_node.web.progress import STEPS
from dicom_node.web.rendering import page

MEASURES: Final = Words(label="Measuring", tone="busy", icon="gear")
READY: Final = Words(label="Ready", tone="good", icon="check")
STOPPED: Final = Words(label="Stopped", tone="none", icon="dash")
SILENT: Final = Words(label="Silent", tone="bad", icon="alert")


@dataclass(frozen=True, kw_only=True)
class WorkerLine:
    """One worker as `workers.html` shows it."""

    duty: Duty
    words: Words
    step: str


def router(_parts: WebParts) -> APIRouter:
    """GET /workers."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/workers", show_workers, methods=["GET"])
    return found


def show_workers(request: Request) -> Response:
    """Every worker that was seen within the last week."""
    lines = [_line(duty) for duty in duties(parts_of(request).engine)]
    return page(request, "workers.html", lines=lines)


def _line(duty: Duty) -> WorkerLine:
    return WorkerLine(duty=duty, words=_words(duty), step=STEPS.get(duty.step, ""))


def _words(duty: Duty) -> Words:
    if duty.worker.left_at is not None:
        return STOPPED
    if not duty.worker.on_duty:
        return SILENT
    return MEASURES if duty.study_instance_uid else READY
