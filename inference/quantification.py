"""From fluid to numbers: volumes, the EH ratio with its interval, and ratios per slice.

Volumes are summed from fractions, not counted from masks: a labyrinth is mostly border, and a voxel that is 40 %
fluid holds 40 % of its volume.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference import second_opinion
from inference.findings import (
    EarFindings,
    EarFluid,
    EarImages,
    EHRatio,
    QualityCode,
    QualityFlag,
    Severity,
    SliceRatio,
)
from inference.geometry import Volume
from inference.levels import level_ratios
from inference.quality import check_ear

MIN_SLICE_MM2: Final = 0.5
"""Less fluid in a slice has no ratio: two voxels of 0.5 x 0.5 mm."""

FLOOR: Final = 0.05
"""What an ear's ratio is uncertain by with perfect images: levels, blur and the outline's rule. From phantoms."""

FLOOR_WITHOUT_PPI: Final = 0.1
"""The same where only HYDROPS or 3D-real IR is there: they hardly show how much contrast agent there is."""

FLOOR_IN_DOUBT: Final = 0.2
"""The same with weak contrast or much noise: there the no-training method calls mild hydrops severe."""

WIDE_INTERVAL: Final = 0.12
"""Half width: an interval wider than this spans the distance from a normal ear (about 0.12 of the labyrinth) to severe
hydrops (0.35 and more). Much noise gives such intervals, and a HYDROPS-Mi2 that cannot be divided by its MRC."""

DOUBTFUL: Final = frozenset({QualityCode.WEAK_CONTRAST, QualityCode.LOW_SIGNAL})

SENSITIVITY_SCALE: Final = 1.0
"""The sensitivity's share of the interval, set so that about 95 % of phantom ears lie inside."""


def measure_ear(
    images: EarImages,
    fluid: EarFluid,
    *,
    first_slice: int = 0,
    remarks: tuple[QualityFlag, ...] = (),
    slab_fluid_level: float | None = None,
    unlearned: EarFluid | None = None,
) -> EarFindings:
    """One ear's numbers, or the reasons why it has none.

    Parameters
    ----------
    images, fluid
        On the same grid.
    first_slice
        Where the ear's grid begins on the MRC, so that slices are counted there.
    remarks
        What earlier steps found out about this ear.
    slab_fluid_level
        MRC signal of fluid in the whole slab, to tell an ear from something fainter; None if it is not known.
    unlearned
        The same ear's fluid by the method without training, where `fluid` is a network's: far apart, there is no
        number.

    Returns
    -------
    EarFindings
        Without `ratio` and `fluid` if any remark is a STOP, or if there is no fluid: undefined, not zero.
    """
    quality = (*remarks, *check_ear(images, fluid, slab_fluid_level=slab_fluid_level))
    if _stopped(quality):
        return EarFindings(side=images.roi.side, ratio=None, fluid=None, quality=quality)
    floor = _floor(images, quality)
    ratio = eh_ratio(fluid, floor=floor)
    if unlearned is not None:
        other = eh_ratio(unlearned, floor=floor) if volume_mm3(unlearned.total_fluid_fraction) > 0.0 else None
        quality = (*quality, *second_opinion.compare(fluid, ratio, unlearned, other))
    if _stopped(quality):
        return EarFindings(side=images.roi.side, ratio=None, fluid=None, quality=quality)
    quality = (*quality, *_check_interval(images, ratio))
    return EarFindings(
        side=images.roi.side,
        ratio=ratio,
        fluid=fluid,
        slices=slice_ratios(fluid, first_slice=first_slice),
        levels=level_ratios(fluid, first_slice=first_slice),
        quality=quality,
    )


def _stopped(quality: tuple[QualityFlag, ...]) -> bool:
    return any(flag.severity is Severity.STOP for flag in quality)


