"""S23: fifty planted values of a patient, and a grep over everything that leaves the inner rooms of the node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
import requests
from desk_parts import hydrops_study
from dicom_receivers import Receiver
from free_ports import free_port
from local_node import LocalNode
from patience import STUDY_S, wait_until
from pydicom.dataset import Dataset
from scanned_series import write_files

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.ledger import StudyState

pytestmark = pytest.mark.dcmtk

TEXT_ATTRIBUTES = [
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientComments",
    "AdditionalPatientHistory",
    "Occupation",
    "EthnicGroup",
    "MilitaryRank",
    "BranchOfService",
    "RegionOfResidence",
    "CountryOfResidence",
    "PatientReligiousPreference",
    "MedicalRecordLocator",
    "Allergies",
    "MedicalAlerts",
    "SpecialNeeds",
    "PatientState",
    "ReferringPhysicianName",
    "ReferringPhysicianAddress",
    "PhysiciansOfRecord",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "OperatorsName",
    "RequestingPhysician",
    "RequestingService",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "AdmittingDiagnosesDescription",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "DeviceSerialNumber",
    "ImageComments",
    "StudyComments",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "CurrentPatientLocation",
    "PatientInstitutionResidence",
    "AdmissionID",
    "ContrastBolusAgent",
    "FillerOrderNumberImagingServiceRequest",
    "PlacerOrderNumberImagingServiceRequest",
]
PLANTED = {keyword: f"ZQ{number:02d}X" for number, keyword in enumerate(TEXT_ATTRIBUTES)}


def planted_study() -> list[Dataset]:
    """A study that comes to a refusal (nobody finds an ear in 8 x 6 x 5 voxels); every text in it is a marker."""
    images = hydrops_study()
    for image in images:
        for keyword, marker in PLANTED.items():
            setattr(image, keyword, marker)
    return images


@pytest.fixture(scope="module")
def used_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """A node that took the study, refused it, reported to a PACS that quotes the patient, and met a stranger."""
    folder = tmp_path_factory.mktemp("node")
    sent = folder / "sent"
    write_files(planted_study(), sent)
    comment = Dataset()
    comment.Status, comment.ErrorComment = 0xC000, f"no order for {PLANTED['PatientName']}"
    with Receiver(answer=lambda: comment, port=free_port()).listening() as pacs:
        pacs_of_the_node = f'name = "pacs"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {pacs.port}\ncalled_ae = "PACS"'
        settings = {"assembly": "quiet_s = 1.0\npartner_wait_s = 2.0", "[destinations]": pacs_of_the_node}
        with LocalNode(folder, entrance="dicom", overrides=settings) as node:
            _send(sent, "SCANNER", node.dicom_port)
            record = node.wait_until_finished("2.25.100")
            assert record.state is StudyState.REFUSED, node.log_tail()
            _send(sent, "STRANGER", node.dicom_port, check=False)
            # Written after the answer, or by the worker after the outcome is known.
            wait_until(lambda: AuditAction.CALLER_REJECTED in audited(node), found=node.log_tail)
            wait_until(
                lambda: [one for one in LOGGED if one not in node.log_path.read_text()] == [], found=node.log_tail
            )
            yield node


LOGGED = ("event=study_finished", "event=association_rejected", "event=delivery destination=pacs")


def audited(node: LocalNode) -> set[AuditAction]:
    return {entry.action for entry in AuditTrail(node.state_dir / "audit").entries()}


def _send(folder: Path, calling: str, port: int, *, check: bool = True) -> None:
    command = ["dcmsend", "-aet", calling, "-aec", "HYDROPS", "--scan-directories", "127.0.0.1", str(port), str(folder)]
    subprocess.run(command, check=check, capture_output=True, env=os.environ | {"TCP_NODELAY": "1"}, timeout=STUDY_S)


def markers_in(text: str) -> list[str]:
    return [f"{keyword} ({marker})" for keyword, marker in PLANTED.items() if marker in text]


def test_fifty_values_are_planted_and_really_arrive(used_node: LocalNode) -> None:
    assert len(PLANTED) >= 50
    (kept, *_) = (path for path in (used_node.state_dir / "spool").rglob("*.dcm"))
    header = pydicom.dcmread(BytesIO(kept.read_bytes()), stop_before_pixels=True)
    assert {str(header.get(keyword, "")) for keyword in PLANTED} == set(PLANTED.values())


def test_s23_no_planted_value_is_in_a_log(used_node: LocalNode) -> None:
    log = used_node.log_path.read_text()
    assert [one for one in LOGGED if one not in log] == []
    assert markers_in(log) == []


def test_s23_no_planted_value_is_in_a_file_name_or_a_process_title(used_node: LocalNode) -> None:
    names = "\n".join(str(path) for path in used_node.folder.rglob("*"))
    titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (*used_node.pids(), *used_node.worker_pids())]
    assert len(titles) >= 2
    assert markers_in(names + "\n".join(titles)) == []


@pytest.mark.parametrize("route", ["/live", "/health", "/metrics"])
def test_s23_no_planted_value_is_in_what_machines_ask_for(used_node: LocalNode, route: str) -> None:
    answer = requests.get(f"http://127.0.0.1:{used_node.web_port}{route}", timeout=STUDY_S)
    assert answer.text
    assert markers_in(answer.text) == []


def test_s23_the_audit_trail_names_the_patient_by_id_alone(used_node: LocalNode) -> None:
    entries = "\n".join(path.read_text() for path in (used_node.state_dir / "audit").rglob("*") if path.is_file())
    assert "2.25.100" in entries
    # PS3.15 A.5.3 has a participant object "Patient", identified by Patient ID; its name is optional and left out.
    assert markers_in(entries) == [f"PatientID ({PLANTED['PatientID']})"]


def test_i8_the_audit_trail_says_who_sent_how_much_and_who_was_turned_away_and_of_nothing_that_did_not_happen(
    used_node: LocalNode,
) -> None:
    trail = AuditTrail(used_node.state_dir / "audit")
    entries = list(trail.entries())
    told = [
        (entry.action, entry.message["ActiveParticipant"][0]["UserID"])
        for entry in entries
        if entry.action in (AuditAction.IMAGES_RECEIVED, AuditAction.RESULTS_SENT, AuditAction.CALLER_REJECTED)
    ]
    assert set(told) == {(AuditAction.IMAGES_RECEIVED, "SCANNER"), (AuditAction.CALLER_REJECTED, "STRANGER")}
    (*_, last) = (entry for entry in entries if entry.action is AuditAction.IMAGES_RECEIVED)
    counted = f"{len(planted_study())} images of this study are here"
    assert last.message["EventIdentification"]["EventOutcomeDescription"] == counted
    assert trail.verify() == []
