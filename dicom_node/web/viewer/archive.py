"""The viewer's window to the archive: the DICOMweb reads that OHIF makes, and nothing else, streamed as they come.

A browser cannot hold the archive's password, so it asks us and we ask the archive. What passes is a short list of
paths (PS3.18: QIDO-RS search, WADO-RS metadata, frames, bulk data and single instances); everything else is not
there. The upstream address is built from the parts that matched, never from what the browser wrote.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from dicom_node.errors import TransientError

log = logging.getLogger(__name__)

_UID: Final = r"[0-9][0-9.]{0,63}"
"""It begins with a digit: "." and ".." would be taken out of the address, together with the part before them."""

_STUDY: Final = rf"studies/{_UID}"
_SERIES: Final = rf"{_STUDY}/series/{_UID}"
_INSTANCE: Final = rf"{_SERIES}/instances/{_UID}"
_TAG: Final = "[0-9A-Fa-f]{8}"
SEARCHES: Final = re.compile(rf"studies|{_STUDY}/series|{_STUDY}/instances|{_SERIES}/instances")
RETRIEVALS: Final = re.compile(
    rf"{_STUDY}/metadata|{_SERIES}/metadata|{_INSTANCE}|{_INSTANCE}/(?:metadata|rendered|thumbnail)"
    rf"|{_SERIES}/thumbnail|{_INSTANCE}/frames/[0-9]{{1,6}}(?:,[0-9]{{1,6}}){{0,999}}"
    rf"|{_INSTANCE}/bulk/{_TAG}(?:/[0-9]{{1,5}}/{_TAG}){{0,8}}"
)
_STUDY_OF: Final = re.compile(rf"studies/({_UID})/")
MAX_QUERY_CHARACTERS: Final = 2048
MAX_ACCEPT_CHARACTERS: Final = 512
MAX_CONNECTIONS: Final = 32
"""To the archive at once; OHIF asks for up to 25 frames ahead. Further requests wait for up to `POOL_TIMEOUT_S`."""

MAX_ANSWER_BYTES: Final = 1 << 30
"""Longest answer that is passed on; the largest object that the node takes by default has as many."""

CONNECT_TIMEOUT_S: Final = 5.0
POOL_TIMEOUT_S: Final = 30.0
PASSED_ON: Final = ("content-type", "content-length")

HEADERS: Final = {
    "Cache-Control": "no-store",  # images of patients do not stay on the disk of a shared workstation
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A DICOMweb server: its root without a slash at the end, and who we are there."""

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 30.0


def study_shown(path: str) -> str:
    """Study Instance UID of the study whose objects a path below /dicom-web/ reads; empty for a search."""
    found = _STUDY_OF.match(path) if RETRIEVALS.fullmatch(path) else None
    return found[1] if found else ""


class ArchiveWindow:
    """Answers GET /dicom-web/... from the archive. `open` and `close` it with the application."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make the connections' pool; nothing is sent yet."""
        archive = self._archive
        self._client = httpx.AsyncClient(
            auth=httpx.BasicAuth(archive.username, archive.password) if archive.username else None,
            timeout=httpx.Timeout(archive.timeout_s, connect=CONNECT_TIMEOUT_S, pool=POOL_TIMEOUT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            follow_redirects=False,
            trust_env=False,  # a proxy of the environment is not meant for images of patients
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._client is not None:
            await self._client.aclose()

    async def answer(self, request: Request) -> Response:
        """The archive's answer to one request of the viewer, or 404 for a path that OHIF has no use for."""
        path = str(request.path_params["path"])
        search = SEARCHES.fullmatch(path) is not None
        if self._client is None or not (search or RETRIEVALS.fullmatch(path)):
            return _refusal(404, "The viewer does not read this path.")
        query = request.url.query if search else ""
        if len(query) > MAX_QUERY_CHARACTERS:
            return _refusal(414, f"A search has at most {MAX_QUERY_CHARACTERS} characters.")
        upstream = self._client.build_request(
            "GET", f"{self._archive.url}/{path}" + (f"?{query}" if query else ""), headers=_headers(request)
        )
        try:
            answer = await _sent(self._client, upstream)
        except httpx.TimeoutException:
            return _unreachable("the archive did not answer in time")
        except httpx.TransportError as error:
            return _unreachable(f"the archive cannot be reached ({type(error).__name__})")
        if answer.status_code in (401, 403):
            await answer.aclose()
            return _unreachable("the archive does not accept viewer.username and its password")
        if odd := _oddity(answer):
            await answer.aclose()
            return _unreachable(odd)
        passed = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
        return StreamingResponse(_body(answer), answer.status_code, headers={**passed, **HEADERS})


async def _sent(client: httpx.AsyncClient, upstream: httpx.Request) -> httpx.Response:
    """The archive's answer; asked once more, on another connection, where the first was closed under the request.

    Orthanc closes connections that were idle for a second, now and then just when a frame is asked for.
    """
    try:
        return await client.send(upstream, stream=True)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        return await client.send(upstream, stream=True)


def _headers(request: Request) -> dict[str, str]:
    """What the archive gets to see of the browser's request: what it accepts, and by which name it called us."""
    host = request.headers.get("host", "")
    headers = {
        "Accept": request.headers.get("accept", "*/*")[:MAX_ACCEPT_CHARACTERS],
        "Accept-Encoding": "identity",  # zipping pixels costs 25 times the transfer
    }
    if re.fullmatch(r"[A-Za-z0-9.\-\[\]:]{1,255}", host):
        # RFC 7239 wants quotes around a port's colon; Orthanc's DICOMweb 1.7 would copy them into its addresses.
        headers["Forwarded"] = f"host={host};proto={request.url.scheme}"
    return headers


def _oddity(answer: httpx.Response) -> str:
    """Why an answer is not passed on, judged by its head; empty for a good one."""
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding != "identity":
        return "the archive compressed its answer although that was not asked for"
    announced = answer.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > MAX_ANSWER_BYTES:
        return f"the archive announced more than {MAX_ANSWER_BYTES} bytes"
    return ""


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes, never held as a whole.

    Raises
    ------
    TransientError
        If it is not what was announced, or too long: the browser's connection is then cut, so that it does not take
        half an answer for a whole one.
    """
    passed = 0
    try:
        async for chunk in answer.aiter_raw():
            passed += len(chunk)
            if passed > MAX_ANSWER_BYTES:
                raise TransientError(f"the archive sends more than {MAX_ANSWER_BYTES} bytes")
            yield chunk
    except httpx.HTTPError as error:
        raise TransientError(f"the archive's answer broke off after {passed} bytes: {type(error).__name__}") from None
    finally:
        await answer.aclose()


def _unreachable(problem: str) -> Response:
    log.warning("event=viewer_archive_unreachable problem=%s", problem)
    return _refusal(502, f"No images: {problem}.")


def _refusal(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence, status, headers=HEADERS)
