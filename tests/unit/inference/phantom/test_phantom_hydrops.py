"""Ears swell each in their own way, lose fluid to bone and scar, and still have the wanted ratio."""

import numpy as np
import pytest
import torch

from inference.anatomy import EarSide
from inference.phantom import cochlea
from inference.phantom.hydrops import FluidLoss, HydropsPattern, paced
from inference.phantom.labyrinth import FluidPoints, Labyrinth, fill, individual, place

TO_LPS = place(EarSide.LEFT, origin_lps_mm=np.zeros(3), rotation=np.eye(3), scale=1.0)
SHAPE = Labyrinth()


def ear(
    eh_ratio: float | None = 0.3, pattern: HydropsPattern | None = None, loss: FluidLoss | None = None
) -> FluidPoints:
    return fill(SHAPE, TO_LPS, eh_ratio=eh_ratio, step_mm=0.2, pattern=pattern, loss=loss)


def cochlear_share(found: FluidPoints) -> float:
    """Part of the cochlea's fluid that is endolymph."""
    points = torch.from_numpy(found.lps_mm.T)
    inside = (cochlea.evaluate(SHAPE.cochlea, points).distance < 0).numpy()
    return float(found.is_endolymph[inside].mean())


def test_a_faster_cochlea_takes_endolymph_from_the_vestibule_at_the_same_ratio() -> None:
    fast, slow = (ear(pattern=HydropsPattern(cochlea=pace)) for pace in (2.0, 0.5))
    for found in (fast, slow):
        assert found.endolymph_mm3 / found.total_fluid_mm3 == pytest.approx(0.3, abs=0.002)
    assert cochlear_share(fast) > 1.3 * cochlear_share(slow)


def test_pace_moves_swollen_membranes_and_leaves_the_normal_ones() -> None:
    onset = torch.tensor([-0.4, 0.0, 0.5])
    assert paced(onset, 2.0).tolist() == pytest.approx([-0.4, 0.0, 0.25])
    normal = ear(eh_ratio=None).is_endolymph
    assert np.array_equal(ear(eh_ratio=None, pattern=HydropsPattern(cochlea=3.0, saccule=0.4)).is_endolymph, normal)


def test_two_persons_with_one_ratio_have_endolymph_in_different_places() -> None:
    first, second = (ear(pattern=HydropsPattern.draw(np.random.default_rng(seed))) for seed in (1, 2))
    both = (first.is_endolymph & second.is_endolymph).sum()
    dice = 2 * both / (first.is_endolymph.sum() + second.is_endolymph.sum())
    assert 0.5 < dice < 0.97


def test_cochlear_and_vestibular_hydrops_differ_between_ears_and_the_saccule_leads() -> None:
    patterns = [HydropsPattern.draw(np.random.default_rng(seed)) for seed in range(200)]
    lead = np.log([pattern.saccule / pattern.utricle for pattern in patterns])
    against = np.log([pattern.cochlea / pattern.utricle for pattern in patterns])
    assert np.median(lead) > 0.2
    assert 0.3 < against.std() < 0.8


@pytest.mark.parametrize("perilymph_lost", [0.0, 0.4])
@pytest.mark.parametrize("ossified", [0.0, 0.3])
def test_lost_fluid_is_gone_and_the_ratio_is_that_of_what_remains(ossified: float, perilymph_lost: float) -> None:
    loss = FluidLoss.draw(np.random.default_rng(3), ossified=ossified, perilymph_lost=perilymph_lost)
    whole, left = ear(), ear(loss=loss)
    # Perilymph is lost after endolymph took its share: remaining = open * (1 - lost) / (1 - lost * ratio).
    remaining = (1 - ossified) * (1 - perilymph_lost) / (1 - 0.3 * perilymph_lost)
    assert left.total_fluid_mm3 / whole.total_fluid_mm3 == pytest.approx(remaining, abs=0.003)
    assert left.endolymph_mm3 / left.total_fluid_mm3 == pytest.approx(0.3, abs=0.003)


def test_bone_grows_from_the_round_window() -> None:
    left = ear(loss=FluidLoss.draw(np.random.default_rng(3), ossified=0.3))
    assert left.remoteness.mean() > ear().remoteness.mean() + 0.1


@pytest.mark.parametrize("part", [-0.1, 1.0])
def test_a_loss_that_leaves_no_ear_is_refused(part: float) -> None:
    with pytest.raises(ValueError, match="ossified"):
        FluidLoss.draw(np.random.default_rng(0), ossified=part)


def test_a_pace_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="saccule"):
        HydropsPattern(saccule=0.0)


def test_persons_have_published_volumes_and_differ_from_each_other() -> None:
    volumes = [
        fill(individual(np.random.default_rng(seed)), TO_LPS, eh_ratio=None, step_mm=0.3).total_fluid_mm3
        for seed in range(24)
    ]
    assert min(volumes) > 150
    assert max(volumes) < 250
    assert 6 < np.std(volumes) < 30
