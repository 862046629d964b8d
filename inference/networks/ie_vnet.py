"""IE-Vnet: a V-Net-like network of MONAI that segments total fluid on a T2-SPACE crop at 0.2 mm.

Published by Ahmadi et al., Frontiers in Neurology 2022, as MONAI's U-Net with strided convolutions, residual units,
instance normalization and PReLU. It knows neither contrast agent nor endolymph: a second opinion on total fluid.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

WIDTHS: Final = (16, 32, 64, 128, 256)
STRIDES: Final = (2, 2, 2, 2)
RESIDUAL_UNITS: Final = 2
DROPOUT: Final = 0.5

SHAPE: Final = (112, 160, 208)
"""(K, J, I) of the published crop, 100 x 150 x 200 voxels, after zero padding to multiples of 16."""

SPACING_MM: Final = (0.2, 0.2, 0.2)


def ie_vnet() -> nn.Module:
    """The network: (B, 1, K, J, I) MRC, 0..1, to (B, 1, K, J, I) logits of total fluid; sizes in multiples of 16.

    Raises
    ------
    ModuleNotFoundError
        If MONAI, which the running node does not need, is not installed.
    """
    try:
        with torch.device("cpu"):  # tensors that MONAI makes while it is imported shall not follow a caller's device
            from monai.networks.nets.unet import UNet
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "the network ie_vnet is built by MONAI, which is not installed; install hydrops-node with its extra "
            "`train`: pip install '.[train]'",
            name=missing.name,
        ) from missing
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=WIDTHS,
        strides=STRIDES,
        num_res_units=RESIDUAL_UNITS,
        dropout=DROPOUT,
    )
