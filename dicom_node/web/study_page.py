"""One study: where it stands and why, both ears' numbers, every series, deliveries, reviews and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request, status
from fastapi.responses import JSONResponse, Response

from dicom_node.delivery.outbox import Delivery
from dicom_node.encoding.measurements import EarMeasurements, read_measurements
from dicom_node.ledger import StudyEvent, StudyEventRecord, StudyRecord, StudyState
from dicom_node.owed_failures import failure_key
from dicom_node.owed_pictures import OwedPictures
from dicom_node.study_actions import sent_key
from dicom_node.study_cards import StudyCard
from dicom_node.study_moves import UNDER_WAY
from dicom_node.urgency import Urgencies
from dicom_node.views.shelf import ViewShelf
from dicom_node.web.access import Role, parts_of, require, visitor_of
from dicom_node.web.kept_until import kept_sentence
from dicom_node.web.parts import WebParts
from dicom_node.web.patient_history import history_of
from dicom_node.web.plain_words import (
    DELIVERIES,
    EVENTS,
    OBJECTS,
    ROLES,
    STATES,
    USED,
    VERDICTS,
    plain,
    reason_sentence,
)
from dicom_node.web.progress import progress
from dicom_node.web.rendering import page, when
from dicom_node.web.study_actions import fitting_actions
from dicom_node.web.study_views import views_of
from dicom_node.web.viewer.links import viewer_link
from dicom_node.web.viewing_audit import note_view

StudyUid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]


@dataclass(frozen=True, kw_only=True)
class SeriesLine:
    """One series: what it was taken as and why, or why it was left out and, then, what was `recognized` in it.

    `number` and `description` are what a PACS lists it by; "" where the series, or a study of long ago, has none.
    """

    series_instance_uid: str
    number: str
    description: str
    role: str
    used: bool
    sentence: str
    recognized: str


@dataclass(frozen=True, kw_only=True)
class AlignmentLine:
    """One contrast series brought onto the MR cisternography, in words."""

    role: str
    shift: str
    rotation: str
    sentence: str


def router(_parts: WebParts) -> APIRouter:
    """GET /studies/{uid} and /studies/{uid}/progress."""
    found = APIRouter()

    @found.get("/studies/{uid}", dependencies=[require(Role.VIEWER)])
    def show(request: Request, uid: StudyUid, asked: str = "") -> Response:
        parts = parts_of(request)
        record, card = known_study(parts, uid), parts.cards.get(uid)
        note_view(request, card, uid)
        return page(request, "study.html", asked=bool(asked), **_content(request, record, card))

    # It is asked for every second or two by the page itself, so it does not keep the session open.
    @found.get("/studies/{uid}/progress", dependencies=[require(Role.VIEWER, activity=False)])
    def now(request: Request, uid: StudyUid) -> JSONResponse:
        parts = parts_of(request)
        return JSONResponse(asdict(progress(known_study(parts, uid), OwedPictures(parts.engine))))

    return found


def known_study(parts: WebParts, uid: str) -> StudyRecord:
    """The study's record; 404 if there is none."""
    record = parts.ledger.get(uid)
    if record is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "This study is not known here.")
    return record


def standing_findings(record: StudyRecord) -> Mapping[str, Any] | None:
    """The findings of the study as it stands; the ledger keeps those of before while it is examined again."""
    return record.findings if record.state in (StudyState.COMPUTED, StudyState.REFUSED) else None


def _content(request: Request, record: StudyRecord, card: StudyCard | None) -> dict[str, Any]:
    parts, uid = parts_of(request), record.study_instance_uid
    measured = read_measurements(record.findings or {}) if record.state is StudyState.COMPUTED else None
    keeping = parts.keeping(uid)
    deliveries, findings = parts.outbox.deliveries(uid), standing_findings(record)
    key = sent_key(record, parts.outbox)
    return {
        "record": record,
        "card": card,
        "words": STATES[record.state],
        "urgent": urgent_sentence(record, parts),
        "why": why(record),
        "further": further_reasons(record),
        "progress": progress(record, OwedPictures(parts.engine)),
        "measured": measured,
        "bars": {} if measured is None else {ear.side: bar(ear) for ear in measured.ears},
        "series": series_lines(record.decisions),
        "alignments": _alignments(findings or {}),
        "findings": findings,
        "told_failure": key == failure_key(uid),
        "deliveries": _by_destination(deliveries),
        "objects": parts.outbox.objects(key) if key else [],
        "object_words": OBJECTS,
        "used_words": USED,
        "delivery_words": DELIVERIES,
        "reviews": parts.reviews.of_study(uid),
        "verdict_words": VERDICTS,
        "history": _happened(parts.ledger.history(uid)),
        "kept": "" if keeping is None else kept_sentence(keeping),
        "actions": fitting_actions(record, visitor_of(request).role, keeping),
        "examinations": None if card is None else history_of(card, parts.cards),
        "views": views_of(record, ViewShelf(parts.state_dir / "views"), OwedPictures(parts.engine)),
        "viewer_link": viewer_link(parts.viewer_url, request.url.hostname or "", uid),
    }


