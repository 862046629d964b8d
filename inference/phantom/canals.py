"""The three semicircular canals with ampullae and membranous ducts, in the ear's frame (lateral, posterior, superior).

Each canal is an arc of a circle whose plane has the measured mean normal (MRI, 55 ears, Wu 2021), joined to the
vestibule by short straight limbs; the anterior and posterior canal share the common crus.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import pi
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.geometry import FloatArray
from inference.phantom.shapes import capsule, column, length, smooth_union

Triple = tuple[float, float, float]

DUCT_GROWTH: Final = 0.5
"""Linear growth of ducts and membranous ampullae at severity 1; they distend least."""

MEMBRANOUS_AMPULLA: Final = 0.62
"""Membranous ampulla's radius as part of the bony one's."""


@dataclass(frozen=True, kw_only=True)
class Canal:
    """One canal: a circle arc (angles in degrees from `reference` within the plane) with its two ends in the vestibule.

    `start_deg` is the ampullated end. `start_foot_mm` and `end_foot_mm` are where the limbs meet the vestibule.
    """

    center_mm: Triple
    normal: Triple
    reference: Triple
    radius_mm: float
    start_deg: float
    end_deg: float
    start_foot_mm: Triple
    end_foot_mm: tuple[Triple, ...]
    lumen_mm: float = 0.58
    ampulla_mm: float = 0.95
    duct_mm: float = 0.15

    def frame(self) -> FloatArray:
        """(3, 3) columns: reference direction in the plane, 90 degrees further, normal."""
        normal = np.array(self.normal) / np.linalg.norm(self.normal)
        first = np.array(self.reference) - (np.array(self.reference) @ normal) * normal
        first /= np.linalg.norm(first)
        return np.stack([first, np.cross(normal, first), normal], axis=1)

    def at(self, degrees: float) -> FloatArray:
        """(3,) point of the arc's middle line."""
        frame, angle = self.frame(), np.deg2rad(degrees)
        point: FloatArray = np.array(self.center_mm) + self.radius_mm * (
            np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, 1]
        )
        return point


ANTERIOR: Final = Canal(
    center_mm=(2.8, 1.1, 4.5),
    normal=(-0.739, -0.588, 0.329),
    reference=(0.53, -0.85, 0.0),
    radius_mm=3.2,
    start_deg=-65.0,
    end_deg=190.0,
    start_foot_mm=(1.0, -1.4, 1.5),
    end_foot_mm=((0.8, 2.7, 2.3), (0.4, 1.5, 1.2)),
)
POSTERIOR: Final = Canal(
    center_mm=(2.2, 4.8, 0.1),
    normal=(0.660, -0.702, 0.266),
    reference=(0.73, 0.69, 0.0),
    radius_mm=3.1,
    start_deg=-122.0,
    end_deg=112.0,
    start_foot_mm=(0.2, 1.5, -1.5),
    end_foot_mm=((0.9, 3.0, 2.5),),
)
LATERAL: Final = Canal(
    center_mm=(3.7, 0.4, 0.6),
    normal=(0.025, 0.279, 0.960),
    reference=(1.0, 0.0, 0.0),
    radius_mm=2.4,
    start_deg=-128.0,
    end_deg=132.0,
    start_foot_mm=(1.0, -1.3, 1.1),
    end_foot_mm=((0.9, 1.7, 0.3),),
)


def drawn(rng: np.random.Generator) -> tuple[Canal, ...]:
    """One person's canals: normals tilt by 5 degrees (SD of inter-canal angles 4-6), radii SD 6 %, lumina SD 9 %."""
    return tuple(_varied(canal, rng) for canal in (ANTERIOR, POSTERIOR, LATERAL))


def _varied(canal: Canal, rng: np.random.Generator) -> Canal:
    def factor(sd: float, most: float) -> float:
        return float(np.clip(rng.normal(1.0, sd), 1.0 - most, 1.0 + most))

    def moved(vector: Triple, sd: float) -> Triple:
        x, y, z = np.array(vector) + rng.normal(0.0, sd, 3).clip(-2 * sd, 2 * sd)
        return float(x), float(y), float(z)

    return replace(
        canal,
        center_mm=moved(canal.center_mm, 0.15),
        normal=moved(canal.normal, float(np.tan(np.deg2rad(5.0)))),
        radius_mm=canal.radius_mm * factor(0.06, 0.13),
        lumen_mm=canal.lumen_mm * factor(0.09, 0.2),
        ampulla_mm=canal.ampulla_mm * factor(0.08, 0.18),
        duct_mm=canal.duct_mm * factor(0.1, 0.25),
    )


@dataclass(frozen=True, kw_only=True)
class CanalField:
    """What a canal says about points: `distance` to its bony lumen (mm), and `onset`, the endolymph severity."""

    distance: Tensor
    onset: Tensor


def evaluate(shape: Canal, points: Tensor) -> CanalField:
    """Distance and endolymph onset at `points` (3, N)."""
    to_lumen = _arc_distance(shape, points, shape.radius_mm) - shape.lumen_mm
    foot, limb = column(shape.start_foot_mm), column(shape.at(shape.start_deg))
    to_lumen = smooth_union(to_lumen, capsule(points, foot, limb, shape.lumen_mm + 0.1), 0.3)
    chain = [column(shape.at(shape.end_deg)), *(column(point) for point in shape.end_foot_mm)]
    for begin, end in pairwise(chain):
        to_lumen = smooth_union(to_lumen, capsule(points, begin, end, shape.lumen_mm, shape.lumen_mm + 0.08), 0.3)
    ampulla_center = 0.65 * limb + 0.35 * foot
    to_ampulla = length(points - ampulla_center)

    # The membranous duct hangs on the outer wall of the bony canal.
    to_duct = _arc_distance(shape, points, shape.radius_mm + shape.lumen_mm - shape.duct_mm - 0.05)
    for begin, end in pairwise(chain):
        to_duct = torch.minimum(to_duct, capsule(points, begin, end, 0.0))
    duct = (to_duct / shape.duct_mm - 1.0) / DUCT_GROWTH
    ampulla = (to_ampulla / (MEMBRANOUS_AMPULLA * shape.ampulla_mm) - 1.0) / DUCT_GROWTH
    return CanalField(
        distance=smooth_union(to_lumen, to_ampulla - shape.ampulla_mm, 0.3), onset=torch.minimum(duct, ampulla)
    )


def _arc_distance(shape: Canal, points: Tensor, radius_mm: float) -> Tensor:
    """Distance (mm) to the arc's middle line, the circle having `radius_mm`."""
    local = torch.from_numpy(shape.frame().T.astype(np.float32)) @ (points - column(shape.center_mm))
    half = abs(np.deg2rad(shape.end_deg - shape.start_deg)) / 2.0
    middle = np.deg2rad(shape.start_deg + shape.end_deg) / 2.0
    angle = torch.remainder(torch.atan2(local[1], local[0]) - middle + pi, 2 * pi) - pi
    angle = angle.clamp(-half, half) + middle
    nearest = torch.stack([torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)]) * radius_mm
    return length(local - nearest)
