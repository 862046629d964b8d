"""The list of studies: what changed last, found by words of the card, filtered by state, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form, HTTPException, Query, Request, status
from fastapi.responses import RedirectResponse, Response

from dicom_node.accounts.searches import MAX_CHARACTERS
from dicom_node.encoding.numbers import percent_text
from dicom_node.ledger import StudyState
from dicom_node.reviews import Verdict
from dicom_node.study_cards import EarResult, ListedStudy, inert_text
from dicom_node.study_moves import UNDER_WAY
from dicom_node.web.access import Role, parts_of, require, visitor_of
from dicom_node.web.parts import WebParts
from dicom_node.web.plain_words import STATES, URGENCIES, VERDICTS, Words, plain
from dicom_node.web.progress import STEPS
from dicom_node.web.rendering import page

STUDIES_PER_PAGE: Final = 50

MAX_PAGE: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """One line of the list; a ratio is "27.1 %", "not evaluated", or "" where there is no result.

    `urgent` while the study stands in line or is measured before others.
    """

    study: ListedStudy
    words: Words
    right: str
    left: str
    remark: str
    verdict: Words | None
    urgent: Words | None


@dataclass(frozen=True, kw_only=True)
class ListFilter:
    """What is looked for. `search` is the name of a kept search, never its text."""

    search: str
    text: str
    state: StudyState | None

    def query(self, *, state: str | None = None, page: int = 1) -> str:
        """The address of the list with this filter, another state, or another page."""
        chosen = (self.state.value if self.state else "") if state is None else state
        pairs = (("search", self.search), ("state", chosen), ("page", str(page) if page > 1 else ""))
        return "/studies?" + "&".join(f"{name}={value}" for name, value in pairs if value)


def router(_parts: WebParts) -> APIRouter:
    """GET / and /studies, POST /studies/search."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/", to_the_list, methods=["GET"])
    found.add_api_route("/studies", show_list, methods=["GET"])
    found.add_api_route("/studies/search", keep_search, methods=["POST"])
    return found


def to_the_list() -> Response:
    """The list is the dashboard's first page."""
    return RedirectResponse("/studies", status_code=status.HTTP_303_SEE_OTHER)


def keep_search(
    request: Request,
    text: Annotated[str, Form(max_length=MAX_CHARACTERS)] = "",
    state: Annotated[str, Form()] = "",
) -> Response:
    """Keep what was typed with the session, and go to the list by the search's name."""
    parts, visitor = parts_of(request), visitor_of(request)
    words = inert_text(text).strip()
    search = parts.searches.keep(visitor.session_id, words, at=parts.clock()) if words else ""
    chosen = ListFilter(search=search, text=words, state=_state(state))
    return RedirectResponse(chosen.query(), status_code=status.HTTP_303_SEE_OTHER)


def show_list(
    request: Request,
    search: Annotated[str, Query(pattern=r"^[\w-]{0,32}$")] = "",
    state: str = "",
    page_number: Annotated[int, Query(alias="page", ge=1, le=MAX_PAGE)] = 1,
) -> Response:
    """One page of the list."""
    parts = parts_of(request)
    text = parts.searches.text(visitor_of(request).session_id, search) if search else None
    chosen = ListFilter(search=search if text else "", text=text or "", state=_state(state))
    counts = parts.cards.counts(chosen.text)
    total = sum(counts.values()) if chosen.state is None else counts[chosen.state]
    offset = STUDIES_PER_PAGE * (page_number - 1)
    studies = parts.cards.search(chosen.text, state=chosen.state, limit=STUDIES_PER_PAGE, offset=offset)
    return page(
        request,
        "studies_list.html",
        lines=_lines(parts, studies),
        chosen=chosen,
        counts=counts,
        words=STATES,
        total=total,
        everything=sum(counts.values()),
        page_number=page_number,
        pages=max(1, -(-total // STUDIES_PER_PAGE)),
        first=offset + 1,
    )


def _state(word: str) -> StudyState | None:
    if not word:
        return None
    if word not in list(StudyState):
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such state.")
    return StudyState(word)


def _lines(parts: WebParts, studies: Sequence[ListedStudy]) -> list[StudyLine]:
    measured = [one for one in studies if one.state is StudyState.COMPUTED]
    results = {
        (one.work_id, one.side): one
        for one in parts.cards.results_of_studies(study.study_instance_uid for study in measured)
    }
    verdicts = parts.reviews.standing(study.work_id for study in measured)
    return [_line(study, results, verdicts) for study in studies]


def _line(
    study: ListedStudy, results: Mapping[tuple[str, str], EarResult], verdicts: Mapping[str, Verdict]
) -> StudyLine:
    ears = {side: results.get((study.work_id, side)) for side in ("right", "left")}
    verdict = verdicts.get(study.work_id)
    return StudyLine(
        study=study,
        words=STATES[study.state],
        right=_ratio(ears["right"]),
        left=_ratio(ears["left"]),
        remark=_remark(study),
        verdict=None if verdict is None else VERDICTS[verdict],
        urgent=URGENCIES.get(study.urgency) if study.state in UNDER_WAY else None,
    )


def _remark(study: ListedStudy) -> str:
    """What stands under the state: the step that is running, or why there is no number."""
    if study.state is StudyState.COMPUTED:
        return ""
    return STEPS.get(study.step, study.step) or plain(study.detail or study.reason)


def _ratio(ear: EarResult | None) -> str:
    if ear is None:
        return ""
    return "not evaluated" if ear.ratio is None else percent_text(ear.ratio)
