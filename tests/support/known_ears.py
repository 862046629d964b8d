"""Ears of phantom people on crops of one slab, measured by the node's own code: anatomy whose parts are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from ball_ears import grid_around
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.findings import (
    EarFindings,
    EarFluid,
    EarImages,
    EarROI,
    ModelIdentity,
    QualityCode,
    QualityFlag,
    Severity,
    StudyFindings,
)
from inference.geometry import Volume, VolumeGeometry
from inference.phantom.labyrinth import Compartment, FluidPoints, fill, individual, place
from inference.phantom.motion import euler
from inference.phantom.voxelization import filled_fractions
from inference.quantification import measure_ear

CENTER_MM = np.array([38.0, -6.0, -4.0])
"""Of a left ear."""

CROP = (26, 52, 52)
RATIO = {EarSide.RIGHT: 0.15, EarSide.LEFT: 0.38}
MODEL = ModelIdentity(name="threshold", version="1.0.0", sha256="ab" * 32, learned=False)

Turn = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownEar:
    """One phantom ear on a grid: its fluid, and (2, 3, K, J, I) total and endolymph of every compartment."""

    fluid: EarFluid
    truth: NDArray[np.float32]


@cache
def phantom_fluid(seed: int, side: EarSide, turn_deg: Turn, eh_ratio: float) -> FluidPoints:
    """The fluid of one phantom person's ear, lying in the head at `turn_deg`."""
    center = CENTER_MM * [side.lps_sign, 1, 1]
    to_lps = place(side, origin_lps_mm=center, rotation=euler(*turn_deg)[:3, :3], scale=1.0)
    return fill(individual(np.random.default_rng(seed)), to_lps, eh_ratio=eh_ratio, step_mm=0.25)


def ear_on(
    grid: VolumeGeometry, seed: int, side: EarSide, *, turn_deg: Turn = (0.0, 0.0, 0.0), eh_ratio: float = 0.25
) -> KnownEar:
    """A phantom person's ear as the parts of every voxel of `grid`."""
    points = phantom_fluid(seed, side, turn_deg, eh_ratio)
    of = np.array([points.compartment == one for one in Compartment], dtype=np.float32)
    weights = np.concatenate([of, of * points.is_endolymph])
    maps = filled_fractions(points.lps_mm, weights, points.volume_mm3, grid).reshape(2, 3, *grid.shape)
    total, endolymph = maps.sum(axis=1)
    return KnownEar(fluid=fluid_of(side, grid, total, endolymph), truth=maps)


def ear_grid_around(side: EarSide, *, flip: bool = False) -> VolumeGeometry:
    """An axial grid of 1.0 x 0.5 x 0.5 mm around one ear; flipped, its slices run from head to feet."""
    grid = grid_around(CENTER_MM * [side.lps_sign, 1, 1])
    if not flip:
        return grid
    affine = grid.index_to_lps.copy()
    affine[:3, 3] = grid.to_lps((grid.shape[0] - 1, 0, 0))
    affine[:3, 0] *= -1.0
    return VolumeGeometry(shape=grid.shape, index_to_lps=affine, frame_of_reference_uid="2.25.7")


def fluid_of(
    side: EarSide, grid: VolumeGeometry, total: NDArray[np.float32], endolymph: NDArray[np.float32]
) -> EarFluid:
    """Fractions with the masks that the half-voxel rule makes of them."""
    x, y, z = grid.center_lps_mm.tolist()
    return EarFluid(
        roi=EarROI(side=side, center_lps_mm=(x, y, z), geometry=grid, score=1.0),
        total_fluid_fraction=Volume(array=total, geometry=grid),
        endolymph_fraction=Volume(array=np.minimum(endolymph, total), geometry=grid),
        total_fluid_mask=Volume(array=total >= 0.5, geometry=grid),
        endolymph_mask=Volume(array=(total >= 0.5) & (endolymph >= 0.5 * total), geometry=grid),
    )


def measured_study(slab: VolumeGeometry, *, sides: tuple[EarSide, ...] = tuple(EarSide)) -> StudyFindings:
    """Findings of both ears on crops of `slab`, with pictures; a side that is not in `sides` was not found."""
    missing = QualityFlag(
        code=QualityCode.EAR_NOT_FOUND, severity=Severity.STOP, message="No labyrinth was found on this side."
    )
    return StudyFindings(
        ears={
            side: measured_ear(slab, side)
            if side in sides
            else EarFindings(side=side, ratio=None, fluid=None, quality=(missing,))
            for side in (EarSide.RIGHT, EarSide.LEFT)
        },
        alignments={},
        model=MODEL,
        timings_s={"segment": 0.5},
    )


def measured_ear(slab: VolumeGeometry, side: EarSide) -> EarFindings:
    """One ear, measured on its crop of `slab`."""
    middle = np.rint(slab.to_index(CENTER_MM * [side.lps_sign, 1, 1])).astype(int)
    k, j, i = (int(m) - size // 2 for m, size in zip(middle, CROP, strict=True))
    grid = slab.crop((k, j, i), CROP)
    fluid = ear_on(grid, 3, side, eh_ratio=RATIO[side]).fluid
    total, endolymph = fluid.total_fluid_fraction.array, fluid.endolymph_fraction.array
    noise = np.random.default_rng(5).normal(0.0, 4.0, grid.shape)
    images = EarImages(
        roi=fluid.roi,
        mrc=Volume(array=np.abs(700.0 * total + noise).astype(np.float32), geometry=grid),
        hydrops=Volume(array=(80.0 * (total - endolymph) - 50.0 * endolymph + noise).astype(np.float32), geometry=grid),
        ppi=Volume(array=np.abs(80.0 * (total - endolymph) + noise).astype(np.float32), geometry=grid),
    )
    return replace(measure_ear(images, fluid, first_slice=k), images=images, hydrops_before_alignment=images.hydrops)
