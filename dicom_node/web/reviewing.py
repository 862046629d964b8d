"""A reader's review of a result, and all reviews as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Form, HTTPException, Request, status
from fastapi.responses import RedirectResponse, Response

from dicom_node.audit import AuditAction
from dicom_node.encoding.measurements import read_measurements
from dicom_node.errors import UnusableInput
from dicom_node.ledger import StudyState
from dicom_node.reviews import MAX_COMMENT_CHARACTERS, Review, Verdict
from dicom_node.web.access import Role, address_of, parts_of, require, visitor_of
from dicom_node.web.parts import WebParts
from dicom_node.web.rendering import iso
from dicom_node.web.study_page import StudyUid, known_study

COLUMNS: Final = (
    "at",
    "reader",
    "verdict",
    "comment",
    "superseded",
    "study_instance_uid",
    "work_id",
    "right_ratio_percent",
    "left_ratio_percent",
)

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""With one of these first, a spreadsheet takes a cell for a formula, a command or a macro."""


def router(_parts: WebParts) -> APIRouter:
    """POST /studies/{uid}/reviews, GET /reviews.csv and /reviews.json."""
    found = APIRouter()
    found.add_api_route("/studies/{uid}/reviews", write, methods=["POST"], dependencies=[require(Role.READER)])
    found.add_api_route("/reviews.{form}", export, methods=["GET"], dependencies=[require(Role.READER)])
    return found


def write(
    request: Request,
    uid: StudyUid,
    work_id: Annotated[str, Form(max_length=128)],
    verdict: Annotated[Verdict, Form()],
    comment: Annotated[str, Form(max_length=2 * MAX_COMMENT_CHARACTERS)] = "",
) -> Response:
    """Keep the review with the result that the reader saw; another result by now is said, not overwritten."""
    parts, visitor = parts_of(request), visitor_of(request)
    record = known_study(parts, uid)
    if record.state is not StudyState.COMPUTED or record.work_id != work_id:
        raise HTTPException(status.HTTP_409_CONFLICT, "There is another result by now; please look at that one first.")
    try:
        parts.reviews.write(
            work_id=work_id,
            study_instance_uid=uid,
            reader=visitor.name,
            verdict=verdict,
            comment=comment,
            at=parts.clock(),
        )
    except UnusableInput as problem:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, str(problem)) from None
    parts.audit.record(
        AuditAction.REVIEW_WRITTEN,
        actor=visitor.name,
        study_instance_uid=uid,
        detail=verdict.value,
        address=address_of(request),
    )
    return RedirectResponse(f"/studies/{uid}#reviews", status_code=status.HTTP_303_SEE_OTHER)


def export(request: Request, form: Literal["csv", "json"]) -> Response:
    """Every review with the ratios it is about, for statistics; without names of patients."""
    parts = parts_of(request)
    rows = [_row(parts, one) for one in parts.reviews.all()]
    parts.audit.record(
        AuditAction.RESULTS_EXPORTED,
        actor=visitor_of(request).name,
        detail=f"{len(rows)} reviews as {form}",
        address=address_of(request),
    )
    text, kind = (_csv(rows), "text/csv") if form == "csv" else (json.dumps(rows, indent=2), "application/json")
    disposition = {"Content-Disposition": f'attachment; filename="hydrops-reviews.{form}"'}
    return Response(text, media_type=f"{kind}; charset=utf-8", headers=disposition)


def _row(parts: WebParts, review: Review) -> dict[str, Any]:
    finished = parts.ledger.finished(review.work_id)
    measured = None if finished is None else read_measurements(finished.findings)
    ratios = {} if measured is None else {ear.side.value: ear.ratio for ear in measured.ears}
    both = {side: ratios.get(side) for side in ("right", "left")}
    percent = {f"{side}_ratio_percent": None if ratio is None else ratio.value for side, ratio in both.items()}
    row = asdict(review) | percent | {"at": iso(review.at), "verdict": review.verdict.value}
    return {name: row[name] for name in COLUMNS}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: harmless(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def harmless(value: object) -> object:
    """A cell that a spreadsheet shows as text: numbers stay, a text that looks like a formula gets an apostrophe."""
    if isinstance(value, str) and value.lstrip(" \ufeff").startswith(FORMULA_STARTS):
        return f"'{value}"
    return value
