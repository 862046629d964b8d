"""Results written back into a real Orthanc: delivered means that our bytes are there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_port
from local_orthanc import LocalOrthanc
from orthanc_parts import dicom_file
from patience import PATIENCE_S
from pydicom import dcmread
from pydicom.uid import EnhancedSRStorage, generate_uid

from dicom_node.delivery.orthanc_rest import upload
from dicom_node.delivery.outcome import Destination, OutcomeKind

pytestmark = [pytest.mark.orthanc]


def report_file() -> bytes:
    """A small object of a class that results have."""
    return dicom_file(generate_uid(), generate_uid(), sop_class=EnhancedSRStorage, modality="SR")


def uid_of(data: bytes) -> str:
    return str(dcmread(io.BytesIO(data)).SOPInstanceUID)


@pytest.fixture(scope="module")
def orthanc() -> Iterator[LocalOrthanc]:
    with LocalOrthanc() as local:
        yield local


def destination(orthanc: LocalOrthanc, *, password: str | None = None, url: str | None = None) -> Destination:
    return Destination(
        name="pacs",
        kind="orthanc",
        url=url or orthanc.url,
        username=orthanc.username,
        password=orthanc.password if password is None else password,
        timeout_s=PATIENCE_S,
    )


def stored_bytes(orthanc: LocalOrthanc, data: bytes) -> bytes:
    (found,) = orthanc.session.post(f"{orthanc.url}/tools/lookup", data=uid_of(data), timeout=PATIENCE_S).json()
    return orthanc.session.get(f"{orthanc.url}/instances/{found['ID']}/file", timeout=PATIENCE_S).content


def test_a_result_is_delivered_when_orthanc_holds_its_bytes(orthanc: LocalOrthanc) -> None:
    data = report_file()
    outcome = upload(data, destination(orthanc))
    assert (outcome.kind, outcome.status, outcome.detail) == (OutcomeKind.DELIVERED, 200, "stored and verified")
    assert stored_bytes(orthanc, data) == data


def test_the_same_bytes_again_are_delivered_too(orthanc: LocalOrthanc) -> None:
    data = report_file()
    assert upload(data, destination(orthanc)).kind is OutcomeKind.DELIVERED
    again = upload(data, destination(orthanc))
    assert (again.kind, again.detail) == (OutcomeKind.DELIVERED, "was there already")


def test_other_bytes_under_a_taken_uid_stop_the_delivery(orthanc: LocalOrthanc) -> None:
    first = report_file()
    upload(first, destination(orthanc))
    same_place = dcmread(io.BytesIO(first))
    same_place.SeriesDescription = "Other result"
    other = io.BytesIO()
    same_place.save_as(other, enforce_file_format=True)
    outcome = upload(other.getvalue(), destination(orthanc))
    assert outcome.kind is OutcomeKind.STOPPED
    assert f"holds another object with UID {uid_of(first)}" in outcome.detail
    assert stored_bytes(orthanc, first) == first


def test_a_wrong_password_stops_with_the_next_step(orthanc: LocalOrthanc) -> None:
    outcome = upload(report_file(), destination(orthanc, password="wrong"))
    assert (outcome.kind, outcome.status) == (OutcomeKind.STOPPED, 401)
    assert "password in the environment" in outcome.detail


def test_an_unreadable_object_stops_the_delivery(orthanc: LocalOrthanc) -> None:
    outcome = upload(b"this is not DICOM", destination(orthanc))
    assert (outcome.kind, outcome.status) == (OutcomeKind.STOPPED, 400)


def test_a_wrong_path_stops_and_a_dead_port_is_tried_later(orthanc: LocalOrthanc) -> None:
    wrong_path = upload(report_file(), destination(orthanc, url=f"{orthanc.url}/elsewhere"))
    assert (wrong_path.kind, wrong_path.status) == (OutcomeKind.STOPPED, 404)
    dead = upload(report_file(), destination(orthanc, url=f"http://127.0.0.1:{free_port()}"))
    assert (dead.kind, dead.status) == (OutcomeKind.RETRY_LATER, None)


def test_an_orthanc_that_changes_what_it_stores_is_found_out() -> None:
    implicit_little_endian = "1.2.840.10008.1.2"
    with LocalOrthanc(extra={"IngestTranscoding": implicit_little_endian}) as orthanc:
        outcome = upload(report_file(), destination(orthanc))
    assert outcome.kind is OutcomeKind.STOPPED
    assert "IngestTranscoding" in outcome.detail


def test_an_orthanc_without_digests_is_checked_byte_by_byte() -> None:
    with LocalOrthanc(extra={"StoreMD5ForAttachments": False}) as orthanc:
        data = report_file()
        assert upload(data, destination(orthanc)).kind is OutcomeKind.DELIVERED
        assert stored_bytes(orthanc, data) == data


def test_an_orthanc_that_filters_results_away_is_found_out(tmp_path: Path) -> None:
    script = tmp_path / "drop.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin, info) return false end\n")
    with LocalOrthanc(lua_scripts=[script]) as orthanc:
        outcome = upload(report_file(), destination(orthanc))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert "does not hold it" in outcome.detail
