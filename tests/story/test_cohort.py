"""A folder of studies in, a table, DICOM and NIfTI out; and NIfTI in. Compared with the truth in millimeters."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from patience import STUDY_S
from phantom_patients import images_of

from dicom_node.cli import main
from dicom_node.labeled_cases import read_case
from inference.anatomy import EarSide
from inference.phantom import PhantomStudy

MRC_ALONE = "2.25.4711"
QUICK_START = Path(__file__).parents[2] / "docs" / "quick-start-research.md"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A study that can be computed, one that lacks a series, a file that is no image; and the results."""

    places: Path
    results: Path
    uid: str

    @property
    def result(self) -> Path:
        return self.results / self.uid

    def rows(self, uid: str) -> dict[str, dict[str, str]]:
        with (self.results / "cohort.csv").open(encoding="utf-8", newline="") as stream:
            return {row["side"]: row for row in csv.DictReader(stream) if row["study"] == uid}

    def process(self, *options: str) -> int:
        table = str(self.results / "cohort.csv")
        return main(["process", str(self.places), "--out", str(self.results), "--table", table, "--nifti", *options])


@pytest.fixture(scope="module")
def cohort(patient: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cohort]:
    root = tmp_path_factory.mktemp("cohort")
    for number, image in enumerate(images_of(patient, "MRC", "PPI", "PEI")):
        write(image, root / "places" / "one" / f"IM{number}")
    uid = str(image.StudyInstanceUID)
    for number, image in enumerate(images_of(patient, "MRC")):
        image.StudyInstanceUID = MRC_ALONE
        write(image, root / "places" / "two" / f"IM{number}")
    (root / "places" / "one" / "notes.txt").write_text("no image")
    made = Cohort(places=root / "places", results=root / "results", uid=uid)
    assert made.process("--quiet") == 0
    yield made
    shutil.rmtree(root)


def write(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


def findings(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "findings.json").read_text())
    return document


def test_the_table_says_the_unrounded_numbers_of_findings_json(cohort: Cohort, patient: PhantomStudy) -> None:
    ears = findings(cohort.result)["ears"]
    for side, row in cohort.rows(cohort.uid).items():
        assert float(row["eh_ratio"]) == ears[side]["eh_ratio"]["value"]
        assert float(row["total_fluid_mm3"]) == ears[side]["total_fluid_mm3"]
        assert float(row["eh_ratio"]) == pytest.approx(patient.truth.ears[EarSide(side)].eh_ratio, abs=0.06)
    refused = cohort.rows(MRC_ALONE)["left"]
    assert (refused["state"], refused["reason_codes"], refused["eh_ratio"]) == ("refused", "PARTNER_MISSING", "")
    assert "The study lacks a series that is needed" in refused["reasons"]


def test_the_same_command_again_computes_nothing(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.results.rglob("*.[nd]*")}
    assert cohort.process() == 0
    assert {path: path.stat().st_mtime_ns for path in cohort.results.rglob("*.[nd]*")} == before
    said = capsys.readouterr().err
    assert "2 studies: 1 computed, 1 refused (2 of them done before)" in said
    assert "refused with PARTNER_MISSING: 1" in said


def ras_points(path: Path, label: int) -> NDArray[np.float64]:
    image = nibabel.load(path)
    points: NDArray[np.float64] = nibabel.affines.apply_affine(
        image.affine, np.argwhere(np.asarray(image.dataobj) == label)
    )
    return points


def test_labels_lie_on_the_true_ears_for_nibabel_and_simpleitk(cohort: Cohort, patient: PhantomStudy) -> None:
    read = sitk.ReadImage(str(cohort.result / "labels.nii.gz"))
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(read, sitk.sitkUInt8))
    for side, perilymph, endolymph in ((EarSide.RIGHT, 1, 2), (EarSide.LEFT, 3, 4)):
        truth = np.array(patient.truth.ears[side].center_lps_mm)
        points = np.concatenate([ras_points(cohort.result / "labels.nii.gz", one) for one in (perilymph, endolymph)])
        center_lps = points.mean(axis=0) * (-1.0, -1.0, 1.0)
        assert np.linalg.norm(center_lps - truth) < 3.0
        volumes = [shape.GetPhysicalSize(one) for one in (perilymph, endolymph)]
        centers = [np.array(shape.GetCentroid(one)) for one in (perilymph, endolymph)]
        assert np.linalg.norm(np.average(centers, axis=0, weights=volumes) - center_lps) < 0.01


def test_fractions_sum_to_the_reported_volumes(cohort: Cohort) -> None:
    ears = findings(cohort.result)["ears"]
    for name in ("total_fluid", "endolymph"):
        image = nibabel.load(cohort.result / f"{name}.nii.gz")
        mm3 = float(np.asarray(image.dataobj, dtype=np.float64).sum()) * abs(np.linalg.det(image.affine[:3, :3]))
        assert mm3 == pytest.approx(sum(ear[f"{name}_mm3"] for ear in ears.values()), rel=1e-6)


