"""The pictures of a study: a part of its page, a page of their own, and the files of its view pack.

Nothing is drawn here. The worker wrote the pack (`views.pack`); the browser shows it, and where it cannot, the still
pictures of the same pack stand in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, status
from fastapi.responses import JSONResponse, Response

from dicom_node.ledger import StudyRecord, StudyState
from dicom_node.owed_pictures import OwedPicture, OwedPictures
from dicom_node.views.shelf import MANIFEST, ViewShelf
from dicom_node.web.access import Role, parts_of, require
from dicom_node.web.parts import WebParts
from dicom_node.web.plain_words import plain
from dicom_node.web.rendering import page
from dicom_node.web.viewing_audit import note_export, note_view

WHY_NOT: Final[Mapping[StudyState, str]] = {
    StudyState.WAITING: "There are no pictures yet: the study is not complete.",
    StudyState.QUEUED: "There are no pictures yet: the study waits for its turn.",
    StudyState.COMPUTING: "There are no pictures yet: the study is being computed. Reload the page in a moment.",
    StudyState.REFUSED: "There are no pictures, because nothing was computed. The reason stands with the study.",
    StudyState.NOT_OURS: "There are no pictures: this study holds no hydrops series.",
    StudyState.FAILED: "There are no pictures, because the node failed on this study. An admin can measure it again.",
    StudyState.CANCELED: "There are no pictures, because somebody stopped this study. An admin can examine it again.",
    StudyState.COMPUTED: "The pictures of this result are not on this node any more; compute the study anew.",
}

BEING_DRAWN: Final = (
    "The numbers are there; the summary page and the pictures are being drawn. Reload the page in a moment."
)
NOT_DRAWN: Final = "The numbers stand, but page and pictures were not drawn ({why}). An admin can examine it again."


@dataclass(frozen=True, kw_only=True)
class EarStills:
    """One ear as the page shows it without JavaScript; `numbers` is the sentence a screen reader reads."""

    side: str
    numbers: str
    slices: str
    surfaces: str


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """One file to download."""

    name: str
    size: str


@dataclass(frozen=True, kw_only=True)
class StudyViews:
    """What `views_study.html` needs; without ears, `why_not` says why.

    `base` is where the viewer reads the pack, `downloads` where people take its files; both end with "/".
    """

    base: str = ""
    downloads: str = ""
    ears: tuple[EarStills, ...] = ()
    files: tuple[ListedFile, ...] = ()
    whole_grid: str = ""
    why_not: str = ""


def views_of(record: StudyRecord, shelf: ViewShelf, owed: OwedPictures) -> StudyViews:
    """The pictures of a study as it stands now."""
    if record.state is not StudyState.COMPUTED:
        return StudyViews(why_not=WHY_NOT[record.state])
    lacking = owed.of_work(record.work_id)
    manifest = shelf.manifest(record.work_id)
    if manifest is None:
        return StudyViews(why_not=WHY_NOT[record.state] if lacking is None else _why_not_yet(lacking))
    return StudyViews(
        base=f"/views/{record.work_id}/",
        downloads=f"/studies/{record.study_instance_uid}/views/",
        ears=tuple(
            EarStills(side=side, numbers=ear["numbers"], **ear["stills"])
            for side, ear in sorted(manifest["ears"].items(), key=lambda one: one[0] == "left")  # right comes first
        ),
        files=tuple(
            ListedFile(name=name, size=f"{max(1, round(listed['bytes'] / 1000))} kB")
            for name, listed in sorted(manifest["files"].items())
        ),
        whole_grid=manifest["whole_grid"]["file"],
    )


def _why_not_yet(lacking: OwedPicture) -> str:
    return NOT_DRAWN.format(why=plain(lacking.given_up)) if lacking.given_up else BEING_DRAWN


def router(parts: WebParts) -> APIRouter:
    """GET /studies/{uid}/views, a file of it to keep, and what the viewer itself reads under /views/{work id}/."""
    pages = StudyViewPages(ViewShelf(parts.state_dir / "views"), OwedPictures(parts.engine))
    found = APIRouter(dependencies=[require(Role.VIEWER)])
    found.add_api_route("/studies/{study_instance_uid}/views", pages.show, methods=["GET"])
    found.add_api_route("/studies/{study_instance_uid}/views/{name}", pages.download, methods=["GET"])
    found.add_api_route("/views/{work_id}/{name}", pages.send, methods=["GET"])
    return found


class StudyViewPages:
    """The routes, on one shelf and the list of what it still lacks."""

    def __init__(self, shelf: ViewShelf, owed: OwedPictures) -> None:
        self._shelf = shelf
        self._owed = owed

    def show(self, request: Request, study_instance_uid: str) -> Response:
        """The pictures alone, as large as the window."""
        record = parts_of(request).ledger.get(study_instance_uid)
        if record is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "This node knows no such study.")
        note_view(request, parts_of(request).cards.get(study_instance_uid), study_instance_uid)
        views = views_of(record, self._shelf, self._owed)
        return page(request, "views_page.html", study_instance_uid=record.study_instance_uid, views=views)

    def download(self, request: Request, study_instance_uid: str, name: str) -> Response:
        """One file of the study's present pictures, to keep; noted in the audit trail."""
        record = parts_of(request).ledger.get(study_instance_uid)
        views = StudyViews() if record is None else views_of(record, self._shelf, self._owed)
        if record is None or name not in {file.name for file in views.files}:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such picture.")
        answer = self.send(record.work_id, name)
        note_export(request, record.study_instance_uid, name)
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer

    def send(self, work_id: str, name: str) -> Response:
        """One file of a pack, if its bytes are still those that were written."""
        if name == MANIFEST:
            return self._manifest(work_id)
        file = self._shelf.file(work_id, name)
        if file is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such picture.")
        data = file.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise HTTPException(
                status.HTTP_410_GONE, f"{name} was damaged on disk and is not shown; compute the study anew."
            )
        return Response(data, media_type=file.media_type)

    def _manifest(self, work_id: str) -> Response:
        manifest: Mapping[str, Any] | None = self._shelf.manifest(work_id)
        if manifest is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "There are no pictures of this work.")
        return JSONResponse(manifest)
