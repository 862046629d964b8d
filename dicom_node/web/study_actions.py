"""What an admin can have done to a study: a button, a page that asks back, and the request to the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, HTTPException, Path, Request, status
from fastapi.responses import RedirectResponse, Response

from dicom_node.ledger import StudyRecord
from dicom_node.retention import StudyKeeping
from dicom_node.study_actions import ActionOutcome, StudyActions, fitting
from dicom_node.study_requests import StudyAction
from dicom_node.web.access import Role, parts_of, require, visitor_of
from dicom_node.web.parts import WebParts
from dicom_node.web.rendering import page

StudyUid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]


@dataclass(frozen=True, kw_only=True)
class ActionWords:
    """A button's word, and what the page that asks back says will happen."""

    label: str
    consequence: str
    dangerous: bool = False


ACTIONS: Final[Mapping[StudyAction, ActionWords]] = {
    StudyAction.RETRY: ActionWords(
        label="Measure again", consequence="The study, on which the node failed, is measured again from its images."
    ),
    StudyAction.REPLAY: ActionWords(
        label="Examine again",
        consequence="The study is examined again with the rules, the model and the settings of today. If any of them "
        "changed since, there will be a second result beside the first; nothing that was sent is taken back.",
    ),
    StudyAction.FORCE: ActionWords(
        label="Take as complete",
        consequence="The study is taken as complete with the images that are there. If slices or a series are missing, "
        "it is refused or measured without them.",
        dangerous=True,
    ),
    StudyAction.FIRST: ActionWords(
        label="Put first",
        consequence="The study is measured next, before all others that stand in line. The study that is being "
        "measured now is not disturbed.",
    ),
    StudyAction.CANCEL: ActionWords(
        label="Cancel",
        consequence="Nothing is measured or sent for this study until it is examined again or new images come.",
        dangerous=True,
    ),
    StudyAction.RESEND: ActionWords(
        label="Send again", consequence="The results are sent once more, as the very same objects."
    ),
}

_METHODS: Final[Mapping[StudyAction, Callable[[StudyActions, str, str], ActionOutcome]]] = {
    StudyAction.RETRY: StudyActions.retry,
    StudyAction.REPLAY: StudyActions.replay,
    StudyAction.FORCE: StudyActions.force,
    StudyAction.FIRST: StudyActions.first,
    StudyAction.CANCEL: StudyActions.cancel,
}


def router(_parts: WebParts) -> APIRouter:
    """GET (asks back) and POST (does it) /studies/{uid}/actions/{action}."""
    found = APIRouter(dependencies=[require(Role.ADMIN)])
    found.add_api_route("/studies/{uid}/actions/{action}", ask_back, methods=["GET"])
    found.add_api_route("/studies/{uid}/actions/{action}", do, methods=["POST"])
    return found


def fitting_actions(record: StudyRecord, role: Role, keeping: StudyKeeping | None) -> dict[str, ActionWords]:
    """The actions that fit the study's state and the images that are here, by name, for whoever may ask for them."""
    if role < Role.ADMIN:
        return {}
    erased = None if keeping is None else keeping.erased
    return {action.value: ACTIONS[action] for action in fitting(record.state, erased)}


def ask_back(request: Request, uid: StudyUid, action: StudyAction, destination: str = "") -> Response:
    """What would happen, and a button to have it happen; nothing changes yet."""
    parts = parts_of(request)
    if parts.ledger.get(uid) is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "This study is not known here.")
    chosen = destination if destination in parts.destinations else ""
    if action is StudyAction.RESEND and not chosen:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such destination.")
    return _confirmation(request, uid, action, chosen, sentence="", code=status.HTTP_200_OK)


def do(request: Request, uid: StudyUid, action: StudyAction, destination: Annotated[str, Form()] = "") -> Response:
    """Ask the worker for it; back to the study, or, if it does not fit any more, the page with the reason."""
    actions, actor = parts_of(request).actions, visitor_of(request).name
    if action is StudyAction.RESEND:
        outcome = actions.resend(uid, destination, actor)
    else:
        outcome = _METHODS[action](actions, uid, actor)
    if not outcome.accepted:
        code = status.HTTP_409_CONFLICT
        return _confirmation(request, uid, action, destination, sentence=outcome.sentence, code=code)
    query = urlencode({"asked": action.value})
    return RedirectResponse(f"/studies/{uid}?{query}", status_code=status.HTTP_303_SEE_OTHER)


def _confirmation(
    request: Request, uid: str, action: StudyAction, destination: str, *, sentence: str, code: int
) -> Response:
    parts = parts_of(request)
    return page(
        request,
        "study_action.html",
        status_code=code,
        uid=uid,
        card=parts.cards.get(uid),
        action=action.value,
        words=ACTIONS[action],
        destination=destination,
        sentence=sentence,
    )
