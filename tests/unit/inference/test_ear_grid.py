"""The network's grid: whatever way a slab lies, the same ear gives the same picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_ears import FLUID_MM3, LEFT, POSTERIOR, SUPERIOR, ball, ball_ear, center_mm, grid_around
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.ear_grid import INPUTS, SHAPE, SPACING_MM, channels, ear_grid, onto_grid, scaled
from inference.findings import EarImages
from inference.geometry import Volume, VolumeGeometry


def turned(axes: tuple[NDArray[np.float64], ...], degrees: float) -> tuple[NDArray[np.float64], ...]:
    """The axes after a turn about the patient's x."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    return tuple(turn @ axis for axis in axes)


AXIAL = (SUPERIOR, POSTERIOR, LEFT)
SLABS = {
    "axial": AXIAL,
    "from head to feet, from left to right": (-SUPERIOR, POSTERIOR, -LEFT),
    "from back to front": (SUPERIOR, -POSTERIOR, LEFT),
    "coronal": (-POSTERIOR, -SUPERIOR, LEFT),
    "sagittal": (LEFT, -SUPERIOR, POSTERIOR),
    "along the canal": turned(AXIAL, 35.0),
}


def noise_on(grid: VolumeGeometry) -> Volume:
    return Volume(array=np.random.default_rng(5).normal(size=grid.shape).astype(np.float32), geometry=grid)


def blob(grid: VolumeGeometry, center: NDArray[np.float64]) -> NDArray[np.float32]:
    """Smooth and lopsided: 1 at `center`, wider to the left than to the head."""
    off = grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1)) - center
    return np.exp(-0.5 * ((off / [5.0, 4.0, 3.0]) ** 2).sum(axis=-1)).astype(np.float32)


@pytest.mark.parametrize("side", EarSide)
@pytest.mark.parametrize("axes", SLABS.values(), ids=SLABS.keys())
def test_axes_run_most_nearly_to_the_head_to_posterior_and_laterally(side: EarSide, axes: tuple) -> None:
    grid = ear_grid(side, grid_around(center_mm(side), axes=axes), center_mm(side))
    assert grid.shape == SHAPE
    toward = np.stack([SUPERIOR, POSTERIOR, LEFT * side.lps_sign])
    assert (np.diag(toward @ grid.directions) > 0.8).all()


