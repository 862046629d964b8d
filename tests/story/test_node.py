"""The node as a site runs it: real Orthanc, real DICOM sender, `hydrops-node serve`; killed, restarted, sent twice."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from local_node import LocalNode
from local_orthanc import LocalOrthanc, OrthancMissing
from patience import PATIENCE_S, STUDY_S, wait_until
from phantom_patients import images_of
from pydicom.uid import DeflatedExplicitVRLittleEndian
from scanned_series import with_raw, write_files

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.database import open_database
from dicom_node.intake.change_cursor import CursorStore
from dicom_node.intake.spool import Spool
from dicom_node.ledger import StudyState
from dicom_node.views.shelf import ViewShelf
from dicom_node.web.progress import STEPS
from inference.phantom import PhantomStudy

pytestmark = [pytest.mark.orthanc, pytest.mark.dcmtk]


@pytest.fixture(scope="module")
def study_folder(patient: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for number, one in enumerate(images_of(patient, "MRC", "PPI", "PEI")):
        one.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def study_uid(study_folder: Path) -> str:
    return str(pydicom.dcmread(next(study_folder.iterdir()), stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture
def orthanc() -> Iterator[LocalOrthanc]:
    try:
        pacs = LocalOrthanc()
    except OrthancMissing as missing:
        pytest.skip(str(missing))
    with pacs:
        yield pacs


def send(folder: Path, called_ae: str, port: int) -> None:
    command = [
        "dcmsend",
        "-aet",
        "SCANNER",
        "-aec",
        called_ae,
        "--scan-directories",
        "127.0.0.1",
        str(port),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TCP_NODELAY": "1"})


MODALITIES = {"SEG": "SEG", "SR": "SR", "SC": "OT"}


def results(orthanc: LocalOrthanc, study: str) -> dict[str, list[bytes]]:
    """What the PACS holds of the study besides MR, by the outbox's word for it."""
    found: dict[str, list[bytes]] = {}
    for kind, modality in MODALITIES.items():
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": modality}}
        ids = orthanc.session.post(f"{orthanc.url}/tools/find", json=query).json()
        found[kind] = [orthanc.session.get(f"{orthanc.url}/instances/{one}/file").content for one in ids]
    return found


def assert_one_of_each(orthanc: LocalOrthanc, node: LocalNode, study: str) -> None:
    """One SEG, one SR and one summary, and they are the very bytes that the outbox keeps."""
    at_pacs = results(orthanc, study)
    assert {kind: len(objects) for kind, objects in at_pacs.items()} == {"SEG": 1, "SR": 1, "SC": 1}
    for one in node.outbox.deliveries(study):
        kept = node.outbox.read(one.sop_instance_uid)
        assert hashlib.sha256(at_pacs[one.kind][0]).digest() == hashlib.sha256(kept).digest()


def assert_audited_as_delivered(orthanc: LocalOrthanc, node: LocalNode, study: str) -> None:
    """One entry for each object that the PACS holds, and none besides."""

    def entries() -> list[str]:
        return [
            entry.message["EventIdentification"]["EventOutcomeDescription"]
            for entry in AuditTrail(node.state_dir / "audit").entries()
            if entry.action is AuditAction.RESULTS_SENT
        ]

    at_pacs = [
        f"{kind} {pydicom.dcmread(BytesIO(one), stop_before_pixels=True).SOPInstanceUID}"
        for kind, objects in results(orthanc, study).items()
        for one in objects
    ]
    wait_until(lambda: len(entries()) >= len(at_pacs))  # each is written after its delivery is known
    assert sorted(entries()) == sorted(at_pacs)


def wait_until_seen(orthanc: LocalOrthanc, node: LocalNode, study: str) -> None:
    """Wait until the node has read all that Orthanc has, and has looked at all that it took of the study."""
    last = orthanc.session.get(f"{orthanc.url}/changes?last").json()["Last"]
    engine = open_database(f"sqlite:///{node.state_dir / 'node.db'}")
    cursors, spool = CursorStore(engine), Spool(node.state_dir / "spool", engine)

    def has_read_all() -> bool:
        cursor = cursors.load(orthanc.url)
        return cursor is not None and cursor.seq >= last

    def has_looked_at_all() -> bool:
        activity, record = spool.study(study), node.ledger.get(study)
        return activity is not None and record is not None and activity.revision == record.revision

    wait_until(has_read_all, found=node.log_tail)
    wait_until(has_looked_at_all, found=node.log_tail)


