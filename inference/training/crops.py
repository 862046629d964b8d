"""Ears to train on: the phantom's anatomy around one ear as parts of tissue per voxel, before any scanner saw it.

A crop costs a second to draw and is scanned thousands of times with other physics (`scans`). All geometry is varied
here, where it is exact: turning or scaling an image of partial volumes on a clinical grid would dilate thin canals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.anatomy import EarSide
from inference.ear_grid import SHAPE, SPACING_MM
from inference.geometry import FloatArray, VolumeGeometry
from inference.phantom import motion
from inference.phantom.head import EAR_LPS_MM, TISSUES, Head
from inference.phantom.hydrops import FluidLoss, HydropsPattern
from inference.phantom.labyrinth import Caliber, FluidPoints, Labyrinth, evaluate, fill, individual, place
from inference.phantom.physics import Tissue
from inference.phantom.scene import Scene, view
from inference.phantom.shapes import capsule, column, length, occupancy
from inference.phantom.waves import Waves

MARGIN: Final = (2, 5, 5)
"""Voxels around the network's grid, so that a crop can be cut off center."""

CROP_SHAPE: Final = tuple(n + 2 * m for n, m in zip(SHAPE, MARGIN, strict=True))

GROUPS: Final[tuple[tuple[Tissue, ...], ...]] = (
    (Tissue.PERILYMPH,),
    (Tissue.ENDOLYMPH,),
    (Tissue.CSF,),
    (Tissue.BRAIN, Tissue.NERVE, Tissue.MUSCLE, Tissue.SKIN),
    (Tissue.MARROW, Tissue.FAT),
    (Tissue.MUCOSA,),
)
"""Tissues that a scan gives one signal; air and cortical bone give none."""

PERILYMPH, ENDOLYMPH, CSF, SOFT, FATTY, MUCOSA = range(len(GROUPS))

STEP_MM: Final = 0.16
"""Distance of the points that fill a labyrinth: 60 of them per voxel."""

OBLIQUITY_DEG: Final = (35.0, 20.0, 20.0)
"""Largest turn of the slab about the patient's x, y and z axes; slabs along the canal are pitched most."""

RATIOS: Final = (0.03, 0.55)
"""EH ratios drawn, from a small normal ear to severe hydrops."""

LOSS_SHARE: Final = 0.06
"""Ears with ossified or obliterated fluid."""

FREE_SHARE: Final = 0.25
"""Ears whose endolymph does not follow anatomy."""

OTHER_CALIBER_SHARE: Final = 0.6
"""Ears whose lumina are narrower or wider than the phantom's. A network that knows one caliber takes the brightness of
a rim for that of its own: in a real anatomy, scanned as these ears are, it read 7 % too much fluid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarCrop:
    """One ear, drawn as a left one: `parts` (group, K, J, I) uint8, 255 is a voxel full of that group of tissues."""

    seed: int
    parts: NDArray[np.uint8]

    @property
    def eh_ratio(self) -> float:
        """Endolymph over total fluid, 0..1."""
        perilymph, endolymph = (float(self.parts[group].sum(dtype=np.int64)) for group in (PERILYMPH, ENDOLYMPH))
        return endolymph / (perilymph + endolymph)


def draw_crop(seed: int) -> EarCrop:
    """The ear of a random person in a random slab; same seed, same crop."""
    rng = np.random.default_rng([seed, 31])
    labyrinth = _of_some_caliber(individual(rng), np.random.default_rng([seed, 32]))
    turn = motion.rotation(rng.normal(size=3), float(rng.normal(0.0, 5.0)))
    origin = np.array(EAR_LPS_MM) + rng.normal(0.0, 1.0, 3)
    to_lps = place(EarSide.LEFT, origin_lps_mm=origin, rotation=turn, scale=float(rng.normal(1.0, 0.05)))
    fluid = _filled(rng, labyrinth, to_lps)
    grid = _slab_around(rng, fluid.center_lps_mm)
    left = (float(origin[0]), float(origin[1]), float(origin[2]))
    head = Head.individual(rng, right_ear_mm=(-left[0], left[1], left[2]), left_ear_mm=left)
    scene = Scene(head=head, fluids={EarSide.LEFT: fluid}, ear_origins_mm={EarSide.LEFT: origin})
    (box,) = view(scene, grid, np.eye(4)).boxes
    parts = _with_context(rng, box.parts, labyrinth, to_lps, grid)
    grouped = torch.stack([parts[[TISSUES.index(tissue) for tissue in group]].sum(dim=0) for group in GROUPS])
    return EarCrop(seed=seed, parts=(grouped.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy())


def _of_some_caliber(labyrinth: Labyrinth, rng: np.random.Generator) -> Labyrinth:
    return replace(labyrinth, caliber=Caliber.draw(rng)) if rng.uniform() < OTHER_CALIBER_SHARE else labyrinth


def _filled(rng: np.random.Generator, labyrinth: Labyrinth, to_lps: FloatArray) -> FluidPoints:
    """The labyrinth with a random amount of endolymph, half of the ears below 0.2, in a random ear's distribution."""
    low, high = RATIOS
    ratio = low + (high - low) * float(rng.beta(1.1, 1.8))
    pattern, loss = HydropsPattern.draw(rng), None
    if rng.uniform() < LOSS_SHARE:
        lost = rng.uniform(0.0, 0.35, 2)
        loss = FluidLoss.draw(rng, ossified=float(lost[0]), perilymph_lost=float(lost[1]))
    if rng.uniform() < FREE_SHARE:
        return _freely(rng, fill(labyrinth, to_lps, eh_ratio=None, step_mm=STEP_MM, loss=loss), ratio)
    return fill(labyrinth, to_lps, eh_ratio=ratio, step_mm=STEP_MM, pattern=pattern, loss=loss)


