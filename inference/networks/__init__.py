"""The networks by name: what `network` and `network_options` of a model folder mean.

One file per architecture. `ear_finder` and `ear_unet` are what the node ships; `oto_unet` and `ie_vnet` are the
published ones that the latter is compared with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

from inference.networks.ear_finder import EarFinder
from inference.networks.ear_unet import EarUNet
from inference.networks.ie_vnet import ie_vnet
from inference.networks.oto_unet import OtoUNet

NETWORKS: Final[Mapping[str, Callable[..., nn.Module]]] = MappingProxyType(
    {"ear_unet": EarUNet, "ear_finder": EarFinder, "oto_unet": OtoUNet, "ie_vnet": ie_vnet}
)


def build_network(name: str, **options: object) -> nn.Module:
    """A network of freshly drawn weights, on torch's default device.

    Parameters
    ----------
    name
        A key of `NETWORKS`.
    options
        Arguments of that network; what is not given keeps its default.

    Raises
    ------
    ValueError
        If there is no such network, if it has no such option, or if it refuses an option's value.
    ModuleNotFoundError
        If the network needs a package of the extra `train` that is not installed.
    """
    builder = NETWORKS.get(name)
    if builder is None:
        raise ValueError(f"expected one of the networks {', '.join(NETWORKS)}, found {name!r}")
    known = inspect.signature(builder).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"network {name} has the options {', '.join(known) or '(none)'}, found {', '.join(map(repr, unknown))}"
        )
    return builder(**options)


def input_channels(network: nn.Module) -> int:
    """How many image channels a network takes: those of its first convolution.

    Raises
    ------
    ValueError
        If it has no 3D convolution.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            return module.in_channels
    raise ValueError(f"expected a network of 3D convolutions, found {type(network).__name__}")


def parameter_count(network: nn.Module) -> int:
    """Trained numbers; running means and variances of a normalization are none."""
    return sum(parameter.numel() for parameter in network.parameters())
