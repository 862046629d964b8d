"""Which part of a labyrinth is cochlea, vestibule or canals: a labyrinth of average form laid into the ear's fluid.

The average labyrinth is `labyrinth_parts.json`: points of equal volume with their part, in the ear's frame (lateral,
posterior, superior, mm). It is turned and shifted, never bent, until its points and the fluid lie closest. How far
apart they stay says whether the ear has the usual form at all; a cochlea filled with bone has no cochlear level, and
nobody should be given one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from inference.anatomy import EarSide
from inference.findings import EarFluid
from inference.geometry import FloatArray

STARTS_DEG: Final = ((0.0, 0.0), (25.0, 0.0), (-25.0, 0.0), (0.0, 25.0), (0.0, -25.0))
"""Turns about the lateral axis (chin up or down) and about the superior one from which the fit begins; heads are tilted
by up to 30 degrees. The best end wins."""

ROUNDS: Final = 40
SETTLED: Final = 1e-3
"""Change of the turn (cosines) and of the shift (mm) in one round below which the fit has ended."""

MAX_DISTANCE_MM: Final = 0.8
"""Root mean square distance, both ways. Individual phantom ears lie 0.45 to 0.55 mm from the average form."""

MAX_TURN_DEG: Final = 45.0
"""A labyrinth turned further than any head in a head coil was not fitted but mistaken."""

MISSING_MM: Final = 1.2
MAX_MISSING_SHARE: Final = 0.25
"""Of a part's points that have no fluid within `MISSING_MM`: then the part is filled, cut off or not segmented."""


DRY: Final = -1
"""A voxel that belongs to no part, because it holds no fluid."""


class LabyrinthPart(StrEnum):
    """The three parts of the labyrinth that differ in what a 2D ratio means."""

    COCHLEA = "cochlea"
    VESTIBULE = "vestibule"
    CANALS = "canals"


@dataclass(frozen=True, kw_only=True, eq=False)
class LabyrinthParts:
    """The part each voxel of the ear's grid belongs to, if it holds fluid.

    `part_of` is (K, J, I) int8, the place of the part in `LabyrinthPart`, `DRY` where there is no fluid; `missing` is
    the share (0..1) of the average part's volume where this ear has no fluid; `distance_mm` how far the average form
    and this ear lie apart.
    """

    part_of: NDArray[np.int8]
    missing: dict[LabyrinthPart, float]
    distance_mm: float

    def holds(self, part: LabyrinthPart) -> NDArray[np.bool_]:
        """(K, J, I) where there is fluid and the nearest part is `part`."""
        mask: NDArray[np.bool_] = self.part_of == list(LabyrinthPart).index(part)
        return mask


@dataclass(frozen=True, kw_only=True)
class NoUsualForm:
    """The ear's fluid could not be told into parts; `reason` is a sentence for people."""

    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Average:
    points_mm: FloatArray
    part_of: NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    turn: FloatArray
    shift_mm: FloatArray
    distance_mm: float
    to_fluid_mm: FloatArray


def labyrinth_parts(fluid: EarFluid) -> LabyrinthParts | NoUsualForm:
    """The parts of one ear's fluid, or why they cannot be told."""
    average, geometry = _average(), fluid.roi.geometry
    mask = np.asarray(fluid.total_fluid_mask.array, dtype=bool)
    if mask.sum() < len(average.points_mm) // 4:
        return NoUsualForm(reason="there is too little fluid to tell cochlea and vestibule apart")
    fit = _fitted(average.points_mm, _in_ear_frame(geometry.to_lps(np.argwhere(mask)), fluid.roi.side))
    if fit.distance_mm > MAX_DISTANCE_MM or _turn_deg(fit.turn) > MAX_TURN_DEG:
        return NoUsualForm(reason="without the usual form of a labyrinth cochlea and vestibule cannot be told apart")
    lying = average.points_mm @ fit.turn.T + fit.shift_mm
    wet = np.asarray(fluid.total_fluid_fraction.array) > 0.0
    nearest = KDTree(lying).query(_in_ear_frame(geometry.to_lps(np.argwhere(wet)), fluid.roi.side))[1]
    part_of = np.full(geometry.shape, DRY, dtype=np.int8)
    part_of[wet] = average.part_of[nearest]
    return LabyrinthParts(
        part_of=part_of,
        missing={
            part: float((fit.to_fluid_mm[average.part_of == number] > MISSING_MM).mean())
            for number, part in enumerate(LabyrinthPart)
        },
        distance_mm=fit.distance_mm,
    )


@cache
def _average() -> _Average:
    """The labyrinth of average form."""
    stored = json.loads(files(__package__).joinpath("labyrinth_parts.json").read_text(encoding="utf-8"))
    parts = list(LabyrinthPart)
    points = [(point, number) for number, part in enumerate(parts) for point in stored["points_mm"][part.value]]
    return _Average(
        points_mm=np.array([point for point, _ in points], dtype=np.float64),
        part_of=np.array([number for _, number in points], dtype=np.int8),
    )


def _in_ear_frame(lps_mm: FloatArray, side: EarSide) -> FloatArray:
    """LPS as (lateral, posterior, superior): a right ear as its mirror image."""
    return lps_mm * [side.lps_sign, 1.0, 1.0]


def _fitted(average: FloatArray, fluid: FloatArray) -> _Fit:
    """The turn and shift that bring the average form into the fluid, the best of all starts."""
    tree = KDTree(fluid)
    return min((_fitted_from(start, average, fluid, tree) for start in STARTS_DEG), key=lambda fit: fit.distance_mm)


def _fitted_from(start_deg: tuple[float, float], average: FloatArray, fluid: FloatArray, tree: KDTree) -> _Fit:
    """Iterative closest points, matched both ways: neither a missing part nor an extra one pulls alone."""
    turn = _start(*start_deg)
    shift = fluid.mean(axis=0) - turn @ average.mean(axis=0)
    for _ in range(ROUNDS):
        lying = average @ turn.T + shift
        to_fluid_mm, their = tree.query(lying)
        to_average_mm, own = KDTree(lying).query(fluid)
        before, shift_before = turn, shift
        turn, shift = _rigid(np.concatenate([average, average[own]]), np.concatenate([fluid[their], fluid]))
        if np.abs(turn - before).max() < SETTLED and np.abs(shift - shift_before).max() < SETTLED:
            break
    distance = 0.5 * (np.sqrt((to_fluid_mm**2).mean()) + np.sqrt((to_average_mm**2).mean()))
    return _Fit(turn=turn, shift_mm=shift, distance_mm=float(distance), to_fluid_mm=to_fluid_mm)


def _start(about_lateral_deg: float, about_superior_deg: float) -> FloatArray:
    a, b = np.radians([about_lateral_deg, about_superior_deg])
    about_lateral = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_superior = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turn: FloatArray = about_lateral @ about_superior
    return turn


def _rigid(moving: FloatArray, fixed: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least-squares turn and shift, fixed = turn @ moving + shift (Kabsch); never a mirror image."""
    from_mm, to_mm = moving.mean(axis=0), fixed.mean(axis=0)
    u, _, vt = np.linalg.svd((moving - from_mm).T @ (fixed - to_mm))
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn: FloatArray = (u @ handed @ vt).T
    return turn, to_mm - turn @ from_mm


def _turn_deg(turn: FloatArray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0))))
