"""Synthetic ears before any scanner saw them: sizes as in the literature, truth untouched by what is put around it."""

from __future__ import annotations

import numpy as np
import pytest

from inference.ear_grid import SPACING_MM
from inference.training import crops
from inference.training.crops import CROP_SHAPE, ENDOLYMPH, GROUPS, PERILYMPH, RATIOS, EarCrop, draw_crop

VOXEL_MM3 = float(np.prod(SPACING_MM))


def fluid_of(crop: EarCrop) -> np.ndarray:
    """Parts 0..1 of each voxel."""
    return (crop.parts[PERILYMPH].astype(float) + crop.parts[ENDOLYMPH]) / 255.0


def test_the_same_seed_draws_the_same_ear_and_another_seed_another(drawn: list[EarCrop]) -> None:
    again = draw_crop(drawn[0].seed)
    assert (again.parts == drawn[0].parts).all()
    assert (again.parts != drawn[1].parts).any()


def test_a_crop_holds_parts_of_tissue_that_never_exceed_a_voxel(drawn: list[EarCrop]) -> None:
    for crop in drawn:
        assert crop.parts.shape == (len(GROUPS), *CROP_SHAPE)
        assert crop.parts.astype(int).sum(axis=0).max() <= 255 + len(GROUPS) // 2  # each group is rounded by itself


def test_fluid_volumes_are_those_of_labyrinths(drawn: list[EarCrop]) -> None:
    """168 to 190 mm3 at half maximum on two real ears; people differ by a fifth."""
    volumes = [fluid_of(crop).sum() * VOXEL_MM3 for crop in drawn]
    assert all(110.0 < volume < 320.0 for volume in volumes), volumes
    assert np.ptp(volumes) > 5.0


def test_the_ratio_is_that_of_the_fluids_and_within_what_is_trained(drawn: list[EarCrop]) -> None:
    for crop in drawn:
        expected = crop.parts[ENDOLYMPH].sum(dtype=int) / 255.0 / fluid_of(crop).sum()
        assert crop.eh_ratio == pytest.approx(expected, rel=1e-6)
        assert RATIOS[0] * 0.5 < crop.eh_ratio < RATIOS[1] * 1.1
    assert len({round(crop.eh_ratio, 3) for crop in drawn}) == len(drawn)


def test_the_ear_lies_in_the_middle_of_its_crop(drawn: list[EarCrop]) -> None:
    for crop in drawn:
        fluid = fluid_of(crop)
        middle = np.array([np.average(axis, weights=fluid) for axis in np.indices(fluid.shape)])
        assert np.abs(middle - np.array(CROP_SHAPE) // 2).max() < 1.0


def test_slabs_lie_oblique_and_never_show_a_mirrored_ear() -> None:
    rng = np.random.default_rng(4)
    grids = [crops._slab_around(rng, (40.0, 5.0, -10.0)) for _ in range(200)]
    own_axes = np.stack([np.diag(grid.directions[[2, 1, 0]]) for grid in grids])  # toward head, posterior, left
    assert own_axes.min() > np.cos(np.radians(60.0))
    assert np.degrees(np.arccos(own_axes[:, 0])).max() > 30.0
    assert all(np.linalg.det(grid.directions[:, ::-1]) > 0.0 for grid in grids)


def test_what_is_put_around_the_labyrinth_never_touches_it(
    drawn: list[EarCrop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "_with_context", lambda _rng, parts, *_: parts)
    bare = draw_crop(drawn[0].seed)
    fluids, others = [PERILYMPH, ENDOLYMPH], [group for group in range(len(GROUPS)) if group > ENDOLYMPH]
    assert (bare.parts[fluids] == drawn[0].parts[fluids]).all()
    assert (bare.parts[others] != drawn[0].parts[others]).any()


def test_more_than_half_of_the_ears_have_another_caliber_and_are_else_the_same(
    drawn: list[EarCrop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "OTHER_CALIBER_SHARE", 0.0)
    usual = [draw_crop(crop.seed) for crop in drawn]
    differ = [bool((a.parts != b.parts).any()) for a, b in zip(usual, drawn, strict=True)]
    assert 0.2 < np.mean(differ) < 1.0
    ratios = [fluid_of(a).sum() / fluid_of(b).sum() for a, b in zip(usual, drawn, strict=True)]
    assert max(ratios) > 1.05 or min(ratios) < 0.95
