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

Triple = tuple[float, float, float]

HOOK_RAD: Final = 0.45
"""Angle before the round window by which the basal canal reaches back into the vestibule."""

REISSNER_NORMAL_DEG: Final = 21.0
"""Angle between basilar and Reissner's membrane in a normal ear; with the lumen below it makes the scala media's
mean section 0.23 mm2 (7.67 mm3 over 33 mm, temporal bones, n = 31)."""

REISSNER_RISE_DEG: Final = 118.0
"""Rise of Reissner's membrane at severity 1: the scala vestibuli is then nearly filled (Barath grade II)."""

NARROWING_PER_RAD: Final = 0.13
"""The canal narrows mostly in the basal turn: scala tympani 1.00 mm high at its base, 0.71 mm half a turn later."""

HELICOTREMA_RAD: Final = 0.9
"""The lamina ends this far before the apex, where the two scalae meet."""


@dataclass(frozen=True, kw_only=True)
class Cochlea:
    """One person's cochlea. `window_mm` is the middle of the canal at the round window, where the angle is 0.

    The canal's middle runs at radius `core + rise * exp(-decay * angle)` from the modiolus axis. With the defaults the
    A value (round window to far wall) is 8.4 mm (review: 9.23, range 8.4 to 10.4), the width across it 6.2 mm between
    the middle lines and 8.2 mm from wall to wall (B value in the review: 6.52), the middle line 34 mm long (33.0).
    """

    window_mm: Triple = (-0.9, -2.2, -2.0)
    axis: Triple = (0.38, -0.89, -0.24)
    """Base to apex: lateral, forward and down."""
    start_deg: float = 28.0
    """Direction of the round window from the axis: lateral, turned this far down."""
    turns: float = 2.6
    core_mm: float = 0.5
    rise_mm: float = 3.9
    decay: float = 0.135
    height_mm: float = 4.3
    lamina_mm: float = 0.16
    """Thickness of the osseous spiral lamina."""
    septum_mm: float = 0.14
    """Thickness of the bone between turns where they meet; 0.5 mm voxels show it as a dark line."""
    radial_mm: tuple[float, float] = (1.08, 0.68)
    """Half width of the canal away from the axis, base and apex."""
    axial_mm: tuple[float, float] = (1.08, 0.66)
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


def drawn(rng: np.random.Generator) -> Cochlea:
    """One person's cochlea: 2.5-2.75 turns, A value 8.4 +- 0.5 mm.

    That reaches from the one real ear we fitted (7.7) to the review's mean (9.23) and beyond. Lumen SD 9-15 %
    (micro-CT). Bone between the scalae and turns is thin and varies most on images.
    """
    usual = Cochlea()
    width, height = np.clip(rng.normal(1.0, 0.07, 2), 0.86, 1.14)
    apex = float(np.clip(rng.normal(1.04, 0.08), 0.88, 1.2))
    return Cochlea(
        axis=_tilted(usual.axis, rng, 5.0),
        start_deg=float(rng.normal(usual.start_deg, 5.0)),
        turns=float(np.clip(rng.normal(2.6, 0.06), 2.5, 2.75)),
        core_mm=usual.core_mm * float(np.clip(rng.normal(1.0, 0.15), 0.6, 1.4)),
        rise_mm=usual.rise_mm * float(np.clip(rng.normal(1.0, 0.07), 0.86, 1.16)),
        decay=float(np.clip(rng.normal(usual.decay, 0.008), 0.115, 0.155)),
        height_mm=float(np.clip(rng.normal(usual.height_mm, 0.35), 3.4, 5.1)),
        lamina_mm=float(rng.uniform(0.08, 0.24)),
        septum_mm=float(rng.uniform(0.05, 0.3)),
        radial_mm=(usual.radial_mm[0] * float(width), usual.radial_mm[1] * float(width) * apex),
        axial_mm=(usual.axial_mm[0] * float(height), usual.axial_mm[1] * float(height) * apex),
    )


def _tilted(direction: Triple, rng: np.random.Generator, sd_deg: float) -> Triple:
    """`direction` turned by an angle of `sd_deg` toward each of the other two axes."""
    x, y, z = np.array(direction) + np.tan(np.deg2rad(sd_deg)) * rng.normal(size=3)
    return float(x), float(y), float(z)


@dataclass(frozen=True, kw_only=True)
class CochleaField:
    """What the cochlea says about points, each (N,).

    `distance` to its fluid (mm); `onset`, the endolymph severity (1); `along`, 0 at the round window, 1 at the apex.
    """

    distance: Tensor
    onset: Tensor
    along: Tensor


def evaluate(shape: Cochlea, points: Tensor) -> CochleaField:
    """Distance, endolymph onset and place along the canal at `points` (3, N).

    The spiral is unrolled: a point's angle is only known up to full turns, so every turn is tried and the nearest
    canal section wins. Bone of `septum_mm` stays between the nearest turn and the next.
    """
    local = torch.from_numpy(shape.frame().T.astype(np.float32)) @ (points - column(shape.modiolus_base()))
    radius = length(local[:2])
    angle = torch.remainder(torch.atan2(local[1], local[0]) + HOOK_RAD, 2 * pi) - HOOK_RAD
    nearest, next_turn = torch.full_like(radius, torch.inf), torch.full_like(radius, torch.inf)
    distance, onset, turn_of = nearest.clone(), nearest.clone(), torch.zeros_like(radius)
    for turn in range(int(shape.turns) + 2):
        canal, split, section_onset = _section(shape, angle + 2 * pi * turn, radius, local[2])
        nearer = canal < nearest
        next_turn = torch.where(nearer, nearest, torch.minimum(next_turn, canal))
        nearest = torch.where(nearer, canal, nearest)
        distance = torch.where(nearer, split, distance)
        onset = torch.where(nearer, section_onset, onset)
        turn_of = torch.where(nearer, float(turn), turn_of)
    distance = torch.maximum(distance, 0.5 * (shape.septum_mm - (next_turn - nearest)))
    along = ((angle + 2 * pi * turn_of) / shape.end_rad).clamp(0.0, 1.0)
    return CochleaField(distance=distance, onset=onset, along=along)


def _section(shape: Cochlea, angle: Tensor, radius: Tensor, height: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The canal's cross-section at `angle`, an ellipse closed by a round end at the apex.

    Returns (N,) distances to the canal and to its fluid (the canal less the lamina), and the onset.
    """
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
    lamina = torch.maximum(upward.abs() - shape.lamina_mm / 2.0, outward + 0.05 * half_width)
    lamina = torch.where(angle < shape.end_rad - HELICOTREMA_RAD, lamina, torch.full_like(lamina, torch.inf))

    reissner_deg = torch.rad2deg(torch.atan2(upward, outward + 0.05 * half_width))
    onset = (reissner_deg - REISSNER_NORMAL_DEG) / REISSNER_RISE_DEG
    onset = torch.where(upward >= 0.0, onset, torch.full_like(onset, torch.inf))
    return canal, torch.maximum(canal, -lamina), onset
