"""Results as files: the objects as they are sent, and findings.json. File names are made of UIDs, never of names."""

from __future__ import annotations

import json
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Path, Request, status
from fastapi.responses import Response

from dicom_node.errors import OutputMismatch
from dicom_node.study_actions import sent_key
from dicom_node.web.access import Role, parts_of, require
from dicom_node.web.parts import WebParts
from dicom_node.web.study_page import StudyUid, known_study, standing_findings
from dicom_node.web.viewing_audit import note_export

ObjectUid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]

DICOM: Final = "application/dicom"


def router(_parts: WebParts) -> APIRouter:
    """GET /studies/{uid}/objects/{object_uid} and /studies/{uid}/findings.json."""
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/studies/{uid}/objects/{object_uid}", object_file, methods=["GET"])
    found.add_api_route("/studies/{uid}/findings.json", findings, methods=["GET"])
    return found


def object_file(request: Request, uid: StudyUid, object_uid: ObjectUid) -> Response:
    """One object of the study's last result, byte for byte as it is sent."""
    parts = parts_of(request)
    record = known_study(parts, uid)
    stored = next(
        (one for one in parts.outbox.objects(sent_key(record, parts.outbox)) if one.sop_instance_uid == object_uid),
        None,
    )
    if stored is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "The study's result has no such object.")
    try:
        data = parts.outbox.read(object_uid)
    except OutputMismatch:
        raise HTTPException(
            status.HTTP_410_GONE,
            "The object's file is missing or damaged; an administrator can examine the study again.",
        ) from None
    note_export(request, uid, stored.kind)
    return _attachment(data, DICOM, f"{stored.kind.lower()}-{object_uid}.dcm")


def findings(request: Request, uid: StudyUid) -> Response:
    """The numbers for programs; the document holds no name and no ID of a patient."""
    found = standing_findings(known_study(parts_of(request), uid))
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There are no findings of this study as it stands now.")
    note_export(request, uid, "findings.json")
    return _attachment(json.dumps(found, indent=2).encode(), "application/json", f"findings-{uid}.json")


def _attachment(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
