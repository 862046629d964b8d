"""Orthanc's REST API, as much of it as we use: changes, series, instances, and the server itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import pairwise
from typing import Any

from dicom_node.orthanc_http import OrthancConnection, understanding

FIND_PAGE = 500

_NUMBERS = 2**63
"""Numbers of changes lie below: Orthanc counts in 64 bits, and so does the state database."""
_LONGEST_KIND = 64
"""Characters; Orthanc's own longest name of a kind of change has 23."""

_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_MD5 = re.compile(rb"[0-9a-f]{32}")
_ETAG_WITH_MD5 = re.compile(r'"[0-9]+-([0-9a-f]{32})"')
"""Orthanc's, since 1.9.2: revision and MD5 of an attachment. A proxy in between may put its own in its place."""


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
class AttachedFile:
    """A DICOM file as an Orthanc sends it; `md5` (hexadecimal) of what it received, None where it did not say it."""

    content: bytes
    md5: str | None


@dataclass(frozen=True, kw_only=True)
class OrthancSystem:
    """What an Orthanc says of itself; `overwrites` is None where it does not say (before 1.12)."""

    name: str
    version: str
    dicom_aet: str
    dicom_port: int
    overwrites: bool | None


class OrthancClient(OrthancConnection):
    """What we ask an Orthanc for, in the words of its REST API."""

    # -- the change log -----------------------------------------------------------------------------------------

    def changes(self, *, since: int, limit: int) -> ChangePage:
        """At most `limit` changes with numbers above `since`."""
        return self._change_page({"since": str(since), "limit": str(limit)})

    def last_change(self) -> int:
        """The last change number that this database gave out; 0 for an empty one."""
        return self._change_page({"last": ""}).last

    def _change_page(self, query: Mapping[str, str]) -> ChangePage:
        raw = self.get_json("/changes", query=query)
        with understanding("/changes"):
            page = ChangePage(
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
            _require_lawful(page)
            return page

    # -- series and instances -----------------------------------------------------------------------------------

    def series(self, series_id: str) -> OrthancSeries | None:
        """The series, or None if it was deleted."""
        raw = self.get_json_or_none(f"/series/{_orthanc_id(series_id)}")
        return None if raw is None else _read_series(raw)

    def mr_series(self) -> Iterator[OrthancSeries]:
        """Every series of modality MR, page by page."""
        start = 0
        while True:
            query = {"Level": "Series", "Query": {"Modality": "MR"}, "Expand": True, "Limit": FIND_PAGE, "Since": start}
            page = self.post_json("/tools/find", json.dumps(query).encode())
            with understanding("/tools/find"):
                yield from map(_read_series, page)
                if len(page) < FIND_PAGE:
                    return
            start += FIND_PAGE

    def study_instance_uid(self, study_id: str) -> str | None:
        """Study Instance UID of an Orthanc study, or None if it was deleted."""
        raw = self.get_json_or_none(f"/studies/{_orthanc_id(study_id)}")
        if raw is None:
            return None
        with understanding("/studies"):
            return str(raw["MainDicomTags"].get("StudyInstanceUID", ""))

    def instances_of_series(self, series_id: str) -> dict[str, str] | None:
        """Orthanc id -> SOP Instance UID of every instance, or None if the series was deleted."""
        raw = self.get_json_or_none(f"/series/{_orthanc_id(series_id)}/instances")
        if raw is None:
            return None
        with understanding("/series/instances"):
            return {_orthanc_id(one["ID"]): str(one["MainDicomTags"].get("SOPInstanceUID", "")) for one in raw}

    def series_of_instance(self, instance_id: str) -> str | None:
        """Orthanc id of the series that holds the instance, or None if the instance was deleted."""
        raw = self.get_json_or_none(f"/instances/{_orthanc_id(instance_id)}")
        if raw is None:
            return None
        with understanding("/instances"):
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
        return None if answer.status == HTTPStatus.NOT_FOUND else self.require_ok(answer, path).body

    def instance_with_md5(self, instance_id: str, *, limit_bytes: int) -> AttachedFile | None:
        """The same file, and in the same answer the MD5 that Orthanc took at receipt: half the questions.

        Raises
        ------
        OrthancTooLarge
            If the file is longer than `limit_bytes`.
        """
        path = f"/instances/{_orthanc_id(instance_id)}/attachments/dicom/data"
        answer = self.request("GET", path, limit_bytes=limit_bytes)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        said = _ETAG_WITH_MD5.fullmatch(answer.etag)
        return AttachedFile(content=self.require_ok(answer, path).body, md5=said and said[1])

    def instance_md5(self, instance_id: str) -> str | None:
        """Hexadecimal MD5 that Orthanc computed when it received the file; None if deleted or kept without digest.

        Raises
        ------
        OrthancAnswerInvalid
            If the answer is something else, such as a page of a proxy: it says nothing against the file.
        """
        path = f"/instances/{_orthanc_id(instance_id)}/attachments/dicom/md5"
        answer = self.request("GET", path)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        said = self.require_ok(answer, path).body.strip().lower()
        with understanding(path):
            if said and not _MD5.fullmatch(said):
                raise ValueError("no MD5")
            return said.decode("ascii") or None

    def instances_with_uid(self, sop_instance_uid: str) -> tuple[str, ...]:
        """Orthanc ids of the instances with this SOP Instance UID."""
        rows = self.post_json("/tools/lookup", sop_instance_uid.encode())
        with understanding("/tools/lookup"):
            return tuple(_orthanc_id(row["ID"]) for row in rows if row["Type"] == "Instance")

    def store(self, part10: bytes) -> str:
        """Upload one DICOM file; its Orthanc id."""
        raw = self.post_json("/instances", part10)
        with understanding("/instances"):
            return _orthanc_id(raw["ID"])

    def simplified_tags(self, instance_id: str) -> dict[str, Any]:
        """Keyword -> value of one instance, in Unicode, as Orthanc itself understands the character set."""
        raw = self.get_json(f"/instances/{_orthanc_id(instance_id)}/simplified-tags")
        with understanding("/simplified-tags"):
            return dict(raw)

    def delete_instance(self, instance_id: str) -> None:
        """Remove one instance; nothing happens if it is gone already."""
        self.request("DELETE", f"/instances/{_orthanc_id(instance_id)}")

    # -- the server itself --------------------------------------------------------------------------------------

    def system(self) -> OrthancSystem:
        """Who answers."""
        raw = self.get_json("/system")
        with understanding("/system"):
            return OrthancSystem(
                name=str(raw["Name"]),
                version=str(raw["Version"]),
                dicom_aet=str(raw["DicomAet"]),
                dicom_port=int(raw["DicomPort"]),
                overwrites=raw.get("OverwriteInstances"),
            )

    def plugins(self) -> tuple[str, ...]:
        """Names of the loaded plug-ins."""
        raw = self.get_json("/plugins")
        with understanding("/plugins"):
            return tuple(str(one) for one in raw)

    def now(self) -> float:
        """Orthanc's clock, POSIX seconds, whole."""
        answer = self.require_ok(self.request("GET", "/tools/now"), "/tools/now")
        with understanding("/tools/now"):
            at = _posix(answer.body.decode("ascii").strip())
            if at is None:
                raise ValueError("no time")
            return at


def _require_lawful(page: ChangePage) -> None:
    """Nothing if the numbers of a page rise from 1 on and all of it fits the cursor that is made of it.

    Other numbers would have the log read from its start again and again, or be refused by the state database.
    """
    numbers = [change.seq for change in page.changes]
    if any(after <= before for before, after in pairwise([0, *numbers])):
        raise ValueError("numbers of changes do not rise")
    if page.last < 0 or max(page.last, *numbers, 0) >= _NUMBERS:
        raise ValueError("no number of a change")
    if any(len(change.kind) > _LONGEST_KIND for change in page.changes):
        raise ValueError("no kind of change")


def _read_series(raw: Any) -> OrthancSeries:
    with understanding("/series"):
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
