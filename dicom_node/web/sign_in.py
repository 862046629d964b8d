"""Signing in and out, and the switch between light and dark."""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Form, HTTPException, Request, status
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dicom_node.accounts.users import is_name
from dicom_node.audit import AuditAction, AuditOutcome
from dicom_node.web.access import (
    PUBLIC,
    Role,
    address_of,
    cookie_name,
    is_over_tls,
    parts_of,
    require,
    visitor_of,
)
from dicom_node.web.parts import WebParts
from dicom_node.web.rendering import THEME_COOKIE, THEMES, page

FORM_COOKIE: Final = "hydrops_sign_in"
"""Before there is a session, the form's secret stands in a cookie of its own (double submit)."""

A_YEAR_S: Final = 31_536_000

WRONG: Final = "Name or password is not right."


def router(_parts: WebParts) -> APIRouter:
    """GET and POST /sign-in, POST /sign-out, POST /theme."""
    found = APIRouter()
    found.add_api_route("/sign-in", show_form, methods=["GET"], dependencies=[PUBLIC])
    found.add_api_route("/sign-in", sign_in, methods=["POST"], dependencies=[PUBLIC])
    found.add_api_route("/sign-out", sign_out, methods=["POST"], dependencies=[require(Role.VIEWER)])
    found.add_api_route("/theme", choose_theme, methods=["POST"], dependencies=[require(Role.VIEWER)])
    return found


def show_form(request: Request, next: str = "/studies") -> Response:
    """The sign-in form, or, without any user, how to make the first one."""
    return _form(request, next, sentence="", code=status.HTTP_200_OK)


def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=1024)],
    form_token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/studies",
) -> Response:
    """Open a session and go on to the page that was asked for; the same sentence for every wrong pair."""
    parts = parts_of(request)
    expected = request.cookies.get(FORM_COOKIE, "")
    if not expected or not hmac.compare_digest(form_token.encode(), expected.encode()):
        return _form(request, next, sentence="The form was too old; please try again.", code=status.HTTP_403_FORBIDDEN)
    address, now = address_of(request), parts.clock()
    name = name if is_name(name) else ""  # what can be nobody's name is not even looked up
    paused = parts.pauses.remaining_s(name, address, at=now) > 0
    user = None if paused else parts.users.verified(name, password)
    wait_s = parts.pauses.remaining_s(name, address, at=now)  # anew: of many tries at once, others were counted by now
    if wait_s > 0:
        sentence = f"Too many wrong tries; please wait {int(wait_s) + 1} s."
        return _form(request, next, sentence=sentence, code=status.HTTP_429_TOO_MANY_REQUESTS)
    if user is None:
        parts.pauses.failed(name, address, at=now)
        _note(request, AuditAction.LOGIN, name, AuditOutcome.MINOR_FAILURE)
        return _form(request, next, sentence=WRONG, code=status.HTTP_401_UNAUTHORIZED)
    parts.pauses.succeeded(name, address, at=now)
    _note(request, AuditAction.LOGIN, name)
    answer = RedirectResponse(_inside(next), status_code=status.HTTP_303_SEE_OTHER)
    start_session(request, answer, user.name)
    answer.delete_cookie(FORM_COOKIE)
    return answer


def start_session(request: Request, answer: Response, name: str) -> None:
    """Open a session of this user and let the answer carry its cookie."""
    parts = parts_of(request)
    answer.set_cookie(
        cookie_name(request),
        parts.sessions.open(name, at=parts.clock()),
        max_age=int(parts.sessions.limits.lifetime_s),
        httponly=True,
        secure=is_over_tls(request),
        samesite="strict",
    )


def sign_out(request: Request) -> Response:
    """End the session on both sides."""
    parts = parts_of(request)
    _note(request, AuditAction.LOGOUT, visitor_of(request).name)
    parts.sessions.close(request.cookies.get(cookie_name(request), ""))
    answer = RedirectResponse("/sign-in", status_code=status.HTTP_303_SEE_OTHER)
    answer.delete_cookie(cookie_name(request), secure=is_over_tls(request), httponly=True, samesite="strict")
    return answer


def choose_theme(
    request: Request,
    theme: Annotated[str, Form()],
    back: Annotated[str, Form()] = "/studies",
) -> Response:
    """Remember light, dark or the system's choice in this browser."""
    if theme not in THEMES:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "Choose auto, light or dark.")
    answer = RedirectResponse(_inside(back), status_code=status.HTTP_303_SEE_OTHER)
    secure = is_over_tls(request)
    answer.set_cookie(THEME_COOKIE, theme, max_age=A_YEAR_S, httponly=True, secure=secure, samesite="strict")
    return answer


def _form(request: Request, target: str, *, sentence: str, code: int) -> HTMLResponse:
    parts = parts_of(request)
    form_token = secrets.token_urlsafe(32)
    answer = page(
        request,
        "sign_in.html",
        status_code=code,
        target=_inside(target),
        sentence=sentence,
        form_token=form_token,
        nobody_yet=parts.users.count() == 0,
    )
    answer.set_cookie(FORM_COOKIE, form_token, httponly=True, secure=is_over_tls(request), samesite="strict")
    return answer


def _inside(target: str) -> str:
    """`target` if it is a path of ours: "//host", "/\\host" and whole addresses would lead elsewhere."""
    good = target.startswith("/") and target[1:2] not in ("/", "\\") and target.isprintable()
    return target if good else "/studies"


def _note(request: Request, action: AuditAction, name: str, outcome: AuditOutcome = AuditOutcome.SUCCESS) -> None:
    """Keep it in the audit trail. A name that nobody has is left out: it may be a password in the wrong box."""
    parts = parts_of(request)
    actor = name if parts.users.get(name) is not None else "unknown user"
    parts.audit.record(action, actor=actor, address=address_of(request), outcome=outcome)
