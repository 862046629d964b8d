"""Orthanc's REST API, as much of it as we use, with every failure sorted into a class we can act on.

The session is set for pixels: no compression (zipping 104 images takes 1.8 s, sending them 0.07 s), connections kept
open, no proxy or .netrc of the environment, redirects never followed: patients' images go to the configured host only.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
import urllib3

from dicom_node.errors import ConfigError, NodeError, TransientError

MAX_ANSWER_BYTES = 256 * 2**20
"""Longest JSON answer taken; a thousand changes are 0.2 MB, a series of 2000 instances 2 MB."""

MIN_BYTES_PER_S = 100_000
"""A peer that sends slower than this, after `timeout_s`, is as good as hanging (a 1 MB/s line is ten times that)."""

FIND_PAGE = 500

_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


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
class Change:
    """One row of Orthanc's change log; `at` is POSIX seconds, None where Orthanc's date is not readable."""

    seq: int
    kind: str
    resource_id: str
    at: float | None

    @property
    def fingerprint(self) -> str:
        """Equal for the same row of the same database, and different in a database that was begun anew."""
        return f"{self.kind} {self.resource_id} {self.at}"


@dataclass(frozen=True, kw_only=True)
class ChangePage:
    """Some changes in order of `seq`. `done`: nothing follows. `last`: the last number given out, as far as known."""

    changes: tuple[Change, ...]
    done: bool
    last: int


@dataclass(frozen=True, kw_only=True)
class OrthancSeries:
    """A series as Orthanc sees it now; `last_update` is POSIX seconds, None where Orthanc does not say."""

    orthanc_id: str
    study_id: str
    series_instance_uid: str
    modality: str
    instance_ids: tuple[str, ...]
    is_stable: bool
    last_update: float | None


@dataclass(frozen=True, kw_only=True)
class OrthancSystem:
    """What an Orthanc says of itself; `overwrites` is None where it does not say (before 1.12)."""

    name: str
    version: str
    dicom_aet: str
    dicom_port: int
    overwrites: bool | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status code and body of an HTTP answer that is neither a redirect nor longer than allowed."""

    status: int
    body: bytes


