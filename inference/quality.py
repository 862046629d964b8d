"""Gates: when a number is not to be believed, and when it must not exist.

STOP means no number for this ear; WARN means read it with care. Every flag carries the measured value and the limit,
and a sentence that a radiologist can act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.anatomy import TOTAL_FLUID_MM3, EarSide
from inference.findings import EarFluid, EarImages, QualityCode, QualityFlag, Severity

FULL_VOXEL: Final = 0.8
"""Voxels at least this full of labyrinthine fluid are judged; fainter ones mix in bone."""

MIN_POSITIVE_SHARE: Final = 0.15
"""Of the fluid; without contrast agent all of it is negative, with it even severe hydrops leaves a third positive."""

WEAK_POSITIVE_SHARE: Final = 0.35
"""Of the fluid; less is either very severe hydrops or weak contrast, and a reader must look."""

MAX_POSITIVE_CSF_SHARE: Final = 0.6
"""Of the CSF in the ear's box; CSF holds no contrast agent, so it must be negative."""

MIN_CSF_MM3: Final = 20.0
"""Less CSF in the box says nothing about the sign."""

RAYLEIGH_QUARTILE: Final = 0.7585
"""First quartile of a magnitude without signal, in noise SDs. Bone and air fill most of an ear's box, so the darker
half of what is no labyrinth shows the noise, however strong it is."""

MRC_SNR: Final = (5.0, 12.0)
"""Fluid over noise on MRC: below the first no outline can be trusted, below the second it is rough."""

HYDROPS_SNR: Final = (1.0, 2.0)
"""Perilymph over noise on HYDROPS per voxel; an ear has some 800 voxels, which is why so little suffices."""


MIN_RATIO: Final = 0.01
"""Every living ear has endolymph, about a tenth of its fluid; less than this means that the levels were not read."""

MAX_RATIO: Final = 0.85
"""The worst hydrops leaves perilymph in the scala tympani and the canals."""

MIN_LEVEL_SHARE: Final = 0.4
"""Of the slab's fluid level: labyrinthine fluid is as bright as CSF, less up to a third by coil gain; brain and fat
reach a fifth. Fainter "fluid" is another structure."""


@dataclass(frozen=True, kw_only=True)
class EarSignal:
    """What the gates judge of one ear; None where it could not be measured.

    `positive_share` of full voxels with HYDROPS > 0, `positive_csf_share` of CSF voxels, SNRs of fluid over bone.
    """

    positive_share: float | None
    positive_csf_share: float | None
    mrc_snr: float | None
    hydrops_snr: float | None


def check_ear(images: EarImages, fluid: EarFluid, *, slab_fluid_level: float | None = None) -> tuple[QualityFlag, ...]:
    """Every remark about one segmented ear; any STOP among them means that it gets no number.

    `slab_fluid_level` is the MRC signal of fluid in the whole slab (`contrast.fluid_level`), if it is known.
    """
    signal = read_signal(images, fluid)
    side = images.roi.side
    return (
        *_check_level(side, images, fluid, slab_fluid_level),
        *_check_volume(side, fluid),
        *_check_ratio(side, fluid),
        *_check_nesting(side, fluid),
        *_check_contrast(side, signal),
        *_check_noise(side, signal),
    )


def read_signal(images: EarImages, fluid: EarFluid) -> EarSignal:
    """Measure what the gates judge."""
    mrc = np.asarray(images.mrc.array, dtype=np.float64)
    hydrops = np.asarray(images.hydrops.array, dtype=np.float64)
    fraction = np.asarray(fluid.total_fluid_fraction.array)
    full = fraction >= FULL_VOXEL
    if not full.any():
        return EarSignal(positive_share=None, positive_csf_share=None, mrc_snr=None, hydrops_snr=None)
    level = float(np.percentile(mrc[full], 75.0))
    positive = float((ndimage.uniform_filter(hydrops, 3)[full] > 0.0).mean())
    csf = (mrc > 0.6 * level) & ~ndimage.binary_dilation(fraction > 0.0, iterations=3)
    csf_mm3 = np.count_nonzero(csf) * images.mrc.geometry.voxel_volume_mm3
    outside = fraction == 0.0
    bone = outside & (mrc <= np.median(mrc[outside]))
    mrc_noise, hydrops_noise = float(np.median(mrc[bone])) / RAYLEIGH_QUARTILE, _spread(hydrops[bone])
    bright = np.abs(hydrops[full])
    return EarSignal(
        positive_share=positive,
        positive_csf_share=float((hydrops[csf] > 0.0).mean()) if csf_mm3 >= MIN_CSF_MM3 else None,
        mrc_snr=level / mrc_noise if mrc_noise > 0.0 else None,
        hydrops_snr=float(np.median(bright)) / hydrops_noise if hydrops_noise else None,
    )


def _spread(values: NDArray[np.float64]) -> float | None:
    """Robust SD; None for too few or constant values."""
    if values.size < 100:
        return None
    spread = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return spread if spread > 0.0 else None


