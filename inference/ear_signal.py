"""What the images of one ear show, in numbers that a gate can judge: levels of the fluids, noise, and what is cut off.

Everything is read from the images; the segmenter's fluid only says where to look. Levels are given in units of the
cerebrospinal fluid (CSF) beside the ear: it never holds contrast agent, the same coil sees it, and so neither the
scanner's scale nor its gain matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.findings import EarFluid, EarImages
from inference.geometry import VolumeGeometry

Array = NDArray[np.float64]
BoolImage = NDArray[np.bool_]

FULL_VOXEL: Final = 0.8
"""Voxels at least this full of labyrinthine fluid are judged; fainter ones mix in bone."""

MIN_CSF_MM3: Final = 20.0
"""Less CSF in the box says nothing about its level or sign."""

MIN_VOXELS: Final = 20
"""A level of the fluid is read from at least this many full voxels. An ear has some 400 of 1.0 x 0.5 x 0.5 mm, 35 to 70
of 1.2 mm and 5 to 40 of 1.4 mm."""

MIN_BONE_VOXELS: Final = 100
"""Noise is read from at least this many."""

PERILYMPH_SHARE: Final = 0.3
"""Of the full voxels, those brightest on HYDROPS: perilymph even where half of the fluid is endolymph."""

BORDER_REACH_MM: Final = 3.0
"""How far from the end of the images a network misses fluid: of two ears cut in their middle it found 0.01, 3.0, 8.8
and 10.3 mm2 in the outermost planes of 0.5 mm, and 0, 1.2 and 12.3 mm2 in the outermost slices of 1 mm."""

RAYLEIGH_QUARTILE: Final = 0.7585
"""First quartile of a magnitude without signal, in noise SDs. Bone and air fill most of an ear's box, so the darker
half of what is no labyrinth shows the noise, however strong it is."""

RAYLEIGH_MEAN: Final = 1.2533
"""Mean of a magnitude without signal, in noise SDs."""


@dataclass(frozen=True, kw_only=True)
class EarSignal:
    """What the gates judge of one ear; None where it could not be measured.

    Parameters
    ----------
    positive_share
        0..1, of full voxels with HYDROPS > 0.
    positive_csf_share
        0..1, of CSF voxels with HYDROPS > 0.
    perilymph_on_ppi
        Perilymph on PPI over CSF on PEI: 1.0 at T1 3.0 s, 0.6 at 3.25 s (weak), 0.3 at 3.45 s, 0 without contrast
        agent. Needs a PPI.
    perilymph_on_hydrops
        Perilymph over the magnitude of CSF on HYDROPS or real IR, signed; endolymph is negative.
    perilymph_on_difference
        The same of PPI less PEI, without what noise adds to either magnitude: on HYDROPS as it is, CSF looks weaker in
        noise, for PPI shows some where there is none. Needs a PPI.
    mrc_snr, ppi_snr, hydrops_snr
        Fluid, perilymph and typical magnitude of fluid, over noise SD.
    full_voxels
        How many were judged; below `MIN_VOXELS` none was, and all but `border_mm2` is None.
    saturated_share
        0..1, of full voxels that have exactly the largest value of the MRC.
    unseen_share
        0..1, of full voxels of which one of the contrast series shows nothing; where nobody looked for that, of those
        around which HYDROPS is exactly zero.
    border_mm2
        Fluid in a plane of voxels within `BORDER_REACH_MM` of the end of the MRC, the largest of all on six sides.
    """

    full_voxels: int = 0
    positive_share: float | None = None
    positive_csf_share: float | None = None
    perilymph_on_ppi: float | None = None
    perilymph_on_hydrops: float | None = None
    perilymph_on_difference: float | None = None
    mrc_snr: float | None = None
    ppi_snr: float | None = None
    hydrops_snr: float | None = None
    saturated_share: float | None = None
    unseen_share: float | None = None
    border_mm2: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Places:
    """Where one ear's fluids are, bool (K, J, I): `full` of labyrinthine fluid, its `perilymph`, `csf`, and `bone`."""

    full: BoolImage
    perilymph: BoolImage
    csf: BoolImage
    bone: BoolImage
    level: float
    amount: Array


def read_signal(images: EarImages, fluid: EarFluid) -> EarSignal:
    """Measure what the gates judge; of an ear with few full voxels only whether the images cut it off."""
    mrc, hydrops = _floats(images.mrc.array), _floats(images.hydrops.array)
    fraction = _floats(fluid.total_fluid_fraction.array)
    full_voxels = int(np.count_nonzero(fraction >= FULL_VOXEL))
    if full_voxels < MIN_VOXELS:
        return EarSignal(full_voxels=full_voxels, border_mm2=_border_mm2(mrc, fraction, images.mrc.geometry))
    places = _places(mrc, hydrops, fraction, images.mrc.geometry.voxel_volume_mm3)
    mrc_noise, hydrops_noise = float(np.median(mrc[places.bone])) / RAYLEIGH_QUARTILE, _spread(hydrops[places.bone])
    on_ppi, ppi_snr = _perilymph_on_ppi(images, hydrops, places)
    return EarSignal(
        full_voxels=full_voxels,
        positive_share=float((ndimage.uniform_filter(hydrops, 3)[places.full] > 0.0).mean()),
        positive_csf_share=float((hydrops[places.csf] > 0.0).mean()) if places.csf.any() else None,
        perilymph_on_ppi=on_ppi,
        perilymph_on_hydrops=_perilymph_on_hydrops(hydrops, places),
        perilymph_on_difference=_perilymph_on_difference(images, hydrops, places),
        mrc_snr=places.level / mrc_noise if mrc_noise > 0.0 else None,
        ppi_snr=ppi_snr,
        hydrops_snr=float(np.median(np.abs(hydrops[places.full]))) / hydrops_noise if hydrops_noise else None,
        saturated_share=float((mrc[places.full] == mrc.max()).mean()),
        unseen_share=float(_unseen(images, hydrops)[places.full].mean()),
        border_mm2=_border_mm2(mrc, fraction, images.mrc.geometry),
    )


