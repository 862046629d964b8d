"""The labyrinth has the published sizes, lies the right way round on both sides, and endolymph grows as in hydrops."""

import numpy as np
import pytest
import torch

from inference.anatomy import LABYRINTH_EXTENT_MM, EarSide
from inference.phantom import canals, cochlea, vestibule
from inference.phantom.canals import ANTERIOR, LATERAL, POSTERIOR
from inference.phantom.labyrinth import (
    BOX_HIGH_MM,
    BOX_LOW_MM,
    Caliber,
    Compartment,
    Labyrinth,
    evaluate,
    fill,
    individual,
    place,
    severity_for,
)
from inference.phantom.voxelization import sample_inside
from inference.phantom.waves import Waves

STEP_MM = 0.12


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return sample_inside(lambda p: evaluate(Labyrinth(), p).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=STEP_MM)


def volume_mm3(inside: torch.Tensor) -> float:
    return float(inside.sum()) * STEP_MM**3


def ear_at_origin(side: EarSide = EarSide.LEFT) -> np.ndarray:
    return place(side, origin_lps_mm=np.zeros(3), rotation=np.eye(3), scale=1.0)


def test_volume_converges_below_one_percent_between_two_fine_steps() -> None:
    coarse = fill(Labyrinth(), ear_at_origin(), eh_ratio=None, step_mm=0.16)
    fine = fill(Labyrinth(), ear_at_origin(), eh_ratio=None, step_mm=0.08)
    assert coarse.total_fluid_mm3 == pytest.approx(fine.total_fluid_mm3, rel=0.01)
    assert coarse.endolymph_mm3 == pytest.approx(fine.endolymph_mm3, rel=0.01)


def test_compartments_have_anatomical_volumes(points: torch.Tensor) -> None:
    shape = Labyrinth()
    assert 70 < volume_mm3(cochlea.evaluate(shape.cochlea, points).distance < 0) < 105
    assert 45 < volume_mm3(vestibule.distance(shape.vestibule, points) < 0) < 75
    for canal in (ANTERIOR, POSTERIOR, LATERAL):
        assert 10 < volume_mm3(canals.evaluate(canal, points).distance < 0) < 26


def test_a_normal_ear_has_the_endolymph_of_a_normal_ear(points: torch.Tensor) -> None:
    field = evaluate(Labyrinth(), points)
    ratio = float((field.onset <= 0).float().mean())
    scala_media = cochlea.evaluate(Labyrinth().cochlea, points)
    inside_cochlea = scala_media.distance <= field.distance + 1e-6
    assert 0.10 < ratio < 0.20
    assert 5.0 < volume_mm3(inside_cochlea & (scala_media.onset <= 0)) < 9.8


def test_labyrinth_fits_the_box_measured_on_real_ears(points: torch.Tensor) -> None:
    extent = (points.max(dim=1).values - points.min(dim=1).values).numpy()
    assert (extent < LABYRINTH_EXTENT_MM).all()
    assert (extent > np.array([11.0, 12.0, 10.0])).all()


def test_every_individual_stays_inside_the_sampling_box_and_has_a_plausible_volume() -> None:
    for seed in range(12):
        drawn = individual(np.random.default_rng(seed))
        found = sample_inside(lambda p, drawn=drawn: evaluate(drawn, p).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=0.25)
        margin = np.minimum(found.amin(dim=1).numpy() - BOX_LOW_MM, BOX_HIGH_MM - found.amax(dim=1).numpy())
        assert (margin > 0.25).all()
        assert 140 < found.shape[1] * 0.25**3 < 240


@pytest.mark.parametrize("side", list(EarSide))
def test_cochlea_lies_in_front_and_medial_and_the_lateral_canal_lateral_on_both_sides(side: EarSide) -> None:
    """The left ear's shapes are asymmetric in every direction; a missing mirror on the right would fail here."""
    shape, to_lps = Labyrinth(), ear_at_origin(side)
    local = sample_inside(lambda p: evaluate(shape, p).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=0.25)
    lps = local.numpy().T @ to_lps[:3, :3].T + to_lps[:3, 3]

    def centroid(distance: torch.Tensor) -> np.ndarray:
        return lps[(distance < 0).numpy()].mean(axis=0)

    middle = centroid(vestibule.distance(shape.vestibule, local))
    spiral = centroid(cochlea.evaluate(shape.cochlea, local).distance)
    ring = centroid(canals.evaluate(LATERAL, local).distance)
    assert (spiral - middle)[0] * side.lps_sign < -2.0
    assert (spiral - middle)[1] < -3.0
    assert (ring - middle)[0] * side.lps_sign > 2.0
    assert np.linalg.det(to_lps[:3, :3]) * side.lps_sign > 0


