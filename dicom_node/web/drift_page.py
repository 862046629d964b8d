"""Drift: per scanner over time, the EH ratio, remarks on quality, refusals and latency; and what to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from dicom_node.drift import DAY_S, Period, Points, Shift, Spread, periods, shifts
from dicom_node.drift_points import DriftPoints
from dicom_node.web.access import Role, parts_of, require
from dicom_node.web.parts import WebParts
from dicom_node.web.plots import Line, Mark, Plot, plot, thinned
from dicom_node.web.rendering import page

SPANS: Final = {"30": ("30 days", 2), "90": ("90 days", 7), "365": ("a year", 30), "1095": ("three years", 90)}
"""Days looked back: the words for it, and the days of one period."""

EVERY_SCANNER: Final = ""
UNKNOWN_SCANNER: Final = "scanner not named"


@dataclass(frozen=True, kw_only=True)
class DriftRow:
    """One period in words."""

    period: str
    studies: int
    ratio: str
    flagged: str
    refused: str
    latency: str


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What `drift.html` shows of one scanner, or of all."""

    shifts: tuple[Shift, ...]
    plots: tuple[Plot, ...]
    rows: tuple[DriftRow, ...]


def router(_parts: WebParts) -> APIRouter:
    """GET /drift."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/drift", show_drift, methods=["GET"])
    return found


def show_drift(
    request: Request, scanner: Annotated[str, Query(max_length=256)] = EVERY_SCANNER, days: str = "90"
) -> Response:
    """The drift view, narrowed to a scanner and a span of time."""
    parts = parts_of(request)
    span = days if days in SPANS else "90"
    until = parts.clock()
    since = until - int(span) * DAY_S
    points = DriftPoints(parts.engine, ledger=parts.ledger, cards=parts.cards, outbox=parts.outbox)
    by_scanner = points.read(since=since)
    scanners = sorted(by_scanner)
    chosen = [found for name, found in by_scanner.items() if scanner in (EVERY_SCANNER, name or UNKNOWN_SCANNER)]
    drift = drift_of(Points.of(chosen), since=since, until=until, period_s=SPANS[span][1] * DAY_S)
    return page(
        request,
        "drift.html",
        drift=drift,
        scanner=scanner,
        scanners=[name or UNKNOWN_SCANNER for name in scanners],
        days=span,
        spans={value: words for value, (words, _period) in SPANS.items()},
        one_scanner=scanner != EVERY_SCANNER or len(scanners) < 2,
    )


def drift_of(points: Points, *, since: float, until: float, period_s: float) -> Drift:
    """Shifts, plots and table of these studies."""
    found = periods(points, since=since, until=until, length_s=period_s)
    if not found:
        return Drift(shifts=(), plots=(), rows=())
    ticks = thinned([(_middle(period), _day_text(period.begin)) for period in found], at_most=6)
    ratio = _spread_line("median EH ratio, middle half", found, [period.ratio for period in found], 100.0, "%")
    latency = _spread_line("median latency, middle half", found, [period.latency for period in found], 1.0, "s")
    shares = [
        _share_line("studies with a remark on quality", "left", found, [period.flagged for period in found]),
        _share_line("refused studies", "right", found, [period.refused for period in found]),
    ]
    kinds = (
        ("EH ratio", "Both ears of every computed study.", [ratio], "%"),
        ("Remarks and refusals", "Share of all finished studies.", shares, "%"),
        ("Latency", "From the last image's arrival to the last confirmed delivery.", [latency], "s"),
    )
    plots = tuple(
        plot(
            title,
            f"{words} The same numbers stand in the table.",
            lines,
            x_ticks=ticks,
            unit=unit,
            x_range=(since, until),
        )
        for title, words, lines, unit in kinds
    )
    return Drift(shifts=tuple(shifts(points)), plots=plots, rows=tuple(_row(period) for period in found))


def _spread_line(
    name: str, found: Sequence[Period], spreads: Sequence[Spread | None], factor: float, unit: str
) -> Line:
    marks = tuple(
        Mark(
            x=_middle(period),
            y=factor * one.median,
            low=factor * one.low,
            high=factor * one.high,
            title=f"{_period_text(period)}: {_spread_text(one, factor, unit)}",
        )
        for period, one in zip(found, spreads, strict=True)
        if one is not None
    )
    return Line(name=name, kind="other", marks=marks)


def _share_line(name: str, kind: str, found: Sequence[Period], counts: Sequence[int]) -> Line:
    marks = tuple(
        Mark(
            x=_middle(period),
            y=100.0 * count / period.studies,
            title=f"{_period_text(period)}: {name}: {count} of {period.studies}",
        )
        for period, count in zip(found, counts, strict=True)
    )
    return Line(name=name, kind=kind, marks=marks)


def _row(period: Period) -> DriftRow:
    return DriftRow(
        period=_period_text(period),
        studies=period.studies,
        ratio=_spread_text(period.ratio, 100.0, "%"),
        flagged=f"{period.flagged} ({100 * period.flagged / period.studies:.0f} %)",
        refused=f"{period.refused} ({100 * period.refused / period.studies:.0f} %)",
        latency=_spread_text(period.latency, 1.0, "s"),
    )


def _spread_text(one: Spread | None, factor: float, unit: str) -> str:
    if one is None:
        return ""
    middle, low, high = (factor * value for value in (one.median, one.low, one.high))
    return f"{middle:.1f} {unit} ({low:.1f} to {high:.1f}, n = {one.count})"


def _middle(period: Period) -> float:
    return 0.5 * (period.begin + period.end)


def _period_text(period: Period) -> str:
    return f"{_day_text(period.begin)} to {_day_text(period.end)}"


def _day_text(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d")
