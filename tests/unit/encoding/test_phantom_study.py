"""The phantom's data sets carry its pixels and geometry exactly, the way three vendors write them."""

import shutil
import subprocess
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.assembly.classification import classify
from dicom_node.assembly.headers import SeriesRole, group_series, read_series_header
from dicom_node.assembly.site_rules import read_rules
from dicom_node.encoding.phantom_study import phantom_datasets, series_instance_uid
from dicom_node.encoding.phantom_style import Vendor
from inference.anatomy import EarSide
from inference.phantom import ROLES, ContrastState, HydropsCoding, PhantomOptions, PhantomStudy, make_study

OPTIONS = PhantomOptions(seed=6, matrix=(180, 96, 8), step_mm=0.2, oblique_deg=(14.0, 3.0, -5.0))


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return make_study(OPTIONS)


@pytest.fixture(scope="module", params=list(Vendor))
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return Vendor(request.param)


@pytest.fixture(scope="module")
def by_role(study: PhantomStudy, vendor: Vendor) -> dict[str, list[Dataset]]:
    return {role: phantom_datasets(study, series=(role,), vendor=vendor) for role in ROLES}


def values(dataset: Dataset) -> np.ndarray:
    return dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def test_pixels_come_back_within_half_a_stored_step(study: PhantomStudy, by_role: dict[str, list[Dataset]]) -> None:
    for role, datasets in by_role.items():
        step = float(datasets[0].get("RescaleSlope", 1))
        for k in (0, 5):
            np.testing.assert_allclose(values(datasets[k]), study.volumes[role].array[k], atol=0.501 * step)


def test_each_slice_says_where_the_volume_lies(study: PhantomStudy, by_role: dict[str, list[Dataset]]) -> None:
    geometry = study.volumes["MRC"].geometry
    for datasets in by_role.values():
        for k, dataset in enumerate(datasets):
            row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
            first = np.array(dataset.ImagePositionPatient, dtype=float)
            down_mm, right_mm = (float(mm) for mm in dataset.PixelSpacing)
            np.testing.assert_allclose(
                first + row * right_mm * 7 + column * down_mm * 3, geometry.to_lps((k, 3, 7)), atol=1e-6
            )
            assert dataset.FrameOfReferenceUID == geometry.frame_of_reference_uid


def test_vendors_store_pixels_their_own_way(by_role: dict[str, list[Dataset]], vendor: Vendor) -> None:
    ppi, pei = by_role["PPI"][0], by_role["PEI"][0]
    if vendor is Vendor.PHILIPS:
        assert ppi.RescaleSlope != pei.RescaleSlope
        assert (ppi.PixelRepresentation, ppi.BitsStored) == (0, 12)
    else:
        assert "RescaleSlope" not in ppi
        assert ppi.PixelRepresentation == (1 if vendor is Vendor.GE else 0)
    assert min(values(dataset).min() for dataset in by_role["HYDROPS"]) < -50
    assert min(values(dataset).min() for dataset in by_role["REAL_IR"]) < -50
    assert float(by_role["HYDROPS_MI2"][0].RescaleSlope) > 1


def test_classifier_recognizes_every_series_from_its_header(by_role: dict[str, list[Dataset]]) -> None:
    rules = read_rules((Path(__file__).parents[3] / "config" / "series_rules.toml").read_text(encoding="utf-8"))
    for role, datasets in by_role.items():
        assert classify(read_series_header(datasets), rules).role is SeriesRole(role)


def test_series_are_scanned_minutes_apart_in_one_study_of_one_patient(by_role: dict[str, list[Dataset]]) -> None:
    everything = [dataset for datasets in by_role.values() for dataset in datasets]
    assert len({dataset.StudyInstanceUID for dataset in everything}) == 1
    assert {dataset.PatientID for dataset in everything} == {"PHANTOM-6"}
    assert len(group_series(everything)) == len(ROLES)
    assert len({dataset.SOPInstanceUID for dataset in everything}) == len(everything)
    times = [by_role[role][0].AcquisitionTime for role in ("MRC", "PPI", "PEI", "REAL_IR")]
    assert times == sorted(set(times))
    assert all(dataset.ImagesInAcquisition == OPTIONS.matrix[2] for dataset in everything)


def test_subtraction_names_the_series_it_was_made_from(by_role: dict[str, list[Dataset]]) -> None:
    named = {item.ReferencedSOPInstanceUID for item in by_role["HYDROPS"][0].SourceImageSequence}
    assert named == {by_role["PPI"][0].SOPInstanceUID, by_role["PEI"][0].SOPInstanceUID}


def test_same_options_give_the_same_bytes_and_any_other_option_other_uids(study: PhantomStudy) -> None:
    def written(dataset: Dataset) -> bytes:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    first, again = (phantom_datasets(study, series=("PPI",))[3] for _ in range(2))
    assert written(first) == written(again)
    others = [
        replace(OPTIONS, seed=7),
        replace(OPTIONS, motion_mm=1.0),
        replace(OPTIONS, eh_ratio={EarSide.LEFT: 0.3}),
        replace(OPTIONS, hydrops_coding=HydropsCoding.CLIPPED),
        replace(OPTIONS, ears=frozenset({EarSide.LEFT})),
    ]
    uids = {series_instance_uid(options, "PPI", Vendor.GE) for options in [OPTIONS, *others]}
    assert len(uids) == 1 + len(others)
    assert series_instance_uid(replace(OPTIONS, series=("PPI",)), "PPI", Vendor.GE) in uids


def test_editing_one_data_set_leaves_the_others_alone(study: PhantomStudy) -> None:
    datasets = phantom_datasets(study, series=("MRC",))
    before = deepcopy(datasets[1])
    datasets[0].SeriesDescription = "edited"
    datasets[0].PatientID = "somebody else"
    datasets[0].ImageOrientationPatient[0] = 0.5
    assert datasets[1] == before


def test_without_contrast_agent_the_header_names_none() -> None:
    bare = make_study(replace(OPTIONS, contrast=ContrastState.NONE, series=("PPI",)))
    assert "ContrastBolusAgent" not in phantom_datasets(bare)[0]
    assert phantom_datasets(make_study(replace(OPTIONS, series=("PPI",))))[0].ContrastBolusAgent == "Gadobutrol"


def test_clipped_subtraction_has_no_negative_values_left() -> None:
    clipped = make_study(replace(OPTIONS, hydrops_coding=HydropsCoding.CLIPPED, series=("HYDROPS",)))
    for dataset in phantom_datasets(clipped):
        assert values(dataset).min() == 0
        assert dataset.PixelRepresentation == 0


@pytest.mark.dcmtk
def test_dciodvfy_finds_no_error(by_role: dict[str, list[Dataset]], tmp_path: Path) -> None:
    program = shutil.which("dciodvfy")
    assert program, "dicom3tools is not installed"
    for role, datasets in by_role.items():
        path = tmp_path / f"{role}.dcm"
        datasets[2].save_as(path, enforce_file_format=True)
        report = subprocess.run([program, str(path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in report, report
        assert "MRImage" in report
        assert pydicom.dcmread(path) == datasets[2]