def urgent_sentence(record: StudyRecord, parts: WebParts) -> str:
    """Why a study that is under way goes before others; "" where it does not."""
    if record.state not in UNDER_WAY:
        return ""
    because = Urgencies(parts.engine).of_study(record.study_instance_uid).because
    return f"It goes before others, because {because}." if because else ""


def why(record: StudyRecord) -> tuple[str, str]:
    """Why a study waits, was refused or failed: the sentence for everybody, and what exactly was found."""
    if record.state is StudyState.COMPUTED:
        return "", ""
    sentence = reason_sentence(record.reason) or STATES[record.state].sentence
    detail = plain(record.detail)
    return sentence, "" if detail == sentence else detail


def further_reasons(record: StudyRecord) -> list[str]:
    """What else stood against computing, after the first reason."""
    if record.state is not StudyState.REFUSED or not record.findings:
        return []
    return [plain(reason["message"]) for reason in record.findings["reasons"][1:]]


def series_lines(decisions: Sequence[Mapping[str, Any]]) -> list[SeriesLine]:
    """Every series, those that were used first, and each kind as a PACS lists them: by number."""
    return [
        SeriesLine(
            series_instance_uid=one["series_instance_uid"],
            number=_number(one),
            description=one.get("series_description", ""),
            role=ROLES.get(one["role"], one["role"]),
            used=one["used"],
            sentence=_taken(one) if one["used"] else _left_out(one),
            recognized="" if one["used"] or not one["left_out_because"] else plain(one["reason"]),
        )
        for one in sorted(decisions, key=_place)
    ]


def _place(decision: Mapping[str, Any]) -> tuple[bool, bool, int]:
    number = decision.get("series_number")
    return not decision["used"], number is None, number or 0


def _number(decision: Mapping[str, Any]) -> str:
    """The series number; "" in decisions of before it was kept."""
    number = decision.get("series_number")
    return "" if number is None else str(number)


def _taken(decision: Mapping[str, Any]) -> str:
    return f"Taken as {ROLES.get(decision['role'], decision['role'])} because: {plain(decision['reason'])}"


def _left_out(decision: Mapping[str, Any]) -> str:
    because = decision["left_out_because"] or decision["reason"] or "it is not needed"
    return f"Left out because: {plain(because)}"


def _happened(events: Sequence[StudyEventRecord]) -> list[tuple[float, str, str]]:
    """When, what, and details for people; images that arrived one look after another are one line."""
    lines: list[tuple[float, str, str]] = []
    for is_arrival, alike in groupby(events, key=lambda one: one.event is StudyEvent.ARRIVED):
        if is_arrival:
            first, *more = alike
            lines.append((first.at, EVENTS[first.event], f"the last ones {when(more[-1].at)}" if more else ""))
        else:
            lines += [(one.at, EVENTS[one.event], plain(one.detail)) for one in alike]
    return lines


def _alignments(findings: Mapping[str, Any]) -> list[AlignmentLine]:
    return [
        AlignmentLine(
            role=ROLES.get(one["role"], one["role"]),
            shift=f"{one['translation_mm']:.1f} mm",
            rotation=f"{one['rotation_deg']:.1f}°",
            sentence="Accepted" if one["accepted"] else plain(one["reason"]),
        )
        for one in findings.get("alignments", ())
    ]


def _by_destination(deliveries: Sequence[Delivery]) -> dict[str, list[Delivery]]:
    found: dict[str, list[Delivery]] = {}
    for one in deliveries:
        found.setdefault(one.destination, []).append(one)
    return found


@dataclass(frozen=True, kw_only=True)
class RatioBar:
    """A ratio and its interval on a bar of 0 to 100 per cent, from the printed digits."""

    value: float
    low: float
    width: float


def bar(ear: EarMeasurements) -> RatioBar | None:
    """The bar of one ear; None if it has no number."""
    if ear.ratio is None or ear.low is None or ear.high is None:
        return None
    return RatioBar(value=ear.ratio.value, low=ear.low.value, width=max(0.0, ear.high.value - ear.low.value))
