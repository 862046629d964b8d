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

A phase-sensitive 3D-real IR takes no magnitude: its signal is a straight line between the two fluids.
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
        Emptier voxels are not read, because tissue outside shines in; they take the share of their neighbors.
    level_percentile
        Of PPI over MRC in certain perilymph, less one SD of noise: its level. Calibrated on phantoms.
    model_error
        Share of a level by which P, Q and G vary inside an ear (contrast gradient, residual motion).
    ppi_to_hydrops
        P over the HYDROPS of perilymph where there is no PPI: 1.6 at T1 3.0 s, 2.4 at 2.75 s.
    rounds
        Of expectation maximization.
    unmixed_weight
        Where it starts: a voxel of one fluid alone is this much likelier than any single mixture. Decides only where
        HYDROPS is flat and there is no PPI.
    """

    full_fraction: float = 0.8
    read_fraction: float = 0.7
    level_percentile: float = 91.0
    model_error: float = 0.1
    ppi_to_hydrops: float = 1.8
    rounds: int = 40
    unmixed_weight: float = 5.0


SHARES: Final[Array] = np.linspace(0.0, 1.0, 21)
"""Endolymph shares considered."""

REAL_IR_PERCENTILE: Final = 96.0
"""Of positive voxels; on 28 phantom ears the ratio's bias is then 0.00 with normal and -0.08 with strong contrast."""

REAL_IR_ENDOLYMPH: Final = 0.45
"""Endolymph over perilymph on 3D-real IR: 0.46 at T1 3.7 and 3.0 s with TI 2350, TR 15130 ms."""

MIN_VOXELS: Final = 12
"""A level is read from at least this many voxels."""


@dataclass(frozen=True, kw_only=True)
class FluidLevels:
    """Signals of one full voxel: `perilymph` and `endolymph` on HYDROPS (> 0, < 0), `perilymph_ppi` on PPI."""

    perilymph: float
    endolymph: float
    perilymph_ppi: float

    def pei(self, share: Array) -> Array:
        """PEI of a full voxel by endolymph share."""
        on_pei = self.perilymph_ppi - self.perilymph
        endolymph_on_pei = -self.endolymph
        if self.perilymph_ppi < endolymph_on_pei:
            on_pei = -on_pei  # little contrast agent: perilymph has not passed its null on PEI yet
        magnitude: Array = np.abs(on_pei * (1.0 - share) - endolymph_on_pei * share)
        return magnitude

    def ppi(self, share: Array) -> Array:
        """PPI of a full voxel by endolymph share."""
        return self.perilymph_ppi * (1.0 - share)


def endolymph_share(ear: EarImages, fluid: LabyrinthFluid, options: EndolymphOptions) -> FloatImage:
    """(K, J, I) float32 0..1: endolymph's share of each voxel's labyrinthine fluid.

    Zero where there is no fluid, and everywhere if the ear has no positive perilymph (then the gates refuse it).
    """
    noise = _noise(ear, fluid)
    levels = read_levels(ear, fluid, noise, options)
    if levels is None:
        return np.zeros_like(fluid.fraction)
    read = fluid.fraction >= options.read_fraction
    value = np.zeros(fluid.fraction.shape)
    value[read] = _expected_shares(ear, fluid, read, noise, levels, options)
    weight = np.where(read, fluid.fraction, 0.0).astype(np.float64)
    around = ndimage.uniform_filter(weight * value, 3) / np.maximum(ndimage.uniform_filter(weight, 3), 1e-6)
    share = np.where(read, value, np.where(fluid.fraction > 0.0, around, 0.0))
    return np.clip(share, 0.0, 1.0).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise of one inversion-recovery magnitude: `sd` as it scatters, `floor` as it lifts dark voxels.

    The two are equal until an image is interpolated: then it scatters less, but the lift stays.
    """

    sd: float
    floor: float


def _noise(ear: EarImages, fluid: LabyrinthFluid) -> Noise:
    """Read in bone, where a magnitude is Rayleigh: SD of a difference of two 0.926, median of one 1.177 noise SDs."""
    bone = (fluid.fraction == 0.0) & (np.asarray(ear.mrc.array) < 0.15 * fluid.level)
    if np.count_nonzero(bone) < MIN_VOXELS:
        return Noise(sd=0.0, floor=0.0)
    signed = np.asarray(ear.hydrops.array, dtype=np.float64)
    sd = 1.4826 * float(np.median(np.abs(signed[bone] - np.median(signed[bone])))) / 0.926
    if sd == 0.0:  # divided out of a HYDROPS-Mi2, bone is exactly zero
        sd = _noise_in_fluid(signed, fluid.fraction)
    floor = sd if ear.ppi is None else float(np.median(np.asarray(ear.ppi.array)[bone])) / 1.177
    return Noise(sd=sd, floor=floor)


def _noise_in_fluid(signed: Array, fraction: FloatImage) -> float:
    """The same SD from neighbors along i that both are full of fluid; their median difference is mostly noise."""
    both = (fraction[..., 1:] > 0.8) & (fraction[..., :-1] > 0.8)
    steps = np.diff(signed, axis=-1)[both]
    return 1.4826 * float(np.median(np.abs(steps))) / np.sqrt(2.0) / 0.926 if steps.size >= MIN_VOXELS else 0.0


def read_levels(ear: EarImages, fluid: LabyrinthFluid, noise: Noise, options: EndolymphOptions) -> FluidLevels | None:
    """The ear's own levels; None if no perilymph is positive."""
    full = fluid.fraction >= options.full_fraction
    amount = fluid.amount[full].astype(np.float64)
    hydrops = np.asarray(ear.hydrops.array, dtype=np.float64)[full] / amount
    positive = hydrops > 0.0
    if np.count_nonzero(positive) < MIN_VOXELS:
        return None
    if ear.phase_sensitive:
        return _straight_levels(hydrops, noise)
    perilymph = float(np.median(hydrops[positive]))
    perilymph_ppi = options.ppi_to_hydrops * perilymph
    if ear.ppi is not None:
        ppi = np.asarray(ear.ppi.array, dtype=np.float64)[full] / amount
        certain = ppi[hydrops > 0.7 * perilymph]
        perilymph_ppi = max(float(np.percentile(certain, options.level_percentile)) - noise.sd, perilymph)
    return FluidLevels(
        perilymph=perilymph,
        endolymph=-_endolymph_magnitude(ear, fluid, perilymph),
        perilymph_ppi=perilymph_ppi,
    )