def _check_volume(side: EarSide, fluid: EarFluid) -> tuple[QualityFlag, ...]:
    total = fluid.total_fluid_fraction
    volume_mm3 = float(total.array.sum(dtype=np.float64)) * total.geometry.voxel_volume_mm3
    low, high = TOTAL_FLUID_MM3
    if low <= volume_mm3 <= high:
        return ()
    limit = low if volume_mm3 < low else high
    return (
        _flag(
            QualityCode.VOLUME_IMPLAUSIBLE,
            Severity.STOP,
            f"{_name(side)}: {volume_mm3:.0f} mm3 of fluid, outside {low:.0f} to {high:.0f} mm3; not a whole labyrinth",
            volume_mm3,
            limit,
        ),
    )


def _check_level(
    side: EarSide, images: EarImages, fluid: EarFluid, slab_fluid_level: float | None
) -> tuple[QualityFlag, ...]:
    full = np.asarray(fluid.total_fluid_fraction.array) >= FULL_VOXEL
    if slab_fluid_level is None or slab_fluid_level <= 0.0 or not full.any():
        return ()
    share = float(np.median(np.asarray(images.mrc.array)[full])) / slab_fluid_level
    if share >= MIN_LEVEL_SHARE:
        return ()
    message = f"{_name(side)}: what was taken for its fluid is only {share:.0%} as bright as fluid elsewhere on the MRC"
    return (_flag(QualityCode.CONTENT, Severity.STOP, message, share, MIN_LEVEL_SHARE),)


def _check_ratio(side: EarSide, fluid: EarFluid) -> tuple[QualityFlag, ...]:
    total = float(fluid.total_fluid_fraction.array.sum(dtype=np.float64))
    if total <= 0.0:
        return ()
    ratio = float(fluid.endolymph_fraction.array.sum(dtype=np.float64)) / total
    if MIN_RATIO <= ratio <= MAX_RATIO:
        return ()
    message = (
        f"{_name(side)}: {ratio:.0%} of the fluid would be endolymph, which no ear has; it could not be told apart"
    )
    return (_flag(QualityCode.CONTENT, Severity.STOP, message, ratio, MIN_RATIO if ratio < MIN_RATIO else MAX_RATIO),)


def _check_nesting(side: EarSide, fluid: EarFluid) -> tuple[QualityFlag, ...]:
    excess = np.asarray(fluid.endolymph_fraction.array) - np.asarray(fluid.total_fluid_fraction.array)
    outside = np.asarray(fluid.endolymph_mask.array) & ~np.asarray(fluid.total_fluid_mask.array)
    voxels = int(np.count_nonzero(outside | (excess > 1e-4)))
    if voxels == 0:
        return ()
    return (
        _flag(
            QualityCode.ENDOLYMPH_OUTSIDE_FLUID,
            Severity.STOP,
            f"{_name(side)}: endolymph lies outside the total fluid space in {voxels} voxels",
            float(voxels),
            0.0,
        ),
    )


def _check_contrast(side: EarSide, signal: EarSignal) -> tuple[QualityFlag, ...]:
    flags = []
    if signal.positive_csf_share is not None and signal.positive_csf_share > MAX_POSITIVE_CSF_SHARE:
        flags.append(
            _flag(
                QualityCode.CONTRAST_SIGN,
                Severity.STOP,
                f"{_name(side)}: {signal.positive_csf_share:.0%} of the CSF is positive on HYDROPS, where it"
                " must be negative: the subtraction is inverted or not a HYDROPS image",
                signal.positive_csf_share,
                MAX_POSITIVE_CSF_SHARE,
            )
        )
    share = signal.positive_share
    if share is not None and share < MIN_POSITIVE_SHARE:
        message = f"{_name(side)}: only {share:.0%} of the fluid is positive on HYDROPS; no contrast agent in perilymph"
        flags.append(_flag(QualityCode.NO_CONTRAST, Severity.STOP, message, share, MIN_POSITIVE_SHARE))
    elif share is not None and share < WEAK_POSITIVE_SHARE:
        message = (
            f"{_name(side)}: {share:.0%} of the fluid is positive on HYDROPS; weak contrast or very severe hydrops"
        )
        flags.append(_flag(QualityCode.WEAK_CONTRAST, Severity.WARN, message, share, WEAK_POSITIVE_SHARE))
    return tuple(flags)


def _check_noise(side: EarSide, signal: EarSignal) -> tuple[QualityFlag, ...]:
    flags = []
    for image, snr, (stop, warn) in (
        ("MRC", signal.mrc_snr, MRC_SNR),
        ("HYDROPS", signal.hydrops_snr, HYDROPS_SNR),
    ):
        if snr is None or snr >= warn:
            continue
        severity, limit = (Severity.STOP, stop) if snr < stop else (Severity.WARN, warn)
        message = f"{_name(side)}: fluid is only {snr:.1f} times the noise on {image} (want {warn:.0f})"
        flags.append(_flag(QualityCode.LOW_SIGNAL, severity, message, snr, limit))
    return tuple(flags)


def _name(side: EarSide) -> str:
    return f"{side.value.capitalize()} ear"


def _flag(code: QualityCode, severity: Severity, message: str, measured: float, limit: float) -> QualityFlag:
    return QualityFlag(code=code, severity=severity, message=message, measured=measured, limit=limit)