class OrthancClient:
    """One Orthanc. May be used from several threads.

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
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Accept-Encoding"] = "identity"
        if username:
            basic = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
            self._session.headers["Authorization"] = f"Basic {basic}"  # requests' own way encodes as Latin-1
        adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=parallel, max_retries=0)
        self._session.mount(self.url, adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._session.close()

    # -- the change log -----------------------------------------------------------------------------------------

    def changes(self, *, since: int, limit: int) -> ChangePage:
        """At most `limit` changes with numbers above `since`."""
        return self._change_page({"since": str(since), "limit": str(limit)})

    def last_change(self) -> int:
        """The last change number that this database gave out; 0 for an empty one."""
        return self._change_page({"last": ""}).last

    def _change_page(self, query: Mapping[str, str]) -> ChangePage:
        raw = self._json("/changes", query=query)
        with _understanding("/changes"):
            return ChangePage(
                changes=tuple(
                    Change(
                        seq=int(row["Seq"]),
                        kind=str(row["ChangeType"]),
                        resource_id=_orthanc_id(row["ID"]),
                        at=_posix(row.get("Date")),
                    )
                    for row in raw["Changes"]
                ),
                done=bool(raw["Done"]),
                last=int(raw["Last"]),
            )

    # -- series and instances -----------------------------------------------------------------------------------

    def series(self, series_id: str) -> OrthancSeries | None:
        """The series, or None if it was deleted."""
        raw = self._json_or_none(f"/series/{_orthanc_id(series_id)}")
        return None if raw is None else _read_series(raw)

    def mr_series(self) -> Iterator[OrthancSeries]:
        """Every series of modality MR, page by page."""
        start = 0
        while True:
            query = {"Level": "Series", "Query": {"Modality": "MR"}, "Expand": True, "Limit": FIND_PAGE, "Since": start}
            page = self._posted("/tools/find", json.dumps(query).encode())
            with _understanding("/tools/find"):
                yield from map(_read_series, page)
                if len(page) < FIND_PAGE:
                    return
            start += FIND_PAGE

    def study_instance_uid(self, study_id: str) -> str | None:
        """Study Instance UID of an Orthanc study, or None if it was deleted."""
        raw = self._json_or_none(f"/studies/{_orthanc_id(study_id)}")
        if raw is None:
            return None
        with _understanding("/studies"):
            return str(raw["MainDicomTags"].get("StudyInstanceUID", ""))

    def instances_of_series(self, series_id: str) -> dict[str, str] | None:
        """Orthanc id -> SOP Instance UID of every instance, or None if the series was deleted."""
        raw = self._json_or_none(f"/series/{_orthanc_id(series_id)}/instances")
        if raw is None:
            return None
        with _understanding("/series/instances"):
            return {_orthanc_id(one["ID"]): str(one["MainDicomTags"].get("SOPInstanceUID", "")) for one in raw}

    def series_of_instance(self, instance_id: str) -> str | None:
        """Orthanc id of the series that holds the instance, or None if the instance was deleted."""
        raw = self._json_or_none(f"/instances/{_orthanc_id(instance_id)}")
        if raw is None:
            return None
        with _understanding("/instances"):
            return _orthanc_id(raw["ParentSeries"])

    def instance_file(self, instance_id: str, *, limit_bytes: int) -> bytes | None:
        """The DICOM file exactly as stored, or None if it was deleted.

        Raises
        ------
        OrthancTooLarge
            If the file is longer than `limit_bytes`.
        """
        path = f"/instances/{_orthanc_id(instance_id)}/file"
        answer = self.request("GET", path, limit_bytes=limit_bytes)
        return None if answer.status == requests.codes.not_found else self._require_ok(answer, path).body

    def instance_md5(self, instance_id: str) -> str | None:
        """Hexadecimal MD5 that Orthanc computed when it received the file; None if deleted or kept without digest."""
        path = f"/instances/{_orthanc_id(instance_id)}/attachments/dicom/md5"
        answer = self.request("GET", path)
        if answer.status == requests.codes.not_found:
            return None
        return self._require_ok(answer, path).body.decode("ascii", "replace").strip().lower() or None

    def instances_with_uid(self, sop_instance_uid: str) -> tuple[str, ...]:
        """Orthanc ids of the instances with this SOP Instance UID."""
        rows = self._posted("/tools/lookup", sop_instance_uid.encode())
        with _understanding("/tools/lookup"):
            return tuple(_orthanc_id(row["ID"]) for row in rows if row["Type"] == "Instance")

    def store(self, part10: bytes) -> str:
        """Upload one DICOM file; its Orthanc id."""
        raw = self._posted("/instances", part10)
        with _understanding("/instances"):
            return _orthanc_id(raw["ID"])

    def simplified_tags(self, instance_id: str) -> dict[str, Any]:
        """Keyword -> value of one instance, in Unicode, as Orthanc itself understands the character set."""
        raw = self._json(f"/instances/{_orthanc_id(instance_id)}/simplified-tags")
        with _understanding("/simplified-tags"):
            return dict(raw)

    def delete_instance(self, instance_id: str) -> None:
        """Remove one instance; nothing happens if it is gone already."""
        self.request("DELETE", f"/instances/{_orthanc_id(instance_id)}")

    # -- the server itself --------------------------------------------------------------------------------------

    def system(self) -> OrthancSystem:
        """Who answers."""
        raw = self._json("/system")
        with _understanding("/system"):
            return OrthancSystem(
                name=str(raw["Name"]),
                version=str(raw["Version"]),
                dicom_aet=str(raw["DicomAet"]),
                dicom_port=int(raw["DicomPort"]),
                overwrites=raw.get("OverwriteInstances"),
            )

    def plugins(self) -> tuple[str, ...]:
        """Names of the loaded plug-ins."""
        raw = self._json("/plugins")
        with _understanding("/plugins"):
            return tuple(str(one) for one in raw)

    def now(self) -> float:
        """Orthanc's clock, POSIX seconds, whole."""
        answer = self._require_ok(self.request("GET", "/tools/now"), "/tools/now")
        with _understanding("/tools/now"):
            at = _posix(answer.body.decode("ascii").strip())
            if at is None:
                raise ValueError("no time")
            return at

    # -- HTTP ---------------------------------------------------------------------------------------------------

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
        try:
            with self._session.request(
                method,
                self.url + path,
                params=query,
                data=data,
                timeout=self.timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                self._refuse_odd(response, path)
                return Answer(status=response.status_code, body=self._body(response, path, limit_bytes))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise OrthancUnavailable(f"Orthanc at {self.url}{path}: {type(error).__name__}") from error

    def _refuse_odd(self, response: requests.Response, path: str) -> None:
        status = response.status_code
        if status in (requests.codes.unauthorized, requests.codes.forbidden):
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

    def _body(self, response: requests.Response, path: str, limit_bytes: int) -> bytes:
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > limit_bytes:
            raise OrthancTooLarge(f"Orthanc at {self.url}{path}: {announced} bytes, at most {limit_bytes} are taken")
        began = time.monotonic()
        body = bytearray()
        while piece := response.raw.read1(1 << 16):  # read() would wait for 64 KiB, however slowly they drip
            body += piece
            if len(body) > limit_bytes:
                raise OrthancTooLarge(f"Orthanc at {self.url}{path}: more than {limit_bytes} bytes")
            if time.monotonic() - began > self.timeout_s + len(body) / MIN_BYTES_PER_S:
                raise OrthancUnavailable(f"Orthanc at {self.url}{path}: {len(body)} bytes in {self.timeout_s:.0f} s")
        if announced.isdigit() and int(announced) != len(body):
            raise OrthancUnavailable(f"Orthanc at {self.url}{path}: {len(body)} of {announced} bytes arrived")
        return bytes(body)

    def _json(self, path: str, *, query: Mapping[str, str] | None = None) -> Any:
        return _parse_json(self._require_ok(self.request("GET", path, query=query), path), path)

    def _json_or_none(self, path: str) -> Any:
        answer = self.request("GET", path)
        if answer.status == requests.codes.not_found:
            return None
        return _parse_json(self._require_ok(answer, path), path)

    def _posted(self, path: str, data: bytes) -> Any:
        return _parse_json(self._require_ok(self.request("POST", path, data=data), path), path)

    def _require_ok(self, answer: Answer, path: str) -> Answer:
        if answer.status == requests.codes.ok:
            return answer
        if answer.status >= 500 or answer.status in (requests.codes.request_timeout, requests.codes.too_many_requests):
            raise OrthancUnavailable(f"Orthanc at {self.url}{path}: HTTP {answer.status}", status=answer.status)
        raise OrthancAnswerInvalid(f"Orthanc at {self.url}{path}: expected HTTP 200, found {answer.status}")


def _parse_json(answer: Answer, path: str) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        raise OrthancAnswerInvalid(f"Orthanc {path}: the answer is not JSON; is an Orthanc there?") from None


@contextmanager
def _understanding(path: str) -> Iterator[None]:
    """Turns the surprises of reading somebody else's JSON into one error."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise OrthancAnswerInvalid(f"Orthanc {path}: unexpected answer ({type(error).__name__})") from error


def _read_series(raw: Any) -> OrthancSeries:
    with _understanding("/series"):
        tags = raw["MainDicomTags"]
        return OrthancSeries(
            orthanc_id=_orthanc_id(raw["ID"]),
            study_id=_orthanc_id(raw["ParentStudy"]),
            series_instance_uid=str(tags.get("SeriesInstanceUID", "")),
            modality=str(tags.get("Modality", "")).strip(),
            instance_ids=tuple(_orthanc_id(one) for one in raw["Instances"]),
            is_stable=bool(raw["IsStable"]),
            last_update=_posix(raw.get("LastUpdate")),
        )


def _orthanc_id(raw: object) -> str:
    """An Orthanc id, checked because it becomes part of an address."""
    if not isinstance(raw, str) or not _ORTHANC_ID.fullmatch(raw):
        raise ValueError(f"expected an Orthanc id, found {raw!r}")
    return raw


def _posix(raw: object) -> float | None:
    """Orthanc's ``20261122T040253`` (UTC) as POSIX seconds, or None where it is something else."""
    try:
        return datetime.strptime(str(raw), "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