def test_a_study_sent_to_the_pacs_comes_back_with_one_seg_and_one_report(
    orthanc: LocalOrthanc, study_folder: Path, study_uid: str, tmp_path: Path
) -> None:
    with LocalNode(tmp_path, orthanc=orthanc) as node:
        send(study_folder, orthanc.aet, orthanc.dicom_port)
        record = node.wait_until_finished(study_uid)
        assert record.state is StudyState.COMPUTED, node.log_tail()
        assert_one_of_each(orthanc, node, study_uid)
        assert ViewShelf(node.state_dir / "views").manifest(record.work_id) is not None  # what the dashboard shows
        # Our own objects are in the study now; the node has seen them and starts nothing.
        wait_until_seen(orthanc, node, study_uid)
        after = node.ledger.get(study_uid)
        assert after is not None
        assert (after.state, after.work_id, after.updated_at) == (record.state, record.work_id, record.updated_at)
        assert_one_of_each(orthanc, node, study_uid)
        assert node.stop() == 0


def test_a_study_sent_twice_by_c_store_gives_one_result(
    orthanc: LocalOrthanc, study_folder: Path, study_uid: str, tmp_path: Path
) -> None:
    with LocalNode(tmp_path, orthanc=orthanc, entrance="dicom") as node:
        for _ in range(2):
            send(study_folder, "HYDROPS", node.dicom_port)
            assert node.wait_until_finished(study_uid).state is StudyState.COMPUTED, node.log_tail()
        assert_one_of_each(orthanc, node, study_uid)
        assert_audited_as_delivered(orthanc, node, study_uid)


def test_a_worker_killed_while_computing_is_replaced_and_the_study_finishes_once(
    orthanc: LocalOrthanc, study_folder: Path, study_uid: str, tmp_path: Path
) -> None:
    with LocalNode(tmp_path, orthanc=orthanc, entrance="dicom") as node:
        send(study_folder, "HYDROPS", node.dicom_port)
        wait_for_step(node, study_uid, "align series")
        for pid in node.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert node.wait_until_finished(study_uid).state is StudyState.COMPUTED, node.log_tail()
        wait_until(lambda: "event=worker_died" in node.log_path.read_text(), found=node.log_tail)
        assert_one_of_each(orthanc, node, study_uid)


def test_a_node_killed_right_after_the_last_image_was_acknowledged_finishes_after_its_restart(
    orthanc: LocalOrthanc, study_folder: Path, study_uid: str, tmp_path: Path
) -> None:
    node = LocalNode(tmp_path, orthanc=orthanc, entrance="dicom")
    with node:
        send(study_folder, "HYDROPS", node.dicom_port)
        node.kill()
        node.start()
        assert node.wait_until_finished(study_uid).state is StudyState.COMPUTED, node.log_tail()
        assert_one_of_each(orthanc, node, study_uid)


def test_a_study_that_cannot_be_computed_gets_a_report_that_says_why(
    orthanc: LocalOrthanc, patient: PhantomStudy, study_uid: str, tmp_path: Path
) -> None:
    images = images_of(patient, "MRC", "PPI", "PEI")
    images[0].PatientID = "SOMEBODY-ELSE"
    folder = tmp_path / "study"
    folder.mkdir()
    for number, one in enumerate(images):
        one.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
    with LocalNode(tmp_path / "node", orthanc=orthanc, entrance="dicom") as node:
        send(folder, "HYDROPS", node.dicom_port)
        record = node.wait_until_finished(study_uid)
        assert (record.state, record.reason) == (StudyState.REFUSED, "PATIENT_MISMATCH")
        at_pacs = results(orthanc, study_uid)
        assert {kind: len(objects) for kind, objects in at_pacs.items()} == {"SEG": 0, "SR": 1, "SC": 1}
        assert b"PATIENT_MISMATCH" in at_pacs["SR"][0]
        assert "SOMEBODY-ELSE" not in node.log_path.read_text()


