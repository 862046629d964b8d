"""Gates: when a number is not to be believed, and when it must not exist.

STOP means no number for this ear; WARN means read it with care. Every flag carries the measured value and the limit,
and a sentence that a radiologist can act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.anatomy import TOTAL_FLUID_MM3, EarSide
from inference.ear_signal import FULL_VOXEL, MIN_VOXELS, EarSignal, read_signal
from inference.findings import EarFluid, EarImages, QualityCode, QualityFlag, Severity

MIN_POSITIVE_SHARE: Final = 0.15
"""Of the fluid; without contrast agent all of it is negative, with it even severe hydrops leaves a third positive."""

WEAK_POSITIVE_SHARE: Final = 0.35
"""Of the fluid; less is either very severe hydrops or weak contrast, and a reader must look."""

PERILYMPH_ON_REAL_IR: Final = (0.2, 0.45)
"""The same on real IR: 0.9, 0.4 and below 0 by its physics, less with severe hydrops."""

ONE_SCALE: Final = (0.6, 2.2)
"""Perilymph over CSF on HYDROPS that well enhanced perilymph can have: 0.8 to 1.2 by physics, 1.6 in noise where that
cannot be told from signal. Outside, PPI and PEI were subtracted on different scales."""

MAX_POSITIVE_CSF_SHARE: Final = 0.6
"""Of the CSF in the ear's box; CSF holds no contrast agent, so it must be negative."""

MRC_SNR: Final = (5.0, 12.0)
"""Fluid over noise on MRC: below the first no outline can be trusted, below the second it is rough."""

HYDROPS_SNR: Final = (0.85, 2.0)
"""Typical magnitude of the fluid over noise on HYDROPS, per voxel, where there is no PPI. Noise alone shows 0.67,
severe hydrops at a PPI SNR of 3.5 about 1.2; an ear has some 800 voxels, which is why so little suffices."""

MAX_SATURATED_SHARE: Final = 0.05
"""Of the fluid at exactly the MRC's largest value; an image that was not overdriven has one such voxel, or a few."""

MAX_UNSEEN_SHARE: Final = 0.02
"""Of the fluid without any value on the contrast series: the series ends inside the ear."""

BORDER_MM2: Final = (6.0, 2.0)
"""Fluid in a plane at the end of the images: more than the first cuts cochlea or vestibule, more than the second a
canal."""

MIN_RATIO: Final = 0.01
"""Every living ear has endolymph, about a tenth of its fluid; less than this means that the levels were not read."""

MAX_RATIO: Final = 0.85
"""The worst hydrops leaves perilymph in the scala tympani and the canals."""

MIN_LEVEL_SHARE: Final = 0.4
"""Of the slab's fluid level: labyrinthine fluid is as bright as CSF, less up to a third by coil gain; brain and fat
reach a fifth. Fainter "fluid" is another structure."""


@dataclass(frozen=True, kw_only=True)
class ContrastLimits:
    """How little contrast agent and how much noise a method can bear; each pair is (no number below, a look below).

    Parameters
    ----------
    perilymph_on_ppi
        Perilymph on PPI over CSF on PEI. Normal contrast (T1 3.0 s) shows 0.70 to 1.1, weak contrast (3.25 s) 0.44 to
        0.61, half of that again (3.35 s) 0.36 to 0.45, next to none (3.45 s) 0.27 to 0.32.
    perilymph_on_hydrops
        Perilymph over the magnitude of CSF on HYDROPS: 0.82 to 1.3, 0.44 to 0.81, 0.26 to 0.45, and below 0.1.
    ppi_snr
        Perilymph over noise on PPI.
    weak_ppi_snr
        The same where contrast is weak besides, no number below; None if noise makes no difference there.
    """

    perilymph_on_ppi: tuple[float, float]
    perilymph_on_hydrops: tuple[float, float]
    ppi_snr: tuple[float, float]
    weak_ppi_snr: float | None


BY_RULE: Final = ContrastLimits(
    perilymph_on_ppi=(0.4, 0.65), perilymph_on_hydrops=(0.35, 0.6), ppi_snr=(2.0, 3.0), weak_ppi_snr=2.5
)
"""Of the method without training. It calls mild hydrops severe where there is little contrast agent: of 20 phantom ears
at T1 3.25 s and a fluid SNR of 1.7 to 6 on PPI it erred by more than 0.2 at five, at 3.35 s at eight of twelve."""

