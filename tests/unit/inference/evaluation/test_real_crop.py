"""The reference of a real ear, tried on a made-up crop: a labyrinth that a thin canal joins to a cistern."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from inference.anatomy import EarSide
from inference.cases import CaseError
from inference.evaluation.real_crop import averaged, half_maximum, real_ear
from inference.geometry import Volume, VolumeGeometry

FINE_MM = 0.4
SHAPE = (60, 70, 90)
EAR_LPS_MM = np.array([41.0, 8.0, -6.0])
RADIUS_MM = 3.5


def geometry() -> VolumeGeometry:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[::-1] * FINE_MM
    affine[:3, 3] = EAR_LPS_MM - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2.0)
    return VolumeGeometry(shape=SHAPE, index_to_lps=affine, frame_of_reference_uid="1.2.3")


def crop_image() -> NDArray[np.float32]:
    """Bone 15, fluid 600: a ball, a cistern 14 mm medially, and a canal of 1 mm between, all slightly blurred."""
    grid = geometry()
    place = grid.to_lps(np.moveaxis(np.indices(SHAPE), 0, -1)) - EAR_LPS_MM
    ball = np.linalg.norm(place, axis=-1) <= RADIUS_MM
    cistern = place[..., 0] < -10.0
    canal = (np.linalg.norm(place[..., 1:], axis=-1) <= 0.5) & (place[..., 0] < 0.0)
    sharp = 15.0 + 585.0 * (ball | cistern | canal)
    return ndimage.gaussian_filter(sharp.astype(np.float32), 0.4 / FINE_MM)


def crop(array: NDArray[np.float32], shift_mm: float = 0.0) -> Volume:
    """`array` at the left ear, or so many millimeters farther to the patient's right."""
    affine = geometry().index_to_lps.copy()
    affine[0, 3] -= shift_mm
    return Volume(
        array=array, geometry=VolumeGeometry(shape=SHAPE, index_to_lps=affine, frame_of_reference_uid="1.2.3")
    )


def test_half_maximum_outlines_the_labyrinth_and_leaves_the_cistern_out() -> None:
    mask = half_maximum(Volume(array=crop_image(), geometry=geometry()))
    volume = float(mask.array.sum()) * FINE_MM**3
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.08)
    farthest = np.linalg.norm(mask.geometry.to_lps(np.argwhere(mask.array > 0)) - EAR_LPS_MM, axis=-1).max()
    assert farthest < RADIUS_MM + 5.0


def test_the_clinical_grid_keeps_side_place_and_volume() -> None:
    case = real_ear(crop(crop_image()), name="left")
    assert case.images.roi.side is EarSide.LEFT
    assert case.images.mrc.geometry.spacing_mm.tolist() == pytest.approx([1.0, 0.5, 0.5])
    fine = half_maximum(Volume(array=crop_image(), geometry=geometry()))
    volume = float(case.total_fluid.array.sum()) * 0.25
    assert volume == pytest.approx(float(fine.array.sum()) * FINE_MM**3, rel=0.01)
    assert np.abs(np.array(case.images.roi.center_lps_mm) - EAR_LPS_MM).max() < 0.5
    assert np.all(case.images.hydrops.array == 0.0)
    assert case.tags == {"case": "left", "side": "left", "input_set": "MRC"}


def test_averages_are_means_of_what_a_coarse_voxel_covers() -> None:
    grid = geometry()
    ramp = Volume(array=grid.to_lps(np.moveaxis(np.indices(SHAPE), 0, -1))[..., 0].astype(np.float32), geometry=grid)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[::-1] * (1.0, 0.5, 0.5)
    affine[:3, 3] = EAR_LPS_MM - (4.0, 4.0, 4.0)
    coarse = VolumeGeometry(shape=(8, 12, 12), index_to_lps=affine, frame_of_reference_uid="1.2.3")
    expected = coarse.to_lps(np.moveaxis(np.indices(coarse.shape), 0, -1))[..., 0]
    assert np.abs(averaged(ramp, coarse).array - expected).max() < 1e-3


def test_a_crop_without_a_labyrinth_or_without_a_side_is_refused() -> None:
    dark = np.random.default_rng(1).normal(15.0, 1.0, SHAPE).astype(np.float32)
    with pytest.raises(CaseError, match="expected a bright labyrinth around the middle"):
        real_ear(crop(dark), name="dark")
    with pytest.raises(CaseError, match=r"expected scanner coordinates; the ear lies -?\d mm from their middle"):
        real_ear(crop(crop_image(), shift_mm=41.0), name="middle")
