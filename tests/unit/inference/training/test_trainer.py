"""Trainings stop and go on without a trace, keep the best weights, and refuse what is not theirs."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inference.cases import InputSet
from inference.networks.ear_unet import EarUNet
from inference.training.losses import predicted
from inference.training.scans import Scans
from inference.training.trainer import CHECKPOINT, LOG, Trained, Trainer, TrainingError, TrainingOptions, ear_scores

SHAPE = (8, 16, 16)
OPTIONS = TrainingOptions(seed=4, steps=6, batch=2, validate_every=3, warm_up=2, averaging=0.9)


@dataclass(frozen=True)
class BoxSource:
    """Boxes of fluid in noise: bright on channel 0, their endolymph dark on channel 1."""

    noise: float = 0.2

    def batch(self, size: int, *, step: int, rng: np.random.Generator) -> Scans:
        total, endolymph = torch.zeros(size, *SHAPE), torch.zeros(size, *SHAPE)
        for ear in range(size):
            k, j, i = (int(n) for n in rng.integers(1, 4, 3))
            total[ear, k : k + 4, j : j + 9, i : i + 9] = 1.0
            endolymph[ear, k : k + 2, j : j + 5, i : i + 6] = 1.0
        images = torch.from_numpy(rng.normal(0.0, self.noise, (size, 4, *SHAPE)).astype(np.float32))
        images[:, 0] += total
        images[:, 1] += total - 2.0 * endolymph
        return Scans(images=images, total=total, endolymph=endolymph, sets=(InputSet.HYDROPS,) * size)


VALIDATION = [BoxSource().batch(3, step=0, rng=np.random.default_rng(99))]


def network(seed: int = 7) -> nn.Module:
    torch.manual_seed(seed)
    return EarUNet(channels=(8, 16))


def trainer(folder: Path, options: TrainingOptions = OPTIONS, **more: object) -> Trainer:
    settings = {"network": network(), "source": BoxSource(), "validation": VALIDATION, **more}
    return Trainer(**settings, options=options, folder=folder)


class PowerCut(Exception):
    pass


def stopped_after(step: int, running: Trainer) -> None:
    def cut(done: int, *_: object) -> None:
        if done == step:
            raise PowerCut

    with pytest.raises(PowerCut):
        running.run(cut)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return trained.network.state_dict()


def test_a_training_that_was_cut_ends_with_the_very_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole").run()
    stopped_after(4, trainer(tmp_path / "cut"))
    steps: list[int] = []
    resumed = trainer(tmp_path / "cut").run(lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6]  # step 4 is repeated from the checkpoint of step 3
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(resumed).items())
    assert [replace(figures, seconds=0.0) for figures in resumed.history] == [
        replace(figures, seconds=0.0) for figures in whole.history
    ]


def test_another_seed_comes_to_other_weights(tmp_path: Path) -> None:
    one, other = trainer(tmp_path / "a").run(), trainer(tmp_path / "b", replace(OPTIONS, seed=5)).run()
    assert any(not torch.equal(weights(one)[name], value) for name, value in weights(other).items())


def test_it_learns(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=60, validate_every=20, learning_rate=1e-2, half_precision=False)
    losses: list[float] = []
    trained = trainer(tmp_path, options).run(lambda _step, loss, _figures: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert trained.best.fluid_dice > 0.8
    assert trained.best.score == max(figures.score for figures in trained.history)


def test_the_weights_given_back_are_those_of_the_best_validation(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=24, validate_every=4, learning_rate=0.05, half_precision=False)
    trained = trainer(tmp_path, options).run()
    with torch.inference_mode():
        answer = predicted(*trained.network(VALIDATION[0].images))
    fluid, endolymph, off = ear_scores(answer, VALIDATION[0].total, VALIDATION[0].endolymph).unbind(dim=1)
    assert float(fluid.mean()) == pytest.approx(trained.best.fluid_dice, abs=1e-3)
    assert float(endolymph.mean()) == pytest.approx(trained.best.endolymph_dice, abs=1e-3)
    assert float(off.abs().mean()) == pytest.approx(trained.best.ratio_mae, abs=1e-3)


def test_the_log_has_a_line_for_every_validation(tmp_path: Path) -> None:
    trained = trainer(tmp_path).run()
    with (tmp_path / LOG).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [3, 6]
    assert [float(row["fluid_dice"]) for row in rows] == [figures.fluid_dice for figures in trained.history]


@pytest.mark.parametrize(
    ("options", "identity", "named"),
    [
        (replace(OPTIONS, learning_rate=0.5), {"network": "ear_unet"}, r"learning_rate \(0.002, now 0.5\)"),
        (OPTIONS, {"network": "oto_unet"}, r"network \(ear_unet, now oto_unet\)"),
    ],
)
def test_the_checkpoint_of_another_training_is_not_continued(
    tmp_path: Path, options: TrainingOptions, identity: dict[str, object], named: str
) -> None:
    stopped_after(3, trainer(tmp_path, identity={"network": "ear_unet"}))
    with pytest.raises(TrainingError, match=f"another {named}; choose an empty folder"):
        trainer(tmp_path, options, identity=identity).run()


def test_a_checkpoint_older_than_an_option_was_trained_with_its_default(tmp_path: Path) -> None:
    stopped_after(3, trainer(tmp_path))
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["options"]["decay_every"], state["identity"]
    torch.save(state, tmp_path / CHECKPOINT)
    assert trainer(tmp_path).run().history[-1].step == OPTIONS.steps


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    stopped_after(3, trainer(tmp_path))
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: expected a checkpoint.*delete it"):
        trainer(tmp_path).run()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([1, 2], "expected a checkpoint with .*, found list"),
        ({"epoch": 3}, "expected a checkpoint with .*, found epoch; delete it"),
    ],
)
def test_a_file_that_is_no_checkpoint_of_ours_is_named(tmp_path: Path, other: object, message: str) -> None:
    stopped_after(3, trainer(tmp_path))
    torch.save(other, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match=message):
        trainer(tmp_path).run()


def test_a_checkpoint_with_weights_of_another_network_is_named(tmp_path: Path) -> None:
    stopped_after(3, trainer(tmp_path))
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["network"] = {"somewhere.else": torch.zeros(1)}
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="expected the weights of this network, found others"):
        trainer(tmp_path).run()


def test_a_loss_that_is_no_number_ends_the_training_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0; lower the learning rate"):
        trainer(tmp_path, source=BoxSource(noise=float("nan"))).run()


def test_without_ears_to_validate_on_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to validate on"):
        trainer(tmp_path, validation=[])


def test_the_learning_rate_rises_and_falls_as_a_half_cosine() -> None:
    options = TrainingOptions(steps=1000, warm_up=100, learning_rate=1e-2)
    rates = [options.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[100] == pytest.approx(1e-2)
    assert all(after < before for before, after in pairwise(rates[100:]))
    assert rates[550] == pytest.approx(5e-3, rel=0.01)
    assert rates[-1] < 1e-6


def test_the_learning_rate_falls_by_steps_where_the_recipe_says_so() -> None:
    options = TrainingOptions(steps=100, warm_up=0, learning_rate=1e-4, decay_every=20)
    assert [options.rate(step) for step in (0, 19, 20, 40)] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6])


def test_scores_are_one_for_the_truth_and_for_agreement_on_nothing() -> None:
    truth = VALIDATION[0]
    share = truth.endolymph / truth.total.clamp(min=1e-6)
    exact = predicted(torch.logit(torch.stack([truth.total, share], dim=1), eps=1e-6), torch.zeros(3))
    assert torch.allclose(ear_scores(exact, truth.total, truth.endolymph), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3)
    nothing = torch.zeros_like(truth.total)
    empty = predicted(torch.full((3, 2, *SHAPE), -30.0), torch.zeros(3))
    assert torch.allclose(ear_scores(empty, nothing, nothing), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3)