def _check_interval(images: EarImages, ratio: EHRatio) -> tuple[QualityFlag, ...]:
    """Say in words what a wide interval means: readers look at the number first."""
    half = max(ratio.high - ratio.value, ratio.value - ratio.low)  # the other side may end at 0 or 1
    if half <= WIDE_INTERVAL:
        return ()
    name = f"{images.roi.side.value.capitalize()} ear"
    seen = ", of HYDROPS-Mi2 alone," if images.from_product else ""
    message = (
        f"{name}: low confidence: the ratio{seen} may be anything from {100 * ratio.low:.0f} to"
        f" {100 * ratio.high:.0f} %, too uncertain to compare ears or examinations"
    )
    flag = QualityFlag(
        code=QualityCode.LOW_CONFIDENCE, severity=Severity.WARN, message=message, measured=half, limit=WIDE_INTERVAL
    )
    return (flag,)


def _floor(images: EarImages, quality: tuple[QualityFlag, ...]) -> float:
    """What a ratio by rule is uncertain by at least, with images like these."""
    if any(flag.code in DOUBTFUL for flag in quality):
        return FLOOR_IN_DOUBT
    return FLOOR_WITHOUT_PPI if images.ppi is None else FLOOR


def volume_mm3(amount: Volume) -> float:
    """Sum of fractions (0..1) or of a mask, in mm3."""
    return float(np.asarray(amount.array, dtype=np.float64).sum()) * amount.geometry.voxel_volume_mm3


def eh_ratio(fluid: EarFluid, *, floor: float = FLOOR) -> EHRatio:
    """Endolymph over total fluid with a 95 % interval.

    A segmenter that knows its own error says so with the fluid (`EarFluid.ratio_half_width`). For any other the
    interval is an empirical one: its half width is a floor plus a multiple of how much the ratio moves when the
    rule moves, fractions against masks, whole outline against full voxels only. Both kinds were set on phantoms
    so that about 95 % of the true ratios lie inside; neither is a promise about patients.
    """
    total_mm3, endolymph_mm3 = volume_mm3(fluid.total_fluid_fraction), volume_mm3(fluid.endolymph_fraction)
    value = min(1.0, endolymph_mm3 / total_mm3)
    half = fluid.ratio_half_width
    if half is None:
        half = floor + SENSITIVITY_SCALE * _sensitivity(fluid, value)
    return EHRatio(
        endolymph_mm3=endolymph_mm3,
        total_fluid_mm3=total_mm3,
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
    )


def _sensitivity(fluid: EarFluid, value: float) -> float:
    """Largest change of the ratio under another reasonable rule."""
    total = np.asarray(fluid.total_fluid_fraction.array, dtype=np.float64)
    endolymph = np.asarray(fluid.endolymph_fraction.array, dtype=np.float64)
    mask = np.asarray(fluid.total_fluid_mask.array)
    alternatives = [
        _ratio(np.asarray(fluid.endolymph_mask.array, dtype=np.float64), mask.astype(np.float64)),
        _ratio(endolymph * mask, total * mask),
    ]
    return max((abs(other - value) for other in alternatives if other is not None), default=0.0)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> float | None:
    amount = float(whole.sum())
    return float(part.sum()) / amount if amount > 0.0 else None


def slice_ratios(fluid: EarFluid, *, first_slice: int = 0) -> tuple[SliceRatio, ...]:
    """Areas and 2D area ratio of each slice of the ear's grid that holds fluid, counted from `first_slice`."""
    geometry = fluid.roi.geometry
    pixel_mm2 = geometry.voxel_volume_mm3 / float(geometry.spacing_mm[0])
    total = np.asarray(fluid.total_fluid_fraction.array, dtype=np.float64).sum(axis=(1, 2)) * pixel_mm2
    endolymph = np.asarray(fluid.endolymph_fraction.array, dtype=np.float64).sum(axis=(1, 2)) * pixel_mm2
    return tuple(
        SliceRatio(
            slice_index=first_slice + int(k),
            total_fluid_mm2=float(total[k]),
            endolymph_mm2=float(endolymph[k]),
            ratio=float(endolymph[k] / total[k]),
        )
        for k in np.flatnonzero(total >= MIN_SLICE_MM2)
    )
