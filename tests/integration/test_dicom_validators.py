"""Programs that are not ours read what we write: dicom3tools, DCMTK, dcmqi (C++), highdicom."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.seg import segread
from highdicom.sr import srread
from mr_sources import ENCODED_AT, classic_series, enhanced_image, key_of, oblique_grid, study_findings
from patience import STUDY_S
from result_objects import OPTIONS, Results, make_results

from dicom_node.encoding.identity import tracking_id
from dicom_node.encoding.measurement_report import DocumentReference, build_not_computed_report
from dicom_node.encoding.part10 import part10_bytes
from dicom_node.errors import Reason, Refusal
from inference.anatomy import EarSide, FluidSpace

pytestmark = pytest.mark.dcmtk

GRID = oblique_grid()
KOREAN = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
TYPE_2 = ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime")
LEFT_ONLY = {"ears": (EarSide.LEFT,)}

CASES = {
    "both ears": ({}, lambda: classic_series(GRID)),
    "slices reversed": ({}, lambda: classic_series(GRID, reverse=True)),
    "enhanced": ({}, lambda: [enhanced_image(GRID, frame_order=range(39, -1, -1))]),
    "one ear": (LEFT_ONLY, lambda: classic_series(GRID)),
    "korean": (
        {},
        lambda: classic_series(GRID, SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName=KOREAN),
    ),
    "japanese": (
        LEFT_ONLY,
        lambda: classic_series(GRID, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=JAPANESE),
    ),
    "stripped": ({}, lambda: classic_series(GRID, drop=TYPE_2)),
    "illegal values": (
        LEFT_ONLY,
        lambda: classic_series(
            GRID, PatientSex=b"X ", StudyDate=b"2026-01-01", StudyID=b"much too long for a study ID"
        ),
    ),
    "de-identified": (LEFT_ONLY, lambda: classic_series(GRID, PatientIdentityRemoved="YES")),
    "lossy": (
        LEFT_ONLY,
        lambda: classic_series(GRID, LossyImageCompression="01", LossyImageCompressionRatio="8"),
    ),
}

ACCEPTED = re.compile(
    r"Unrecognized defined term = <99EHNODE>"  # dicom3tools knows no private coding scheme
    r"|needed to build DICOMDIR"  # type 2 attributes that the source did not have either
)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    program = str(command[0])
    path = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    assert path, f"{program} is not installed; run `make setup`"
    arguments = [str(argument) for argument in command[1:]]
    return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=STUDY_S, check=False)


def complaints(path: Path) -> list[str]:
    """What dciodvfy has to say about a file, without the warnings we accept."""
    done = run("dciodvfy", "-new", path)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if re.match(r"Error|Warning", line)]
    return [line for line in lines if not ACCEPTED.search(line)]


@pytest.fixture(scope="module", params=CASES.keys())
def case(request, tmp_path_factory) -> tuple[Results, Path]:
    """One case's results and the folder where they lie as seg.dcm and sr.dcm."""
    ears, source = CASES[request.param]
    results = make_results(study_findings(GRID, **ears), source())
    folder = tmp_path_factory.mktemp("case")
    (folder / "seg.dcm").write_bytes(results.seg_bytes)
    (folder / "sr.dcm").write_bytes(results.report_bytes)
    return results, folder


def not_computed(folder: Path, source: pydicom.Dataset, **options: object) -> Path:
    refusals = [Refusal(reason=reason, detail="expected 104, found 103") for reason in Reason]
    report = build_not_computed_report(
        refusals, source, [source], key=key_of([source]), options=OPTIONS, encoded_at=ENCODED_AT, **options
    )
    (folder / "not_computed.dcm").write_bytes(part10_bytes(report))
    return folder / "not_computed.dcm"


@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
def test_dciodvfy_finds_no_error_and_no_warning_but_private_codes(case, name):
    assert complaints(case[1] / name) == []


def test_dsrdump_reads_the_report(case):
    done = run("dsrdump", "+Pl", case[1] / "sr.dcm")
    assert done.returncode == 0, done.stderr
    assert '"27.1" (%,UCUM,"Percent")' in done.stdout
    assert "Research use only." in done.stdout


