"""How much of the labyrinth's fluid is endolymph: the signed HYDROPS, read with the physics of its two nulls.

HYDROPS is magnitude minus magnitude, PPI less PEI. Per unit of fluid, with a share e of endolymph,

    PPI = |P (1 - e)|                   P: perilymph on PPI; endolymph is nulled there
    PEI = |Q (1 - e) - G e|             Q: perilymph on PEI, G: endolymph on PEI
    HYDROPS = PPI - PEI

so HYDROPS is flat while perilymph dominates, and crosses zero at about 70 % endolymph with normally enhanced
perilymph. "Negative is endolymph", the rule in use, is the same statement for unmixed voxels; at the borders, where
most of a labyrinth's voxels are, the curve tells more than the sign. P, Q and G are read in every ear: they follow
the perilymph's contrast agent. Noise turns into a bias if every voxel is clipped to 0..1 on its own; so the ear's
distribution of shares is estimated first (expectation maximization), and each voxel gets its expected share given it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.findings import EarImages
from inference.labyrinth import BoolImage, FloatImage, LabyrinthFluid

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EndolymphOptions:
    """Constants of the endolymph estimate.

    Parameters
    ----------
    full_fraction
        Voxels at least this full of fluid show the fluids' levels.
    read_fraction
        Emptier voxels are not read; they take the share of their neighbors.
    model_error
        Share of a level by which P, Q and G vary inside an ear (contrast gradient, residual motion).
    ppi_to_hydrops
        P over the HYDROPS of perilymph where there is no PPI: 1.62 at T1 3.0 s.
    rounds
        Of expectation maximization.
    """

    full_fraction: float = 0.8
    read_fraction: float = 0.3
    model_error: float = 0.15
    ppi_to_hydrops: float = 1.62
    rounds: int = 40


SHARES: Final[Array] = np.linspace(0.0, 1.0, 21)
"""Endolymph shares considered."""

MIN_VOXELS: Final = 12
"""A level is read from at least this many voxels."""


@dataclass(frozen=True, kw_only=True)
class FluidLevels:
    """Signals of one full voxel: `perilymph` and `endolymph` on HYDROPS (> 0, < 0), `perilymph_ppi` on PPI."""

    perilymph: float
    endolymph: float
    perilymph_ppi: float

    def hydrops(self, share: Array) -> Array:
        """HYDROPS of a full voxel by endolymph share."""
        on_pei = self.perilymph_ppi - self.perilymph
        endolymph_on_pei = -self.endolymph
        if self.perilymph_ppi < endolymph_on_pei:
            on_pei = -on_pei  # little contrast agent: perilymph has not passed its null on PEI yet
        pei: Array = np.abs(on_pei * (1.0 - share) - endolymph_on_pei * share)
        return self.ppi(share) - pei

    def ppi(self, share: Array) -> Array:
        """PPI of a full voxel by endolymph share."""
        return self.perilymph_ppi * (1.0 - share)


def endolymph_share(ear: EarImages, fluid: LabyrinthFluid, options: EndolymphOptions) -> FloatImage:
    """(K, J, I) float32 0..1: endolymph's share of each voxel's labyrinthine fluid.

    Zero where there is no fluid, and everywhere if the ear has no positive perilymph (then the gates refuse it).
    """
    fraction = fluid.fraction
    inside = fraction >= options.read_fraction
    dark = fraction == 0.0
    levels = read_levels(ear, fluid, options)
    if levels is None:
        return np.zeros_like(fraction)
    shares = _expected_shares(ear, fraction, inside, _noise(ear, fluid), levels, options)
    weight = np.where(inside, fraction, 0.0).astype(np.float64)
    value = np.zeros(fraction.shape)
    value[inside] = shares
    near = ndimage.uniform_filter(weight, 3)
    spread = ndimage.uniform_filter(weight * value, 3) / np.maximum(near, 1e-6)
    share: FloatImage = np.where(inside, value, np.where(dark, 0.0, spread)).astype(np.float32)
    return share


def read_levels(ear: EarImages, fluid: LabyrinthFluid, options: EndolymphOptions) -> FluidLevels | None:
    """The ear's own levels; None if no perilymph is positive."""
    full = fluid.fraction >= options.full_fraction
    hydrops = np.asarray(ear.hydrops.array, dtype=np.float64) / np.maximum(fluid.fraction, options.read_fraction)
    positive = full & (hydrops > 0.0)
    if np.count_nonzero(positive) < MIN_VOXELS:
        return None
    perilymph = float(np.median(hydrops[positive]))
    certain = full & (hydrops > 0.7 * perilymph)
    perilymph_ppi = options.ppi_to_hydrops * perilymph
    if ear.ppi is not None:
        ppi = np.asarray(ear.ppi.array, dtype=np.float64) / np.maximum(fluid.fraction, options.read_fraction)
        perilymph_ppi = max(float(np.percentile(ppi[certain], 60.0)), perilymph)
    return FluidLevels(
        perilymph=perilymph,
        endolymph=-_endolymph_magnitude(ear, fluid, perilymph),
        perilymph_ppi=perilymph_ppi,
    )


