"""A measured study of ball ears on crops of one oblique slab, so that everything drawn of it has a known place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ball_ears import ball_ear, center_mm
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inference.anatomy import EarSide
from inference.findings import Alignment, EarFindings, EHRatio, ModelIdentity, StudyFindings
from inference.geometry import Volume, VolumeGeometry
from inference.segmentation import fluid_from_fractions

SHAPE, SPACING_MM = (64, 136, 240), (1.0, 0.5, 0.5)
CROP = (26, 64, 64)
SLAB_CENTER_MM = (2.0, 7.0, -9.0)

MOVED_MM = 3.0
"""How far to the patient's left HYDROPS lay before it was aligned."""

RADIUS_MM = {EarSide.RIGHT: 2.4, EarSide.LEFT: 2.9}
"""Of endolymph in a ball of 4 mm of fluid: about 22 and 38 per cent."""


def oblique_slab(*, turned: tuple[bool, bool, bool] = (False, False, False)) -> VolumeGeometry:
    """A slab tilted about all three axes; `turned` axes (k, j, i) run the other way, which may make it left-handed."""
    rotation = Rotation.from_euler("xyz", [18.0, 5.0, 4.0], degrees=True).as_matrix()
    directions = rotation[:, ::-1] * np.where(turned, -1.0, 1.0)  # k to the head, j to the back, i to the left
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING_MM
    affine[:3, 3] = np.array(SLAB_CENTER_MM) - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2.0)
    return VolumeGeometry(shape=SHAPE, index_to_lps=affine, frame_of_reference_uid="2.25.7")


def endolymph_center_mm(side: EarSide) -> NDArray[np.float64]:
    """Where the endolymph of a ball ear lies."""
    truth = ball_ear(side)
    weights = np.asarray(truth.endolymph.array, dtype=np.float64)
    places = truth.endolymph.geometry.to_lps(np.moveaxis(np.indices(weights.shape), 0, -1))
    center: NDArray[np.float64] = (places * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
    return center


def viewed_study(slab: VolumeGeometry, *, sides: tuple[EarSide, ...] = tuple(EarSide)) -> StudyFindings:
    """Findings of the ball ears on `slab`, as the pipeline leaves them."""
    return StudyFindings(
        ears={side: _ear(side, slab) if side in sides else _missing(side) for side in EarSide},
        alignments={
            "HYDROPS": Alignment(
                moving_to_fixed=np.eye(4),
                metric_before=0.2,
                metric_after=0.8,
                translation_mm=MOVED_MM,
                rotation_deg=0.0,
                accepted=True,
                reason="",
            )
        },
        model=ModelIdentity(name="balls", version="1", sha256="ab" * 32),
    )


def _ear(side: EarSide, slab: VolumeGeometry) -> EarFindings:
    corner = np.rint(slab.to_index(center_mm(side)) - np.array(CROP) / 2.0).astype(int)
    grid = slab.crop((int(corner[0]), int(corner[1]), int(corner[2])), CROP)
    truth = ball_ear(side, grid, endolymph_mm=RADIUS_MM[side])
    fluid = fluid_from_fractions(truth.images, truth.total_fluid.array, truth.endolymph.array)
    elsewhere = grid.index_to_lps.copy()
    elsewhere[0, 3] -= MOVED_MM
    before = ball_ear(side, replace(grid, index_to_lps=elsewhere), endolymph_mm=RADIUS_MM[side]).images.hydrops
    total = float(truth.total_fluid.array.sum()) * grid.voxel_volume_mm3
    endolymph = float(truth.endolymph.array.sum()) * grid.voxel_volume_mm3
    value = endolymph / total
    return EarFindings(
        side=side,
        ratio=EHRatio(endolymph_mm3=endolymph, total_fluid_mm3=total, value=value, low=value - 0.05, high=value + 0.05),
        fluid=fluid,
        images=truth.images,
        hydrops_before_alignment=Volume(array=before.array, geometry=grid),
    )


def _missing(side: EarSide) -> EarFindings:
    return EarFindings(side=side, ratio=None, fluid=None)
