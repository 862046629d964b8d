"""One ear's labyrinth: cochlea, vestibule and canals as one fluid space, and how endolymph grows in it.

The ear's frame is (lateral, posterior, superior) in mm with its origin in the middle of the vestibule, so both ears
share one anatomy; `to_lps` places it in the head and mirrors it for the right ear.

Endolymph is described by an *onset*: the severity at which a point of the fluid becomes endolymph. Severity 0 is a
normal ear, 1 a fully hydropic one. Any ratio is then a quantile of the onsets, so a wanted ratio is hit exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.anatomy import EarSide
from inference.geometry import FloatArray
from inference.phantom import canals, cochlea, vestibule
from inference.phantom.canals import ANTERIOR, LATERAL, POSTERIOR, Canal
from inference.phantom.cochlea import Cochlea
from inference.phantom.vestibule import Vestibule
from inference.phantom.voxelization import sample_inside

BOX_LOW_MM = (-9.5, -12.0, -7.0)
BOX_HIGH_MM = (8.5, 9.5, 9.5)
"""A box in the ear's frame that holds every labyrinth this module can draw."""


@dataclass(frozen=True, kw_only=True)
class Labyrinth:
    """The shapes of one person's labyrinth, before it is placed in the head."""

    cochlea: Cochlea = field(default_factory=Cochlea)
    vestibule: Vestibule = field(default_factory=Vestibule)
    canals: tuple[Canal, ...] = (ANTERIOR, POSTERIOR, LATERAL)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabyrinthField:
    """`distance` (N,) to the fluid in mm, negative inside, and `onset` (N,), the severity that fills each point."""

    distance: Tensor
    onset: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FluidPoints:
    """A labyrinth's fluid as many small equal volumes at known places in the head.

    Parameters
    ----------
    lps_mm
        (N, 3) float32, where each small volume lies, patient in the pose of the MRC.
    is_endolymph
        (N,) bool.
    volume_mm3
        Volume that each point stands for.
    """

    lps_mm: NDArray[np.float32]
    is_endolymph: NDArray[np.bool_]
    volume_mm3: float

    @property
    def total_fluid_mm3(self) -> float:
        """Volume of the whole labyrinth."""
        return len(self.lps_mm) * self.volume_mm3

    @property
    def endolymph_mm3(self) -> float:
        """Volume of the endolymph."""
        return int(self.is_endolymph.sum()) * self.volume_mm3

    @property
    def center_lps_mm(self) -> tuple[float, float, float]:
        """Centroid of the fluid."""
        x, y, z = self.lps_mm.astype(np.float64).mean(axis=0).tolist()
        return x, y, z


def evaluate(labyrinth: Labyrinth, points: Tensor) -> LabyrinthField:
    """Distance and endolymph onset of the whole labyrinth at `points` (3, N) of the ear's frame.

    Each point takes the onset of the compartment it lies deepest in, so a distended saccule cannot flow into the
    cochlea: membranes end at the compartment's mouth.
    """
    spiral = cochlea.evaluate(labyrinth.cochlea, points)
    fields = [(spiral.distance, spiral.onset)]
    fields.append(
        (vestibule.distance(labyrinth.vestibule, points), vestibule.endolymph_onset(labyrinth.vestibule, points))
    )
    for canal in labyrinth.canals:
        ring = canals.evaluate(canal, points)
        fields.append((ring.distance, ring.onset))
    distances = torch.stack([distance for distance, _ in fields])
    deepest = distances.min(dim=0)
    onset = torch.stack([onset for _, onset in fields]).gather(0, deepest.indices[None])[0]
    return LabyrinthField(distance=deepest.values, onset=onset)


def individual(rng: np.random.Generator) -> Labyrinth:
    """One person's labyrinth: turns, canal radii and lumina vary as published (radii SD 5 %, 2.57 +- 0.1 turns)."""
    spiral = Cochlea(
        turns=float(np.clip(rng.normal(2.6, 0.06), 2.5, 2.75)),
        height_mm=float(np.clip(rng.normal(3.8, 0.12), 3.5, 4.1)),
        start_deg=float(rng.normal(28.0, 3.0)),
    )
    rings = tuple(
        replace(
            canal,
            radius_mm=canal.radius_mm * float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.1)),
            lumen_mm=canal.lumen_mm * float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)),
        )
        for canal in (ANTERIOR, POSTERIOR, LATERAL)
    )
    return Labyrinth(cochlea=spiral, canals=rings)


def place(side: EarSide, *, origin_lps_mm: FloatArray, rotation: FloatArray, scale: float) -> FloatArray:
    """(4, 4) matrix from the ear's frame to LPS; `rotation` is about the ear itself, in its own frame.

    Lateral is +x on the patient's left and -x on the right, so the right ear is the mirror image (determinant < 0).
    """
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([side.lps_sign, 1.0, 1.0]) @ rotation * scale
    matrix[:3, 3] = origin_lps_mm
    return matrix


def fill(labyrinth: Labyrinth, to_lps: FloatArray, *, eh_ratio: float | None, step_mm: float) -> FluidPoints:
    """The fluid of one ear as points `step_mm` apart (in the ear's frame), with the wanted endolymph ratio.

    `eh_ratio` None leaves the ear as it is when normal (severity 0).

    Raises
    ------
    ValueError
        If no severity of this ear gives the ratio.
    """
    points = sample_inside(lambda p: evaluate(labyrinth, p).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=step_mm)
    onset = evaluate(labyrinth, points).onset.numpy()
    severity = 0.0 if eh_ratio is None else severity_for(onset, eh_ratio)
    lps = points.numpy().T @ to_lps[:3, :3].T.astype(np.float32) + to_lps[:3, 3].astype(np.float32)
    volume = step_mm**3 * abs(float(np.linalg.det(to_lps[:3, :3])))
    return FluidPoints(lps_mm=lps, is_endolymph=onset <= severity, volume_mm3=volume)


def severity_for(onset: NDArray[np.float32], eh_ratio: float) -> float:
    """The severity at which the part `eh_ratio` of the fluid is endolymph.

    Raises
    ------
    ValueError
        If the ratio is beyond what endolymph can fill (the scala tympani never is endolymph).
    """
    highest = float(np.isfinite(onset).mean())
    if not 0.0 < eh_ratio <= highest:
        raise ValueError(f"eh_ratio must be above 0 and at most {highest:.2f} for this ear, found {eh_ratio}")
    return float(np.partition(onset, int(eh_ratio * len(onset)) - 1)[int(eh_ratio * len(onset)) - 1])
