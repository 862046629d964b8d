"""Ears and fluids, and the sizes that make them recognizable.

Every number says where it was read; none is a clinical reference range.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class EarSide(StrEnum):
    """The patient's side, computed from LPS coordinates (+x is the patient's left), never from array order."""

    RIGHT = "right"
    LEFT = "left"

    @property
    def lps_sign(self) -> int:
        """-1 for the patient's right, +1 for the left: the sign of x in LPS relative to the midline."""
        return 1 if self is EarSide.LEFT else -1


class FluidSpace(StrEnum):
    """The two spaces we segment; perilymph is their difference."""

    TOTAL_FLUID_SPACE = "total_fluid_space"
    ENDOLYMPH = "endolymph"


INTER_EAR_DISTANCE_MM: Final = (60.0, 100.0)
"""Labyrinth centroid to labyrinth centroid. 72.2 mm between utricles (n = 50), 80.6 mm between labyrinth
centers in the IE-Vnet sample; widened for small and large heads."""

LABYRINTH_EXTENT_MM: Final = (16.0, 18.0, 15.0)
"""Largest expected bounding box (x, y, z) of one labyrinth: 14.4 x 16.0 x 13.8 mm measured on two real crops."""

TOTAL_FLUID_MM3: Final = (100.0, 450.0)
"""Total fluid volume outside which a segmentation is not believed: 168-190 mm3 at half maximum on real crops,
350 mm3 with generous manual contours (Yoo et al. 2024)."""
