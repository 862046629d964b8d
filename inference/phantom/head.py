"""The head around the ears: skull, brain, cisterns, internal auditory canals with nerves, eyes, air, fat and skin.

Patient space is LPS in mm with its origin between the ears. Shapes are painted one over the other, each with a soft
edge as wide as the grid that asks, so the same head can be drawn on a coarse grid and sharply around the ears.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.phantom.physics import Tissue
from inference.phantom.shapes import capsule, column, ellipsoid, length, occupancy, smooth_union

EAR_LPS_MM: Final = (40.0, 6.0, -6.0)
"""Middle of the left vestibule; 80 mm apart, the centers of the fluid 77 mm (72.2 mm between utricles in one study,
80.6 mm between labyrinths in another)."""

TISSUES: Final = tuple(Tissue)

Triple = tuple[float, float, float]
Painting = tuple[Tissue, Tensor]
"""A tissue and the distance to its surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Waves:
    """A smooth random field without a grid: a sum of plane waves, about -1..1, features about `period_mm` wide."""

    directions: Tensor
    phases: Tensor

    @classmethod
    def draw(cls, rng: np.random.Generator, period_mm: float, count: int = 7) -> Waves:
        """Random waves with wavelengths around `period_mm`."""
        directions = rng.normal(size=(3, count))
        directions *= 2 * np.pi / period_mm * rng.uniform(0.7, 1.4, count) / np.linalg.norm(directions, axis=0)
        return cls(
            directions=torch.from_numpy(directions.T.astype(np.float32)),
            phases=column(rng.uniform(0, 2 * np.pi, count)),
        )

    def at(self, points: Tensor) -> Tensor:
        """(N,) value at `points`."""
        total = torch.zeros(points.shape[1])
        for wave, phase in zip(self.directions, self.phases, strict=True):
            total += torch.sin(wave @ points + phase)
        field: Tensor = total / len(self.phases) ** 0.5
        return field


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """One person's head. `scale` enlarges it about the origin; temporal bones stay with their ears (LPS mm)."""

    folds: Waves
    patches: Waves
    cells: Waves
    scale: float
    right_ear_mm: Triple
    left_ear_mm: Triple

    @classmethod
    def individual(cls, rng: np.random.Generator, *, right_ear_mm: Triple, left_ear_mm: Triple) -> Head:
        """A random person around ears at given places."""
        return cls(
            folds=Waves.draw(rng, 13.0),
            patches=Waves.draw(rng, 7.0),
            cells=Waves.draw(rng, 4.5),
            scale=float(np.clip(rng.normal(1.0, 0.02), 0.96, 1.04)),
            right_ear_mm=right_ear_mm,
            left_ear_mm=left_ear_mm,
        )

    def fractions(self, points: Tensor, *, edge_mm: float) -> Tensor:
        """(number of tissues, N) parts that sum to 1, at `points` (3, N); edges are `edge_mm` wide."""
        parts = torch.zeros(len(TISSUES), points.shape[1])
        parts[TISSUES.index(Tissue.AIR)] = 1.0
        used = {Tissue.AIR}
        for tissue, distance in self._paint(points):
            share = occupancy(distance, edge_mm)
            for covered in used:
                parts[TISSUES.index(covered)] *= 1.0 - share
            parts[TISSUES.index(tissue)] += share
            used.add(tissue)
        return parts

    def _paint(self, points: Tensor) -> Iterator[Painting]:
        """Shapes from the outside in; later ones cover earlier ones."""
        mirrored = points.clone()
        mirrored[0] = mirrored[0].abs()
        yield from self._outer_layers(points / self.scale)
        cavity = self._cranial_cavity(points / self.scale) * self.scale
        yield from self._brain(points / self.scale, mirrored / self.scale, cavity)
        yield from self._face(mirrored / self.scale)
        yield from self._temporal_bone(points)

    def _outer_layers(self, points: Tensor) -> Iterator[Painting]:
        """Skin, fat, muscle and the skull, as shells below the head's surface."""
        surface = smooth_union(
            _ball(points, (0.0, -4.0, 12.0), (75.0, 92.0, 104.0)),
            capsule(points, column((0.0, 22.0, -60.0)), column((0.0, 34.0, -140.0)), 58.0),
            20.0,
        )
        yield Tissue.SKIN, surface
        yield Tissue.FAT, surface + 2.0
        yield Tissue.MUSCLE, surface + 5.0
        skull = _ball(points, (0.0, -4.0, 24.0), (69.0, 86.0, 86.0))
        yield Tissue.BONE, skull
        yield Tissue.MARROW, skull + 2.0
        yield Tissue.BONE, skull + 4.5

    def _cranial_cavity(self, points: Tensor) -> Tensor:
        """Distance to the inside of the skull: cerebral part, posterior fossa and spinal canal."""
        upper = _ball(points, (0.0, -4.0, 42.0), (66.0, 80.0, 60.0))
        fossa = _ball(points, (0.0, 38.0, -14.0), (52.0, 40.0, 34.0))
        canal = capsule(points, column((0.0, 24.0, -30.0)), column((0.0, 34.0, -120.0)), 10.0)
        return smooth_union(smooth_union(upper, fossa, 10.0), canal, 6.0)

    def _brain(self, points: Tensor, mirrored: Tensor, cavity: Tensor) -> Iterator[Painting]:
        """CSF up to the bone; brain inside it with sulci, brainstem, cisterns and ventricles."""
        yield Tissue.CSF, cavity
        sulci = 4.0 * self.folds.at(points).abs() - 0.5
        yield Tissue.BRAIN, cavity + 1.5
        yield Tissue.CSF, torch.maximum(torch.maximum(sulci, cavity), -(cavity + 9.0))
        yield Tissue.CSF, _ball(points, (0.0, -6.0, 8.0), (16.0, 12.0, 10.0))
        yield Tissue.CSF, _ball(points, (0.0, 8.0, -10.0), (24.0, 14.0, 20.0))
        yield Tissue.CSF, _ball(mirrored, (21.0, 13.5, -7.0), (8.5, 6.0, 11.0))
        yield Tissue.BRAIN, _ball(points, (0.0, 15.0, -10.0), (15.5, 12.5, 17.0))
        yield Tissue.BRAIN, capsule(points, column((0.0, 20.0, -20.0)), column((0.0, 34.0, -120.0)), 7.0, 5.0)
        yield Tissue.CSF, _ball(points, (0.0, 31.0, -10.0), (6.5, 5.0, 11.0))
        yield Tissue.CSF, _ball(mirrored, (9.0, -2.0, 40.0), (5.0, 30.0, 8.0))

    def _face(self, mirrored: Tensor) -> Iterator[Painting]:
        """Orbits with eyes, and air in sinuses and nose."""
        yield Tissue.FAT, _ball(mirrored, (31.0, -66.0, 4.0), (17.0, 22.0, 17.0))
        yield Tissue.CSF, _ball(mirrored, (31.0, -73.0, 4.0), (12.0, 12.0, 12.0))
        yield Tissue.AIR, _ball(mirrored, (0.0, -50.0, -6.0), (13.0, 26.0, 14.0))
        yield Tissue.AIR, _ball(mirrored, (27.0, -58.0, -30.0), (13.0, 15.0, 16.0))
        yield Tissue.AIR, _ball(mirrored, (0.0, -20.0, -45.0), (14.0, 12.0, 22.0))

    def _temporal_bone(self, points: Tensor) -> Iterator[Painting]:
        """Petrous bone with marrow and air cells, ear canal, internal auditory canal, carotid and jugular voids."""
        right, left = column(self.right_ear_mm), column(self.left_ear_mm)
        on_right = points[0] < 0
        local = points - torch.where(on_right, right, left)
        local[0] = torch.where(on_right, -local[0], local[0])
        apex, ear_rod = column((-24.0, -16.0, 0.0)), column((0.0, -1.0, 1.0))
        petrous = smooth_union(
            capsule(local, apex, ear_rod, 6.5, 10.0),
            capsule(local, ear_rod, column((22.0, 9.0, -4.0)), 10.0, 15.0),
            5.0,
        )
        yield Tissue.BONE, petrous
        patches = self.patches.at(points)
        away = 13.0 - length(local)
        yield Tissue.MARROW, torch.maximum(torch.maximum(petrous + 2.0, away), 1.5 - 3.0 * patches)
        cells = self.cells.at(points)
        mastoid = ellipsoid(local, column((21.0, 9.0, -5.0)), column((11.0, 12.0, 16.0)))
        yield Tissue.AIR, torch.maximum(torch.maximum(mastoid, away), -0.2 - 2.0 * cells)
        yield Tissue.MUCOSA, torch.maximum(torch.maximum(mastoid, away), 3.4 - 2.0 * cells)
        yield Tissue.AIR, capsule(local, column((8.5, -4.0, -3.0)), column((40.0, -3.0, -5.0)), 3.5)
        yield from _internal_auditory_canal(local)
        yield Tissue.AIR, capsule(local, column((-4.0, -12.0, -9.0)), column((-19.0, -17.0, -8.0)), 2.8)
        yield Tissue.AIR, ellipsoid(local, column((-3.0, 8.0, -13.0)), column((4.5, 4.5, 6.0)))


def _internal_auditory_canal(local: Tensor) -> Iterator[Painting]:
    """CSF from the fundus between cochlea and vestibule to the cistern, with four dark nerves."""
    fundus, porus = column((-3.4, -3.0, 1.6)), column((-13.5, 0.2, 2.2))
    yield Tissue.CSF, capsule(local, fundus, porus, 1.4, 3.2)
    yield Tissue.CSF, capsule(local, porus, column((-20.0, 3.0, 2.0)), 3.4, 6.5)
    stem = column((-24.0, 5.0, 1.5))
    for y, z in ((-0.9, 0.8), (0.9, 0.8), (-0.9, -0.8), (0.9, -0.8)):
        offset = column((0.0, y, z))
        yield Tissue.NERVE, capsule(local, fundus + 0.7 * offset, porus + offset, 0.22, 0.4)
        yield Tissue.NERVE, capsule(local, porus + offset, stem + 0.8 * offset, 0.45, 0.6)


def _ball(points: Tensor, center: Triple, semi_axes: Triple) -> Tensor:
    return ellipsoid(points, column(center), column(semi_axes))