def test_an_image_that_the_pacs_cannot_give_as_we_need_it_refuses_its_study_soon(
    orthanc: LocalOrthanc, patient: PhantomStudy, study_uid: str, tmp_path: Path
) -> None:
    images = images_of(patient, "MRC", "PPI", "PEI")
    images[100].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    for one in images:
        content = BytesIO()
        one.save_as(content, enforce_file_format=True)
        assert orthanc.session.post(f"{orthanc.url}/instances", data=content.getvalue()).status_code == 200
    with LocalNode(tmp_path, orthanc=orthanc) as node:
        record = node.wait_until_finished(study_uid)
        assert (record.state, record.reason) == (StudyState.REFUSED, "TS_UNSUPPORTED")
        at_pacs = results(orthanc, study_uid)
        assert {kind: len(objects) for kind, objects in at_pacs.items()} == {"SEG": 0, "SR": 1, "SC": 1}


def test_nothing_of_the_patient_is_in_the_log_even_where_the_values_are_illegal(
    patient: PhantomStudy, study_uid: str, tmp_path: Path
) -> None:
    images = images_of(patient, "MRC", "PPI", "PEI")
    for one in images:
        with_raw(one, "PatientName", "PN", b"ZZMARKER^" + b"\xff" * 70)
        with_raw(one, "PatientID", "LO", b"ZZMARKER-ID")
        with_raw(one, "PatientBirthDate", "DA", b"ZZMARKER")
    write_files(images, tmp_path / "study")
    with LocalNode(tmp_path / "node", entrance="dicom") as node:
        send(tmp_path / "study", "HYDROPS", node.dicom_port)
        record = node.wait_until_finished(study_uid)
        assert record.state in (StudyState.COMPUTED, StudyState.REFUSED), node.log_tail()
        node.stop()
        log = node.log_path.read_text(errors="replace")
    assert "event=study_finished" in log
    assert "ZZMARKER" not in log


def test_health_tells_of_worker_and_orthanc(orthanc: LocalOrthanc, tmp_path: Path) -> None:
    with LocalNode(tmp_path, orthanc=orthanc) as node:
        assert wait_for_health(node, 200, feed="reading")["dead_deliveries"] == []
        orthanc.kill()
        assert wait_for_health(node, 503, feed="unreachable")["problems"]
        orthanc.start()
        assert wait_for_health(node, 200, feed="reading")["problems"] == []


def test_a_second_node_on_the_same_state_folder_refuses_to_start(tmp_path: Path) -> None:
    with LocalNode(tmp_path) as node:
        command = [sys.executable, "-m", "dicom_node.cli", "listen", "--config", str(node.config)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=STUDY_S, check=False)
        assert second.returncode == 2
        assert "another process already runs as 'listen'" in second.stderr


def test_status_tells_the_whole_history_of_a_study(study_folder: Path, study_uid: str, tmp_path: Path) -> None:
    with LocalNode(tmp_path) as node:
        send(study_folder, "HYDROPS", node.dicom_port)
        node.wait_until_finished(study_uid)
        command = [sys.executable, "-m", "dicom_node.cli", "status", study_uid, "--config", str(node.config)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=STUDY_S, check=True).stdout
    for expected in ("state computed", "taken as MRC because", "Left ear: EH ratio", "deliveries\n  none", "arrived"):
        assert expected in told, told


def wait_for_health(node: LocalNode, status: int, *, feed: str) -> dict[str, Any]:
    """The node's answer as soon as it has this status, its feed is so, and a worker has shown itself."""
    told: list[dict[str, Any]] = []

    def is_settled() -> bool:
        try:
            answer = requests.get(node.health_url, timeout=PATIENCE_S)
        except requests.ConnectionError:  # it listens for DICOM first
            return False
        told.append(answer.json())
        settled = told[-1]["worker_heartbeat_age_s"] is not None and told[-1]["orthanc_feed"] == feed
        return answer.status_code == status and settled

    wait_until(is_settled, found=node.log_tail)
    return told[-1]


def wait_for_step(node: LocalNode, study: str, step: str) -> None:
    """Wait until the study is computed and has come to this step, or further."""
    steps, ledger = list(STEPS), node.ledger

    def has_come_so_far() -> bool:
        record = ledger.get(study)
        return record is not None and record.step in steps[steps.index(step) :]

    wait_until(has_come_so_far, seconds=STUDY_S, found=node.log_tail)
