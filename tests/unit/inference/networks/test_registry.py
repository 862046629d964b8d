from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from inference.networks import NETWORKS, build_network, input_channels, parameter_count


def test_the_registry_knows_the_shipped_network_and_both_published_ones() -> None:
    assert {"ear_unet", "oto_unet", "ie_vnet"} <= set(NETWORKS)


@pytest.mark.parametrize(("name", "channels"), [("ear_unet", 4), ("oto_unet", 2), ("ie_vnet", 1)])
def test_a_network_says_how_many_images_it_takes(name: str, channels: int) -> None:
    assert input_channels(build_network(name)) == channels


@pytest.mark.parametrize("name", ["ear_unet", "oto_unet"])
def test_the_number_of_images_is_an_option(name: str) -> None:
    assert input_channels(build_network(name, inputs=3)) == 3


def test_options_from_json_build_the_network_they_describe() -> None:
    network = build_network("ear_unet", channels=[16, 32], inputs=2)
    logits, log_sd = network.eval()(torch.zeros(2, 2, 8, 16, 16))
    assert logits.shape == (2, 2, 8, 16, 16)
    assert log_sd.shape == (2,)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=rf"expected one of the networks {', '.join(NETWORKS)}, found 'nnunet'"):
        build_network("nnunet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ear_unet", "network ear_unet has the options channels, inputs, found 'depth', 'width'"),
        ("ie_vnet", "network ie_vnet has the options (none), found 'depth', 'width'"),
    ],
)
def test_an_unknown_option_is_refused_with_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build_network(name, width=3, depth=4)


@pytest.mark.parametrize(("name", "options"), [("ear_unet", {"channels": (16,)}), ("oto_unet", {"inputs": 0})])
def test_impossible_option_values_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"need .* found"):
        build_network(name, **options)


def test_a_network_without_3d_convolutions_takes_no_volumes() -> None:
    with pytest.raises(ValueError, match="expected a network of 3D convolutions, found Conv2d"):
        input_channels(nn.Conv2d(1, 1, 3))


def test_running_statistics_are_no_parameters() -> None:
    assert parameter_count(nn.BatchNorm3d(10)) == 20


def test_the_nodes_own_network_has_the_documented_number_of_parameters() -> None:
    assert parameter_count(build_network("ear_unet")) == 2_496_691
