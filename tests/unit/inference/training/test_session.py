"""From a recipe to a model folder: what is trained, on whom, by which loss, and what the folder tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_ears import ball_ear

from inference.ear_grid import INPUTS
from inference.learned import NetworkSegmenter
from inference.model_store import LoadedModel, load_model
from inference.networks import build_network
from inference.networks.pair import PAIR_INPUTS
from inference.training.crop_pool import CropPool
from inference.training.crops import EarCrop
from inference.training.own_ears import Split, labeled_ear
from inference.training.presets import (
    ALIKE,
    BASE,
    DARK,
    ELSEWHERE,
    EVEN,
    LONGER,
    LUMINA,
    PAPER,
    PRESETS,
    QUICK,
    REARRANGED,
    SHIPPED,
    Preset,
)
from inference.training.session import Session, save, train
from inference.training.trainer import TrainingError, TrainingOptions

SHORT = TrainingOptions(seed=1, steps=2, batch=2, validate_every=1, warm_up=1, half_precision=False)
SMALL = replace(
    QUICK,
    network_options={"channels": [4, 8]},
    options=SHORT,
    crops=2,
    first_seed=101,
    validation_crops=1,
    first_validation_seed=103,
    calibration_crops=0,
)


@pytest.fixture(scope="module")
def own() -> Split:
    """Two patients, one ear each."""
    ears = [labeled_ear(ball_ear(endolymph_mm=mm).case(case=name)) for name, mm in (("anna", 2.0), ("bert", 2.8))]
    return Split(training=(ears[0],), validation=(ears[1],))


@pytest.fixture
def crops(drawn: list[EarCrop], tmp_path: Path) -> Path:
    """The ears that a small training and its validation need, already drawn."""
    folder = tmp_path / "crops"
    for crop in drawn:
        np.save(CropPool(folder, first_seed=crop.seed, count=1).path(0), crop.parts)
    return folder


def session(tmp_path: Path, preset: Preset = SMALL, **more: object) -> Session:
    return Session(**{"preset": preset, "folder": tmp_path / "run", "crops": tmp_path / "crops", **more})


def saved(one: Session, folder: Path) -> LoadedModel:
    save(one, train(one), folder, name="mine", version="1", command="hydrops-node train ...", commit="abc")
    return load_model(folder)


def test_synthetic_ears_become_a_model_folder_that_the_node_can_use(crops: Path, tmp_path: Path) -> None:
    model = saved(session(tmp_path, crops=crops), tmp_path / "model")
    told = model.description.training
    assert (told["command"], told["commit"], told["preset"]) == ("hydrops-node train ...", "abc", "quick")
    assert (told["synthetic_ears"], told["first_synthetic_seed"], told["own_ears"]) == (2, 101, 0)
    assert told["options"]["steps"] == 2
    assert told["validation"]["step"] in (1, 2)
    assert told["versions"]["torch"] == torch.__version__
    assert model.description.interval_scales == {}
    (fluid,) = NetworkSegmenter(model=model).segment([ball_ear().images])
    assert fluid.ratio_half_width is None  # not calibrated yet
    assert np.isfinite(fluid.total_fluid_fraction.array).all()


def test_intervals_are_calibrated_on_ears_of_their_own(drawn: list[EarCrop], crops: Path, tmp_path: Path) -> None:
    last = drawn[-1]
    for n in range(1, 40):  # one ear, scanned 40 times with each input set
        np.save(CropPool(crops, first_seed=last.seed + n, count=1).path(0), last.parts)
    preset = replace(SMALL, calibration_crops=40, first_calibration_seed=last.seed)
    model = saved(session(tmp_path, preset, crops=crops), tmp_path / "model")
    assert set(model.description.interval_scales) == {"PPI_PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR"}
    (fluid,) = NetworkSegmenter(model=model).segment([ball_ear().images])
    assert fluid.ratio_half_width is not None
    assert fluid.ratio_half_width > 0.0


def test_a_sites_own_ears_are_trained_on_and_validated_with(own: Split, tmp_path: Path) -> None:
    model = saved(session(tmp_path, own=own, phantom_share=0.0), tmp_path / "model")
    told = model.description.training
    assert (told["synthetic_ears"], told["own_ears"], told["own_cases"]) == (0, 1, 1)
    assert told["own_digest"] == own.digest()
    assert "1 labeled ears of 1 cases" in told["validated_on"]
    assert "anna" not in str(told)


def test_own_and_synthetic_ears_are_mixed(own: Split, crops: Path, tmp_path: Path) -> None:
    told = saved(session(tmp_path, crops=crops, own=own, phantom_share=0.5), tmp_path / "model").description.training
    assert (told["synthetic_ears"], told["synthetic_share"], told["own_ears"]) == (2, 0.5, 1)


def test_fine_tuning_begins_with_the_weights_of_the_model(own: Split, tmp_path: Path) -> None:
    first = saved(session(tmp_path, own=own, phantom_share=0.0), tmp_path / "first")
    still = replace(SMALL, options=replace(SHORT, steps=1, learning_rate=1e-12, weight_decay=0.0, averaging=0.0))
    tuning = session(tmp_path, still, folder=tmp_path / "tuned", own=own, phantom_share=0.0, start=first)
    tuned = train(tuning).network.state_dict()
    for name, parameter in first.network.named_parameters():
        assert torch.allclose(tuned[name], parameter, atol=1e-6), name
    assert saved(tuning, tmp_path / "second").description.training["started_from"] == first.identity.sha256


def test_a_recipe_with_more_feature_maps_widens_the_model_it_starts_from(own: Split, tmp_path: Path) -> None:
    first = saved(session(tmp_path, own=own, phantom_share=0.0), tmp_path / "first")
    wider = replace(
        SMALL,
        network_options={"channels": [6, 9]},
        options=replace(SHORT, steps=1, learning_rate=1e-12, weight_decay=0.0, averaging=0.0),
    )
    tuning = session(tmp_path, wider, folder=tmp_path / "tuned", own=own, phantom_share=0.0, start=first)
    model = saved(tuning, tmp_path / "second")
    assert model.description.network_options == {"channels": [6, 9]}
    assert model.description.training["started_from"] == first.identity.sha256
    images = torch.randn(1, len(INPUTS), 8, 8, 8, generator=torch.Generator().manual_seed(1))
    for old, new in zip(first.network(images), model.network(images), strict=True):
        torch.testing.assert_close(new, old, atol=0.02, rtol=0.02)  # running statistics move, weights are kept as fp16
    narrow = replace(wider, network_options={"channels": [4, 6]})
    assert session(tmp_path, narrow, own=own, phantom_share=0.0, start=first).network == (
        "ear_unet",
        {"channels": [4, 8]},
    )


def test_a_model_that_sees_other_images_is_no_start(own: Split, tmp_path: Path) -> None:
    first = saved(session(tmp_path, own=own, phantom_share=0.0), tmp_path / "first")
    with pytest.raises(TrainingError, match=r"trains a network that sees MRC, HYDROPS_MI2; model mine 1 sees MRC, HYD"):
        session(tmp_path, PAPER, own=own, phantom_share=0.0, start=first)


def test_the_papers_recipe_trains_its_network_and_the_node_can_use_it(own: Split, tmp_path: Path) -> None:
    paper = replace(PAPER, options=replace(PAPER.options, steps=1, batch=2, validate_every=1))
    model = saved(session(tmp_path, paper, own=own, phantom_share=0.0), tmp_path / "model")
    assert (model.description.network, tuple(model.description.inputs)) == ("oto_unet", PAIR_INPUTS)
    assert "monai" in model.description.training["versions"]
    (fluid,) = NetworkSegmenter(model=model).segment([ball_ear().images])
    assert (fluid.endolymph_fraction.array <= fluid.total_fluid_fraction.array).all()


def test_the_papers_recipe_is_the_published_one() -> None:
    options = PAPER.options
    assert (options.learning_rate, options.weight_decay, options.batch) == (1e-4, 0.1, 8)
    epoch = PAPER.crops // options.batch
    assert options.steps == 100 * epoch
    assert [options.rate(epoch * n) for n in (0, 19, 20, 40)] == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6])
    assert (PAPER.validation_share, PAPER.held_out_share) == (0.2, 0.2)
    assert (options.averaging, options.half_precision, options.validate_every) == (0.0, False, epoch)


def test_the_shipped_recipe_is_the_one_that_made_the_shipped_weights() -> None:
    assert SHIPPED.network == "ear_unet"
    assert SHIPPED.network_options == REARRANGED.network_options == BASE.network_options
    assert SHIPPED.network_options == {"channels": [16, 32, 96, 160]}
    assert (ELSEWHERE.first_seed, ELSEWHERE.first_validation_seed) == (1_000_000, 9_000_000)
    assert LUMINA.first_seed == DARK.first_seed == SHIPPED.first_seed == 2_000_000
    assert SHIPPED.first_validation_seed == 9_000_000
    assert (BASE.options.seed, BASE.options.steps, BASE.rearranged) == (1, 8_000, 0.0)
    assert (REARRANGED.options.seed, REARRANGED.options.steps, REARRANGED.begins_with) == (2, 4_500, "base")
    assert (LONGER.options.seed, LONGER.options.steps, LONGER.begins_with) == (3, 16_000, "rearranged")
    assert (ALIKE.options.seed, ALIKE.options.steps, ALIKE.begins_with) == (7, 10_000, "longer")
    assert (EVEN.options.seed, EVEN.options.steps, EVEN.begins_with) == (11, 16_000, "alike")
    assert (ELSEWHERE.options.seed, ELSEWHERE.options.steps, ELSEWHERE.begins_with) == (13, 16_000, "even")
    assert (LUMINA.options.seed, LUMINA.options.steps, LUMINA.begins_with) == (17, 12_000, "elsewhere")
    assert (DARK.options.seed, DARK.options.steps, DARK.begins_with) == (19, 12_000, "lumina")
    assert (SHIPPED.options.seed, SHIPPED.options.steps, SHIPPED.begins_with) == (23, 12_000, "dark")
    for one, crops in ((EVEN, 4_000), (ELSEWHERE, 4_000), (LUMINA, 3_000), (DARK, 3_000), (SHIPPED, 3_000)):
        assert (one.options.learning_rate, one.crops, one.crops_at_first) == (1.5e-3, crops, 2_000)
    assert EVEN.rearranged == 0.35
    assert {one.rearranged for one in (ELSEWHERE, LUMINA, DARK, SHIPPED)} == {0.5}


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_names_a_network_that_takes_its_images(name: str) -> None:
    preset = PRESETS[name]
    assert preset.name == name
    network = build_network(preset.network, **preset.network_options)
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv3d))
    assert first.in_channels == len(preset.inputs)
    assert preset.inputs in (INPUTS, PAIR_INPUTS)
    assert preset.options.steps % preset.options.validate_every == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"phantom_share": 0.5}, "1 without own ears"),
        ({"workers": 0}, "one or more processes"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        session(tmp_path, **wrong)


def test_a_folder_of_another_training_is_not_continued(own: Split, crops: Path, tmp_path: Path) -> None:
    train(session(tmp_path, crops=crops))
    with pytest.raises(TrainingError, match=r"belongs to a training with another .*own_ears"):
        train(session(tmp_path, own=own, phantom_share=0.0))
