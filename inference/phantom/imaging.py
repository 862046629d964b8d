"""What the scanner adds: receive coil, thermal noise, magnitude, and the ways vendors store a subtraction."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from inference.geometry import VolumeGeometry


class HydropsCoding(StrEnum):
    """How the console keeps the negative half of a subtraction."""

    SIGNED = "signed"
    OFFSET = "offset"
    CLIPPED = "clipped"


HYDROPS_OFFSET: Final = 2048.0
"""Background level of an offset-coded subtraction: the middle of 12 bits."""

MI2_OFFSET: Final = 400_000.0
"""The same for the product with the MRC, whose values reach 200 000."""

COIL_RELATIVE_DROP: Final = 0.25
"""Signal lost from the head's surface to its middle with a head coil; sides differ besides (620 against 465 seen)."""


def coil_gain(geometry: VolumeGeometry, side_difference: float) -> NDArray[np.float32]:
    """(K, J, I) float32 receive gain, 1 at the ears on average, `side_difference` larger on the left than the right."""
    shape = geometry.shape
    axes = [np.linspace(0.0, n - 1.0, 9) for n in shape]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    lps = geometry.to_lps(index)
    radius2 = ((lps / 90.0) ** 2).sum(axis=-1)
    at_ear = (39.0 / 90.0) ** 2
    gain = 1.0 + COIL_RELATIVE_DROP * (radius2 - at_ear) + side_difference / 2.0 * lps[..., 0] / 39.0
    coarse = torch.from_numpy(np.clip(gain, 0.4, 2.0).astype(np.float32))[None, None]
    full = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    gains: NDArray[np.float32] = full[0, 0].numpy()
    return gains


def with_ghosts(signed: NDArray[np.float32], amplitude: float) -> NDArray[np.float32]:
    """`signed` (K, J, I) with ghosts of a patient who breathes or swallows.

    A periodic phase error between the lines of k-space adds a sideband on either side along the rows' direction (j),
    `amplitude` (0..1) times the image and of opposite sign, a quarter of the field of view away.
    """
    if amplitude == 0.0:
        return signed
    quarter = signed.shape[1] // 4
    sidebands = np.roll(signed, quarter, axis=1) - np.roll(signed, -quarter, axis=1)
    ghosted: NDArray[np.float32] = signed + np.float32(amplitude) * sidebands
    return ghosted


def magnitude_image(signed: NDArray[np.float32], noise_sd: float, seed: int) -> NDArray[np.float32]:
    """|signal + complex noise|: Rician, float32; `noise_sd` is that of the real and of the imaginary part."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.randn(signed.shape, generator=generator).mul_(noise_sd).add_(torch.from_numpy(signed))
    imaginary = torch.randn(signed.shape, generator=generator).mul_(noise_sd)
    magnitude: NDArray[np.float32] = torch.hypot(real, imaginary).numpy()
    return magnitude


def real_image(signed: NDArray[np.float32], noise_sd: float, seed: int) -> NDArray[np.float32]:
    """Phase-corrected real part: signal + real noise, float32, signed."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(signed.shape, generator=generator).mul_(noise_sd)
    image: NDArray[np.float32] = noise.add_(torch.from_numpy(signed)).numpy()
    return image


def coded(signed: NDArray[np.float32], coding: HydropsCoding, offset: float) -> NDArray[np.float32]:
    """A subtraction as the console keeps it: as it is, raised by `offset`, or without its negative half."""
    image = signed
    if coding is HydropsCoding.OFFSET:
        image = np.maximum(signed + np.float32(offset), np.float32(0.0))
    elif coding is HydropsCoding.CLIPPED:
        image = np.maximum(signed, np.float32(0.0))
    return image
