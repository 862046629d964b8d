"""The temporal bone and what lies around a labyrinth: internal auditory canal, facial nerve, endolymphatic duct and
sac, jugular bulb, carotid, ear canal, marrow, mastoid cells, and the CSF that covers it.

Places are relative to the middle of the vestibule: (lateral, posterior, superior) in mm. They were read off the
anatomy books' drawings and one real T2-SPACE crop, not measured; they only have to be there, of the right size, and to
differ between people, so that nothing takes any bright spot for an ear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.phantom.physics import Tissue
from inference.phantom.shapes import capsule, column, ellipsoid, length, smooth_union
from inference.phantom.waves import Waves

Triple = tuple[float, float, float]
Painting = tuple[Tissue, Tensor]
"""A tissue and the distance to its surface."""

ROOF_NORMAL: Final = (0.0, -0.64, 0.77)
"""The bone's front face below the temporal lobe slopes down forward: on the real crop it lies 11 mm in front of the
vestibule 2 mm above its middle, and 4 mm in front 9 mm above."""

NERVES_MM: Final = ((-0.9, 0.8), (0.9, 0.8), (-0.9, -0.8), (0.9, -0.8))
"""Facial, superior vestibular, cochlear and inferior vestibular nerve: posterior and superior of the canal's middle."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TemporalBone:
    """One person's temporal bones, the same on both sides but for texture.

    `marrow`, `cells`, `specks` and `surface` are textures; radii in mm. `jugular_tissue` is how the slow blood of the
    jugular bulb shows; `sac_tissue` and `canal_tissue` likewise for the endolymphatic sac and the facial nerve's canal.
    """

    marrow: Waves
    cells: Waves
    specks: Waves
    surface: Waves
    specks_from: float
    solid_mm: float
    girth: float
    roof_mm: float
    csf_film_mm: Triple
    fundus_mm: Triple
    porus_mm: Triple
    fundus_radius_mm: float
    porus_radius_mm: float
    nerve_radius_mm: float
    jugular_mm: Triple
    jugular_semi_mm: Triple
    jugular_tissue: Tissue
    sac_tissue: Tissue
    canal_tissue: Tissue

    @classmethod
    def draw(cls, rng: np.random.Generator) -> TemporalBone:
        """A random person."""

        def spot(x: float, y: float, z: float, sd: float) -> Triple:
            a, b, c = np.array([x, y, z]) + rng.normal(0.0, sd, 3).clip(-2 * sd, 2 * sd)
            return float(a), float(b), float(c)

        def pick(*tissues: Tissue) -> Tissue:
            return tissues[int(rng.integers(len(tissues)))]

        return cls(
            marrow=Waves.draw(rng, 7.0),
            cells=Waves.draw(rng, 4.5),
            specks=Waves.draw(rng, 2.5),
            surface=Waves.draw(rng, 12.0),
            specks_from=float(rng.uniform(1.5, 2.6)),
            solid_mm=float(rng.uniform(9.0, 13.0)),
            girth=float(np.clip(rng.normal(1.0, 0.08), 0.85, 1.15)),
            roof_mm=float(rng.uniform(8.0, 12.0)),
            csf_film_mm=(float(rng.uniform(0.0, 0.6)), float(rng.uniform(0.3, 1.6)), float(rng.uniform(0.05, 0.4))),
            fundus_mm=spot(-3.3, -2.9, 1.5, 0.25),
            porus_mm=spot(-13.5, 0.2, 2.2, 0.8),
            fundus_radius_mm=float(np.clip(rng.normal(1.45, 0.2), 1.0, 1.9)),
            porus_radius_mm=float(np.clip(rng.normal(3.0, 0.5), 1.9, 4.2)),
            nerve_radius_mm=float(rng.uniform(0.25, 0.5)),
            jugular_mm=spot(-3.0, 8.0, -12.5, 1.5),
            jugular_semi_mm=spot(4.5, 4.5, 6.0, 0.8),
            jugular_tissue=pick(Tissue.AIR, Tissue.AIR, Tissue.BRAIN, Tissue.MUCOSA),
            sac_tissue=pick(Tissue.BRAIN, Tissue.MUCOSA, Tissue.MUCOSA, Tissue.CSF),
            canal_tissue=pick(Tissue.NERVE, Tissue.MUCOSA),
        )

    def paint(self, points: Tensor, local: Tensor, cavity: Tensor) -> Iterator[Painting]:
        """Shapes from the outside in; `local` is (lateral, posterior, superior) of the nearer ear.

        `cavity` is the distance to the inside of the skull, which the bone bulges into under a film of CSF.
        """
        petrous = self._petrous(local) + 0.8 * self.surface.at(points)
        above, behind, wander = self.csf_film_mm
        # The film is thick behind, toward the cistern and the cerebellum, and thin under the temporal lobe.
        film = above + (behind - above) * torch.sigmoid(local[1] / 3.0) + wander * self.surface.at(points + 40.0)
        yield Tissue.CSF, torch.maximum(petrous - film.clamp(min=0.0), cavity)
        yield Tissue.BONE, petrous
        yield from self._bone_texture(points, local, petrous)
        yield Tissue.AIR, capsule(local, column((8.5, -4.0, -3.0)), column((40.0, -3.0, -5.0)), 3.5)
        yield from self._internal_auditory_canal(local)
        yield from self._facial_nerve(local)
        yield from self._endolymphatic_sac(local)
        yield Tissue.AIR, capsule(local, column((-4.0, -12.0, -9.0)), column((-19.0, -17.0, -8.0)), 2.8)
        yield self.jugular_tissue, ellipsoid(local, column(self.jugular_mm), column(self.jugular_semi_mm))

    def _petrous(self, local: Tensor) -> Tensor:
        apex, ear_rod = column((-24.0, -16.0, 0.0)), column((0.0, -1.0, 1.0))
        pyramid = smooth_union(
            capsule(local, apex, ear_rod, 6.5 * self.girth, 10.0 * self.girth),
            capsule(local, ear_rod, column((22.0, 9.0, -4.0)), 10.0 * self.girth, 15.0),
            5.0,
        )
        return torch.maximum(pyramid, (column(ROOF_NORMAL).T @ local)[0] - self.roof_mm)

    def _bone_texture(self, points: Tensor, local: Tensor, petrous: Tensor) -> Iterator[Painting]:
        """Marrow in the bone away from the dense capsule of the labyrinth; air cells with mucosa and trapped fluid."""
        away = self.solid_mm - length(local)
        yield Tissue.MARROW, torch.maximum(torch.maximum(petrous + 2.0, away), 1.5 - 3.0 * self.marrow.at(points))
        cells = self.cells.at(points)
        mastoid = torch.maximum(ellipsoid(local, column((21.0, 9.0, -5.0)), column((11.0, 12.0, 16.0))), away)
        yield Tissue.AIR, torch.maximum(mastoid, -0.2 - 2.0 * cells)
        yield Tissue.MUCOSA, torch.maximum(mastoid, 3.4 - 2.0 * cells)
        specks = 1.5 * (self.specks_from - self.specks.at(points))
        yield Tissue.CSF, torch.maximum(torch.maximum(petrous + 1.0, away), specks)

    def _internal_auditory_canal(self, local: Tensor) -> Iterator[Painting]:
        """CSF from the fundus between cochlea and vestibule to the cistern, with four dark nerves."""
        fundus, porus = column(self.fundus_mm), column(self.porus_mm)
        yield Tissue.CSF, capsule(local, fundus, porus, self.fundus_radius_mm, self.porus_radius_mm)
        yield Tissue.CSF, capsule(local, porus, column((-20.0, 3.0, 2.0)), self.porus_radius_mm + 0.2, 6.5)
        stem, thick = column((-24.0, 5.0, 1.5)), self.nerve_radius_mm
        for y, z in NERVES_MM:
            offset = column((0.0, y, z))
            yield Tissue.NERVE, capsule(local, fundus + 0.7 * offset, porus + offset, 0.6 * thick, thick)
            yield Tissue.NERVE, capsule(local, porus + offset, stem + 0.8 * offset, thick, 1.4 * thick)

    def _facial_nerve(self, local: Tensor) -> Iterator[Painting]:
        """From the fundus over the cochlea to the knee, back along the middle ear, then down through the mastoid."""
        knee, bend = column((0.8, -6.2, 3.6)), column((6.6, 1.5, -1.8))
        yield self.canal_tissue, capsule(local, column(self.fundus_mm) + column((0.4, -0.6, 1.2)), knee, 0.4, 0.5)
        yield self.canal_tissue, capsule(local, knee, bend, 0.5)
        yield self.canal_tissue, capsule(local, bend, column((6.0, 4.0, -16.0)), 0.6)

    def _endolymphatic_sac(self, local: Tensor) -> Iterator[Painting]:
        """The aqueduct from behind the common crus to the sac on the bone's rear face."""
        yield self.sac_tissue, capsule(local, column((-0.4, 3.4, 2.2)), column((-1.0, 9.0, -1.0)), 0.2, 0.4)
        yield self.sac_tissue, ellipsoid(local, column((-1.0, 10.0, -3.0)), column((2.8, 0.8, 3.2)))
