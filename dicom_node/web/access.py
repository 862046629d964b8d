"""Who may ask for what: every route says so, or the application is not built.

    router = APIRouter(dependencies=[require(Role.VIEWER)])     signed-in people with at least this role
    @router.get("/live", dependencies=[PUBLIC])                 everybody

`visitor_of(request)` is who asks. A POST of a signed-in person has to carry the session's `csrf_token`, as a form
field of that name or as the header X-CSRF-Token: a page of another origin knows neither.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Request, status
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.routing import BaseRoute, Mount

from dicom_node.accounts.roles import Role
from dicom_node.accounts.sessions import Visitor
from dicom_node.audit import AuditAction, AuditOutcome
from dicom_node.web.parts import WebParts

__all__ = [
    "PUBLIC",
    "Role",
    "Visitor",
    "check_every_route",
    "cookie_name",
    "is_admin",
    "parts_of",
    "require",
    "visitor_of",
]

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class SignInNeeded(HTTPException):
    """Nobody is signed in; a page answers with the sign-in form, anything else with 401."""

    def __init__(self) -> None:
        super().__init__(status.HTTP_401_UNAUTHORIZED, "Sign in first.")


class _Everybody:
    """The mark of a route that needs no session."""

    def __call__(self) -> None:
        """Nothing to check."""


class _AtLeast:
    """The check of a route that needs a session with at least this role."""

    def __init__(self, role: Role, *, activity: bool) -> None:
        self.role = role
        self._activity = activity

    async def __call__(self, request: Request) -> Visitor:
        """Who asks; otherwise 401, or 403 for too low a role or a missing CSRF token."""
        visitor = await run_in_threadpool(_find_visitor, request, self._activity)
        if visitor is None:
            raise SignInNeeded
        refusal = "" if visitor.role >= self.role else f"This needs the role {self.role.word}."
        if not refusal and request.method not in SAFE_METHODS and not await _has_token(request, visitor):
            refusal = "The form was made for another session; open the page anew."
        if refusal:
            await run_in_threadpool(_note_refusal, request, visitor, refusal)
            raise HTTPException(status.HTTP_403_FORBIDDEN, refusal)
        request.state.visitor = visitor
        return visitor


PUBLIC: Final = Depends(_Everybody())
"""For `dependencies=[...]` of a route that everybody may ask for."""


@lru_cache
def require(role: Role, *, activity: bool = True) -> Any:
    """A dependency that lets in people with at least `role`.

    Parameters
    ----------
    activity
        False for what a page asks for by itself, again and again: it does not keep the session open.
    """
    return Depends(_AtLeast(role, activity=activity))


def visitor_of(request: Request) -> Visitor:
    """Who makes this request, on a route with `require`."""
    return cast(Visitor, request.state.visitor)


def is_admin(request: Request) -> bool:
    """Whether an admin asks, on a route that is for everybody; this does not keep the session open."""
    visitor = _find_visitor(request, activity=False)
    return visitor is not None and visitor.role >= Role.ADMIN


def parts_of(request: Request) -> WebParts:
    """What the application was built from."""
    return cast(WebParts, request.app.state.parts)


def address_of(request: Request) -> str:
    """Where the request comes from: an IP address, or "" if that is not known."""
    return request.client.host if request.client else ""


def is_over_tls(request: Request) -> bool:
    """True if the browser came over HTTPS, to us or to a proxy that we believe; then cookies are Secure."""
    return request.url.scheme == "https"


def cookie_name(request: Request) -> str:
    """The session's cookie. With TLS its prefix makes browsers insist on Secure, path "/" and this very host."""
    return "__Host-hydrops_session" if is_over_tls(request) else "hydrops_session"


def sign_in_address(request: Request) -> str:
    """The sign-in form that leads back to the page asked for; a form that was sent is no page to come back to."""
    path = request.url.path if request.method in SAFE_METHODS else "/"
    return "/sign-in" if path in ("/", "/studies") else f"/sign-in?next={quote(path)}"


def check_every_route(app: FastAPI) -> None:
    """Deny by default: no application with a route that does not say who may use it.

    Raises
    ------
    RuntimeError
        If a route carries neither `require` nor `PUBLIC`; names it.
    """
    for route in routes_of(app.routes):
        if not is_guarded(route):
            raise RuntimeError(f"route {getattr(route, 'path', route)!r}: add require(Role...) or PUBLIC")


def routes_of(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route, those of included routers too."""
    for route in routes:
        original = getattr(route, "original_router", None)
        if isinstance(original, APIRouter):
            yield from routes_of(original.routes)
        else:
            yield route


def is_guarded(route: BaseRoute) -> bool:
    """True if the route says who may use it; static files are for everybody, they hold nothing of a patient."""
    if isinstance(route, Mount):
        return route.name == "static"
    return isinstance(route, APIRoute) and any(isinstance(mark, _AtLeast | _Everybody) for mark in marks_of(route))


def least_role(route: BaseRoute) -> Role | None:
    """The role that a route needs, None if everybody may use it."""
    marks = marks_of(route) if isinstance(route, APIRoute) else ()
    return max((mark.role for mark in marks if isinstance(mark, _AtLeast)), default=None)


def marks_of(route: APIRoute) -> tuple[Any, ...]:
    """Every dependency of a route, those of dependencies too."""

    def calls(dependant: Dependant) -> Iterator[Any]:
        for one in dependant.dependencies:
            yield one.call
            yield from calls(one)

    return tuple(calls(route.dependant))


def _find_visitor(request: Request, activity: bool) -> Visitor | None:
    parts = parts_of(request)
    token = request.cookies.get(cookie_name(request), "")
    return parts.sessions.visitor(token, at=parts.clock(), active=activity) if token else None


def _note_refusal(request: Request, visitor: Visitor, refusal: str) -> None:
    parts_of(request).audit.record(
        AuditAction.ACCESS_DENIED,
        actor=visitor.name,
        address=address_of(request),
        outcome=AuditOutcome.MINOR_FAILURE,
        detail=f"{request.method} {request.url.path}: {refusal}",
    )


async def _has_token(request: Request, visitor: Visitor) -> bool:
    """Whether a change carries the session's token."""
    sent = request.headers.get("X-CSRF-Token", "")
    if not sent:
        form: FormData = await request.form()
        value = form.get("csrf_token", "")
        sent = value if isinstance(value, str) else ""
    return hmac.compare_digest(sent.encode(), visitor.csrf_token.encode())