LEARNED: Final = ContrastLimits(
    perilymph_on_ppi=(0.34, 0.65), perilymph_on_hydrops=(0.18, 0.6), ppi_snr=(1.4, 3.0), weak_ppi_snr=None
)
"""Of a network that states its own error. At the same 32 ears it erred by 0.024 on average and by 0.07 at most, always
inside its interval. At T1 3.45 s it errs by 0.12 to 0.29, which its interval does not know, and so it does at some ears
with a PPI SNR of 0.9 to 1.3; the limits lie between. With HYDROPS alone it is the same."""


def check_ear(images: EarImages, fluid: EarFluid, *, slab_fluid_level: float | None = None) -> tuple[QualityFlag, ...]:
    """Every remark about one segmented ear; any STOP among them means that it gets no number.

    `slab_fluid_level` is the MRC signal of fluid in the whole slab (`contrast.fluid_level`), if it is known.
    """
    signal = read_signal(images, fluid)
    limits = BY_RULE if fluid.ratio_half_width is None else LEARNED
    side = images.roi.side
    return (
        *_check_level(side, images, fluid, slab_fluid_level),
        *_check_volume(side, fluid),
        *_check_ratio(side, fluid),
        *_check_nesting(side, fluid),
        *_check_cut(side, signal),
        *_check_judged(side, signal),
        *_check_sign(side, signal),
        *_check_contrast(side, images, signal, limits),
        *_check_scale(side, images, signal, limits),
        *_check_noise(side, images, signal, limits),
        *_check_saturation(side, signal),
    )


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


def _check_cut(side: EarSide, signal: EarSignal) -> tuple[QualityFlag, ...]:
    """The slab of the MRC, or that of a contrast series, ends inside the ear."""
    flags = []
    if signal.unseen_share is not None and signal.unseen_share > MAX_UNSEEN_SHARE:
        message = f"{_name(side)}: {signal.unseen_share:.0%} of the fluid lies outside the contrast series"
        flags.append(
            _flag(QualityCode.EAR_CUT_OFF, Severity.STOP, message, signal.unseen_share, MAX_UNSEEN_SHARE),
        )
    stop, warn = BORDER_MM2
    if signal.border_mm2 > warn:
        severity, limit = (Severity.STOP, stop) if signal.border_mm2 > stop else (Severity.WARN, warn)
        message = f"{_name(side)}: {signal.border_mm2:.1f} mm2 of fluid lie at the border of the images"
        flags.append(_flag(QualityCode.EAR_CUT_OFF, severity, message, signal.border_mm2, limit))
    return tuple(flags)


def _check_judged(side: EarSide, signal: EarSignal) -> tuple[QualityFlag, ...]:
    """Contrast, sign and noise of an ear that fills hardly a voxel cannot be judged; what cannot be, does not pass."""
    if signal.full_voxels >= MIN_VOXELS:
        return ()
    message = (
        f"{_name(side)}: {signal.full_voxels} voxels are full of fluid, at least {MIN_VOXELS} are needed to judge its "
        "contrast and noise; the voxels are too coarse, or the ear is too faint"
    )
    return (_flag(QualityCode.LOW_SIGNAL, Severity.STOP, message, float(signal.full_voxels), float(MIN_VOXELS)),)


def _check_sign(side: EarSide, signal: EarSignal) -> tuple[QualityFlag, ...]:
    share = signal.positive_csf_share
    if share is None or share <= MAX_POSITIVE_CSF_SHARE:
        return ()
    message = (
        f"{_name(side)}: {share:.0%} of the CSF is positive on HYDROPS, where it must be negative:"
        " the subtraction is inverted or not a HYDROPS image"
    )
    return (_flag(QualityCode.CONTRAST_SIGN, Severity.STOP, message, share, MAX_POSITIVE_CSF_SHARE),)


def _check_contrast(
    side: EarSide, images: EarImages, signal: EarSignal, limits: ContrastLimits
) -> tuple[QualityFlag, ...]:
    """How much contrast agent the perilymph holds: by its sign, and by its level where CSF shows the scale."""
    share = signal.positive_share
    if share is not None and share < MIN_POSITIVE_SHARE:
        message = f"{_name(side)}: only {share:.0%} of the fluid is positive on HYDROPS; no contrast agent in perilymph"
        return (_flag(QualityCode.NO_CONTRAST, Severity.STOP, message, share, MIN_POSITIVE_SHARE),)
    doubts = _check_level_of_perilymph(side, images, signal, limits)
    if not doubts and share is not None and share < WEAK_POSITIVE_SHARE:
        message = (
            f"{_name(side)}: {share:.0%} of the fluid is positive on HYDROPS; weak contrast or very severe hydrops"
        )
        return (_flag(QualityCode.WEAK_CONTRAST, Severity.WARN, message, share, WEAK_POSITIVE_SHARE),)
    return doubts


