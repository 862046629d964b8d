"""Ears and studies of the benchmarks that no generator of ours drew, on a made-up crop: their truth is the truth."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from foreign_studies import make_study
from real_anatomy import RATIOS, WAYS, Anatomy, anatomy_of, draw, endolymph_in, with_surroundings
from scipy import ndimage

from dicom_node.assembly.headers import SeriesRole
from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.geometry import Volume

SPACING_MM = 0.4
EAR_LPS_MM = np.array([41.0, 8.0, -6.0])
SHAPE = (60, 70, 90)
RADIUS_MM = 4.0


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory: pytest.TempPathFactory) -> Anatomy:
    """A ball of fluid at a left ear, and a cistern medially."""
    first = EAR_LPS_MM - SPACING_MM * (np.array(SHAPE[::-1]) - 1) / 2.0
    k, j, i = np.indices(SHAPE)
    x, y, z = (first[axis] + SPACING_MM * index - EAR_LPS_MM[axis] for axis, index in enumerate((i, j, k)))
    bright = (np.sqrt(x**2 + y**2 + z**2) <= RADIUS_MM) | (x < -12.0)
    image = sitk.GetImageFromArray(ndimage.gaussian_filter(15.0 + 585.0 * bright, 1.0).astype(np.float32))
    image.SetSpacing([SPACING_MM] * 3)
    image.SetOrigin(first.tolist())
    path = tmp_path_factory.mktemp("crop") / "ear.nii.gz"
    sitk.WriteImage(image, str(path))
    return anatomy_of(path)


@pytest.mark.parametrize("way", WAYS)
def test_endolymph_has_the_wanted_part_of_the_labyrinth(anatomy: Anatomy, way: str) -> None:
    endolymph = endolymph_in(anatomy, way, 0.3, np.random.default_rng(1))
    assert not (endolymph & ~anatomy.labyrinth).any()
    assert endolymph.sum() / anatomy.labyrinth.sum() == pytest.approx(0.3, abs=0.01)


def test_endolymph_lies_in_the_middle_or_at_the_walls(anatomy: Anatomy) -> None:
    depth = {
        way: float(anatomy.depth_mm[endolymph_in(anatomy, way, 0.3, np.random.default_rng(2))].mean()) for way in WAYS
    }
    assert depth["walls"] < depth["patches"] < depth["middle"]


@pytest.mark.parametrize("seed", range(3))
def test_an_ear_is_scanned_as_it_is(anatomy: Anatomy, seed: int) -> None:
    scanned = draw(with_surroundings(anatomy), "patches", np.random.default_rng(seed))
    volume = float(scanned.total.sum()) * 0.25
    assert volume == pytest.approx(float(anatomy.labyrinth.sum()) * SPACING_MM**3, rel=0.02)
    assert RATIOS[0] - 0.02 < float(scanned.endolymph.sum() / scanned.total.sum()) < RATIOS[1] + 0.02
    perilymph = (scanned.total > 0.99) & (scanned.endolymph < 0.01)
    endolymph = (scanned.total > 0.99) & (scanned.endolymph > 0.9)
    assert (perilymph.any(), endolymph.any()) == (True, True)
    for chosen, ear in scanned.ears.items():
        hydrops = np.asarray(ear.hydrops.array)
        assert hydrops[perilymph].mean() > 0.0 > hydrops[endolymph].mean(), chosen
        assert np.asarray(ear.mrc.array)[scanned.total > 0.99].mean() == pytest.approx(1000.0, rel=0.05)
        assert (ear.ppi is not None) == (chosen is InputSet.PPI_PEI)


def around(volume: Volume, x_mm: float, reach_mm: float = 1.0) -> float:
    """Mean of the volume in a cube at so many millimeters from the midplane, level with the ears."""
    middle = volume.geometry.to_index(EAR_LPS_MM * np.array([0.0, 1.0, 1.0]) + np.array([x_mm, 0.0, 0.0]))
    reach = reach_mm / volume.geometry.spacing_mm
    k, j, i = (slice(round(n - r), round(n + r) + 1) for n, r in zip(middle, reach, strict=True))
    return float(np.asarray(volume.array)[k, j, i].mean())


def test_a_study_has_the_ear_on_one_side_and_its_mirror_image_on_the_other_always_the_same(anatomy: Anatomy) -> None:
    series, _ = make_study(anatomy, 0)
    for sign in (1.0, -1.0):  # the crop's cistern lies 12 mm and more medially of the ear, on either side
        assert around(series[SeriesRole.MRC], sign * 41.0) == pytest.approx(1000.0, rel=0.1)
        assert around(series[SeriesRole.MRC], sign * 27.0) > 700.0
        assert around(series[SeriesRole.MRC], sign * 55.0) < 200.0
    again, _ = make_study(anatomy, 0)
    assert all(np.array_equal(np.asarray(one.array), np.asarray(again[role].array)) for role, one in series.items())


@pytest.mark.parametrize("number", [8, 22])
def test_each_side_of_a_study_has_the_ratio_that_is_told_of_it(anatomy: Anatomy, number: int) -> None:
    """The more endolymph an ear has, the lower is the real inversion recovery of its fluid, which is linear."""
    series, truth = make_study(anatomy, number, InputSet.REAL_IR)
    middle = {EarSide.LEFT: 41.0, EarSide.RIGHT: -41.0}
    shown = {side: around(series[SeriesRole.REAL_IR], x_mm, RADIUS_MM) for side, x_mm in middle.items()}
    assert abs(truth[EarSide.LEFT] - truth[EarSide.RIGHT]) > 0.1
    assert (shown[EarSide.LEFT] < shown[EarSide.RIGHT]) == (truth[EarSide.LEFT] > truth[EarSide.RIGHT])
