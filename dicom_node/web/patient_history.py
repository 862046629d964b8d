"""A patient's examinations on one time axis: each ear's EH ratio with its interval, and where the model changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, HTTPException, Request, status
from fastapi.responses import Response

from dicom_node.encoding.numbers import percent_text, volume_text
from dicom_node.study_cards import EarResult, StudyCard, StudyCards
from dicom_node.web.access import Role, parts_of, require
from dicom_node.web.parts import WebParts
from dicom_node.web.plots import Line, Mark, Plot, Upright, plot, thinned
from dicom_node.web.rendering import page
from dicom_node.web.viewing_audit import note_view


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One ear in one examination, in words; `number` is empty where there is none."""

    study_instance_uid: str
    date: str
    side: str
    number: str
    interval: str
    total_fluid: str
    endolymph: str
    model: str
    model_changed: bool
    quality: str


@dataclass(frozen=True, kw_only=True)
class PatientHistory:
    """What `history.html` shows; `why_not` says why there is no plot."""

    rows: tuple[HistoryRow, ...]
    plot: Plot | None
    why_not: str = ""


def router(_parts: WebParts) -> APIRouter:
    """GET /studies/{uid}/history."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/studies/{study_instance_uid}/history", show_history, methods=["GET"])
    return found


def show_history(request: Request, study_instance_uid: str) -> Response:
    """Every examination of the patient of this study."""
    cards = parts_of(request).cards
    card = cards.get(study_instance_uid)
    if card is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "This node knows no such study.")
    note_view(request, card, study_instance_uid)
    return page(request, "history.html", card=card, history=history_of(card, cards))


def history_of(card: StudyCard, cards: StudyCards) -> PatientHistory:
    """The history of the patient whom `card` names; only this study's numbers if it names no patient ID."""
    of_patient = cards.of_patient(card.patient_key) or [card]
    dates = {one.study_instance_uid: one.study_date for one in of_patient}
    standing = cards.standing_results(dates)
    standing.sort(key=lambda one: (dates[one.study_instance_uid], one.study_instance_uid, one.side == "left"))
    rows = _rows(standing, dates)
    dated = [one for one in standing if one.ratio is not None and _day(dates[one.study_instance_uid]) is not None]
    if not card.patient_key:
        return PatientHistory(rows=rows, plot=None, why_not="The images name no patient ID: no other study is shown.")
    if len({one.study_instance_uid for one in dated}) < 2:
        return PatientHistory(rows=rows, plot=None, why_not="There is one examination with numbers and a date so far.")
    return PatientHistory(rows=rows, plot=_plot(dated, dates))


def _rows(results: Sequence[EarResult], dates: dict[str, str]) -> tuple[HistoryRow, ...]:
    rows = []
    before: dict[str, str] = {}
    for one in results:
        rows.append(
            HistoryRow(
                study_instance_uid=one.study_instance_uid,
                date=_date_text(dates[one.study_instance_uid]),
                side=one.side,
                number="" if one.ratio is None else percent_text(one.ratio),
                interval=_interval(one),
                total_fluid="" if one.total_fluid_mm3 is None else volume_text(one.total_fluid_mm3),
                endolymph="" if one.endolymph_mm3 is None else volume_text(one.endolymph_mm3),
                model=one.model,
                model_changed=before.get(one.side, one.model) != one.model,
                quality=", ".join(one.quality),
            )
        )
        before[one.side] = one.model
    return tuple(rows)


def _plot(results: Sequence[EarResult], dates: dict[str, str]) -> Plot:
    """One line per ear; a vertical line where the model changed."""
    lines = []
    for side in ("right", "left"):
        marks = tuple(_mark(one, dates[one.study_instance_uid]) for one in results if one.side == side)
        if marks:
            lines.append(Line(name=f"{side} ear", kind=side, marks=marks))
    days = {one.study_instance_uid: _at(dates[one.study_instance_uid]) for one in results}
    ticks = sorted({(at, _date_text(dates[uid])) for uid, at in days.items()})
    uprights = []
    model = results[0].model
    for one in results:
        if one.model != model:
            model = one.model
            uprights.append(Upright(x=days[one.study_instance_uid], word=f"now {model}"))
    count = len({one.study_instance_uid for one in results})
    return plot(
        "EH ratio of both ears over time",
        f"{count} examinations; each mark is a ratio with its 95 % interval. The same numbers stand in the table.",
        lines,
        x_ticks=thinned(ticks, at_most=5),
        unit="%",
        uprights=uprights,
    )


def _mark(result: EarResult, date: str) -> Mark:
    assert result.ratio is not None
    low, high = (None if value is None else 100.0 * value for value in (result.low, result.high))
    remarks = f"; {', '.join(result.quality)}" if result.quality else ""
    return Mark(
        x=_at(date),
        y=100.0 * result.ratio,
        low=low,
        high=high,
        hollow=bool(result.quality),
        title=f"{_date_text(date)}, {result.side} ear: {percent_text(result.ratio)} "
        f"(95 % interval {_interval(result)}), {result.model}{remarks}",
    )


def _interval(result: EarResult) -> str:
    if result.low is None or result.high is None:
        return ""
    return f"{percent_text(result.low)} to {percent_text(result.high)}"


def _day(date: str) -> datetime | None:
    """A DICOM date (YYYYMMDD), or None if it is none."""
    try:
        return datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _at(date: str) -> float:
    day = _day(date)
    assert day is not None, "only dated results are drawn"
    return day.timestamp()


def _date_text(date: str) -> str:
    day = _day(date)
    return "date unknown" if day is None else day.strftime("%Y-%m-%d")
