"""Phantom studies in each vendor's style: recognized by their headers, loaded to the values that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from scanned_series import write_files

from dicom_node.assembly.classification import classify_study, read_rules
from dicom_node.assembly.headers import SeriesHeader, SeriesRole, group_series, read_series_header
from dicom_node.assembly.pairing import assemble
from dicom_node.encoding.phantom_study import phantom_datasets
from dicom_node.encoding.phantom_style import Vendor
from dicom_node.volumes import load_volume
from inference.phantom import PhantomOptions, PhantomStudy, make_study

RULES = read_rules((Path(__file__).parents[3] / "config" / "series_rules.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    """Coarse and thin, because only headers and geometry matter here; oblique, because ears are scanned so."""
    return make_study(
        PhantomOptions(
            seed=3, matrix=(40, 36, 10), spacing_mm=(0.9, 0.8, 1.2), step_mm=0.5, oblique_deg=(14.0, 6.0, 3.0)
        )
    )


def headers_of(datasets: list[Dataset]) -> list[SeriesHeader]:
    return [read_series_header(group) for group in group_series(datasets).values()]


def roles_of(datasets: list[Dataset]) -> list[SeriesRole]:
    return [decision.role for decision in classify_study(headers_of(datasets), RULES)]


@pytest.mark.parametrize("vendor", Vendor)
def test_every_series_is_recognized_in_every_vendors_style(study, vendor):
    assert roles_of(phantom_datasets(study, vendor=vendor)) == [SeriesRole(role) for role in study.volumes]


@pytest.mark.parametrize("vendor", Vendor)
@pytest.mark.parametrize(
    "series", [("MRC", "HYDROPS"), ("MRC", "HYDROPS_MI2"), ("MRC", "PPI", "PEI"), ("MRC", "REAL_IR")]
)
def test_every_accepted_set_is_found_alone(study, vendor, series):
    assembly = assemble(headers_of(phantom_datasets(study, series=series, vendor=vendor)), RULES)
    assert assembly.chosen is not None, assembly.refusal
    assert set(assembly.chosen.series) == {SeriesRole(role) for role in series}
    assert assembly.chosen.warnings == ()


@pytest.mark.parametrize("vendor", Vendor)
def test_descriptions_rotated_by_one_series_change_no_role(study, vendor):
    datasets = phantom_datasets(study, vendor=vendor)
    names = list(dict.fromkeys(dataset.SeriesDescription for dataset in datasets))
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    for dataset in datasets:
        dataset.SeriesDescription = dataset.ProtocolName = following[dataset.SeriesDescription]
    assert roles_of(datasets) == [SeriesRole(role) for role in study.volumes]


@pytest.mark.parametrize("vendor", Vendor)
def test_what_was_written_is_what_is_loaded(study, vendor, tmp_path):
    for role, volume in study.volumes.items():
        datasets = phantom_datasets(study, series=[role], vendor=vendor)[::-1]
        loaded = load_volume(read_series_header(datasets), write_files(datasets, tmp_path / role))
        slope = max(float(datasets[0].get("RescaleSlope", 1.0)), 1.0)
        np.testing.assert_allclose(loaded.array, volume.array, atol=slope)
        np.testing.assert_allclose(loaded.geometry.index_to_lps, volume.geometry.index_to_lps, atol=1e-4)
