"""The viewer's own origin: OHIF's files at the root, our configuration for it, and the window to the archive.

OHIF's files say where they lie (public path "/"), so they need a port or name of their own. Nothing here asks any
other host: the Content-Security-Policy names none, and OHIF's service worker, which would load a library from
another one, is not served.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import mimetypes
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import NotModifiedResponse

from dicom_node.errors import TransientError
from dicom_node.web.access import address_of
from dicom_node.web.headers import GuardHeaders, content_policy
from dicom_node.web.viewer.access import Doors, Onlooker
from dicom_node.web.viewer.archive import SEARCHES, Archive, ArchiveWindow, study_shown
from dicom_node.web.viewer.installation import packed_file
from dicom_node.web.viewer.links import in_address

log = logging.getLogger(__name__)

OUR_FILES: Final = {
    "app-config.js": Path(__file__).with_name("app-config.js"),
    "init-service-worker.js": Path(__file__).with_name("no-service-worker.js"),
}
"""Served instead of OHIF's: its own point at a public demonstration server and at another host's library."""

NOT_SERVED: Final = frozenset({"sw.js", "google.js"})

MAX_PATH_CHARACTERS: Final = 255
"""No file of OHIF's has a longer one, and a file system takes no longer name."""

LASTING: Final = re.compile(r"(?:.*\.)?[0-9a-f]{16}\.(?:js|css|wasm|woff2?|png|svg)")
"""Files whose name changes with their content: browsers may keep them."""

GZIP_TAKEN: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?(?:,|$))")


@dataclass(frozen=True, kw_only=True)
class ViewerParts:
    """What the viewer is made of: OHIF's folder, the archive, where it listens, and who looks.

    `onlooker` tells who makes a request, None: may not look. `opened` is called with that, the Study Instance UID and
    the IP address before anything of a study is read, `searched` with path and query in the UID's place before the
    archive is searched; with a TransientError nothing is.
    """

    files: Path
    archive: Archive
    doors: Doors
    onlooker: Callable[[Request], Onlooker | None]
    opened: Callable[[Onlooker, str, str], None]
    searched: Callable[[Onlooker, str, str], None]


def create_viewer_app(parts: ViewerParts) -> Starlette:
    """The application; run it with uvicorn on `parts.doors.host`.

    Raises
    ------
    OSError
        If OHIF's index.html cannot be read.
    """
    window = ArchiveWindow(parts.archive)
    policy = viewer_policy((parts.files / "index.html").read_text(encoding="utf-8"))

    async def images(request: Request) -> Response:
        who = await _admitted(request, parts)
        if isinstance(who, Response):
            return who
        return await _not_noted(request, parts, who) or await window.answer(request)

    async def files(request: Request) -> Response:
        who = await _admitted(request, parts)
        path = str(request.path_params["path"])
        answer = who if isinstance(who, Response) else file_answer(parts.files, path, request.headers)
        answer.headers["Content-Security-Policy"] = policy
        return answer

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await window.open()
        yield
        await window.close()

    routes = [Route("/dicom-web/{path:path}", images, methods=["GET"]), Route("/{path:path}", files, methods=["GET"])]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(GuardHeaders)
    return app


def viewer_policy(index_html: str) -> str:
    """As strict as OHIF permits: scripts of ours and the page's own by digest, no other host, no frame around it.

    It compiles code (WebAssembly, and array types when a SEG is read) and writes style elements, so these stay open.
    """
    inline = re.findall(r"<script>(.*?)</script>", index_html, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inline]
    return content_policy(
        script_src=" ".join(["'self'", "'unsafe-eval'", *(f"'sha256-{digest}'" for digest in digests)]),
        style_src="'self' 'unsafe-inline'",
        img_src="'self' blob: data:",
        font_src="'self' data:",
        connect_src="'self' blob: data:",
        worker_src="'self' blob:",
        manifest_src="'self'",
        form_action="'none'",
    )


def file_answer(files: Path, path: str, asked: Headers) -> Response:
    """One of OHIF's files, ours where we replace it; a path without a file is a page of OHIF's own router."""
    name = path.strip("/")
    if name in OUR_FILES:
        return _stored(OUR_FILES[name], asked, keep="no-cache")
    if not name.isprintable() or len(name) > MAX_PATH_CHARACTERS:
        return PlainTextResponse("The viewer has no such file.", 404)
    target = (files / name).resolve()
    if name and name not in NOT_SERVED and target.is_relative_to(files.resolve()) and target.is_file():
        lasting = LASTING.fullmatch(target.name)
        return _stored(target, asked, keep="public, max-age=31536000, immutable" if lasting else "no-cache")
    if "." in name.rpartition("/")[2]:
        return PlainTextResponse("The viewer has no such file.", 404)
    return _stored(files / "index.html", asked, keep="no-cache")


def _stored(file: Path, asked: Headers, *, keep: str) -> Response:
    """A file as it lies there, its gzip where there is one and the browser takes it, or 304 where it has it already."""
    headers = {"Cache-Control": keep, "Vary": "Accept-Encoding"}
    packed = packed_file(file)
    if GZIP_TAKEN.search(asked.get("accept-encoding", "")) and packed.is_file():
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        headers["Content-Encoding"] = "gzip"
        answer = FileResponse(packed, headers=headers, media_type=kind, stat_result=packed.stat())
    else:
        answer = FileResponse(file, headers=headers, stat_result=file.stat())
    if answer.headers["etag"] in asked.get("if-none-match", ""):
        return NotModifiedResponse(answer.headers)
    return answer


async def _admitted(request: Request, parts: ViewerParts) -> Onlooker | Response:
    """Who looks; else the refusal: a person is sent to the dashboard, a program gets 401."""
    name = request.url.hostname or ""
    if not parts.doors.are_for(name):
        return PlainTextResponse(
            f"The viewer is open on this machine only: http://127.0.0.1:{request.url.port}/. "
            "Behind a proxy, set viewer.address to what browsers see.",
            421,
        )
    who = await run_in_threadpool(parts.onlooker, request)
    if who is not None:
        return who
    dashboard = parts.doors.dashboard_url(in_address(name))
    if (
        dashboard
        and "text/html" in request.headers.get("accept", "")
        and not request.url.path.startswith("/dicom-web/")
    ):
        return RedirectResponse(dashboard, status_code=303)
    return PlainTextResponse("Sign in at the dashboard first.", 401)


async def _not_noted(request: Request, parts: ViewerParts, who: Onlooker) -> Response | None:
    """None once it stands in the audit trail what is looked at or searched for; the refusal where that failed."""
    path = str(request.path_params["path"])
    study = study_shown(path)
    if not study and not SEARCHES.fullmatch(path):
        return None
    try:
        if study:
            await run_in_threadpool(parts.opened, who, study, address_of(request))
        else:
            await run_in_threadpool(parts.searched, who, f"{path}?{request.url.query}", address_of(request))
    except TransientError as error:
        log.error("event=viewer_not_audited study=%s problem=%s", study, error)
        return PlainTextResponse("The audit trail cannot be written, so nothing is shown; see the node's log.", 503)
    return None
