"""One ear's labyrinth: cochlea, vestibule and canals as one fluid space, and how endolymph grows in it.

The ear's frame is (lateral, posterior, superior) in mm with its origin in the middle of the vestibule, so both ears
share one anatomy; `to_lps` places it in the head and mirrors it for the right ear.

Endolymph is described by an *onset*: the severity at which a point of the fluid becomes endolymph. Severity 0 is a
normal ear, 1 a fully hydropic one. Any ratio is then a quantile of the onsets, so a wanted ratio is hit exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.anatomy import EarSide
from inference.geometry import FloatArray
from inference.phantom import canals, cochlea, vestibule
from inference.phantom.canals import ANTERIOR, LATERAL, POSTERIOR, Canal
from inference.phantom.cochlea import Cochlea
from inference.phantom.hydrops import FluidLoss, HydropsPattern, paced
from inference.phantom.shapes import column, length
from inference.phantom.vestibule import Vestibule
from inference.phantom.voxelization import sample_inside
from inference.phantom.waves import Warp, Waves

BOX_LOW_MM = (-11.5, -13.0, -8.5)
BOX_HIGH_MM = (9.5, 10.5, 10.5)
"""A box in the ear's frame that holds every labyrinth this module can draw."""

VOLUME_MM3: Final = (155.0, 245.0)
"""Total fluid that `individual` may have: 168 and 190 mm3 at half maximum on two real ears (152-204 for thresholds
0.6-0.4), 190-225 mm3 in classic anatomy; 8 % on either side for people nobody measured."""

REACH_MM: Final = 9.0
"""Distance from the round window at which the far ends of the canals lie."""


class Compartment(IntEnum):
    """Which part of the labyrinth a point belongs to: the one it lies deepest in."""

    COCHLEA = 0
    VESTIBULE = 1
    CANALS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Caliber:
    """How much narrower a lumen is than its shape says: `narrower_mm` everywhere, and `uneven_mm` times `field`.

    Below 0 it is wider; then bony shelves thinner than that are gone, as in a scan that does not resolve them.
    """

    narrower_mm: float
    uneven_mm: float
    field: Waves

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Caliber:
        """From 0.15 mm narrower to 0.18 mm wider, and up to 0.1 mm (SD) from place to place."""
        return cls(
            narrower_mm=float(rng.uniform(-0.18, 0.15)),
            uneven_mm=float(rng.uniform(0.0, 0.15)),
            field=Waves.draw(rng, float(rng.uniform(3.0, 10.0))),
        )

    def at(self, points: Tensor) -> Tensor:
        """(N,) mm to add to the distance to the fluid at `points` (3, N)."""
        return self.narrower_mm + self.uneven_mm * self.field.at(points)


@dataclass(frozen=True, kw_only=True)
class Labyrinth:
    """The shapes of one person's labyrinth, before it is placed in the head."""

    cochlea: Cochlea = field(default_factory=Cochlea)
    vestibule: Vestibule = field(default_factory=Vestibule)
    canals: tuple[Canal, ...] = (ANTERIOR, POSTERIOR, LATERAL)
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Enlargement along lateral, posterior and superior."""
    warp: Warp | None = None
    """A deformation of space that no shape parameter describes."""
    caliber: Caliber | None = None
    """Lumina narrower or wider than those of the anatomy that the shapes were measured on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabyrinthField:
    """What the labyrinth says about points, each (N,).

    `distance` to the fluid in mm, negative inside; `onset`, the severity that fills each point; `remoteness`, 0 at
    the round window, where contrast enters and ossification starts, to 1 at the cochlea's apex and the canals' arcs;
    `compartment`, uint8 values of `Compartment`.
    """

    distance: Tensor
    onset: Tensor
    remoteness: Tensor
    compartment: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FluidPoints:
    """A labyrinth's fluid as many small equal volumes at known places in the head.

    Parameters
    ----------
    lps_mm
        (N, 3) float32, where each small volume lies, patient in the pose of the MRC.
    is_endolymph
        (N,) bool.
    remoteness
        (N,) float32 0..1, see `LabyrinthField`.
    compartment
        (N,) uint8, values of `Compartment`.
    volume_mm3
        Volume that each point stands for.
    """

    lps_mm: NDArray[np.float32]
    is_endolymph: NDArray[np.bool_]
    remoteness: NDArray[np.float32]
    compartment: NDArray[np.uint8]
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


