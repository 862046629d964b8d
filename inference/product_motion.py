"""Whether the patient moved between HYDROPS and the cisternogram that a HYDROPS-Mi2 was multiplied with.

Asked only of a product that this study's cisternogram does not divide (`contrast.made_with`): the others give HYDROPS
back, which is aligned like any series. The product fits the cisternogram wherever the patient lay, so aligning the two
says nothing. But what it is a product of can be told in the cerebrospinal fluid (CSF) around an ear: both factors show
it, each where the patient lay then. So the product is -M(x) M(x + d) there, M the cisternogram and d the displacement,
and the d for which this fits best is found. The motion cannot be undone: what of HYDROPS fell on dark places of the
cisternogram is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.anatomy import EarSide
from inference.findings import EarROI, QualityCode, QualityFlag, Severity
from inference.geometry import FloatArray, Volume
from inference.resampling import coarsen, resample
from inference.shifted_sums import Array, sums_by_shift

GRID_MM: Final = 1.0
"""Blocks that average noise; the best place between them is read from a parabola. Off by 0.3 mm at 16 phantom ears, by
0.9 at the worst."""

AROUND_MM: Final = 25.0
"""Half the edge of the box around an ear: the cisterns beside it, and as little as possible of what a turn of the head
moves elsewhere."""

REACH_MM: Final = 5.0
"""Farthest displacement looked for, along each axis."""

CSF_SHARE: Final = 0.5
"""Of the fluid level on the cisternogram; the rest says nothing about fluid."""

FLUID_PERCENTILE: Final = 99.0
"""Of the box: within its CSF, which fills a tenth of it."""

MIN_CSF_MM3: Final = 1000.0
"""Less CSF around the ear does not tell a displacement."""

MIN_GAIN: Final = 1.02
"""How much better than no displacement the found one must fit: 1.025 at 1.1 mm, 1.09 and more at 2 mm, 1.00 without."""

MOVED_MM: Final = (0.5, 1.0)
"""Above the first a look, above the second no number. Phantom ears that lay still have a ratio error of 0.023 on
average, those displaced by 0.9 to 1.6 mm one of 0.09, by 2 mm and more one of 0.2 (seeds 911000 to 911007); a canal is
1 mm wide."""


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """How far HYDROPS lay from the cisternogram at one ear, and how much better than none that fits (1 and more)."""

    distance_mm: float
    gain: float


def check_product(product: Volume, mrc: Volume, ears: Sequence[EarROI]) -> Mapping[EarSide, tuple[QualityFlag, ...]]:
    """Remarks about each ear of a HYDROPS-Mi2 (signed) that was multiplied with `mrc`."""
    coarse = coarsen(mrc, GRID_MM)
    seen = coarsen(product, GRID_MM)
    if not seen.geometry.same_grid(coarse.geometry):
        seen = resample(seen, coarse.geometry)
    return {ear.side: _remarks(ear.side, displacement(seen, coarse, ear.center_lps_mm)) for ear in ears}


def _remarks(side: EarSide, found: Displacement | None) -> tuple[QualityFlag, ...]:
    name = f"{side.value.capitalize()} ear"
    mended = "this cannot be corrected; send HYDROPS, or PPI and PEI"
    if found is None:
        message = (
            f"{name}: too little CSF around it to see whether the patient moved between HYDROPS and the cisternogram"
            f" that HYDROPS-Mi2 was multiplied with; {mended}"
        )
        return (QualityFlag(code=QualityCode.MOTION, severity=Severity.WARN, message=message),)
    warn, stop = MOVED_MM
    if found.distance_mm <= warn:
        return ()
    moved = found.distance_mm > stop and found.gain >= MIN_GAIN
    message = (
        f"{name}: the patient moved by {found.distance_mm:.1f} mm between HYDROPS and the cisternogram that HYDROPS-Mi2"
        f" was multiplied with; {mended}"
    )
    flag = QualityFlag(
        code=QualityCode.MOTION,
        severity=Severity.STOP if moved else Severity.WARN,
        message=message,
        measured=found.distance_mm,
        limit=stop if moved else warn,
    )
    return (flag,)


def displacement(product: Volume, mrc: Volume, center_lps_mm: Sequence[float]) -> Displacement | None:
    """At one place, of two volumes on one grid; None if there is too little CSF around it."""
    geometry = mrc.geometry
    middle = np.rint(geometry.to_index(center_lps_mm)).astype(int)
    half = np.rint(AROUND_MM / geometry.spacing_mm).astype(int)
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half + 1, geometry.shape)
    box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    around = np.asarray(mrc.array[box], dtype=np.float64)
    if around.size == 0:
        return None
    level = float(np.percentile(around, FLUID_PERCENTILE))
    csf = around > CSF_SHARE * level
    if level <= 0.0 or np.count_nonzero(csf) * geometry.voxel_volume_mm3 < MIN_CSF_MM3:
        return None
    fluid = np.where(csf, around / level, 0.0)
    reach = [round(REACH_MM / spacing) for spacing in geometry.spacing_mm]
    fit = _fit(np.where(csf, product.array[box], 0.0), fluid, reach)
    best = np.unravel_index(int(np.argmax(fit)), fit.shape)
    still = float(fit[tuple(reach)])
    if still <= 0.0:
        return None
    shift_mm = (_between(fit, best) - reach) * geometry.spacing_mm
    return Displacement(distance_mm=float(np.linalg.norm(shift_mm)), gain=float(fit[best]) / still)


def _fit(product: Array, fluid: Array, reach: Sequence[int]) -> Array:
    """How well `product` is that of `fluid` and `fluid` displaced, for every displacement; largest where it is.

    By Cauchy and Schwarz: the correlation of the product with what it would be, over that one's norm.
    """
    norm = sums_by_shift(fluid**2, fluid**2, reach)
    correlation = sums_by_shift(fluid, -product * fluid, reach)
    fit: Array = correlation / np.sqrt(np.maximum(norm, 1e-6 * norm.max()))
    return fit


def _between(fit: Array, best: tuple[np.intp, ...]) -> FloatArray:
    """Where the maximum lies between voxels, by a parabola along each axis; the voxel itself at the border."""
    place = np.array(best, dtype=np.float64)
    for axis, at in enumerate(best):
        if not 0 < at < fit.shape[axis] - 1:
            continue
        before, here, after = (
            float(np.take(fit, at + step, axis)[best[:axis] + best[axis + 1 :]]) for step in (-1, 0, 1)
        )
        bend = before - 2.0 * here + after
        place[axis] += 0.5 * (before - after) / bend if bend < 0.0 else 0.0
    return place
