"""Where a training step gets its synthetic ears from: a pool that still grows, cut off center, scanned anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.cases import InputSet
from inference.ear_grid import SHAPE
from inference.training.crop_pool import CropPool
from inference.training.crops import ENDOLYMPH, MARGIN, PERILYMPH, EarCrop
from inference.training.scans import REALISTIC, TRAINING, Scans
from inference.training.sources import PhantomSource, as_fractions, centered, moved, phantom_scans, rearranged


@pytest.fixture
def pool(drawn: list[EarCrop], tmp_path: Path) -> CropPool:
    """The ears that were drawn, and one more that never will be."""
    filled = CropPool(tmp_path, first_seed=drawn[0].seed, count=len(drawn) + 1)
    for index, crop in enumerate(drawn):
        np.save(filled.path(index), crop.parts)
    return filled


def batch(source: PhantomSource, *, step: int = 0, seed: int = 0) -> Scans:
    return source.batch(2, step=step, rng=np.random.default_rng(seed))


def test_equal_steps_and_generators_give_equal_batches(pool: CropPool) -> None:
    source = PhantomSource(pool=pool, within=TRAINING, at_first=3, per_step=0.0)
    one, same, other = batch(source), batch(source), batch(source, seed=1)
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.endolymph, same.endolymph)
    assert not torch.equal(one.images, other.images)
    assert one.images.shape == (2, 4, *SHAPE)


def test_training_begins_with_the_first_ears_and_later_uses_more(pool: CropPool, drawn: list[EarCrop]) -> None:
    source = PhantomSource(pool=pool, within=TRAINING, at_first=1, per_step=0.1)

    def ratio_of(scans: Scans) -> list[float]:
        return (scans.endolymph.sum(dim=(1, 2, 3)) / scans.total.sum(dim=(1, 2, 3))).tolist()

    for seed in range(4):
        assert ratio_of(batch(source, step=9, seed=seed)) == pytest.approx([drawn[0].eh_ratio] * 2, abs=0.02)
    later = {round(ratio, 2) for seed in range(6) for ratio in ratio_of(batch(source, step=20, seed=seed))}
    assert len(later) > 1


def test_the_networks_window_is_moved_by_up_to_the_margin_and_loses_no_fluid(drawn: list[EarCrop]) -> None:
    rng = np.random.default_rng(2)
    parts = drawn[0].parts
    amounts = {int(moved(parts, rng)[[PERILYMPH, ENDOLYMPH]].sum(dtype=int)) for _ in range(20)}
    assert moved(parts, rng).shape[1:] == SHAPE
    assert min(amounts) > 0.97 * parts[[PERILYMPH, ENDOLYMPH]].sum(dtype=int)
    assert (centered(parts) == parts[:, MARGIN[0] : -MARGIN[0], MARGIN[1] : -MARGIN[1], MARGIN[2] : -MARGIN[2]]).all()


def test_rearranged_endolymph_lies_elsewhere_in_the_same_fluid(drawn: list[EarCrop]) -> None:
    before = as_fractions(centered(drawn[0].parts))
    after = rearranged(before, np.random.default_rng(5))
    fluid = before[PERILYMPH] + before[ENDOLYMPH]
    assert torch.allclose(after[PERILYMPH] + after[ENDOLYMPH], fluid, atol=1e-6)
    assert torch.equal(after[ENDOLYMPH + 1 :], before[ENDOLYMPH + 1 :])
    moved_away = (after[ENDOLYMPH] - before[ENDOLYMPH]).abs().sum() / before[ENDOLYMPH].sum()
    assert float(moved_away) > 0.3
    assert 0.0 < float(after[ENDOLYMPH].sum() / fluid.sum()) < 0.7


def test_rearranged_endolymph_keeps_to_the_walls_in_some_ears_and_to_the_middle_in_others(
    drawn: list[EarCrop],
) -> None:
    before = as_fractions(centered(drawn[0].parts))
    fluid = before[PERILYMPH] + before[ENDOLYMPH]
    inner, rim = fluid > 0.95, (fluid > 0.1) & (fluid < 0.6)

    def deeper(seed: int) -> float:
        endolymph = rearranged(before, np.random.default_rng(seed))[ENDOLYMPH]
        return float(endolymph[inner].sum() / fluid[inner].sum() - endolymph[rim].sum() / fluid[rim].sum())

    found = [deeper(seed) for seed in range(24)]
    assert min(found) < -0.1
    assert max(found) > 0.1


def test_rearranged_endolymph_fills_parts_of_voxels_also_deep_in_the_fluid(drawn: list[EarCrop]) -> None:
    """A thin core, or the edge of a patch, lies inside a voxel of a millimeter."""
    before = as_fractions(centered(drawn[0].parts))
    full = before[PERILYMPH] + before[ENDOLYMPH] > 0.95
    parts = [rearranged(before, np.random.default_rng(seed))[ENDOLYMPH][full] for seed in range(24)]
    partly = torch.cat([(part > 0.2) & (part < 0.8) for part in parts])
    assert 0.09 < float(partly.float().mean()) < 0.3


def test_in_some_rearranged_ears_endolymph_is_finer_than_the_voxels_and_in_others_it_has_edges(
    drawn: list[EarCrop],
) -> None:
    before = as_fractions(centered(drawn[0].parts))
    full = before[PERILYMPH] + before[ENDOLYMPH] > 0.95
    parts = [rearranged(before, np.random.default_rng(seed))[ENDOLYMPH][full] for seed in range(24)]
    partly = [float(((part > 0.1) & (part < 0.9)).float().mean()) for part in parts]
    assert max(partly) > 0.5
    assert min(partly) < 0.15


def test_validation_shows_every_ear_with_every_input_set_and_always_the_same(
    drawn: list[EarCrop], tmp_path: Path
) -> None:
    two = CropPool(tmp_path, first_seed=drawn[0].seed, count=2)
    for index in range(2):
        np.save(two.path(index), drawn[index].parts)
    one, same = (phantom_scans(two, within=REALISTIC, seed=3, batch=1) for _ in range(2))
    assert [scans.sets for scans in one] == [(chosen,) for chosen in InputSet] * 2
    assert all(torch.equal(a.images, b.images) for a, b in zip(one, same, strict=True))
    expected = as_fractions(centered(drawn[1].parts))[ENDOLYMPH]
    assert torch.equal(one[-1].endolymph[0], expected)
