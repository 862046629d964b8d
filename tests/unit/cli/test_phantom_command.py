"""`hydrops-node phantom` writes images, truth volumes and truth.json that agree with each other."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicom_node.assembly.headers import read_series_header
from dicom_node.cli import main
from dicom_node.volumes import load_volume

COMMAND = ("phantom", "--seed", "11", "--ratio-left", "0.2", "--ears", "left", "--series", "MRC", "PPI")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "study"
    assert main([*COMMAND, "--oblique", "12", "--motion", "1.5", "--vendor", "philips", "--out", str(folder)]) == 0
    return folder


def test_folders_hold_a_file_per_slice_of_the_clinical_matrix(written: Path) -> None:
    assert sorted(path.name for path in (written / "dicom").iterdir()) == ["MRC", "PPI"]
    files = sorted((written / "dicom" / "MRC").iterdir())
    assert len(files) == 104
    image = pydicom.dcmread(files[0], stop_before_pixels=True)
    assert (image.Columns, image.Rows) == (324, 384)


def test_truth_file_has_its_documented_keys(written: Path) -> None:
    truth = json.loads((written / "truth.json").read_text())
    assert truth["seed"] == 11
    assert set(truth["ears"]) == {"left"}
    left = truth["ears"]["left"]
    assert left["eh_ratio"] == pytest.approx(0.2, abs=0.005)
    assert left["endolymph_mm3"] / left["total_fluid_mm3"] == pytest.approx(left["eh_ratio"], abs=1e-4)
    assert truth["motion"]["MRC"]["moving_to_fixed"] == np.eye(4).tolist()
    assert truth["motion"]["PPI"]["moving_to_fixed"] != np.eye(4).tolist()
    for role in ("MRC", "PPI"):
        image = pydicom.dcmread(written / "dicom" / role / "0001.dcm", stop_before_pixels=True)
        assert truth["series"][role]["series_instance_uid"] == image.SeriesInstanceUID


def test_truth_volume_lies_in_patient_space_where_the_images_show_the_ear(written: Path) -> None:
    """Center and volume from the NIfTI file alone; brightness from the DICOM files at the same millimeters."""
    image = sitk.ReadImage(str(written / "truth_total_fluid.nii.gz"))
    fraction = sitk.GetArrayFromImage(image)
    left = json.loads((written / "truth.json").read_text())["ears"]["left"]
    k, j, i = np.nonzero(fraction)
    weights = fraction[k, j, i].astype(float)
    center = image.TransformContinuousIndexToPhysicalPoint(
        [float(np.average(axis, weights=weights)) for axis in (i, j, k)]
    )
    np.testing.assert_allclose(center, left["center_lps_mm"], atol=0.1)
    assert weights.sum() * np.prod(image.GetSpacing()) == pytest.approx(left["total_fluid_mm3"], rel=0.01)

    paths = sorted((written / "dicom" / "MRC").iterdir())
    datasets = [pydicom.dcmread(path) for path in paths]
    files = {str(dataset.SOPInstanceUID): path for dataset, path in zip(datasets, paths, strict=True)}
    mrc = load_volume(read_series_header(datasets), files)
    assert mrc.array[fraction > 0.9].mean() > 20 * np.median(mrc.array)


def test_endolymph_lies_inside_the_fluid(written: Path) -> None:
    total, inner = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(written / f"truth_{name}.nii.gz")))
        for name in ("total_fluid", "endolymph")
    )
    assert inner.max() > 0.5
    assert (inner <= total).all()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main([*COMMAND, "--out", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_ratio_no_ear_can_have_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "--ratio-right", "0.97", "--out", str(tmp_path / "new")]) == 2
    assert "eh_ratio" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("ratio", ["27", "-0.1", "nan", "much"])
def test_a_ratio_in_percent_or_no_number_is_refused(
    ratio: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["phantom", f"--ratio-left={ratio}", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "between 0 and 1" in capsys.readouterr().err