def _freely(rng: np.random.Generator, fluid: FluidPoints, ratio: float) -> FluidPoints:
    """`fluid` with endolymph wherever a smooth random field is highest, whatever the anatomy.

    The network shall read endolymph from the images. One that only ever saw it in its own phantom's places would put
    it there in every ear.
    """
    points = torch.from_numpy(np.ascontiguousarray(fluid.lps_mm.T))
    field = Waves.draw(rng, float(rng.uniform(2.5, 8.0))).at(points).numpy()
    if rng.uniform() < 0.5:
        middle = fluid.lps_mm[int(rng.integers(len(fluid.lps_mm)))]
        near = np.exp(-((np.linalg.norm(fluid.lps_mm - middle, axis=1) / rng.uniform(1.5, 4.0)) ** 2))
        field = field + float(rng.uniform(0.5, 3.0)) * near
    return replace(fluid, is_endolymph=field >= np.quantile(field, 1.0 - ratio))


def _slab_around(rng: np.random.Generator, center_lps_mm: tuple[float, float, float]) -> VolumeGeometry:
    """A grid of `CROP_SHAPE` around the ear, turned at random; k to the head, j to posterior, i to lateral."""
    turn = motion.euler(*(float(rng.uniform(-most, most)) for most in OBLIQUITY_DEG))
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * np.array(SPACING_MM)
    k, j, i = CROP_SHAPE
    within_a_voxel = rng.uniform(-0.5, 0.5, 3)
    affine[:3, 3] = np.array(center_lps_mm) - affine[:3, :3] @ (np.array(CROP_SHAPE) // 2 + within_a_voxel)
    return VolumeGeometry(shape=(k, j, i), index_to_lps=affine, frame_of_reference_uid="2.25.1")


def _with_context(
    rng: np.random.Generator, parts: Tensor, labyrinth: Labyrinth, to_lps: FloatArray, grid: VolumeGeometry
) -> Tensor:
    """`parts` with random bright blobs, tubes and sheets outside the labyrinth's bone.

    Real temporal bones hold more than the phantom's (mucosa, sulci, vessels, other people's canals). Networks that
    saw none of it called it fluid on real crops: Dice 0.5 without, 0.9 with such context.
    """
    index = np.indices(grid.shape).reshape(3, -1).T
    lps = grid.to_lps(index)
    from_labyrinth = evaluate(labyrinth, _ear_frame(lps, to_lps)).distance
    points = torch.from_numpy((lps - grid.center_lps_mm).T.astype(np.float32))
    outside = ((from_labyrinth - 0.7) / 0.6).clamp(0.0, 1.0)
    parts = parts.clone()
    flat = parts.view(len(TISSUES), -1)
    for distance in _shapes(rng, points):
        share = occupancy(distance, float(rng.uniform(0.6, 1.5))) * outside * float(rng.uniform(0.3, 1.0))
        flat *= 1.0 - share
        tissue = rng.choice([Tissue.CSF, Tissue.CSF, Tissue.MUCOSA, Tissue.MUCOSA, Tissue.BRAIN, Tissue.MARROW])
        flat[TISSUES.index(Tissue(str(tissue)))] += share
    return parts


def _ear_frame(lps: FloatArray, to_lps: FloatArray) -> Tensor:
    """(3, N) float32 points of the ear's own frame."""
    back = np.linalg.inv(to_lps)
    return torch.from_numpy((lps @ back[:3, :3].T + back[:3, 3]).T.astype(np.float32))


def _shapes(rng: np.random.Generator, points: Tensor) -> list[Tensor]:
    """Distances to a random handful of blobs, tubes and wavy sheets."""
    shapes = [
        length(points - column(rng.uniform(-14.0, 14.0, 3))) - float(rng.uniform(0.4, 2.5))
        for _ in range(rng.poisson(4))
    ]
    for _ in range(rng.poisson(2)):
        start, way = rng.uniform(-14.0, 14.0, 3), rng.normal(size=3)
        end = start + way / np.linalg.norm(way) * rng.uniform(3.0, 20.0)
        shapes.append(capsule(points, column(start), column(end), float(rng.uniform(0.3, 1.2))))
    for _ in range(rng.poisson(1.2)):
        normal = rng.normal(size=3)
        normal /= np.linalg.norm(normal)
        waves = Waves.draw(rng, 10.0).at(points) * float(rng.uniform(0.0, 2.0))
        plane = (column(normal).T @ points)[0] - float(rng.uniform(-13.0, 13.0)) + waves
        shapes.append(plane.abs() - float(rng.uniform(0.2, 1.0)))
    return shapes
