"""HTTP as we speak it with an Orthanc: answers of bounded length and time, failures sorted into classes.

Set for pixels: no compression (zipping 104 images takes 1.8 s, sending them 0.07 s), connections kept open, no proxy or
.netrc of the environment, redirects never followed: patients' images go to the configured host only. By urllib3 alone,
which looks at no environment: requests on top of it takes as much of the processor as fetching 250 KB does.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import certifi
import urllib3

from dicom_node.errors import ConfigError, NodeError, TransientError

MAX_ANSWER_BYTES = 256 * 2**20
"""Longest JSON answer taken; a thousand changes are 0.2 MB, a series of 2000 instances 2 MB."""

MIN_BYTES_PER_S = 100_000
"""A peer that sends slower than this, after `timeout_s`, is as good as hanging (a 1 MB/s line is ten times that)."""

_LENGTH = re.compile("[0-9]{1,18}")
"""Of a body. Python's own int() fails on thousands of digits, and on some signs that isdigit() calls digits."""


class OrthancUnavailable(TransientError):
    """Not reachable, too slow, cut off in the middle, or it answered 5xx; `status` is the HTTP code if it did."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OrthancAccessDenied(TransientError):
    """401 or 403 (`status`): wrong user or password. It works again as soon as somebody corrects them."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OrthancAnswerInvalid(TransientError):
    """What answers there is not an Orthanc, or not one that we understand: redirect, odd status, unexpected JSON."""


class OrthancTooLarge(NodeError):
    """The answer is longer than the limit given; asking again will not shorten it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status code and body of an HTTP answer that is neither a redirect nor longer than allowed; its ETag, or ""."""

    status: int
    body: bytes
    etag: str = ""


class OrthancConnection:
    """GET, POST and DELETE at one Orthanc. May be used from several threads.

    Parameters
    ----------
    url
        Root of the REST API, ``http://host:port`` or with a path behind a proxy.
    username, password
        For basic authentication; an empty `username` sends none.
    timeout_s
        Longest wait for a connection and for the next byte.
    parallel
        Connections kept open.

    Raises
    ------
    ConfigError
        If `url` is not an http(s) address or carries a user name (it would end up in logs).
    """

    def __init__(
        self, url: str, *, username: str = "", password: str = "", timeout_s: float = 30.0, parallel: int = 4
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ConfigError("orthanc url: expected http(s)://host:port without user name, found something else")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.username = username
        self._path = urlsplit(self.url).path
        headers = {"Accept-Encoding": "identity"}
        if username:
            basic = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {basic}"
        # Certificates are judged by the authorities that requests, too, would go by; urllib3 alone asks the system.
        tls = {"cert_reqs": "CERT_REQUIRED", "ca_certs": certifi.where()} if parts.scheme == "https" else {}
        self._connections = urllib3.connection_from_url(
            self.url, headers=headers, maxsize=parallel, retries=False, timeout=timeout_s, **tls
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._connections.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        limit_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Any answer of Orthanc; of the 4xx and 5xx codes only 401 and 403 raise here.

        Raises
        ------
        OrthancUnavailable
            If there was no answer, or not all of it, or it came too slowly.
        OrthancAccessDenied
            If Orthanc answered 401 or 403.
        OrthancAnswerInvalid
            If it answered with a redirect, or compressed although that was not asked for.
        OrthancTooLarge
            If the body is longer than `limit_bytes`.
        """
        target = self._path + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._connections.urlopen(method, target, body=data, redirect=False, preload_content=False)
            try:
                self._refuse_odd(response, path)
                body = self._body(response, path, limit_bytes)
                return Answer(status=response.status, body=body, etag=response.headers.get("ETag", ""))
            finally:
                response.close()  # where it was read to its end, the connection is back among the others by now
        except urllib3.exceptions.HTTPError as error:
            raise OrthancUnavailable(f"Orthanc at {self.url}{path}: {type(error).__name__}") from error

    def _refuse_odd(self, response: urllib3.BaseHTTPResponse, path: str) -> None:
        status = response.status
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise OrthancAccessDenied(
                f"Orthanc at {self.url} refuses user {self.username!r} (HTTP {status}). Check the user name in "
                "config/node.toml, the password in the environment, and RegisteredUsers in Orthanc's configuration",
                status=status,
            )
        if 300 <= status < 400:
            raise OrthancAnswerInvalid(
                f"Orthanc at {self.url}{path} redirects elsewhere (HTTP {status}), which is not followed; "
                "configure the final address"
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise OrthancAnswerInvalid(f"Orthanc at {self.url}{path} answers with encoding {encoding!r}, not asked for")

    def _body(self, response: urllib3.BaseHTTPResponse, path: str, limit_bytes: int) -> bytes:
        said = _LENGTH.fullmatch(response.headers.get("Content-Length", ""))
        announced = None if said is None else int(said[0])
        if announced is not None and announced > limit_bytes:
            raise OrthancTooLarge(f"Orthanc at {self.url}{path}: {announced} bytes, at most {limit_bytes} are taken")
        began = time.monotonic()
        body = bytearray()
        while piece := response.read1(1 << 16):  # read() would wait for 64 KiB, however slowly they drip
            body += piece
            if len(body) > limit_bytes:
                raise OrthancTooLarge(f"Orthanc at {self.url}{path}: more than {limit_bytes} bytes")
            if time.monotonic() - began > self.timeout_s + len(body) / MIN_BYTES_PER_S:
                raise OrthancUnavailable(f"Orthanc at {self.url}{path}: {len(body)} bytes in {self.timeout_s:.0f} s")
        if announced is not None and announced != len(body):
            raise OrthancUnavailable(f"Orthanc at {self.url}{path}: {len(body)} of {announced} bytes arrived")
        return bytes(body)

    def get_json(self, path: str, *, query: Mapping[str, str] | None = None) -> Any:
        """What Orthanc answers with 200, read as JSON."""
        return _parse_json(self.require_ok(self.request("GET", path, query=query), path), path)

    def get_json_or_none(self, path: str) -> Any:
        """The same, or None where Orthanc answers 404."""
        answer = self.request("GET", path)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return _parse_json(self.require_ok(answer, path), path)

    def post_json(self, path: str, data: bytes) -> Any:
        """What Orthanc answers with 200 to a POST, read as JSON."""
        return _parse_json(self.require_ok(self.request("POST", path, data=data), path), path)

    def require_ok(self, answer: Answer, path: str) -> Answer:
        """The answer, if its status is 200.

        Raises
        ------
        OrthancUnavailable
            If the status says that asking again may help: 5xx, 408 or 429.
        OrthancAnswerInvalid
            If it is any other.
        """
        if answer.status == HTTPStatus.OK:
            return answer
        if answer.status >= 500 or answer.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS):
            raise OrthancUnavailable(f"Orthanc at {self.url}{path}: HTTP {answer.status}", status=answer.status)
        raise OrthancAnswerInvalid(f"Orthanc at {self.url}{path}: expected HTTP 200, found {answer.status}")


def _parse_json(answer: Answer, path: str) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise OrthancAnswerInvalid(f"Orthanc {path}: the answer is not JSON; is an Orthanc there?") from None


@contextmanager
def understanding(path: str) -> Iterator[None]:
    """Turns the surprises of reading somebody else's JSON into one error."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise OrthancAnswerInvalid(f"Orthanc {path}: unexpected answer ({type(error).__name__})") from error
