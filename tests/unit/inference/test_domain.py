"""A series of another kind than the methods were made for is named before anything is measured in it."""

from __future__ import annotations

import numpy as np
import pytest

from inference.domain import check_series
from inference.findings import QualityCode, Severity
from inference.geometry import Volume, VolumeGeometry


def series(spacing_mm: tuple[float, float, float] = (1.0, 0.5, 0.5)) -> Volume:
    """A small box with content."""
    geometry = VolumeGeometry(
        shape=(4, 6, 8), index_to_lps=np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]], frame_of_reference_uid="1.2.3"
    )
    return Volume(array=np.arange(192, dtype=np.float32).reshape(4, 6, 8), geometry=geometry)


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.5, 0.5), (0.8, 0.35, 0.35), (0.6, 0.6, 0.6), (1.2, 0.5, 0.5)])
def test_usual_voxels_have_no_remark(spacing_mm: tuple[float, float, float]) -> None:
    assert check_series("MRC", series(spacing_mm)) == ()


@pytest.mark.parametrize(
    ("spacing_mm", "severity", "limit"),
    [
        ((3.0, 0.5, 0.5), Severity.STOP, 1.5),
        ((1.0, 1.6, 1.6), Severity.STOP, 1.5),
        ((1.4, 0.5, 0.5), Severity.WARN, 1.2),
        ((0.2, 0.2, 0.2), Severity.WARN, 0.3),
        ((1.2, 0.3, 0.29), Severity.WARN, 0.3),
        ((1.21, 0.3, 0.3), Severity.WARN, 1.2),
        ((1.2, 0.5, 0.299), Severity.WARN, 0.3),
    ],
)
def test_unusual_voxels_are_named_with_measure_and_limit(
    spacing_mm: tuple[float, float, float], severity: Severity, limit: float
) -> None:
    (flag,) = check_series("PPI", series(spacing_mm))
    assert (flag.code, flag.severity, flag.limit) == (QualityCode.OUT_OF_DOMAIN, severity, limit)
    assert flag.measured in (pytest.approx(max(spacing_mm)), pytest.approx(min(spacing_mm)))
    assert flag.message.startswith("PPI:")


def test_a_value_that_is_no_number_stops() -> None:
    volume = series()
    array = volume.array.copy()
    array[1, 2, 3], array[0, 0, 0] = np.nan, np.inf
    (flag,) = check_series("PEI", Volume(array=array, geometry=volume.geometry))
    assert flag.severity is Severity.STOP
    assert flag.measured == 2.0
    assert "2 of 192" in flag.message


def test_a_series_that_shows_nothing_stops() -> None:
    volume = series()
    (flag,) = check_series("MRC", Volume(array=np.full(volume.array.shape, 7.0), geometry=volume.geometry))
    assert flag.severity is Severity.STOP
    assert "every value is 7" in flag.message
