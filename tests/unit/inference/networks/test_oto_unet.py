"""Parameter counts of the published code: Table 3 of the HydropsOTO paper prints the sum."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inference.networks import parameter_count
from inference.networks.oto_unet import OtoUNet


def logits(network: nn.Module, *size: int) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = network.eval()(torch.randn(1, 2, *size))
    return answer


def test_every_stage_has_the_published_number_of_parameters() -> None:
    network = OtoUNet()
    assert [parameter_count(stage) for stage in network.encoder] == [7_872, 41_664, 166_272, 664_320, 885_504]
    assert [parameter_count(stage) for stage in network.decoder] == [553_344, 138_432, 34_656, 20_832]
    assert parameter_count(network.upsample) == 0
    assert parameter_count(network.head) == 34


def test_it_has_exactly_the_printed_2512930_parameters() -> None:
    assert parameter_count(OtoUNet()) == 2_512_930


@pytest.mark.parametrize("as_printed", [False, True])
@pytest.mark.parametrize("size", [(24, 64, 64), (16, 16, 16), (19, 33, 50)])
def test_it_answers_two_logits_per_voxel_at_any_size(as_printed: bool, size: tuple[int, int, int]) -> None:
    answer = logits(OtoUNet(as_printed=as_printed), *size)
    assert answer.shape == (1, 2, *size)
    assert torch.isfinite(answer).all()


def test_as_printed_it_learns_to_upsample_and_does_not_normalize() -> None:
    network = OtoUNet(as_printed=True)
    kinds = {type(module) for module in network.modules()}
    assert nn.ConvTranspose3d in kinds
    assert nn.BatchNorm3d not in kinds
    normalization = 2 * sum(2 * width for width in (16, 32, 64, 128, 128, 64, 32, 16, 16))
    learned = sum(8 * width**2 + width for width in (128, 64, 32, 16))
    assert parameter_count(network) == 2_512_930 - normalization + learned


def test_each_answer_depends_on_both_images() -> None:
    torch.manual_seed(1)
    network = OtoUNet().eval()
    images = torch.randn(1, 2, 16, 16, 16)
    with torch.no_grad():
        answer = network(images)
        for channel in range(2):
            changed = images.clone()
            changed[:, channel] += 1.0
            difference = (network(changed) - answer).abs().amax(dim=(0, 2, 3, 4))
            assert (difference > 0).all()


def test_both_answers_are_free_of_each_other() -> None:
    """A softmax would tie them: endolymph lies inside total fluid, so both must be able to be true."""
    network = OtoUNet()
    assert isinstance(network.head, nn.Conv3d)
    with torch.no_grad():
        network.head.weight.zero_()
        assert network.head.bias is not None
        network.head.bias.fill_(3.0)
    assert (torch.sigmoid(logits(network, 16, 16, 16)) > 0.9).all()
