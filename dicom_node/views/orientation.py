"""Which way a grid's slices are shown: as radiologists look at a patient, from the feet and from the front.

A slab may be oblique, so a picture shows one of the grid's own planes, never a resampled one; the letters at its edges
say where each edge really points. The patient's right is on the viewer's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.geometry import VolumeGeometry


class Plane(StrEnum):
    """The three planes of a grid, named by the anatomical plane that each is nearest to."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


RIGHTWARD_AND_DOWNWARD: Final = {
    # (LPS axis and sign shown to the right, LPS axis and sign shown downward)
    Plane.AXIAL: ((0, 1.0), (1, 1.0)),  # left of the patient to the right, back of the patient down
    Plane.CORONAL: ((0, 1.0), (2, -1.0)),  # left to the right, feet down
    Plane.SAGITTAL: ((1, 1.0), (2, -1.0)),  # back to the right, feet down
}

LETTERS: Final = (("R", "L"), ("A", "P"), ("F", "H"))
"""Toward which side of the patient each LPS axis falls and grows (PS3.3 C.7.6.1.1.1)."""

LETTER_THRESHOLD: Final = 0.1
"""A direction less than 6 degrees out of a plane is not worth a second letter."""


@dataclass(frozen=True, kw_only=True)
class Display:
    """How one plane of a grid is shown: which array axis runs down, which to the right, and which are turned round.

    `through` is the array axis that the wheel moves along.
    """

    plane: Plane
    through: int
    down: int
    right: int
    flip_down: bool
    flip_right: bool

    def slice_of(self, array: NDArray[np.generic], index: int) -> NDArray[np.generic]:
        """Slice `index` of a (K, J, I) array as it is shown: (rows downward, columns to the right)."""
        shown = np.moveaxis(array, (self.through, self.down, self.right), (0, 1, 2))[index]
        turned: NDArray[np.generic] = shown[:: -1 if self.flip_down else 1, :: -1 if self.flip_right else 1]
        return turned


def nearest_axes(geometry: VolumeGeometry) -> tuple[int, int, int]:
    """The array axis nearest to x, to y and to z of the patient; each axis is used once."""
    cosines = np.abs(geometry.directions)
    best = max(permutations(range(3)), key=lambda order: sum(cosines[lps, axis] for lps, axis in enumerate(order)))
    return best[0], best[1], best[2]


def display(geometry: VolumeGeometry, plane: Plane) -> Display:
    """How `plane` of this grid is shown the radiological way."""
    axes = nearest_axes(geometry)
    (right_lps, right_sign), (down_lps, down_sign) = RIGHTWARD_AND_DOWNWARD[plane]
    right, down = axes[right_lps], axes[down_lps]
    return Display(
        plane=plane,
        through=3 - right - down,
        down=down,
        right=right,
        flip_down=bool(geometry.directions[down_lps, down] * down_sign < 0),
        flip_right=bool(geometry.directions[right_lps, right] * right_sign < 0),
    )


def edge_letters(geometry: VolumeGeometry, shown: Display) -> tuple[str, str, str, str]:
    """Letters of the left, right, top and bottom edge, e.g. ("R", "L", "AH", "PF") on a tilted slab."""
    rightward = geometry.directions[:, shown.right] * (-1.0 if shown.flip_right else 1.0)
    downward = geometry.directions[:, shown.down] * (-1.0 if shown.flip_down else 1.0)
    return letters_toward(-rightward), letters_toward(rightward), letters_toward(-downward), letters_toward(downward)


def letters_toward(direction: NDArray[np.float64], *, least: float = LETTER_THRESHOLD) -> str:
    """The sides of the patient that a unit vector in LPS points to by more than `least`, the strongest first."""
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(LETTERS[axis][int(direction[axis] > 0)] for axis in order if abs(direction[axis]) > least)
