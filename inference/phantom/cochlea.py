"""The cochlea: a tapering spiral canal, split by the osseous lamina, with the scala media at its outer wall.

Everything is given in the ear's own frame (lateral, posterior, superior) in mm, origin in the middle of the vestibule.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.geometry import FloatArray
from inference.phantom.shapes import column, length

HOOK_RAD: Final = 0.45
"""Angle before the round window by which the basal canal reaches back into the vestibule."""

REISSNER_NORMAL_DEG: Final = 24.0
"""Angle between basilar and Reissner's membrane in a normal ear; with the lumen below it makes the scala media's
mean section 0.23 mm2 (7.67 mm3 over 33 mm, temporal bones, n = 31)."""

REISSNER_RISE_DEG: Final = 118.0
"""Rise of Reissner's membrane at severity 1: the scala vestibuli is then nearly filled (Barath grade II)."""

LAMINA_HALF_MM: Final = 0.08
NARROWING_PER_RAD: Final = 0.15
"""The canal narrows mostly in the basal turn: scala tympani 1.00 mm high at its base, 0.71 mm half a turn later."""

HELICOTREMA_RAD: Final = 0.9
"""The lamina ends this far before the apex, where the two scalae meet."""


@dataclass(frozen=True, kw_only=True)
class Cochlea:
    """One person's cochlea. `window_mm` is the middle of the canal at the round window, where the angle is 0.

    The canal's middle runs at radius `core + rise * exp(-decay * angle)` from the modiolus axis. With the defaults the
    A value (round window to far wall) is 9.0 mm, B 6.6 mm (reviews: 9.23 and 6.52), the duct 34 mm long.
    """

    window_mm: tuple[float, float, float] = (-0.9, -2.2, -2.0)
    axis: tuple[float, float, float] = (0.38, -0.89, -0.24)
    """Base to apex: lateral, forward and down."""
    start_deg: float = 28.0
    """Direction of the round window from the axis: lateral, turned this far down."""
    turns: float = 2.6
    core_mm: float = 0.5
    rise_mm: float = 4.1
    decay: float = 0.13
    height_mm: float = 3.8
    radial_mm: tuple[float, float] = (1.08, 0.6)
    """Half width of the canal away from the axis, base and apex."""
    axial_mm: tuple[float, float] = (1.05, 0.58)
    """Half height of the canal along the axis, base and apex."""

    @property
    def end_rad(self) -> float:
        """Angle of the apex."""
        return self.turns * 2.0 * pi

    def frame(self) -> FloatArray:
        """(3, 3) columns: toward the round window, the way the canal winds (down first), base to apex."""
        axis = np.array(self.axis) / np.linalg.norm(self.axis)
        lateral = np.array([1.0, 0.0, 0.0])
        lateral = lateral - (lateral @ axis) * axis
        lateral /= np.linalg.norm(lateral)
        down = np.array([0.0, 0.0, -1.0])
        down = down - (down @ axis) * axis
        down -= (down @ lateral) * lateral
        down /= np.linalg.norm(down)
        angle = np.deg2rad(self.start_deg)
        toward_window = np.cos(angle) * lateral + np.sin(angle) * down
        winding = -np.sin(angle) * lateral + np.cos(angle) * down
        return np.stack([toward_window, winding, axis], axis=1)

    def modiolus_base(self) -> FloatArray:
        """(3,) foot of the modiolus axis, at the level of the round window."""
        base: FloatArray = np.array(self.window_mm) - (self.core_mm + self.rise_mm) * self.frame()[:, 0]
        return base


@dataclass(frozen=True, kw_only=True)
class CochleaField:
    """What the cochlea says about points: `distance` to its fluid (mm), and `onset`, the endolymph severity (1)."""

    distance: Tensor
    onset: Tensor


def evaluate(shape: Cochlea, points: Tensor) -> CochleaField:
    """Distance and endolymph onset at `points` (3, N).

    The spiral is unrolled: a point's angle is only known up to full turns, so every turn is tried and the nearest
    canal section wins.
    """
    local = torch.from_numpy(shape.frame().T.astype(np.float32)) @ (points - column(shape.modiolus_base()))
    radius = length(local[:2])
    angle = torch.remainder(torch.atan2(local[1], local[0]) + HOOK_RAD, 2 * pi) - HOOK_RAD
    best = torch.full_like(radius, torch.inf)
    onset = torch.full_like(radius, torch.inf)
    for turn in range(int(shape.turns) + 2):
        section = _section(shape, angle + 2 * pi * turn, radius, local[2])
        nearer = section.distance < best
        best = torch.where(nearer, section.distance, best)
        onset = torch.where(nearer, section.onset, onset)
    return CochleaField(distance=best, onset=onset)


def _section(shape: Cochlea, angle: Tensor, radius: Tensor, height: Tensor) -> CochleaField:
    """The canal's cross-section at `angle`: an ellipse less the lamina, closed by a round end at the apex."""
    overshoot = (angle - shape.end_rad).clamp(min=0.0)
    angle = angle.clamp(max=shape.end_rad)
    middle = shape.core_mm + shape.rise_mm * torch.exp(-shape.decay * angle)
    climb = 1.0 - torch.exp(torch.tensor(-0.05 * shape.end_rad))
    level = shape.height_mm * (1.0 - torch.exp(-0.05 * angle)) / climb
    narrowing = 1.0 - torch.exp(-NARROWING_PER_RAD * angle)
    half_width = shape.radial_mm[0] + (shape.radial_mm[1] - shape.radial_mm[0]) * narrowing
    half_height = shape.axial_mm[0] + (shape.axial_mm[1] - shape.axial_mm[0]) * narrowing

    outward, upward, beyond = radius - middle, height - level, overshoot * middle
    scaled = length(torch.stack([outward / half_width, upward / half_height, beyond / half_height]))
    canal = (scaled - 1.0) * torch.minimum(half_width, half_height)
    lamina = torch.maximum(upward.abs() - LAMINA_HALF_MM, outward + 0.05 * half_width)
    lamina = torch.where(angle < shape.end_rad - HELICOTREMA_RAD, lamina, torch.full_like(lamina, torch.inf))

    reissner_deg = torch.rad2deg(torch.atan2(upward, outward + 0.05 * half_width))
    onset = (reissner_deg - REISSNER_NORMAL_DEG) / REISSNER_RISE_DEG
    onset = torch.where(upward >= 0.0, onset, torch.full_like(onset, torch.inf))
    return CochleaField(distance=torch.maximum(canal, -lamina), onset=onset)