def _endolymph_magnitude(ear: EarImages, fluid: LabyrinthFluid, perilymph: float) -> float:
    """Magnitude of pure endolymph on HYDROPS: from CSF in the box, whose T1 (4.1 s) makes it nearly the same.

    Without CSF in sight it is the perilymph's own magnitude: both levels are symmetric with normal enhancement.
    """
    if np.count_nonzero(fluid.csf) < MIN_VOXELS:
        return perilymph
    ratio = np.asarray(ear.hydrops.array, dtype=np.float64)[fluid.csf] / np.asarray(ear.mrc.array)[fluid.csf]
    csf = -float(np.median(ratio)) * fluid.level
    return float(np.clip(csf, 0.5 * perilymph, 2.0 * perilymph))


@dataclass(frozen=True, kw_only=True)
class _Noise:
    """SD of HYDROPS, and SD of PPI in bone (from its Rayleigh mean)."""

    hydrops: float
    ppi: float


def _noise(ear: EarImages, fluid: LabyrinthFluid) -> _Noise:
    bone = (fluid.fraction == 0.0) & (np.asarray(ear.mrc.array) < 0.15 * fluid.level)
    if np.count_nonzero(bone) < MIN_VOXELS:
        return _Noise(hydrops=0.0, ppi=0.0)
    signed = np.asarray(ear.hydrops.array, dtype=np.float64)[bone]
    hydrops = 1.4826 * float(np.median(np.abs(signed - np.median(signed))))
    ppi = 0.0 if ear.ppi is None else float(np.median(np.asarray(ear.ppi.array)[bone])) / 1.177
    return _Noise(hydrops=hydrops, ppi=ppi)


def _expected_shares(
    ear: EarImages,
    fraction: FloatImage,
    inside: BoolImage,
    noise: _Noise,
    levels: FluidLevels,
    options: EndolymphOptions,
) -> Array:
    """(N,) expected endolymph share of the voxels `inside`, given the ear's own distribution of shares."""
    amount = fraction[inside].astype(np.float64)
    misfit = _misfit(
        ear.hydrops.array[inside], amount, levels.hydrops(SHARES), noise.hydrops, levels.perilymph, options
    )
    if ear.ppi is not None:
        ppi = np.asarray(ear.ppi.array[inside], dtype=np.float64)
        ppi = np.sqrt(np.maximum(ppi**2 - 2.0 * noise.ppi**2, 0.0))
        misfit = misfit + _misfit(ppi, amount, levels.ppi(SHARES), noise.ppi, levels.perilymph_ppi, options)
    likelihood = np.exp(-0.5 * (misfit - misfit.min(axis=1, keepdims=True)))
    prior = np.full(SHARES.size, 1.0 / SHARES.size)
    posterior = likelihood
    for _ in range(options.rounds):
        posterior = likelihood * prior
        posterior /= posterior.sum(axis=1, keepdims=True)
        prior = np.average(posterior, axis=0, weights=amount)
    shares: Array = posterior @ SHARES
    return shares


def _misfit(
    measured: NDArray[np.generic], amount: Array, curve: Array, noise: float, level: float, options: EndolymphOptions
) -> Array:
    """(N, shares) squared distance from the curve in SDs: noise, and the model's own error with more fluid."""
    variance = noise**2 + (options.model_error * level * amount) ** 2
    values = np.asarray(measured, dtype=np.float64)
    distance: Array = (values[:, None] - amount[:, None] * curve[None, :]) ** 2 / variance[:, None]
    return distance