def test_dcmqi_puts_every_voxel_of_the_segmentation_where_the_findings_have_it(case, tmp_path):
    results, folder = case
    done = run(
        "segimage2itkimage", "--inputDICOM", folder / "seg.dcm", "--outputDirectory", tmp_path, "--outputType", "nrrd"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    images = sorted(tmp_path.glob("*.nrrd"), key=lambda path: int(path.stem))
    by_label = {tracking_id(side, space): (side, space) for side in EarSide for space in FluidSpace}
    expected = [by_label[item.SegmentLabel] for item in results.seg.SegmentSequence]
    assert len(images) == len(expected)
    for path, (side, space) in zip(images, expected, strict=True):
        image = sitk.ReadImage(str(path))
        fluid = results.findings.ears[side].fluid
        mask = fluid.total_fluid_mask if space is FluidSpace.TOTAL_FLUID_SPACE else fluid.endolymph_mask
        voxels = np.argwhere(sitk.GetArrayViewFromImage(image) > 0)[:, ::-1].astype(float)
        index_to_lps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        found = voxels @ index_to_lps.T + np.array(image.GetOrigin())
        index = np.unique(np.rint(mask.geometry.to_index(found)).astype(int), axis=0)
        assert index.tolist() == np.unique(np.argwhere(mask.array), axis=0).tolist()


def test_dcmqi_reads_the_volumes_of_the_report(case, tmp_path):
    results, folder = case
    done = run("tid1500reader", "--inputDICOM", folder / "sr.dcm", "--outputMetadata", tmp_path / "sr.json")
    assert done.returncode == 0, done.stdout + done.stderr
    read = json.loads((tmp_path / "sr.json").read_text())
    volumes = {
        float(item["value"])
        for group in read["Measurements"]
        for item in group.get("measurementItems", [])
        if item["quantity"]["CodeMeaning"] == "Volume"
    }
    expected = {
        round(volume, 1)
        for ear in results.findings.ears.values()
        if ear.ratio
        for volume in (ear.ratio.total_fluid_mm3, ear.ratio.endolymph_mm3)
    }
    assert volumes == expected


def test_highdicom_finds_segments_and_groups_again(case):
    results, folder = case
    ears = sum(ear.evaluated for ear in results.findings.ears.values())
    seg, report = segread(folder / "seg.dcm"), srread(folder / "sr.dcm")
    assert seg.number_of_segments == 2 * ears
    assert len(report.content.get_volumetric_roi_measurement_groups()) == 2 * ears
    assert len(report.content.get_planar_roi_measurement_groups()) == 2 * ears
    tracked = seg.get_segment_description(1).tracking_uid
    assert report.content.get_volumetric_roi_measurement_groups(tracking_uid=tracked)[0].referenced_segment is not None
    assert report.content.get_planar_roi_measurement_groups(tracking_uid=tracked)[0].roi is not None


@pytest.mark.parametrize("source", [lambda: classic_series(GRID)[0], lambda: enhanced_image(GRID)])
def test_a_not_computed_report_with_every_reason_is_valid_and_readable(source, tmp_path):
    path = not_computed(tmp_path, source())
    assert complaints(path) == []
    text = run("dsrdump", "+Pl", path).stdout
    assert all(reason.value in text for reason in Reason)
    assert run("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json").returncode == 0


def test_a_revision_is_valid(tmp_path):
    earlier = DocumentReference(study_instance_uid="2.25.1", series_instance_uid="2.25.2", sop_instance_uid="2.25.3")
    assert complaints(not_computed(tmp_path, classic_series(GRID)[0], predecessor=earlier)) == []


@pytest.mark.parametrize(
    ("case_name", "name"),
    [("korean", "Hong^Gildong=洪^吉洞=홍^길동"), ("japanese", "Yamada^Tarou=山田^太郎=やまだ^たろう")],
)
def test_dcmtk_shows_the_patients_name_in_utf8(case_name, name, tmp_path):
    ears, source = CASES[case_name]
    results = make_results(study_findings(GRID, **ears), source())
    for data in (results.seg_bytes, results.report_bytes):
        (tmp_path / "one.dcm").write_bytes(data)
        shown = run("dcmdump", "+P", "PatientName", "+P", "SpecificCharacterSet", tmp_path / "one.dcm").stdout
        assert name in shown
        assert "ISO_IR 192" in shown
