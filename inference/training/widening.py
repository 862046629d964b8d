"""A network made wider without a change of its answers, so that more room costs none of the training that was done.

Old feature maps are computed as before. New ones begin at random and nothing reads them yet: the weights by which old
maps read new ones begin at zero, and learn from the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from inference.networks.ear_unet import EarUNet

Layer = TypeVar("Layer", bound=nn.Module)


def can_widen(narrow: Sequence[int], wide: Sequence[int]) -> bool:
    """Whether a network of `wide` feature maps per level has room for all of one of `narrow`, and for more."""
    return (
        len(narrow) == len(wide) and narrow != wide and all(few <= many for few, many in zip(narrow, wide, strict=True))
    )


@torch.no_grad()
def widen(narrow: EarUNet, wide: EarUNet) -> None:
    """Give `wide`, freshly drawn, the answers of `narrow`.

    Raises
    ------
    ValueError
        If a level of `wide` has fewer maps, or the two have not as many levels and inputs.
    """
    few, many = narrow.channels, wide.channels
    if narrow.inputs != wide.inputs or not can_widen(few, many):
        raise ValueError(f"cannot widen {few} feature maps of {narrow.inputs} images to {many} of {wide.inputs}")
    seen = torch.arange(narrow.inputs)
    for level, (old, new) in enumerate(zip(narrow.down, wide.down, strict=True)):
        _stage(old, new, seen if level == 0 else torch.arange(few[level - 1]))
    for step, level in enumerate(reversed(range(len(few) - 1))):
        _transposed(cast(nn.ConvTranspose3d, narrow.grow[step]), cast(nn.ConvTranspose3d, wide.grow[step]))
        own = torch.arange(few[level])
        _stage(narrow.up[step], wide.up[step], torch.cat([own, own + many[level]]))  # grown maps, then skipped ones
    _read_out(narrow.head, wide.head)
    _read_out(cast(nn.Linear, narrow.doubt[0]), cast(nn.Linear, wide.doubt[0]))
    wide.doubt[2].load_state_dict(narrow.doubt[2].state_dict())


def _stage(old: nn.Module, new: nn.Module, read: Tensor) -> None:
    """Two convolutions with their normalizations; `read` says where the maps lie that the first one has read."""
    (first, second), (new_first, new_second) = (_layers(one, nn.Conv3d) for one in (old, new))
    maps = len(first.weight)
    for narrow, wide, places in ((first, new_first, read), (second, new_second, torch.arange(maps))):
        weight = torch.zeros_like(wide.weight[:maps])
        weight[:, places] = narrow.weight
        wide.weight[:maps] = weight
    for normal, new_normal in zip(_layers(old, nn.BatchNorm3d), _layers(new, nn.BatchNorm3d), strict=True):
        state = new_normal.state_dict()
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[name][:maps] = normal.state_dict()[name]


def _layers(stage: nn.Module, kind: type[Layer]) -> list[Layer]:
    return [layer for layer in stage.children() if isinstance(layer, kind)]


def _transposed(old: nn.ConvTranspose3d, new: nn.ConvTranspose3d) -> None:
    """Weights stand by what is read, then by what is made."""
    before, after = old.weight.shape[:2]
    new.weight[before:, :after] = 0.0
    new.weight[:before, :after] = old.weight
    assert old.bias is not None
    assert new.bias is not None
    new.bias[:after] = old.bias


def _read_out(old: nn.Conv3d | nn.Linear, new: nn.Conv3d | nn.Linear) -> None:
    """A layer whose answers are as many as before."""
    new.weight.zero_()
    new.weight[:, : old.weight.shape[1]] = old.weight
    assert old.bias is not None
    assert new.bias is not None
    new.bias.copy_(old.bias)
