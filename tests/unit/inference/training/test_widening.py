"""More room in a network: the answers stay, the new maps can learn."""

from __future__ import annotations

import pytest
import torch

from inference.networks.ear_unet import EarUNet
from inference.training.widening import can_widen, widen


def trained(*channels: int, seed: int) -> EarUNet:
    """A network whose every parameter and statistic is its own."""
    torch.manual_seed(seed)
    network = EarUNet(channels)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.5 if "running_var" in name else 0.3 * torch.randn(value.shape))
    return network


@pytest.mark.parametrize("wide", [(6, 6, 8), (4, 9, 8), (4, 6, 11), (7, 9, 11)])
@pytest.mark.parametrize("training", [False, True])
def test_a_wider_network_answers_as_the_narrow_one_did(wide: tuple[int, ...], training: bool) -> None:
    narrow, wider = trained(4, 6, 8, seed=1), trained(*wide, seed=2)
    widen(narrow, wider)
    images = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(3))
    for old, new in zip(narrow.train(training)(images), wider.train(training)(images), strict=True):
        assert float(old.detach().abs().max()) > 0.01
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)


def test_new_maps_are_read_and_learn_from_the_second_step_on() -> None:
    narrow, wider = trained(4, 6, 8, seed=1), EarUNet((6, 9, 11))
    widen(narrow, wider)
    before = {name: value.detach().clone() for name, value in wider.named_parameters()}
    step = torch.optim.SGD(wider.parameters(), lr=0.01)
    for _ in range(2):
        logits, log_sd = wider.train()(torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(3)))
        step.zero_grad()
        (logits.square().mean() + log_sd.square().mean()).backward()
        step.step()
    moved = {name: (value.detach() - before[name]).abs() for name, value in wider.named_parameters()}
    assert (moved["head.weight"][:, 4:] > 0).any()
    assert (moved["down.0.0.weight"][4:].flatten(1).amax(dim=1) > 0).any()
    assert (moved["grow.0.weight"][8:].flatten(1).amax(dim=1) > 0).any()


def test_what_cannot_hold_the_old_maps_is_refused() -> None:
    assert can_widen((4, 6), (4, 8))
    assert not can_widen((4, 6), (4, 6))
    assert not can_widen((4, 6), (8, 5))
    assert not can_widen((4, 6), (8, 8, 8))
    with pytest.raises(ValueError, match=r"cannot widen \(4, 6, 8\) feature maps of 4 images to \(6, 5, 8\) of 4"):
        widen(trained(4, 6, 8, seed=1), trained(6, 5, 8, seed=2))