@pytest.mark.parametrize("side", EarSide)
@pytest.mark.parametrize("axes", SLABS.values(), ids=SLABS.keys())
def test_the_ear_lies_in_the_middle_and_is_seen_where_it_is(side: EarSide, axes: tuple) -> None:
    source = grid_around(center_mm(side), axes=axes, spacing=(0.5, 0.5, 0.5))
    grid = ear_grid(side, source, center_mm(side) + 0.2)
    assert np.abs(grid.to_lps(np.array(SHAPE) // 2) - center_mm(side)).max() <= 0.5
    seen = onto_grid(Volume(array=blob(source, center_mm(side)), geometry=source), grid)
    assert np.abs(seen - blob(grid, center_mm(side))).max() < 0.02


def test_a_right_ear_is_seen_as_the_mirror_image_of_a_left_one() -> None:
    left, right = (
        channels(ear.images, ear_grid(side, ear.images.mrc.geometry, center_mm(side)))
        for side, ear in ((side, ball_ear(side)) for side in (EarSide.LEFT, EarSide.RIGHT))
    )
    assert torch.allclose(left, right, atol=1e-2)
    assert not torch.allclose(left, left.flip(3), atol=1.0)  # the ear itself is not symmetric


@pytest.mark.parametrize("axes", [SLABS["axial"], SLABS["coronal"], SLABS["along the canal"]])
@pytest.mark.parametrize("k_mm", [1.0, 1.015])
def test_voxels_of_the_models_spacing_are_copied(axes: tuple, k_mm: float) -> None:
    by_axis = [k_mm if np.argmax(np.abs(axis)) == 2 else 0.5 for axis in axes]
    source = noise_on(grid_around(center_mm(EarSide.LEFT), axes=axes, spacing=tuple(by_axis)))
    grid = ear_grid(EarSide.LEFT, source.geometry, center_mm(EarSide.LEFT))
    assert np.allclose(grid.spacing_mm, (k_mm, 0.5, 0.5))
    index = np.rint(source.geometry.to_index(grid.to_lps(np.argwhere(np.ones(SHAPE))))).astype(int)
    assert np.allclose(onto_grid(source, grid).ravel(), source.array[tuple(index.T)], atol=1e-4)


def test_other_spacings_are_brought_to_the_models() -> None:
    coarse = grid_around(center_mm(EarSide.LEFT), spacing=(0.8, 0.6, 0.6))
    assert np.allclose(ear_grid(EarSide.LEFT, coarse, center_mm(EarSide.LEFT)).spacing_mm, SPACING_MM)


def test_finer_voxels_are_averaged_so_that_volumes_stay() -> None:
    fine = grid_around(center_mm(EarSide.LEFT), spacing=(0.25, 0.25, 0.25), extent_mm=28.0)
    grid = ear_grid(EarSide.LEFT, fine, center_mm(EarSide.LEFT))
    seen = onto_grid(Volume(array=ball(fine, center_mm(EarSide.LEFT), 4.0), geometry=fine), grid)
    assert seen.sum(dtype=np.float64) * grid.voxel_volume_mm3 == pytest.approx(FLUID_MM3, rel=0.01)
    rough = onto_grid(noise_on(fine), grid)
    assert 0.1 < rough.std() < 0.25  # 16 voxels or more each


def as_real(images: EarImages) -> EarImages:
    return replace(images, phase_sensitive=True)


def with_ppi(images: EarImages) -> EarImages:
    return EarImages(
        roi=images.roi,
        mrc=images.mrc,
        hydrops=images.hydrops,
        ppi=Volume(array=0.2 * images.mrc.array, geometry=images.mrc.geometry),
    )


@pytest.mark.parametrize(
    ("change", "present"),
    [
        (lambda images: images, {"MRC", "HYDROPS"}),
        (with_ppi, {"MRC", "HYDROPS", "PPI"}),
        (as_real, {"MRC", "REAL_IR"}),
    ],
    ids=["hydrops", "ppi and pei", "real inversion recovery"],
)
def test_what_a_study_lacks_is_zero(change, present: set[str]) -> None:
    images = change(ball_ear().images)
    seen = scaled(channels(images, ear_grid(EarSide.LEFT, images.mrc.geometry, images.roi.center_lps_mm))[None])[0]
    assert {name for name, image in zip(INPUTS, seen, strict=True) if image.any()} == present


def test_scaling_forgets_the_scanners_units_and_keeps_ppi_against_hydrops() -> None:
    images = with_ppi(ball_ear().images)
    raw = channels(images, ear_grid(EarSide.LEFT, images.mrc.geometry, images.roi.center_lps_mm))[None]
    units = torch.tensor([3.0, 0.2, 0.2, 0.2]).view(1, 4, 1, 1, 1)
    one, other = scaled(raw), scaled(raw * units)
    assert torch.allclose(one, other, atol=1e-3)
    inside = one[0, 0] > 0.95
    assert torch.allclose(one[0, 2][inside] * raw[0, 1][inside], one[0, 1][inside] * raw[0, 2][inside], rtol=1e-3)


def test_scaling_puts_bone_at_zero_and_fluid_at_one() -> None:
    images = ball_ear().images
    raw = channels(images, ear_grid(EarSide.LEFT, images.mrc.geometry, images.roi.center_lps_mm))[None] + 30.0
    mrc = scaled(raw)[0, 0]
    assert float(mrc.flatten().kthvalue(mrc.numel() // 2).values) == pytest.approx(0.0, abs=1e-4)
    assert float(mrc[SHAPE[0] // 2, SHAPE[1] // 2, SHAPE[2] // 2]) == pytest.approx(1.0, abs=0.02)


def test_a_constant_image_is_scaled_to_finite_values() -> None:
    assert torch.isfinite(scaled(torch.full((1, 4, *SHAPE), 7.0))).all()
