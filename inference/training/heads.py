"""Heads to train the ear finder on: whole synthetic heads at its 2 mm, from above the orbits to below the skull base.

A head costs half a second to draw and is looked at many times, each time in another slab (`slabs`). Its gray values
are drawn without regard for physics: what a network must not rely on is how bright brain, fat or marrow are.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.ear_proposals import GRID_MM, SIDES
from inference.geometry import FloatArray, VolumeGeometry
from inference.phantom import PhantomOptions, imaging, motion
from inference.phantom.physics import Tissue
from inference.phantom.scene import mixture, view
from inference.phantom.study import draw_patient

SHAPE: Final = (72, 96, 96)
"""Of a head's grid (K, J, I): 144 x 192 x 192 mm."""

MIDDLE_LPS_MM: Final = (0.0, -5.0, -4.0)

GRAYS: Final = 2
"""Images of one head, each with other gray values."""

ONE_EAR, NO_EAR = 0.12, 0.08
"""Shares of heads that lack one labyrinth or both: the finder shall see the ear and not just the petrous bone."""

TILT_DEG: Final = 8.0
"""SD of the head's turn about each axis, at most 2.5 times that."""

SHIFT_MM: Final = 8.0

GRAY_RANGES: Final = {
    Tissue.AIR: (0.0, 0.0),
    Tissue.BONE: (0.0, 0.06),
    Tissue.MARROW: (0.02, 0.35),
    Tissue.FAT: (0.02, 0.6),
    Tissue.BRAIN: (0.03, 0.32),
    Tissue.CSF: (0.75, 1.15),
    Tissue.PERILYMPH: (1.0, 1.0),
    Tissue.ENDOLYMPH: (1.0, 1.0),
}
"""Over labyrinthine fluid, on MRC; `OTHER_GRAYS` for all other tissues."""

OTHER_GRAYS: Final = (0.03, 0.35)

SNR: Final = (20.0, 150.0)
"""Fluid over noise SD at 2 mm."""

SIDE_DIFFERENCE: Final = 0.35
"""Largest relative difference of coil gain between the sides."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadImages:
    """One head: `images` (GRAYS, K, J, I) float16 over the fluid level, and its ears.

    `ears` is (2, 3): the labyrinths' centroids as (k, j, i), right ear first; NaN for a missing ear.
    """

    images: NDArray[np.float16]
    ears: FloatArray


def draw_heads(seeds: Iterable[int], *, workers: int) -> list[HeadImages]:
    """One head per seed, in order; the same seeds give the same heads."""
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(draw_head, seeds, chunksize=4))


def draw_head(seed: int) -> HeadImages:
    """The head of one seed."""
    rng = np.random.default_rng([seed, 99])
    scene = draw_patient(PhantomOptions(seed=seed, ears=_ears(rng), step_mm=0.25))
    pose = _pose(rng)
    grid = head_grid()
    tissues = view(scene, grid, pose)
    images = []
    for _ in range(GRAYS):
        image = mixture(tissues, _grays(rng), resolution=1.0)
        image *= imaging.coil_gain(grid, float(rng.uniform(-SIDE_DIFFERENCE, SIDE_DIFFERENCE)))
        noisy = imaging.magnitude_image(image, 1.0 / rng.uniform(*SNR), int(rng.integers(2**31)))
        images.append(noisy.astype(np.float16))
    ears = np.full((len(SIDES), 3), np.nan)
    for number, side in enumerate(SIDES):
        if side in scene.fluids:
            ears[number] = grid.to_index(pose[:3, :3] @ scene.fluids[side].center_lps_mm + pose[:3, 3])
    return HeadImages(images=np.stack(images), ears=ears)


def head_grid() -> VolumeGeometry:
    """The grid of every head, its axes to the head, to posterior and to the left, as in `ear_proposals`."""
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = GRID_MM * np.eye(3)[:, ::-1]
    index_to_lps[:3, 3] = MIDDLE_LPS_MM - GRID_MM * (np.array(SHAPE[::-1]) - 1) / 2
    return VolumeGeometry(shape=SHAPE, index_to_lps=index_to_lps, frame_of_reference_uid="2.25.99")


def _ears(rng: np.random.Generator) -> frozenset[EarSide]:
    drawn = rng.random()
    if drawn < NO_EAR:
        return frozenset()
    if drawn < NO_EAR + ONE_EAR:
        return frozenset({SIDES[int(rng.integers(2))]})
    return frozenset(EarSide)


def _pose(rng: np.random.Generator) -> FloatArray:
    """(4, 4) how the head lies, turned about the middle between the ears."""
    turn = motion.euler(*np.clip(rng.normal(0.0, TILT_DEG, 3), -2.5 * TILT_DEG, 2.5 * TILT_DEG))
    return motion.about(np.array([0.0, 6.0, -6.0]), turn, rng.uniform(-SHIFT_MM, SHIFT_MM, 3))


def _grays(rng: np.random.Generator) -> dict[Tissue, float]:
    return {tissue: float(rng.uniform(*GRAY_RANGES.get(tissue, OTHER_GRAYS))) for tissue in Tissue}
