from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from inference.networks import parameter_count
from inference.networks.ie_vnet import SHAPE, ie_vnet


def test_it_has_the_published_number_of_parameters() -> None:
    assert parameter_count(ie_vnet()) == 4_805_534


def test_it_answers_one_logit_per_voxel() -> None:
    with torch.no_grad():
        answer = ie_vnet().eval()(torch.rand(1, 1, 16, 32, 48))
    assert answer.shape == (1, 1, 16, 32, 48)
    assert torch.isfinite(answer).all()


def test_the_published_crop_fits_four_halvings() -> None:
    assert [size % 16 for size in SHAPE] == [0, 0, 0]


def test_it_is_a_v_net_of_residual_units_with_dropout_and_instance_normalization() -> None:
    kinds = [type(module) for module in ie_vnet().modules()]
    assert {nn.PReLU, nn.InstanceNorm3d, nn.ConvTranspose3d} <= set(kinds)
    assert nn.MaxPool3d not in kinds
    assert {module.p for module in ie_vnet().modules() if isinstance(module, nn.Dropout)} == {0.5}


def test_without_monai_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets.unet", None)  # what Python does for a missing module
    with pytest.raises(ModuleNotFoundError, match=r"ie_vnet is built by MONAI.*pip install '\.\[train\]'"):
        ie_vnet()
