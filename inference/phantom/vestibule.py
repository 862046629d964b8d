"""The vestibule with utricle and saccule, in the ear's frame (lateral, posterior, superior) in mm.

Endolymph sits in the upper and medial part and never reaches the oval and round windows (Conte 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from inference.phantom.shapes import column, ellipsoid, relative_radius, smooth_union

UTRICLE_GROWTH: Final = 0.36
"""Linear growth at severity 1: 2.5 times the volume, the largest hydropic utricles."""

SACCULE_GROWTH: Final = 1.15
"""Linear growth at severity 1: 10 times the volume; the saccule distends first."""

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Vestibule:
    """One person's vestibule (about 5 x 5 x 3 mm, 55-70 mm3), utricle (10.65 mm3) and saccule (2.42 mm3)."""

    body_semi_mm: Triple = (1.65, 2.5, 2.55)
    recess_mm: Triple = (0.35, 0.2, 1.5)
    recess_semi_mm: Triple = (1.65, 2.4, 1.5)
    utricle_mm: Triple = (0.25, 0.35, 1.25)
    utricle_semi_mm: Triple = (1.12, 2.1, 1.08)
    saccule_mm: Triple = (-0.55, -1.2, -0.55)
    saccule_semi_mm: Triple = (0.75, 0.9, 0.85)


def distance(shape: Vestibule, points: Tensor) -> Tensor:
    """Distance (mm) to the bony vestibule."""
    body = ellipsoid(points, column((0.0, 0.0, 0.0)), column(shape.body_semi_mm))
    recess = ellipsoid(points, column(shape.recess_mm), column(shape.recess_semi_mm))
    return smooth_union(body, recess, 0.6)


def endolymph_onsets(shape: Vestibule, points: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) severities at which the utricle and at which the saccule reaches each point."""
    utricle = relative_radius(points, column(shape.utricle_mm), column(shape.utricle_semi_mm))
    saccule = relative_radius(points, column(shape.saccule_mm), column(shape.saccule_semi_mm))
    return (utricle - 1.0) / UTRICLE_GROWTH, (saccule - 1.0) / SACCULE_GROWTH


def drawn(rng: np.random.Generator) -> Vestibule:
    """One person's vestibule: axes vary by 7 % (SD), places by 0.15 mm, the sacs' volumes by some 20 %.

    Upper limits of normal sacs are 1.5 times the mean (temporal bones, n = 31), as three axes of 7 % give.
    """
    usual = Vestibule()
    together = np.clip(rng.normal(1.0, 0.06, 3), 0.87, 1.13)

    def size(semi_mm: Triple) -> Triple:
        x, y, z = np.array(semi_mm) * together * np.clip(rng.normal(1.0, 0.05, 3), 0.88, 1.12)
        return float(x), float(y), float(z)

    def spot(center_mm: Triple) -> Triple:
        x, y, z = np.array(center_mm) * together + rng.normal(0.0, 0.15, 3).clip(-0.35, 0.35)
        return float(x), float(y), float(z)

    return Vestibule(
        body_semi_mm=size(usual.body_semi_mm),
        recess_mm=spot(usual.recess_mm),
        recess_semi_mm=size(usual.recess_semi_mm),
        utricle_mm=spot(usual.utricle_mm),
        utricle_semi_mm=size(usual.utricle_semi_mm),
        saccule_mm=spot(usual.saccule_mm),
        saccule_semi_mm=size(usual.saccule_semi_mm),
    )
