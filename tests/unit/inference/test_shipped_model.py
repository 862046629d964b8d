"""The weights in this repository: what they say of themselves, and that they still measure ears."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.ear_grid import INPUTS, SHAPE, SPACING_MM
from inference.evaluation.cohort import ear_case
from inference.learned import NetworkSegmenter
from inference.method import METHOD
from inference.model_store import SHIPPED, LoadedModel, load_model
from inference.phantom import PhantomOptions, make_study
from inference.training.crops import draw_crop
from inference.training.losses import predicted
from inference.training.presets import PRESETS
from inference.training.scans import REALISTIC, scan
from inference.training.sources import as_fractions, centered
from inference.training.trainer import ear_scores

UNSEEN = range(5_000_000, 5_000_006)
"""Seeds that neither training, validation nor calibration drew."""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(SHIPPED)


def test_the_model_says_how_it_was_made_and_what_it_is_for(model: LoadedModel) -> None:
    told = model.description
    assert told.intended_use.startswith("Research use only. Not for diagnostic use.")
    assert told.training["options"] == asdict(PRESETS["shipped"].options)
    assert "hydrops-node train" in str(told.training["command"])
    assert (told.inputs, told.spacing_mm, told.shape) == (INPUTS, SPACING_MM, SHAPE)
    assert model.identity.learned


def test_every_input_set_has_a_calibrated_interval(model: LoadedModel) -> None:
    assert set(model.description.interval_scales) == {one.value for one in InputSet}
    # Standard errors that hold 95 % of whole studies; below one where the network learned its doubt on harder ears.
    assert all(0.7 < scale < 5.0 for scale in model.description.interval_scales.values())


def test_the_weights_are_a_few_megabytes() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 8 * 2**20


def test_unseen_synthetic_ears_are_measured(model: LoadedModel) -> None:
    """Bounds are half as good again as what the evaluation measures: they notice broken weights, not a bad day."""
    parts = as_fractions(np.stack([centered(draw_crop(seed).parts) for seed in UNSEEN]))
    clear = replace(REALISTIC, ppi_snr=(8.0, 12.0), rare_share=0.0)
    scans = scan(parts, np.random.default_rng(1), within=clear, only=InputSet.PPI_PEI)
    with torch.inference_mode():
        answer = predicted(*model.network(scans.images))
    fluid, endolymph, off = ear_scores(answer, scans.total, scans.endolymph).unbind(dim=1)
    assert float(fluid.mean()) > 0.88
    assert float(endolymph.mean()) > 0.5
    assert float(off.abs().mean()) < 0.06
    assert float(answer.log_sd.exp().max()) < 0.2


RECORDED_WITH = ("3", "8")
"""Method, and version of the weights. Whoever records other numbers of the same weights raises `method.METHOD`."""

RECORDED = {EarSide.RIGHT: 0.10948, EarSide.LEFT: 0.33654}
"""EH ratios of one phantom patient with PPI and PEI; 0.12 and 0.35 are true."""


def test_the_same_method_and_weights_say_the_same_of_the_same_images(model: LoadedModel) -> None:
    assert (METHOD, model.description.version) == RECORDED_WITH
    options = PhantomOptions(
        seed=31,
        eh_ratio={EarSide.RIGHT: 0.12, EarSide.LEFT: 0.35},
        series=("MRC", "PPI", "PEI"),
        matrix=(280, 160, 64),
        step_mm=0.15,
    )
    study = make_study(options)
    cases = [ear_case(study, side, InputSet.PPI_PEI) for side in RECORDED]
    fluids = NetworkSegmenter(model=model).segment([case.images for case in cases])
    for side, fluid in zip(RECORDED, fluids, strict=True):
        total, endolymph = fluid.total_fluid_fraction.array.sum(), fluid.endolymph_fraction.array.sum()
        assert float(endolymph / total) == pytest.approx(RECORDED[side], abs=0.001)
