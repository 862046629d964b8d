"""A site's own ears: on the network's grid, in parts that never share a patient, moved by whole voxels and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_ears import FLUID_MM3, ball_ear, center_mm, grid_around

from inference.anatomy import EarSide
from inference.cases import CaseError, InputSet
from inference.ear_grid import SHAPE
from inference.geometry import Volume
from inference.training.crops import CROP_SHAPE
from inference.training.own_ears import (
    LabeledEar,
    MixedSource,
    OwnEarSource,
    Split,
    labeled_ear,
    own_scans,
    split_by_patient,
)

VOXEL_MM3 = 0.25


@pytest.fixture(scope="module")
def ear() -> LabeledEar:
    return labeled_ear(ball_ear().case())


def of_patient(ear: LabeledEar, number: int, *, case: str | None = None) -> LabeledEar:
    return replace(ear, case=case or f"case-{number}", patient=f"patient-{number}")


def test_an_ear_lies_on_the_networks_grid_with_a_margin(ear: LabeledEar) -> None:
    assert ear.channels.shape == (4, *CROP_SHAPE)
    assert ear.inputs is InputSet.HYDROPS
    assert float(ear.total.sum()) * VOXEL_MM3 == pytest.approx(FLUID_MM3, rel=0.02)
    assert (ear.endolymph <= ear.total).all()


def test_a_right_ear_is_trained_as_the_mirror_image_of_a_left_one(ear: LabeledEar) -> None:
    right = labeled_ear(ball_ear(EarSide.RIGHT).case())
    assert torch.allclose(right.channels, ear.channels, atol=1e-2)
    assert torch.allclose(right.endolymph, ear.endolymph, atol=1e-4)


def test_finer_labels_keep_their_volume(ear: LabeledEar) -> None:
    fine = grid_around(center_mm(EarSide.LEFT), spacing=(0.4, 0.4, 0.4), extent_mm=30.0)
    finer = labeled_ear(ball_ear(grid=fine).case())
    assert float(finer.total.sum()) == pytest.approx(float(ear.total.sum()), rel=0.02)
    assert float(finer.endolymph.sum()) == pytest.approx(float(ear.endolymph.sum()), rel=0.03)


def test_images_and_truth_are_moved_together(ear: LabeledEar) -> None:
    batch = OwnEarSource(ears=[ear]).batch(6, step=0, rng=np.random.default_rng(1))
    assert batch.images.shape == (6, 4, *SHAPE)
    for image, total in zip(batch.images[:, 0], batch.total, strict=True):
        assert float((image - total).abs().max()) < 0.15  # the ball's MRC is its fluid
    assert batch.total.sum(dim=(1, 2, 3)).tolist() == pytest.approx([float(ear.total.sum())] * 6, rel=1e-4)
    assert len({tuple(total.nonzero()[0].tolist()) for total in batch.total}) > 1


def test_equal_generators_give_equal_batches(ear: LabeledEar) -> None:
    source = OwnEarSource(ears=[ear, replace(ear, channels=2.0 * ear.channels)])
    one, same, other = (source.batch(3, step=0, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_validation_sees_every_ear_once_centered_and_unchanged(ear: LabeledEar) -> None:
    scans = own_scans([ear, ear, ear], batch=2)
    assert [len(one.images) for one in scans] == [2, 1]
    inside = scans[0].total[0] > 0.99
    assert torch.allclose(scans[0].images[0, 0][inside], torch.tensor(1.0), atol=1e-3)
    middle = [np.average(axis, weights=scans[0].total[0]) for axis in np.indices(SHAPE)]
    assert np.abs(np.subtract(middle, np.array(SHAPE) // 2)).max() < 0.1


def test_a_mixture_has_about_the_share_that_was_asked_for(ear: LabeledEar) -> None:
    second = replace(ear, inputs=InputSet.REAL_IR)
    source = MixedSource(first=OwnEarSource(ears=[ear]), second=OwnEarSource(ears=[second]), second_share=0.25)
    drawn = [kind for step in range(8) for kind in source.batch(8, step=step, rng=np.random.default_rng(step)).sets]
    assert len(drawn) == 64
    assert 6 <= drawn.count(InputSet.REAL_IR) <= 28


def test_no_patient_is_on_both_sides_and_everybody_is_on_one(ear: LabeledEar) -> None:
    ears = [of_patient(ear, number, case=f"{number}-{visit}") for number in range(10) for visit in range(2)]
    split = split_by_patient(ears, seed=1, validation_share=0.2, held_out_share=0.2)
    parts = [{one.patient for one in part} for part in (split.training, split.validation, split.held_out)]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert set.union(*parts) == {one.patient for one in ears}
    assert sum(len(names) for names in split.cases().values()) == 20


def test_the_division_follows_from_the_seed_and_not_from_the_order(ear: LabeledEar) -> None:
    ears = [of_patient(ear, number) for number in range(10)]
    one = split_by_patient(ears, seed=1, validation_share=0.2)
    assert split_by_patient(ears[::-1], seed=1, validation_share=0.2).cases() == one.cases()
    assert any(split_by_patient(ears, seed=seed, validation_share=0.2).cases() != one.cases() for seed in range(2, 6))


def test_a_digest_tells_other_voxels_and_another_division(ear: LabeledEar) -> None:
    one, two = of_patient(ear, 1), of_patient(ear, 2)
    same, exchanged = Split(training=(one,), validation=(two,)), Split(training=(two,), validation=(one,))
    edited = Split(training=(replace(one, endolymph=0.99 * one.endolymph),), validation=(two,))
    assert Split(training=(one,), validation=(two,)).digest() == same.digest()
    assert len({same.digest(), exchanged.digest(), edited.digest()}) == 3


@pytest.mark.parametrize(("patients", "held_out", "needed"), [(1, 0.0, 2), (2, 0.2, 3)])
def test_too_few_patients_are_refused_with_the_number_needed(
    ear: LabeledEar, patients: int, held_out: float, needed: int
) -> None:
    ears = [of_patient(ear, number) for number in range(patients)]
    with pytest.raises(CaseError, match=rf"expected at least {needed} patients .*, found {patients}"):
        split_by_patient(ears, seed=1, validation_share=0.2, held_out_share=held_out)


def test_two_patients_are_one_to_train_on_and_one_to_validate_with(ear: LabeledEar) -> None:
    split = split_by_patient([of_patient(ear, n) for n in range(2)], seed=1, validation_share=0.2)
    assert (len(split.training), len(split.validation)) == (1, 1)


def test_a_label_that_reaches_beyond_the_networks_grid_is_refused() -> None:
    wide = grid_around(center_mm(EarSide.LEFT), extent_mm=60.0)
    ear = ball_ear(grid=wide)
    total = ear.total_fluid.array.copy()
    total[2:8] = 1.0
    case = replace(ear, total_fluid=Volume(array=total, geometry=wide)).case(case="wrongly-labeled")
    with pytest.raises(CaseError, match=r"wrongly-labeled, left ear: expected a labyrinth that fits.*labeled as well"):
        labeled_ear(case)


@pytest.mark.parametrize("name", ["mrc", "hydrops"])
def test_an_image_without_contrast_is_refused(name: str) -> None:
    ear = ball_ear()
    flat = Volume(array=np.full_like(ear.images.mrc.array, 5.0), geometry=ear.images.mrc.geometry)
    case = replace(ear, images=replace(ear.images, **{name: flat})).case(case="flat")
    with pytest.raises(CaseError, match="flat, left ear: expected an image with contrast"):
        labeled_ear(case)
