"""What a trained network says, held against the method that needs no training: two ways, one ear.

They know different things. Where they part, one of them met what it was not made for, and nobody can tell which.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from inference.findings import EarFluid, EHRatio, QualityCode, QualityFlag, Severity

VOLUME_RATIO: Final = (1.35, 1.8)
"""Larger over smaller total fluid volume: above the first a remark, above the second no number. This and the limits
below are judgment; of 192 ears that the evaluation sent through the node they stopped 3 and remarked on 4."""

FLUID_DICE: Final = (0.8, 0.65)
"""Overlap of the total fluid masks: below the first a remark, below the second no number."""

RATIO_GAP: Final = (0.0, 0.15)
"""How far apart the two 95 % intervals of the EH ratio lie: apart at all a remark, beyond the second no number."""


def compare(fluid: EarFluid, ratio: EHRatio, other: EarFluid, other_ratio: EHRatio | None) -> tuple[QualityFlag, ...]:
    """Remarks where two methods disagree about one ear.

    Parameters
    ----------
    fluid, ratio
        Of the method whose number is reported.
    other, other_ratio
        Of the no-training method, on the same grid; no ratio if it found no fluid.
    """
    name = f"{fluid.roi.side.value.capitalize()} ear"
    if other_ratio is None:
        message = f"{name}: the method without training found no fluid here, so nothing confirms the number"
        return (_flag(Severity.WARN, message, 0.0, FLUID_DICE[0]),)
    volumes = sorted((ratio.total_fluid_mm3, other_ratio.total_fluid_mm3))
    dice = _dice(fluid, other)
    gap = max(ratio.low - other_ratio.high, other_ratio.low - ratio.high)
    findings = (
        (volumes[1] / volumes[0], VOLUME_RATIO, f"total fluid of {volumes[0]:.0f} or {volumes[1]:.0f} mm3"),
        (-dice, (-FLUID_DICE[0], -FLUID_DICE[1]), f"total fluid that overlaps by {dice:.2f} only"),
        (gap, RATIO_GAP, f"an EH ratio of {100 * ratio.value:.1f} % or {100 * other_ratio.value:.1f} %"),
    )
    return tuple(
        _flag(
            Severity.STOP if excess > stop else Severity.WARN,
            f"{name}: the method without training disagrees: {said}",
            abs(excess),
            abs(stop if excess > stop else warn),
        )
        for excess, (warn, stop), said in findings
        if excess > warn
    )


def _dice(one: EarFluid, other: EarFluid) -> float:
    """Twice the overlap of the total fluid masks over their sum; 0 if both are empty."""
    first, second = np.asarray(one.total_fluid_mask.array), np.asarray(other.total_fluid_mask.array)
    size = int(first.sum()) + int(second.sum())
    return 2.0 * int(np.count_nonzero(first & second)) / size if size else 0.0


def _flag(severity: Severity, message: str, measured: float, limit: float) -> QualityFlag:
    return QualityFlag(
        code=QualityCode.DISAGREEMENT, severity=severity, message=message, measured=measured, limit=limit
    )
