"""Errors as people and programs get them: fixed sentences of ours, nothing of the request.

A person who went to an address gets a page; everything else gets text/plain, which no browser takes for markup.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from dicom_node.web.access import SignInNeeded, parts_of, sign_in_address
from dicom_node.web.headers import ALWAYS
from dicom_node.web.rendering import page

log = logging.getLogger(__name__)

_PLAIN_SENTENCES: Final = {
    404: "There is nothing at this address; the link may be an old one.",
    405: "This address does not do that.",
}
"""For errors of the framework, which say no more than the name of the status."""


def answer_errors(app: FastAPI) -> None:
    """Have every error of `app` answered here."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(Exception, _on_fault)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, SignInNeeded) and _is_navigation(request):
        return RedirectResponse(sign_in_address(request), status_code=HTTPStatus.SEE_OTHER)
    phrase = HTTPStatus(error.status_code).phrase
    sentence = _PLAIN_SENTENCES.get(error.status_code, phrase) if error.detail == phrase else str(error.detail)
    return _answer(request, error.status_code, sentence, dict(error.headers or {}))


async def _on_bad_request(request: Request, _error: Exception) -> Response:
    return _answer(request, HTTPStatus.BAD_REQUEST, "The request does not have the form that this address expects.")


async def _on_fault(request: Request, error: Exception) -> Response:
    # The path holds UIDs and words of ours only: searches are kept in the session, not in addresses.
    log.error("event=web_fault path=%s", request.url.path, exc_info=error)
    answer = _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The node failed; its log says why.")
    for name, value in ALWAYS.items():  # Starlette answers a fault outside of every middleware, so past GuardHeaders
        answer.headers.setdefault(name, value)
    return answer


def _answer(request: Request, code: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    if _is_navigation(request):
        title = HTTPStatus(code).phrase
        return page(request, "error.html", status_code=code, code=code, title=title, sentence=sentence)
    return PlainTextResponse(f"{sentence}\n", status_code=code, headers=headers)


def _is_navigation(request: Request) -> bool:
    """True if a browser asks for a page of the dashboard, not a program or a script of ours."""
    return parts_of(request).dashboard and "text/html" in request.headers.get("Accept", "")