def _straight_levels(hydrops: Array, noise: Noise) -> FluidLevels:
    """Levels of a 3D-real IR: perilymph from its brightest voxels less one SD of noise, endolymph by their physics.

    CSF's T1 puts it far below endolymph here, and small compartments do not reach their level: neither can be used.
    """
    perilymph = max(float(np.percentile(hydrops[hydrops > 0.0], REAL_IR_PERCENTILE)) - noise.sd, 1e-6)
    return FluidLevels(perilymph=perilymph, endolymph=-REAL_IR_ENDOLYMPH * perilymph, perilymph_ppi=perilymph)


def _endolymph_magnitude(ear: EarImages, fluid: LabyrinthFluid, perilymph: float) -> float:
    """Magnitude of pure endolymph on HYDROPS: from CSF in the box, whose T1 (4.1 s) makes it nearly the same.

    Without CSF in sight it is the perilymph's own magnitude: both levels are symmetric with normal enhancement.
    """
    if np.count_nonzero(fluid.csf) < MIN_VOXELS:
        return perilymph
    ratio = np.asarray(ear.hydrops.array, dtype=np.float64)[fluid.csf] / np.asarray(ear.mrc.array)[fluid.csf]
    csf = -float(np.median(ratio)) * fluid.level
    return float(np.clip(csf, 0.5 * perilymph, 2.0 * perilymph))


def _expected_shares(
    ear: EarImages,
    fluid: LabyrinthFluid,
    read: BoolImage,
    noise: Noise,
    levels: FluidLevels,
    options: EndolymphOptions,
) -> Array:
    """(N,) expected endolymph share of the voxels `read`, given the ear's own distribution of shares."""
    amount = fluid.amount[read].astype(np.float64)[:, None]
    ppi = _magnitude(amount * levels.ppi(SHARES), noise.floor)
    if ear.phase_sensitive:
        expected = amount * (levels.perilymph * (1.0 - SHARES) + levels.endolymph * SHARES)
    else:
        expected = ppi - _magnitude(amount * levels.pei(SHARES), noise.floor)
    hydrops = np.asarray(ear.hydrops.array, dtype=np.float64)[read, None]
    model_error = options.model_error * amount
    images = 1.0 if ear.phase_sensitive else 2.0  # a subtraction has the noise of two
    misfit = (hydrops - expected) ** 2 / (images * noise.sd**2 + (model_error * levels.perilymph) ** 2)
    if ear.ppi is not None:
        seen = np.asarray(ear.ppi.array, dtype=np.float64)[read, None]
        misfit += (seen - ppi) ** 2 / (noise.sd**2 + (model_error * levels.perilymph_ppi) ** 2)
    likelihood = np.exp(-0.5 * (misfit - misfit.min(axis=1, keepdims=True)))
    prior = np.ones(SHARES.size)
    prior[[0, -1]] = options.unmixed_weight
    prior /= prior.sum()
    for _ in range(options.rounds):
        posterior = likelihood * prior
        posterior /= posterior.sum(axis=1, keepdims=True)
        prior = np.average(posterior, axis=0, weights=amount[:, 0])
    shares: Array = posterior @ SHARES
    return shares


def _magnitude(signal: Array, noise: float) -> Array:
    """Mean magnitude of a signal with complex noise: lifted by 1.25 SD in the dark, hardly in the bright (Rice)."""
    if noise <= 0.0:
        return signal
    lift = 1.0 + 0.571 * np.exp(-0.5 * (signal / noise) ** 2)
    lifted: Array = np.sqrt(signal**2 + lift * noise**2)
    return lifted
