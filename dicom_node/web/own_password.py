"""Changing one's own password: the old one is asked for, every other session of that person ends, and it is audited."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, status
from fastapi.responses import RedirectResponse, Response

from dicom_node.accounts.users import MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, check_password
from dicom_node.audit import AuditAction, AuditOutcome
from dicom_node.errors import UnusableInput
from dicom_node.web.access import Role, address_of, parts_of, require, visitor_of
from dicom_node.web.parts import WebParts
from dicom_node.web.rendering import page
from dicom_node.web.sign_in import start_session

OLD_IS_WRONG: Final = "The old password is not right."
TWO_ARE_DIFFERENT: Final = "The new password was not typed the same way twice."
SAME_AS_BEFORE: Final = "The new password is the old one."

Password = Annotated[str, Form(max_length=1024)]


def router(_parts: WebParts) -> APIRouter:
    """GET and POST /password."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/password", show_form, methods=["GET"])
    found.add_api_route("/password", change, methods=["POST"])
    return found


def show_form(request: Request) -> Response:
    """The form; it also says that the password was changed, after it was."""
    return _form(request, changed=request.query_params.get("changed") == "yes")


def change(request: Request, old: Password, new: Password, again: Password) -> Response:
    """Give the visitor the new password and a new session, and end every session there was."""
    parts, visitor = parts_of(request), visitor_of(request)
    address, now = address_of(request), parts.clock()
    paused = parts.pauses.remaining_s(visitor.name, address, at=now) > 0
    known = None if paused else parts.users.verified(visitor.name, old)
    wait_s = parts.pauses.remaining_s(visitor.name, address, at=now)  # anew: other tries were counted meanwhile
    if wait_s > 0:
        sentence = f"Too many wrong tries; please wait {int(wait_s) + 1} s."
        return _form(request, sentence=sentence, code=status.HTTP_429_TOO_MANY_REQUESTS)
    if known is None:
        parts.pauses.failed(visitor.name, address, at=now)
        _note(request, AuditOutcome.MINOR_FAILURE, "old password wrong")
        return _form(request, sentence=OLD_IS_WRONG, code=status.HTTP_403_FORBIDDEN)
    problem = _problem_with(visitor.name, old, new, again)
    if problem:
        return _form(request, sentence=problem, code=status.HTTP_400_BAD_REQUEST)
    _note(request, AuditOutcome.SUCCESS, "new password")  # before it is: an entry too many is better than none
    parts.users.set_password(visitor.name, new, at=now)
    parts.sessions.close_all(visitor.name)
    parts.pauses.succeeded(visitor.name, address, at=now)
    answer = RedirectResponse("/password?changed=yes", status_code=status.HTTP_303_SEE_OTHER)
    start_session(request, answer, visitor.name)
    return answer


def _problem_with(name: str, old: str, new: str, again: str) -> str:
    """Why this cannot be the new password, in words; empty when it can."""
    if new != again:
        return TWO_ARE_DIFFERENT
    if new == old:
        return SAME_AS_BEFORE
    try:
        check_password(name, new)
    except UnusableInput as error:
        return f"{str(error)[0].upper()}{str(error)[1:]}."
    return ""


def _form(request: Request, *, sentence: str = "", changed: bool = False, code: int = status.HTTP_200_OK) -> Response:
    return page(
        request,
        "own_password.html",
        status_code=code,
        sentence=sentence,
        changed=changed,
        least=MIN_PASSWORD_CHARACTERS,
        most=MAX_PASSWORD_CHARACTERS,
    )


def _note(request: Request, outcome: AuditOutcome, what: str) -> None:
    name = visitor_of(request).name
    parts_of(request).audit.record(
        AuditAction.USER_CHANGED, actor=name, address=address_of(request), outcome=outcome, detail=f"{name}, {what}"
    )