def evaluate(labyrinth: Labyrinth, points: Tensor, pattern: HydropsPattern | None = None) -> LabyrinthField:
    """Distance, endolymph onset and remoteness of the whole labyrinth at `points` (3, N) of the ear's frame.

    Each point takes the onset of the compartment it lies deepest in, so a distended saccule cannot flow into the
    cochlea: membranes end at the compartment's mouth. `pattern` None is the average ear's.
    """
    pattern = pattern or HydropsPattern()
    local = points / column(labyrinth.stretch)
    if labyrinth.warp is not None:
        local = labyrinth.warp.at(local)
    spiral = cochlea.evaluate(labyrinth.cochlea, local)
    utricle, saccule = vestibule.endolymph_onsets(labyrinth.vestibule, local)
    rings = [canals.evaluate(canal, local) for canal in labyrinth.canals]
    distances = [spiral.distance, vestibule.distance(labyrinth.vestibule, local), *(ring.distance for ring in rings)]
    onsets = [
        paced(spiral.onset, pattern.cochlea),
        torch.minimum(paced(utricle, pattern.utricle), paced(saccule, pattern.saccule)),
        *(paced(ring.onset, pattern.canals) for ring in rings),
    ]
    deepest = torch.stack(distances).min(dim=0)
    from_window = (length(local - column(labyrinth.cochlea.window_mm)) / REACH_MM).clamp(max=1.0)
    return LabyrinthField(
        distance=deepest.values if labyrinth.caliber is None else deepest.values + labyrinth.caliber.at(local),
        onset=torch.stack(onsets).gather(0, deepest.indices[None])[0] + pattern.bulge(points),
        remoteness=torch.where(deepest.indices == Compartment.COCHLEA, spiral.along, from_window),
        compartment=deepest.indices.clamp(max=Compartment.CANALS).to(torch.uint8),
    )


def individual(rng: np.random.Generator) -> Labyrinth:
    """One person's labyrinth: every part varies as published, space is stretched and bent a little.

    The stretch differs between axes by 3 % (SD). A person smaller or larger than `VOLUME_MM3` is brought to its limit.
    """
    stretch = np.clip(rng.normal(1.0, 0.03, 3), 0.93, 1.07)
    drawn = Labyrinth(
        cochlea=cochlea.drawn(rng),
        vestibule=vestibule.drawn(rng),
        canals=canals.drawn(rng),
        stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        warp=Warp.draw(rng, float(rng.uniform(0.1, 0.3)), float(rng.uniform(8.0, 14.0))),
    )
    volume = _points_inside(drawn, step_mm=0.4).shape[1] * 0.4**3
    resize = (float(np.clip(volume, *VOLUME_MM3)) / volume) ** (1 / 3)
    x, y, z = drawn.stretch
    return replace(drawn, stretch=(x * resize, y * resize, z * resize))


def _points_inside(labyrinth: Labyrinth, *, step_mm: float) -> Tensor:
    return sample_inside(lambda p: evaluate(labyrinth, p).distance, BOX_LOW_MM, BOX_HIGH_MM, step_mm=step_mm)


def place(side: EarSide, *, origin_lps_mm: FloatArray, rotation: FloatArray, scale: float) -> FloatArray:
    """(4, 4) matrix from the ear's frame to LPS; `rotation` is about the ear itself, in its own frame.

    Lateral is +x on the patient's left and -x on the right, so the right ear is the mirror image (determinant < 0).
    """
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([side.lps_sign, 1.0, 1.0]) @ rotation * scale
    matrix[:3, 3] = origin_lps_mm
    return matrix


def fill(
    labyrinth: Labyrinth,
    to_lps: FloatArray,
    *,
    eh_ratio: float | None,
    step_mm: float,
    pattern: HydropsPattern | None = None,
    loss: FluidLoss | None = None,
) -> FluidPoints:
    """The fluid of one ear as points `step_mm` apart (in the ear's frame), with the wanted endolymph ratio.

    `eh_ratio` None leaves the membranes as they are in the normal ear (severity 0). With a `loss` the ratio is that of
    the fluid that remains.

    Raises
    ------
    ValueError
        If no severity of this ear gives the ratio.
    """
    points = _points_inside(labyrinth, step_mm=step_mm)
    field = evaluate(labyrinth, points, pattern)
    remains = np.ones(points.shape[1], dtype=np.bool_) if loss is None else loss.open(points, field.remoteness)
    points, onset = points[:, remains], field.onset.numpy()[remains]
    severity = 0.0
    if eh_ratio is not None:
        severity = severity_for(onset, eh_ratio if loss is None else loss.endolymph_share(eh_ratio))
    is_endolymph = onset <= severity
    spared = slice(None) if loss is None else loss.spared(points, is_endolymph)
    lps = points.numpy().T @ to_lps[:3, :3].T.astype(np.float32) + to_lps[:3, 3].astype(np.float32)
    return FluidPoints(
        lps_mm=lps[spared],
        is_endolymph=is_endolymph[spared],
        remoteness=field.remoteness.numpy()[remains][spared],
        compartment=field.compartment.numpy()[remains][spared],
        volume_mm3=step_mm**3 * abs(float(np.linalg.det(to_lps[:3, :3]))),
    )


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
