"""Scores of single ears, on balls of fluid whose volumes and distances are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.cases import CaseError, EarCase
from inference.evaluation.scores import compare, judge
from inference.findings import (
    EarFindings,
    EarFluid,
    EarImages,
    EarROI,
    EHRatio,
    QualityCode,
    QualityFlag,
    Severity,
)
from inference.geometry import Volume, VolumeGeometry
from inference.segmentation import fluid_from_fractions

CENTER_MM = (40.0, 5.0, -3.0)
SPACING_MM = (1.0, 0.5, 0.5)


def grid_around(center_mm: tuple[float, float, float], shape: tuple[int, int, int] = (16, 32, 32)) -> VolumeGeometry:
    """An axial grid whose middle voxel lies on a common lattice near `center_mm`."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * SPACING_MM)[::-1]  # columns k, j, i run along z, y, x
    first = np.rint(np.array(center_mm)[::-1] / SPACING_MM) - np.array(shape) // 2
    affine[:3, 3] = affine[:3, :3] @ first
    return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid="1.2.3")


def ball(
    grid: VolumeGeometry, radius_mm: float, center_mm: tuple[float, float, float] = CENTER_MM
) -> NDArray[np.float32]:
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    return (np.linalg.norm(grid.to_lps(index) - center_mm, axis=-1) <= radius_mm).astype(np.float32)


def images_on(grid: VolumeGeometry, side: EarSide = EarSide.LEFT) -> EarImages:
    mrc = Volume(array=1000.0 * ball(grid, 4.0), geometry=grid)
    x, y, z = grid.center_lps_mm.tolist()
    return EarImages(roi=EarROI(side=side, center_lps_mm=(x, y, z), geometry=grid, score=1.0), mrc=mrc, hydrops=mrc)


GRID = grid_around(CENTER_MM)


def true_case() -> EarCase:
    return EarCase(
        images=images_on(GRID),
        total_fluid=Volume(array=ball(GRID, 4.0), geometry=GRID),
        endolymph=Volume(array=ball(GRID, 2.0), geometry=GRID),
        tags={"case": "ball", "input_set": "HYDROPS", "snr": 7},
    )


def found_on(grid: VolumeGeometry, total_mm: float, endolymph_mm: float, half_width: float | None = None) -> EarFluid:
    total, endolymph = ball(grid, total_mm), ball(grid, endolymph_mm)
    return fluid_from_fractions(images_on(grid), total, endolymph, ratio_half_width=half_width)


def test_the_truth_itself_scores_perfectly() -> None:
    score = compare(found_on(GRID, 4.0, 2.0, half_width=0.02), true_case())
    assert score.total_fluid is not None
    assert score.endolymph is not None
    assert (score.total_fluid.dice, score.endolymph.dice, score.ratio_error) == (1.0, 1.0, 0.0)
    assert score.true_ratio == pytest.approx(ball(GRID, 2.0).sum() / ball(GRID, 4.0).sum())
    assert score.covered
    assert not score.side_error
    assert score.tags == {"case": "ball", "input_set": "HYDROPS", "snr": 7.0}


def test_the_box_in_which_fluid_was_found_changes_nothing() -> None:
    elsewhere = grid_around((42.0, 3.5, -2.0), shape=(20, 36, 30))
    assert (
        compare(found_on(elsewhere, 3.0, 2.0), true_case()).endolymph
        == compare(found_on(GRID, 3.0, 2.0), true_case()).endolymph
    )


def test_truth_outside_the_box_counts_as_missed() -> None:
    half = grid_around((CENTER_MM[0], CENTER_MM[1], CENTER_MM[2] - 8.0))
    score = compare(found_on(half, 4.0, 2.0), true_case())
    inside = float(ball(half, 4.0).sum())
    whole = float(ball(GRID, 4.0).sum())
    assert score.total_fluid is not None
    assert 0.3 * whole < inside < 0.7 * whole
    assert score.total_fluid.dice == pytest.approx(2 * inside / (inside + whole))


def test_an_ear_found_where_the_other_one_is_is_a_side_error() -> None:
    other = grid_around((-CENTER_MM[0], CENTER_MM[1], CENTER_MM[2]))
    empty = np.zeros(other.shape, dtype=np.float32)
    score = compare(fluid_from_fractions(images_on(other), empty, empty), true_case())
    assert score.side_error
    assert score.center_error_mm == pytest.approx(80.0, abs=1.0)
    assert score.ratio is None


def test_an_ear_at_its_place_under_the_other_name_is_a_side_error_too() -> None:
    fluid = found_on(GRID, 4.0, 2.0)
    assert compare(replace(fluid, roi=replace(fluid.roi, side=EarSide.RIGHT)), true_case()).side_error


