"""The ear finder's training: heads with known ears, slabs that keep them, and a loss that is least at the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model_store import load_model, save_model
from inference.training.finder import PLACES, FinderTraining, choice_loss, describe, train, validate, wanted_choice
from inference.training.heads import SHAPE, HeadImages, draw_head
from inference.training.slabs import WINDOW, Slab, draw_slab
from inference.training.trainer import TrainingError

HEAD_SEED = 3
"""A head with both ears."""


@pytest.fixture(scope="module")
def head() -> HeadImages:
    return draw_head(HEAD_SEED)


def example(present: tuple[int, int] = (1, 0)) -> Slab:
    return Slab(
        image=np.zeros(WINDOW, np.float32),
        ears=np.array([[20.5, 30.5, 24.5], [20.0, 30.0, 60.0]]),
        present=np.array(present),
    )


def test_a_heads_ears_are_where_it_is_bright(head: HeadImages) -> None:
    assert head.images.shape[1:] == SHAPE
    image = head.images[0].astype(np.float32)
    for ear in np.rint(head.ears).astype(int):
        around = image[tuple(slice(at - 4, at + 5) for at in ear)]
        assert (around > 0.5).sum() * 8.0 > 80.0
    assert head.ears[0, 2] < head.ears[1, 2]


def test_the_same_seed_is_the_same_head(head: HeadImages) -> None:
    again = draw_head(HEAD_SEED)
    assert np.array_equal(again.images, head.images)
    assert np.array_equal(again.ears, head.ears)


def test_an_ear_to_be_found_is_seen_in_every_slab(head: HeadImages) -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(12):
        slab = draw_slab(rng, [head], plain=True)
        assert slab.image.shape == WINDOW
        for ear, present in zip(slab.ears, slab.present, strict=True):
            if present == 1:
                around = slab.image[tuple(slice(max(0, int(at) - 4), int(at) + 5) for at in ear)]
                assert around.max() > 0.4
                seen += 1
    assert seen > 6


def test_disturbed_slabs_keep_the_right_ear_on_the_right(head: HeadImages) -> None:
    rng = np.random.default_rng(1)
    for _ in range(8):
        slab = draw_slab(rng, [head])
        assert np.isfinite(slab.image).all()
        if not np.isnan(slab.ears).any():
            assert slab.ears[0, 2] < slab.ears[1, 2]


def test_what_is_wanted_is_a_choice_between_places_and_nowhere() -> None:
    wanted = wanted_choice(example())
    assert wanted.shape == (2, int(np.prod(PLACES)) + 1)
    assert np.allclose(wanted.sum(axis=1), 1.0)
    assert wanted[1, -1] == 1.0
    assert np.unravel_index(int(wanted[0, :-1].argmax()), PLACES) == (10, 15, 12)


def test_the_loss_is_least_at_the_truth_and_blind_to_cut_ears() -> None:
    slab = example(present=(1, -1))
    truth = torch.from_numpy(np.log(wanted_choice(slab) + 1e-9))[None]
    elsewhere = truth.roll(500, dims=-1)
    assert choice_loss(truth, [slab]) < choice_loss(elsewhere, [slab])
    changed = truth.clone()
    changed[0, 1] = 0.0
    assert choice_loss(changed, [slab]) == choice_loss(truth, [slab])


def test_a_short_training_repeats_itself_and_can_be_saved(head: HeadImages, tmp_path: Path) -> None:
    options = FinderTraining(heads=1, held_out=0, steps=2, batch=1)
    one, other = train([head], options), train([head], options)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    figures = validate(one, [head], slabs=2, seed=0)
    assert figures.ears + figures.absent <= 4
    save_model(tmp_path, one, describe(options, figures, 1.0, command="hydrops-node train"))
    assert load_model(tmp_path).description.training["steps"] == 2


def test_a_recipe_without_a_head_to_train_on_is_refused() -> None:
    with pytest.raises(TrainingError, match="more heads than the 16 held out, found 16"):
        FinderTraining(heads=16)
