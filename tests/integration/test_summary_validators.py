"""The summary's two objects before independent readers: dicom3tools and DCMTK."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from mr_sources import classic_series
from patience import STUDY_S
from PIL import Image
from summary_pages import SLAB, page, summary_source

from dicom_node.encoding.measurements import study_measurements
from dicom_node.errors import Reason, Refusal
from dicom_node.summary.objects import computed_summary, refused_summary

pytestmark = pytest.mark.dcmtk

KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
SOURCES = {
    "as it comes": {},
    "korean": {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": KOREAN},
    "stripped": {"drop": ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime")},
    "de-identified": {"PatientIdentityRemoved": "YES"},
}


@pytest.fixture(params=SOURCES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Picture and PDF of one study that was computed, and of one that was refused."""
    source = classic_series(SLAB, **SOURCES[request.param])
    refusal = Refusal(reason=Reason.SLICE_GAP, detail="slice 4")
    findings = page().findings
    made = (
        *computed_summary(findings, study_measurements(findings), summary_source(source, pdf=True)),
        *refused_summary([refusal], (), summary_source(source, refusal.reason, pdf=True)),
    )
    paths = []
    for number, one in enumerate(made):
        paths.append(tmp_path / f"{number}-{one.kind}.dcm")
        paths[-1].write_bytes(one.data)
    return paths


def said_by(*command: str | Path) -> str:
    program = shutil.which(str(command[0]))
    assert program, f"{command[0]} is not installed; run `make setup`"
    done = subprocess.run(
        [program, *map(str, command[1:])], capture_output=True, text=True, timeout=STUDY_S, check=False
    )
    return done.stdout + done.stderr


def test_dciodvfy_finds_no_error(files: list[Path]) -> None:
    for path in files:
        errors = [line for line in said_by("dciodvfy", "-new", path).splitlines() if line.startswith("Error")]
        assert errors == [], path.name


def test_dcmtk_gives_back_the_same_pixels_and_the_same_pdf(files: list[Path], tmp_path: Path) -> None:
    for path in files:
        written = pydicom.dcmread(path)
        if path.stem.endswith("SC"):
            program = "dcm2img" if shutil.which("dcm2img") else "dcmj2pnm"  # renamed in DCMTK 3.6.9
            said_by(program, "--write-png", path, tmp_path / "page.png")
            with Image.open(tmp_path / "page.png") as read:
                np.testing.assert_array_equal(np.asarray(read.convert("RGB")), written.pixel_array)
        else:
            said_by("dcm2pdf", path, tmp_path / "back.pdf")
            length = int(written.EncapsulatedDocumentLength)
            assert (tmp_path / "back.pdf").read_bytes()[:length] == bytes(written.EncapsulatedDocument)[:length]