def test_fluid_between_the_voxels_of_the_truth_is_refused() -> None:
    affine = GRID.index_to_lps.copy()
    affine[0, 3] += 0.2
    shifted = VolumeGeometry(shape=GRID.shape, index_to_lps=affine, frame_of_reference_uid="1.2.3")
    with pytest.raises(CaseError, match="expected one lattice of voxels"):
        compare(found_on(shifted, 4.0, 2.0), true_case())


def halves(left: int, right: int) -> Volume:
    """Compartment labels of the ball's fluid: `left` and `right` of its middle."""
    index = np.moveaxis(np.indices(GRID.shape), 0, -1)
    is_left = GRID.to_lps(index)[..., 0] > CENTER_MM[0]
    return Volume(array=(np.where(is_left, left, right) * ball(GRID, 4.0)).astype(np.uint8), geometry=GRID)


def test_a_fault_in_one_compartment_is_charged_to_it_alone() -> None:
    case = replace(true_case(), compartments=halves(left=1, right=2))
    assert case.compartments is not None
    fluid = found_on(GRID, 4.0, 2.0)
    inside_vestibule = case.compartments.array == 2
    missed = np.where(inside_vestibule, np.float32(0.0), np.asarray(fluid.endolymph_fraction.array))
    score = compare(fluid_from_fractions(images_on(GRID), ball(GRID, 4.0), missed), case)
    assert set(score.compartments) == {"cochlea", "vestibule", "canals"}
    cochlea, vestibule, canals = (score.compartments[name] for name in ("cochlea", "vestibule", "canals"))
    assert (cochlea.endolymph.dice, cochlea.ratio) == (1.0, cochlea.true_ratio)
    assert (vestibule.endolymph.dice, vestibule.ratio) == (0.0, 0.0)
    assert vestibule.true_ratio is not None
    assert vestibule.true_ratio > 0.05
    assert (canals.total_fluid.dice, canals.ratio, canals.true_ratio) == (None, None, None)
    volumes = [one.total_fluid.true_volume_mm3 for one in score.compartments.values()]
    assert score.total_fluid is not None
    assert sum(volumes) == pytest.approx(score.total_fluid.true_volume_mm3)


def test_fluid_found_outside_the_truth_is_charged_to_the_nearest_compartment() -> None:
    case = replace(true_case(), compartments=halves(left=1, right=3))
    score = compare(found_on(GRID, 6.0, 2.0), case)
    found = [one.total_fluid.volume_mm3 for one in score.compartments.values()]
    assert score.total_fluid is not None
    assert sum(found) == pytest.approx(score.total_fluid.volume_mm3)
    assert found[1] == 0.0
    assert found[0] == pytest.approx(found[2], rel=0.25)  # the middle column belongs to one side


def test_compartments_that_nobody_defined_are_refused() -> None:
    with pytest.raises(CaseError, match="compartments must be 0 to 3"):
        replace(true_case(), compartments=halves(left=1, right=4))


def flag(code: QualityCode, severity: Severity) -> QualityFlag:
    return QualityFlag(code=code, severity=severity, message="because")


def test_a_refused_ear_keeps_its_truth_and_the_codes_and_has_no_number() -> None:
    refused = EarFindings(
        side=EarSide.LEFT,
        ratio=None,
        fluid=None,
        quality=(flag(QualityCode.NO_CONTRAST, Severity.STOP), flag(QualityCode.LOW_SIGNAL, Severity.WARN)),
    )
    score = judge(refused, true_case(), seconds=3.0)
    assert not score.measured
    assert (score.refusals, score.remarks, score.seconds) == (("NO_CONTRAST",), ("LOW_SIGNAL",), 3.0)
    assert (score.total_fluid, score.ratio_error, score.covered) == (None, None, None)
    assert score.true_ratio is not None


def test_a_measured_ear_is_judged_by_the_interval_that_is_reported() -> None:
    fluid = found_on(GRID, 4.0, 2.0, half_width=0.001)
    ratio = EHRatio(endolymph_mm3=10.0, total_fluid_mm3=100.0, value=0.1, low=0.05, high=0.15)
    findings = EarFindings(side=EarSide.LEFT, ratio=ratio, fluid=fluid)
    score = judge(findings, true_case())
    assert (score.ratio, score.low, score.high) == (0.1, 0.05, 0.15)
    assert score.covered is (0.05 <= (score.true_ratio or 0.0) <= 0.15)


def test_a_case_refuses_truths_that_contradict_each_other() -> None:
    case = true_case()
    with pytest.raises(CaseError, match="endolymph must lie between 0 and the total fluid"):
        replace(case, endolymph=Volume(array=ball(GRID, 5.0), geometry=GRID))
    with pytest.raises(CaseError, match=r"part of each voxel, 0\.\.1"):
        replace(case, total_fluid=Volume(array=2.0 * ball(GRID, 4.0), geometry=GRID))
    other = grid_around((0.0, 0.0, 0.0))
    with pytest.raises(CaseError, match="must share one grid"):
        replace(case, endolymph=Volume(array=ball(other, 2.0), geometry=other))