def test_the_contrast_is_aligned_with_the_mrc_and_signed(cohort: Cohort, patient: PhantomStudy) -> None:
    mrc, hydrops = (nibabel.load(cohort.result / f"{name}.nii.gz") for name in ("mrc", "hydrops"))
    assert np.array_equal(mrc.affine, hydrops.affine)
    assert np.asarray(mrc.dataobj).dtype == np.int16
    values = np.asarray(hydrops.dataobj)
    endolymph = np.asarray(patient.truth.endolymph_fraction.array).transpose(2, 1, 0)
    total = np.asarray(patient.truth.total_fluid_fraction.array).transpose(2, 1, 0)
    perilymph = (total > 0.9) & (endolymph < 0.05)
    assert values.shape == total.shape
    assert np.median(values[perilymph]) > 5.0 * abs(np.median(values[total == 0.0]))
    assert np.median(values[endolymph > 0.9]) < 0.0


def test_a_result_is_a_labeled_case_for_training(cohort: Cohort) -> None:
    ears = {ear.images.roi.side: ear for ear in read_case(cohort.result)}
    for side, numbers in findings(cohort.result)["ears"].items():
        labeled = ears[EarSide(side)].total_fluid
        assert float(labeled.array.sum()) * labeled.geometry.voxel_volume_mm3 == pytest.approx(
            numbers["total_fluid_mm3"], rel=0.01
        )


def test_nifti_comes_in_as_well_and_measures_the_same_ears(cohort: Cohort, tmp_path: Path) -> None:
    subject = tmp_path / "in" / "sub-01"
    subject.mkdir(parents=True)
    for name in ("mrc.nii.gz", "hydrops.nii.gz"):
        shutil.copy(cohort.result / name, subject)
    assert main(["process", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    document, original = findings(tmp_path / "out"), findings(cohort.result)
    for side in ("right", "left"):
        assert document["ears"][side]["eh_ratio"]["value"] == pytest.approx(
            original["ears"][side]["eh_ratio"]["value"], abs=0.05
        )
    assert {one["role"]: one["reason"] for one in document["series"]} == {
        "MRC": "mrc.nii.gz was given as MRC",
        "HYDROPS": "hydrops.nii.gz was given as HYDROPS",
    }
    assert not list((tmp_path / "out").glob("*.dcm"))
    assert nibabel.load(tmp_path / "out" / "labels.nii.gz").shape == nibabel.load(subject / "mrc.nii.gz").shape


def test_nifti_without_a_number_is_refused_with_findings_and_no_images(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = tmp_path / "sub-02"
    subject.mkdir()
    shutil.copy(cohort.result / "mrc.nii.gz", subject)
    assert main(["process", str(subject), "--out", str(tmp_path / "out")]) == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["findings.json"]
    assert [reason["code"] for reason in findings(tmp_path / "out")["reasons"]] == ["PARTNER_MISSING"]
    assert "not computed: The study lacks a series that is needed" in capsys.readouterr().err


def test_one_subject_that_cannot_be_read_stops_no_other_and_shows_in_the_exit_status(
    cohort: Cohort, tmp_path: Path
) -> None:
    (tmp_path / "bad.nii").write_bytes(b"no image")
    lines = ["subject,mrc,hydrops", "bad,bad.nii,bad.nii", f"alone,{cohort.result / 'mrc.nii.gz'},"]
    (tmp_path / "subjects.csv").write_text("\n".join(lines))
    table = tmp_path / "t.csv"
    out = str(tmp_path / "out")
    assert main(["process", str(tmp_path / "subjects.csv"), "--out", out, "--table", str(table), "--quiet"]) == 4
    with table.open(newline="") as stream:
        found = {row["study"]: (row["state"], row["reasons"]) for row in csv.DictReader(stream)}
    assert found["bad"][0] == "unusable"
    assert "bad.nii: expected a NIfTI image" in found["bad"][1]
    assert found["alone"][0] == "refused"


def test_the_program_of_the_quick_start_draws_its_figure_from_the_table(cohort: Cohort, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", QUICK_START.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "results").mkdir()
    shutil.copy(cohort.results / "cohort.csv", tmp_path / "results")
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=STUDY_S
    )
    assert re.search(r"computed +1\nrefused +1", ran.stdout)
    assert "The study lacks a series that is needed" in ran.stdout
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ratios.png")))[..., :3]
    right, left = np.array([0x1F, 0x6F, 0xEB]), np.array([0xB4, 0x53, 0x09])
    assert all((np.abs(drawn.astype(int) - color).max(axis=-1) < 8).sum() > 50 for color in (right, left))


def test_a_table_of_another_kind_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["process", str(tmp_path), "--out", str(tmp_path / "out"), "--table", "cohort.xlsx"]) == 2
    assert "expected a name that ends in .csv or .parquet" in capsys.readouterr().err
