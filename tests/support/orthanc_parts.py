"""What the Orthanc tests share: small DICOM files, ways to send them, and waiting."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

from local_orthanc import LocalOrthanc
from patience import PATIENCE_S
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid


def dicom_file(
    study: str,
    series: str,
    number: int = 1,
    *,
    sop_class: UID = MRImageStorage,
    modality: str = "MR",
    syntax: UID = ExplicitVRLittleEndian,
    sop_instance_uid: str | None = None,
    description: str = "",
) -> bytes:
    """A small DICOM file whose pixels depend on `number`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid or generate_uid())
    meta.TransferSyntaxUID = syntax
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientID, dataset.PatientName, dataset.Modality = "MARKER-ID", "Marker^Name", modality
    dataset.StudyDate, dataset.StudyTime, dataset.SeriesDescription = "20260101", "120000", description
    dataset.InstanceNumber = number
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = bytes([number % 256, 0]) * 256
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def mr_series(count: int, *, study: str | None = None, **more: Any) -> tuple[str, str, list[bytes]]:
    """Study UID, series UID and files of one new series."""
    study, series = study or generate_uid(), generate_uid()
    return study, series, [dicom_file(study, series, number, **more) for number in range(1, count + 1)]


def put(orthanc: LocalOrthanc, files: list[bytes]) -> list[dict[str, str]]:
    """What Orthanc answers to each file put in over REST: ID, ParentSeries, ParentStudy, Status."""
    answers = [orthanc.session.post(f"{orthanc.url}/instances", data=one, timeout=PATIENCE_S) for one in files]
    assert {one.status_code for one in answers} <= {200}
    return [one.json() for one in answers]


def storescu(orthanc: LocalOrthanc, files: list[bytes], folder: Path) -> None:
    """Send with DCMTK, as a scanner would; `folder` is made for the files."""
    folder.mkdir()
    for number, one in enumerate(files):
        (folder / f"{number:04}.dcm").write_bytes(one)
    subprocess.run(
        ["storescu", "-R", "+sd", "-aet", "SCANNER", "-aec", orthanc.aet, "127.0.0.1", str(orthanc.dicom_port), folder],
        env={**os.environ, "TCP_NODELAY": "1"},
        check=True,
        timeout=PATIENCE_S,
    )


def get_json(orthanc: LocalOrthanc, path: str) -> Any:
    """Orthanc's answer to GET `path`."""
    answer = orthanc.session.get(orthanc.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200
    return answer.json()


def stable_events(orthanc: LocalOrthanc) -> int:
    """How many series Orthanc has declared stable."""
    changes = get_json(orthanc, "/changes?limit=9999")["Changes"]
    return sum(change["ChangeType"] == "StableSeries" for change in changes)