def _check_level_of_perilymph(
    side: EarSide, images: EarImages, signal: EarSignal, limits: ContrastLimits
) -> tuple[QualityFlag, ...]:
    """Perilymph against CSF, on the series that tells most; the worst remark only."""
    on_hydrops = PERILYMPH_ON_REAL_IR if images.phase_sensitive else limits.perilymph_on_hydrops
    noisy = signal.ppi_snr is not None and limits.weak_ppi_snr is not None and signal.ppi_snr < limits.weak_ppi_snr
    flags = []
    for series, level, (stop, warn) in (
        ("PPI", signal.perilymph_on_ppi, limits.perilymph_on_ppi),
        ("real IR" if images.phase_sensitive else "HYDROPS", signal.perilymph_on_hydrops, on_hydrops),
    ):
        if level is None or level >= warn:
            continue
        severity = Severity.STOP if level < stop or noisy else Severity.WARN
        message = (
            f"{_name(side)}: perilymph on {series} has {level:.2f} times the signal of CSF (want {warn:g}): too little"
            f" contrast agent, or images taken too early or too late{', in much noise' if noisy else ''}"
        )
        flags.append(_flag(QualityCode.WEAK_CONTRAST, severity, message, level, stop if level < stop else warn))
    return tuple(sorted(flags, key=lambda flag: flag.severity is Severity.WARN)[:1])


def _check_scale(
    side: EarSide, images: EarImages, signal: EarSignal, limits: ContrastLimits
) -> tuple[QualityFlag, ...]:
    """PPI shows much contrast agent, and their difference does not fit it."""
    level, without_noise = signal.perilymph_on_hydrops, signal.perilymph_on_difference
    low, high = ONE_SCALE
    series = "HYDROPS"
    if images.phase_sensitive or level is None:
        return ()
    off = level > high
    if off and without_noise is not None:  # noise alone may lift it so far, and lowers nothing
        level, series = without_noise, "PPI less PEI"
        off = not low <= level <= high
    enhanced = signal.perilymph_on_ppi is not None and signal.perilymph_on_ppi >= limits.perilymph_on_ppi[1]
    if not off and not (enhanced and level < low):
        return ()
    message = (
        f"{_name(side)}: perilymph has {level:.2f} times the signal of CSF on {series}, expected {low:g} to {high:g}:"
        " PPI and PEI were not subtracted on one scale"
    )
    return (_flag(QualityCode.OUT_OF_DOMAIN, Severity.STOP, message, level, high if level > high else low),)


def _check_noise(
    side: EarSide, images: EarImages, signal: EarSignal, limits: ContrastLimits
) -> tuple[QualityFlag, ...]:
    """Noise of the MRC and of the contrast; PPI shows it better than a difference that severe hydrops makes small."""
    on_contrast = ("HYDROPS", signal.hydrops_snr, HYDROPS_SNR)
    if images.ppi is not None:
        on_contrast = ("PPI", signal.ppi_snr, limits.ppi_snr)
    flags = []
    for image, snr, (stop, warn) in (("MRC", signal.mrc_snr, MRC_SNR), on_contrast):
        if snr is None or snr >= warn:
            continue
        severity, limit = (Severity.STOP, stop) if snr < stop else (Severity.WARN, warn)
        message = f"{_name(side)}: fluid is only {snr:.1f} times the noise on {image} (want {warn:.0f})"
        flags.append(_flag(QualityCode.LOW_SIGNAL, severity, message, snr, limit))
    return tuple(flags)


def _check_saturation(side: EarSide, signal: EarSignal) -> tuple[QualityFlag, ...]:
    share = signal.saturated_share
    if share is None or share <= MAX_SATURATED_SHARE:
        return ()
    message = f"{_name(side)}: {share:.0%} of the fluid has the largest value of the MRC; the image was cut off above"
    return (_flag(QualityCode.OUT_OF_DOMAIN, Severity.STOP, message, share, MAX_SATURATED_SHARE),)


def _name(side: EarSide) -> str:
    return f"{side.value.capitalize()} ear"


def _flag(code: QualityCode, severity: Severity, message: str, measured: float, limit: float) -> QualityFlag:
    return QualityFlag(code=code, severity=severity, message=message, measured=measured, limit=limit)
