"""The head around the ears: skull, brain, cisterns, eyes, air, fat and skin; temporal bones are in `temporal_bone`.

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
from inference.phantom.shapes import capsule, column, ellipsoid, occupancy, smooth_union
from inference.phantom.temporal_bone import Painting, TemporalBone, Triple
from inference.phantom.waves import Waves as Waves

EAR_LPS_MM: Final = (40.0, 6.0, -6.0)
"""Middle of the left vestibule; 80 mm apart, the centers of the fluid 77 mm (72.2 mm between utricles in one study,
80.6 mm between labyrinths in another)."""

TISSUES: Final = tuple(Tissue)


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """One person's head. `scale` enlarges it about the origin; temporal bones stay with their ears (LPS mm)."""

    folds: Waves
    folia: Waves
    gyri: Waves
    temporal_bone: TemporalBone
    scale: float
    right_ear_mm: Triple
    left_ear_mm: Triple

    @classmethod
    def individual(cls, rng: np.random.Generator, *, right_ear_mm: Triple, left_ear_mm: Triple) -> Head:
        """A random person around ears at given places."""
        return cls(
            folds=Waves.draw(rng, 13.0),
            folia=Waves.draw(rng, 4.0),
            gyri=Waves.draw(rng, 9.0),
            temporal_bone=TemporalBone.draw(rng),
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
        yield from self.temporal_bone.paint(points, self._from_nearer_ear(points), cavity)

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
        # Gyri of the temporal lobe above the ear and folia of the cerebellum behind it: thin CSF between them.
        lobe = torch.maximum(_ball(mirrored, (42.0, -10.0, 14.0), (22.0, 40.0, 17.0)), cavity)
        yield (
            Tissue.CSF,
            torch.maximum(2.5 * self.gyri.at(points).abs() - 0.05, torch.maximum(lobe, -3.0 * self.folds.at(points))),
        )
        cerebellum = torch.maximum(_ball(mirrored, (26.0, 40.0, -14.0), (25.0, 26.0, 19.0)), cavity)
        yield Tissue.CSF, torch.maximum(1.2 * self.folia.at(points).abs() + 0.05, cerebellum)
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

    def _from_nearer_ear(self, points: Tensor) -> Tensor:
        """(3, N) points as (lateral, posterior, superior) of the ear on their side."""
        right, left = column(self.right_ear_mm), column(self.left_ear_mm)
        on_right = points[0] < 0
        local = points - torch.where(on_right, right, left)
        local[0] = torch.where(on_right, -local[0], local[0])
        return local


def _ball(points: Tensor, center: Triple, semi_axes: Triple) -> Tensor:
    return ellipsoid(points, column(center), column(semi_axes))
