"""The list of studies."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from dicom_node.web.access import Role, parts_of, require
from dicom_node.web.parts import WebParts
from dicom_node.web.rendering import page

STUDIES_PER_PAGE = 50


def router(_parts: WebParts) -> APIRouter:
    """GET / and /studies."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/", to_the_list, methods=["GET"])
    found.add_api_route("/studies", show_list, methods=["GET"])
    return found


def to_the_list() -> Response:
    """The list is the dashboard's first page."""
    return RedirectResponse("/studies")


def show_list(request: Request) -> Response:
    """The studies that changed last."""
    return page(request, "studies_list.html", records=parts_of(request).ledger.recent(limit=STUDIES_PER_PAGE))