def _unseen(images: EarImages, hydrops: Array) -> BoolImage:
    if images.unseen is not None:
        return np.asarray(images.unseen.array, dtype=np.bool_)
    nothing: BoolImage = ndimage.maximum_filter(np.abs(hydrops), 3) == 0.0
    return nothing


def _floats(array: NDArray[np.generic]) -> Array:
    return np.asarray(array, dtype=np.float64)


def _places(mrc: Array, hydrops: Array, fraction: Array, voxel_mm3: float) -> _Places:
    """Fluids and bone; `csf` is empty where too little of it is in view."""
    full = fraction >= FULL_VOXEL
    level = float(np.percentile(mrc[full], 75.0))
    outside = fraction == 0.0
    csf = (mrc > 0.6 * level) & ~ndimage.binary_dilation(~outside, iterations=3)
    if np.count_nonzero(csf) * voxel_mm3 < MIN_CSF_MM3:
        csf = np.zeros_like(csf)
    amount = mrc / level
    around = ndimage.uniform_filter(np.where(full, hydrops, 0.0), 3)
    filled = ndimage.uniform_filter(np.where(full, amount, 0.0), 3)
    # Chosen by the mean of its neighborhood: a voxel that noise alone made bright would lift the level that it shows.
    mean = around / np.maximum(filled, 1e-6)
    return _Places(
        full=full,
        perilymph=full & (mean >= np.percentile(mean[full], 100.0 * (1.0 - PERILYMPH_SHARE))),
        csf=csf,
        bone=outside & (mrc <= np.median(mrc[outside])),
        level=level,
        amount=amount,
    )


def _perilymph_on_ppi(images: EarImages, hydrops: Array, places: _Places) -> tuple[float | None, float | None]:
    """Perilymph on PPI in units of CSF on PEI, and over the noise; None without PPI, or CSF."""
    if images.ppi is None:
        return None, None
    ppi = _floats(images.ppi.array)
    perilymph = _above_background(ppi, places.perilymph, places)
    noise = float(ppi[places.bone].mean()) / RAYLEIGH_MEAN
    snr = perilymph / noise if noise > 0.0 else None
    if not places.csf.any():
        return None, snr
    csf = _above_background(ppi - hydrops, places.csf, places)
    return (perilymph / csf if csf > 0.0 else None), snr


def _above_background(magnitude: Array, where: BoolImage, places: _Places) -> float:
    """Mean magnitude per full voxel, less what a magnitude shows without signal; powers subtract, not amplitudes."""
    mean, dark = float(magnitude[where].mean()), float(magnitude[places.bone].mean())
    return float(np.sqrt(max(mean**2 - dark**2, 0.0))) / float(places.amount[where].mean())


def _perilymph_on_hydrops(hydrops: Array, places: _Places) -> float | None:
    if not places.csf.any():
        return None
    csf = abs(float(hydrops[places.csf].mean())) / float(places.amount[places.csf].mean())
    perilymph = float(hydrops[places.perilymph].mean()) / float(places.amount[places.perilymph].mean())
    return perilymph / csf if csf > 0.0 else None


def _perilymph_on_difference(images: EarImages, hydrops: Array, places: _Places) -> float | None:
    if images.ppi is None or not places.csf.any():
        return None
    ppi = _floats(images.ppi.array)
    perilymph, csf = (
        _above_background(ppi, where, places) - _above_background(ppi - hydrops, where, places)
        for where in (places.perilymph, places.csf)
    )
    return perilymph / abs(csf) if csf != 0.0 else None


def _spread(values: Array) -> float | None:
    """Robust SD; None for too few or constant values."""
    if values.size < MIN_BONE_VOXELS:
        return None
    spread = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return spread if spread > 0.0 else None


def _border_mm2(mrc: Array, fraction: Array, geometry: VolumeGeometry) -> float:
    """Most fluid in one plane near the slab's end; beyond it a crop is filled with zeros.

    Not in the outermost plane alone: a method that looks at neighbors, which are zeros beyond, finds less and less
    fluid toward the end of an ear that was cut in its middle.
    """
    worst = 0.0
    for axis, spacing in enumerate(geometry.spacing_mm):
        others = tuple(other for other in range(3) if other != axis)
        seen = np.flatnonzero((mrc != 0.0).any(axis=others))
        area_mm2 = fraction.sum(axis=others) * geometry.voxel_volume_mm3 / spacing
        planes = max(2, round(BORDER_REACH_MM / spacing))
        for outermost in (seen[:planes], seen[-planes:]):
            worst = max(worst, float(area_mm2[outermost].max(initial=0.0)))
    return worst