def test_anterior_canal_is_the_highest_and_the_posterior_canal_reaches_farthest_back(points: torch.Tensor) -> None:
    rings = {canal: points[:, canals.evaluate(canal, points).distance < 0] for canal in (ANTERIOR, POSTERIOR, LATERAL)}
    assert max(rings, key=lambda canal: float(rings[canal][2].max())) is ANTERIOR
    assert max(rings, key=lambda canal: float(rings[canal][1].max())) is POSTERIOR


def test_every_point_names_its_compartment() -> None:
    ear = fill(Labyrinth(), ear_at_origin(), eh_ratio=None, step_mm=0.2)
    volume = {part: float((ear.compartment == part).sum()) * ear.volume_mm3 for part in Compartment}
    assert sum(volume.values()) == pytest.approx(ear.total_fluid_mm3)
    assert volume[Compartment.COCHLEA] > volume[Compartment.VESTIBULE] > 40 < volume[Compartment.CANALS]
    centers = {part: ear.lps_mm[ear.compartment == part].mean(axis=0) for part in Compartment}
    assert centers[Compartment.COCHLEA][1] < centers[Compartment.VESTIBULE][1] < centers[Compartment.CANALS][1]


@pytest.mark.parametrize("wanted", [0.05, 0.12, 0.35, 0.5])
def test_wanted_ratio_is_hit_within_half_a_percent(wanted: float) -> None:
    ear = fill(individual(np.random.default_rng(5)), ear_at_origin(), eh_ratio=wanted, step_mm=0.16)
    assert ear.endolymph_mm3 / ear.total_fluid_mm3 == pytest.approx(wanted, abs=0.005)


def test_more_endolymph_contains_less_endolymph() -> None:
    mild = fill(Labyrinth(), ear_at_origin(), eh_ratio=0.15, step_mm=0.2)
    severe = fill(Labyrinth(), ear_at_origin(), eh_ratio=0.4, step_mm=0.2)
    assert (mild.is_endolymph <= severe.is_endolymph).all()


def test_saccule_distends_relatively_more_than_the_utricle(points: torch.Tensor) -> None:
    shape = Vestibule = Labyrinth().vestibule
    onset = torch.minimum(*vestibule.endolymph_onsets(shape, points))

    def near(center: tuple[float, float, float]) -> torch.Tensor:
        return (points - torch.tensor(center)[:, None]).norm(dim=0) < 1.3

    def growth(where: torch.Tensor) -> float:
        return float((where & (onset <= 0.4)).sum() / (where & (onset <= 0.0)).sum())

    assert growth(near(shape.saccule_mm)) > 1.3 * growth(near(Vestibule.utricle_mm))


def test_a_ratio_that_no_ear_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match="eh_ratio"):
        fill(Labyrinth(), ear_at_origin(), eh_ratio=0.98, step_mm=0.25)
    with pytest.raises(ValueError, match="eh_ratio"):
        severity_for(np.array([0.0, 1.0], dtype=np.float32), 0.0)


@pytest.mark.parametrize(("narrower_mm", "part"), [(0.1, (0.65, 0.85)), (-0.1, (1.15, 1.4))])
def test_a_narrower_lumen_lies_within_the_usual_one_and_a_wider_one_around_it(
    points: torch.Tensor, narrower_mm: float, part: tuple[float, float]
) -> None:
    field = Waves.draw(np.random.default_rng(1), 5.0)
    other = Labyrinth(caliber=Caliber(narrower_mm=narrower_mm, uneven_mm=0.0, field=field))
    theirs = sample_inside(lambda p: evaluate(other, p).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=STEP_MM)
    assert part[0] < theirs.shape[1] / points.shape[1] < part[1]
    if narrower_mm > 0.0:
        assert bool((evaluate(Labyrinth(), theirs).distance < 0.0).all())
    else:
        assert bool((evaluate(other, points).distance < 0.0).all())


def test_a_caliber_may_differ_from_place_to_place() -> None:
    some = torch.from_numpy(np.random.default_rng(2).uniform(-8.0, 8.0, (3, 2000)).astype(np.float32))
    drawn = [Caliber.draw(np.random.default_rng(seed)).at(some) for seed in range(200)]
    means = np.array([float(one.mean()) for one in drawn])
    spreads = np.array([float(one.std()) for one in drawn])
    assert -0.25 < means.min() < -0.12
    assert 0.1 < means.max() < 0.2
    assert spreads.min() < 0.02
    assert 0.08 < spreads.max() < 0.15
