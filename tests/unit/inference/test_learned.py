"""The segmenter that learned, around a network simple enough to know what it will answer."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from ball_ears import (
    ENDOLYMPH_MM3,
    FLUID_MM3,
    LEFT,
    POSTERIOR,
    SUPERIOR,
    BallEar,
    ball_ear,
    center_mm,
    grid_around,
)
from torch import Tensor, nn

from inference.anatomy import EarSide
from inference.ear_grid import INPUTS, SHAPE, SPACING_MM
from inference.findings import EarFluid, EarImages, ModelIdentity
from inference.geometry import Volume
from inference.learned import WIDEST, NetworkSegmenter, input_set
from inference.model_store import LoadedModel, ModelDescription, ModelError
from inference.networks.pair import PAIR_INPUTS

OBLIQUE = (SUPERIOR * np.cos(0.5) - POSTERIOR * np.sin(0.5), POSTERIOR * np.cos(0.5) + SUPERIOR * np.sin(0.5), LEFT)
SLABS = {
    "axial": (SUPERIOR, POSTERIOR, LEFT),
    "turned about all axes": (-SUPERIOR, -POSTERIOR, -LEFT),
    "coronal": (-POSTERIOR, -SUPERIOR, LEFT),
    "along the canal": OBLIQUE,
}


class ReadsGrayValues(nn.Module):
    """Half the fluid level is half a voxel of fluid; fluid that is dark on HYDROPS is endolymph."""

    def __init__(self, ratio_sd: float = 0.02) -> None:
        super().__init__()
        self.ratio_sd = ratio_sd

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fluid = images[:, 0].clamp(1e-4, 1.0 - 1e-4)
        share = (0.5 - 2.0 * (images[:, 1] + images[:, 3]) / fluid).clamp(1e-4, 1.0 - 1e-4)
        return torch.logit(torch.stack([fluid, share], dim=1)), images.new_full((len(images),), log(self.ratio_sd))


class ReadsPairs(nn.Module):
    """The same for MRC and HYDROPS-Mi2, as two maps."""

    def forward(self, images: Tensor) -> Tensor:
        fluid = images[:, 0].clamp(1e-4, 1.0 - 1e-4)
        endolymph = torch.where(images[:, 1] < 0.0, 1.5 * fluid, torch.zeros_like(fluid))  # partly above total fluid
        return torch.logit(torch.stack([fluid, endolymph.clamp(1e-4, 1.0 - 1e-4)], dim=1))


DESCRIPTION = ModelDescription(
    name="reads-gray-values",
    version="1",
    network="ear_unet",
    network_options={},
    inputs=INPUTS,
    spacing_mm=SPACING_MM,
    shape=SHAPE,
    interval_scales={"HYDROPS": 2.5},
    training={},
    intended_use="Research use only: a test.",
    weights_sha256="0" * 64,
)


def segmenter(network: nn.Module | None = None, **told: object) -> NetworkSegmenter:
    description = replace(DESCRIPTION, **told)
    identity = ModelIdentity(name=description.name, version=description.version, sha256="0" * 64)
    return NetworkSegmenter(
        model=LoadedModel(network=network or ReadsGrayValues(), description=description, identity=identity)
    )


def segment(*ears: BallEar, network: nn.Module | None = None, **told: object) -> list[EarFluid]:
    return segmenter(network, **told).segment([ear.images for ear in ears])


def volume_mm3(volume: Volume) -> float:
    return float(volume.array.sum(dtype=np.float64)) * volume.geometry.voxel_volume_mm3


def center_of(volume: Volume) -> np.ndarray:
    places = np.argwhere(volume.array > 0.0)
    return volume.geometry.to_lps(np.average(places, axis=0, weights=volume.array[tuple(places.T)]))


@pytest.mark.parametrize("side", EarSide)
@pytest.mark.parametrize("axes", SLABS.values(), ids=SLABS.keys())
def test_fluid_comes_back_where_it_lies_on_the_ears_own_grid(side: EarSide, axes: tuple) -> None:
    spacing = tuple(1.0 if np.argmax(np.abs(axis)) == 2 else 0.5 for axis in axes)
    ear = ball_ear(side, grid_around(center_mm(side), axes=axes, spacing=spacing))
    (fluid,) = segment(ear)
    assert fluid.total_fluid_fraction.geometry is ear.images.roi.geometry
    assert volume_mm3(fluid.total_fluid_fraction) == pytest.approx(FLUID_MM3, rel=0.03)
    assert volume_mm3(fluid.endolymph_fraction) == pytest.approx(ENDOLYMPH_MM3, rel=0.25)
    assert np.abs(center_of(fluid.total_fluid_fraction) - center_of(ear.total_fluid)).max() < 0.1
    assert np.abs(center_of(fluid.endolymph_fraction) - center_of(ear.endolymph)).max() < 0.15
    assert (fluid.endolymph_fraction.array <= fluid.total_fluid_fraction.array).all()


def test_both_ears_of_a_mirrored_head_have_the_same_numbers() -> None:
    left, right = segment(ball_ear(EarSide.LEFT), ball_ear(EarSide.RIGHT))
    for one, other in (
        (left.total_fluid_fraction, right.total_fluid_fraction),
        (left.endolymph_fraction, right.endolymph_fraction),
    ):
        assert volume_mm3(one) == pytest.approx(volume_mm3(other), rel=1e-3)


def test_an_ear_is_the_same_alone_and_beside_another() -> None:
    (alone,) = segment(ball_ear(EarSide.RIGHT))
    _, beside = segment(ball_ear(EarSide.LEFT), ball_ear(EarSide.RIGHT))
    assert np.allclose(alone.total_fluid_fraction.array, beside.total_fluid_fraction.array, atol=1e-5)


def test_an_ear_at_the_edge_of_the_box_is_looked_at_again_in_its_middle() -> None:
    grid = grid_around(center_mm(EarSide.LEFT), extent_mm=44.0)
    (far,) = segment(ball_ear(grid=grid, believed_off_mm=(10.5, 0.0, 0.0)))
    assert volume_mm3(far.total_fluid_fraction) == pytest.approx(FLUID_MM3, rel=0.03)


@pytest.mark.parametrize(("gap_mm", "kept"), [(1.0, True), (4.0, False)])
def test_only_fluid_near_the_labyrinth_belongs_to_it(gap_mm: float, kept: bool) -> None:
    (fluid,) = segment(ball_ear(stray_mm=gap_mm))
    stray_mm3 = 4.0 / 3.0 * np.pi * 1.5**3
    assert volume_mm3(fluid.total_fluid_fraction) == pytest.approx(FLUID_MM3 + kept * stray_mm3, rel=0.04)


def test_a_box_without_fluid_gives_no_fluid() -> None:
    ear = ball_ear()
    dark = Volume(array=np.zeros_like(ear.images.mrc.array), geometry=ear.images.mrc.geometry)
    (fluid,) = segmenter().segment([replace(ear.images, mrc=dark, hydrops=dark)])
    assert not fluid.total_fluid_mask.array.any()
    assert not fluid.endolymph_fraction.array.any()


def test_no_ears_give_no_fluid() -> None:
    assert segment() == []


def test_the_interval_is_the_networks_own_error_times_the_input_sets_scale() -> None:
    assert segment(ball_ear(), network=ReadsGrayValues(ratio_sd=0.08))[0].ratio_half_width == pytest.approx(0.2)
    assert segment(ball_ear(), interval_scales={"REAL_IR": 2.5})[0].ratio_half_width is None
    assert segment(ball_ear(), network=ReadsGrayValues(ratio_sd=0.4))[0].ratio_half_width == WIDEST


def test_every_input_set_has_its_own_interval() -> None:
    images = ball_ear().images
    seen: dict[str, EarImages] = {
        "HYDROPS": images,
        "PPI_PEI": replace(images, ppi=images.mrc),
        "REAL_IR": replace(images, phase_sensitive=True),
        "HYDROPS_MI2": replace(images, from_product=True),
    }
    assert {name: input_set(ear) for name, ear in seen.items()} == {name: name for name in seen}


def test_a_network_for_pairs_is_asked_with_the_product_of_mrc_and_hydrops() -> None:
    (fluid,) = segment(ball_ear(), network=ReadsPairs(), inputs=PAIR_INPUTS)
    assert volume_mm3(fluid.total_fluid_fraction) == pytest.approx(FLUID_MM3, rel=0.03)
    assert volume_mm3(fluid.endolymph_fraction) == pytest.approx(ENDOLYMPH_MM3, rel=0.25)
    assert (fluid.endolymph_fraction.array <= fluid.total_fluid_fraction.array).all()


@pytest.mark.parametrize(
    "told",
    [{"inputs": ("MRC",)}, {"spacing_mm": (0.2, 0.2, 0.2)}, {"shape": (112, 160, 208)}],
    ids=["images", "mm", "size"],
)
def test_a_model_for_other_images_is_refused_with_what_it_expects(told: dict) -> None:
    with pytest.raises(ModelError, match=r"reads-gray-values 1 expects .* the node makes"):
        segmenter(**told)
