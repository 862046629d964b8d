"""An enhanced multi-frame series says the same as the classic slices it was made from."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.assembly.headers import read_series_header
from dicom_node.encoding.phantom_enhanced import enhanced_dataset
from dicom_node.encoding.phantom_study import phantom_datasets
from dicom_node.encoding.phantom_style import Vendor
from dicom_node.volumes import load_volume
from inference.geometry import Volume
from inference.phantom import PhantomOptions, PhantomStudy, make_study


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return make_study(PhantomOptions(seed=8, matrix=(180, 96, 8), step_mm=0.2, oblique_deg=(14.0, 3.0, -5.0)))


def loaded(datasets: list[Dataset], folder: Path) -> Volume:
    files = {}
    for dataset in datasets:
        path = folder / f"{dataset.SOPInstanceUID}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files[str(dataset.SOPInstanceUID)] = path
    return load_volume(read_series_header(datasets), files)


@pytest.mark.parametrize("role", ["MRC", "PPI", "REAL_IR"])
@pytest.mark.parametrize("vendor", list(Vendor))
def test_enhanced_and_classic_series_load_as_the_same_volume(
    study: PhantomStudy, role: str, vendor: Vendor, tmp_path: Path
) -> None:
    slices = phantom_datasets(study, series=(role,), vendor=vendor)
    classic, enhanced = loaded(slices, tmp_path), loaded([enhanced_dataset(slices)], tmp_path)
    np.testing.assert_array_equal(enhanced.array, classic.array)
    assert enhanced.geometry.same_grid(classic.geometry)
    assert classic.geometry.same_grid(study.volumes[role].geometry)


def test_enhanced_header_states_the_same_timing(study: PhantomStudy) -> None:
    slices = phantom_datasets(study, series=("PEI",))
    classic, enhanced = read_series_header(slices), read_series_header([enhanced_dataset(slices)])
    for name in ("repetition_time_ms", "echo_time_ms", "inversion_time_ms", "acquisition_3d", "acquired_at"):
        assert getattr(enhanced, name) == getattr(classic, name)
    assert enhanced.inversion_time_ms == 2050.0


def test_computed_series_are_refused(study: PhantomStudy) -> None:
    with pytest.raises(ValueError, match="ORIGINAL"):
        enhanced_dataset(phantom_datasets(study, series=("HYDROPS",)))


@pytest.mark.dcmtk
@pytest.mark.parametrize("role", ["MRC", "PPI", "REAL_IR"])
def test_dciodvfy_finds_no_error(study: PhantomStudy, role: str, tmp_path: Path) -> None:
    program = shutil.which("dciodvfy")
    assert program, "dicom3tools is not installed"
    path = tmp_path / "enhanced.dcm"
    enhanced_dataset(phantom_datasets(study, series=(role,))).save_as(path, enforce_file_format=True)
    report = subprocess.run([program, str(path)], capture_output=True, text=True, check=False).stderr
    assert "Error" not in report, report
    assert "EnhancedMRImage" in report
