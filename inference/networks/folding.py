"""A network as it is asked, not trained: its batch normalizations inside the convolutions before them."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """A copy for answering alone: evaluation mode, channels last, one pass over memory fewer for each convolution.

    A normalization by running means is a factor and an offset for each channel, so the answers are the same but for
    rounding. Only those that follow a convolution directly, in one `Sequential`, are folded; others stay.
    """
    copy = deepcopy(network).eval()
    for part in list(copy.modules()):
        if isinstance(part, nn.Sequential):
            _fold(part)
    copied: nn.Module = copy.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # unknown to the stubs
    return copied


def _fold(layers: nn.Sequential) -> None:
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm3d) and kept and isinstance(kept[-1], nn.Conv3d):
            kept[-1] = fuse_conv_bn_eval(kept[-1], layer)
        else:
            kept.append(layer)
    if len(kept) < len(layers):
        del layers[:]
        layers.extend(kept)
