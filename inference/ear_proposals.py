"""Where a network sees the ears on the MRC alone: by their shape and surroundings, with or without contrast agent.

The network was trained on synthetic heads (`inference.training.heads`). Its answer is a proposal; `localization` asks
the contrast for a second opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.model_store import LoadedModel, load_model
from inference.networks.ear_finder import MULTIPLE, STRIDE
from inference.resampling import coarsen, resample

MODEL_FOLDER: Final = Path(__file__).parent / "models" / "ear_finder"

GRID_MM: Final = 2.0
"""Spacing of what the network sees; its answer is twice as coarse, and interpolated between places."""

FLUID_PERCENTILE: Final = 99.8
"""Of the MRC at `GRID_MM`: fluid, even in a slab that shows little CSF."""

BRIGHTEST: Final = 1.5
"""Over the fluid level; flow and coil elements beyond it say nothing."""

LARGEST_MM: Final = 280.0
"""Of the network's field along any axis; heads are smaller, and memory is not endless."""

SIDES: Final = (EarSide.RIGHT, EarSide.LEFT)
"""Order of the network's two answers."""

NEAR_PLACES: Final = 2
"""Places around the best one (20 mm across) whose probabilities are that ear's."""

POSITION_DECIMALS: Final = 2
"""Of a proposal in mm: threads add in changing order, and the same images must give the same boxes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarProposal:
    """Where one side's ear would be (LPS mm), and 0..1 how likely it is in the images, there.

    `heat` is the probability of every place, float64 0..1 on a grid of places along LPS.
    """

    lps_mm: FloatArray
    probability: float
    heat: Volume

    def support(self, lps_mm: FloatArray) -> float:
        """0..1, how likely the ear is around another place."""
        at = np.rint(self.heat.geometry.to_index(lps_mm)).astype(int)
        return float(np.asarray(self.heat.array)[around(at, self.heat.array.shape)].sum())


def propose_ears(mrc: Volume) -> Mapping[EarSide, EarProposal]:
    """The most likely place of each side's labyrinth centroid.

    Parameters
    ----------
    mrc
        (K, J, I), >= 0 and finite, fluid bright; any grid and orientation, coarser than 2 mm along no axis.

    Returns
    -------
    Mapping
        Both sides, always; a missing ear has a small probability.
    """
    seen = along_patient(mrc)
    images = torch.from_numpy(np.asarray(seen.array))[None, None]
    with torch.inference_mode():
        choice = torch.softmax(_model().network(images)[0].double(), dim=-1).numpy()
    places = places_of(seen.geometry)
    return {
        side: best_place(Volume(array=row[:-1].reshape(places.shape), geometry=places))
        for side, row in zip(SIDES, choice, strict=True)
    }


def along_patient(mrc: Volume) -> Volume:
    """`mrc` over its fluid level, float32 0..1.5, at 2 mm with axes to the head, to posterior and to the left.

    Zero outside the slab. The network so never learns or sees how a slab was tilted or stored.
    """
    coarse = coarsen(mrc, GRID_MM)
    level = float(np.percentile(np.asarray(coarse.array, dtype=np.float32), FLUID_PERCENTILE))
    if level <= 0.0:
        raise ValueError(f"the MRC holds no signal: {FLUID_PERCENTILE} % of it is at most {level}")
    aligned = resample(coarse, _patient_grid(coarse.geometry))
    relative = np.clip(np.asarray(aligned.array, dtype=np.float32) / np.float32(level), 0.0, BRIGHTEST)
    return Volume(array=relative, geometry=aligned.geometry)


def _patient_grid(slab: VolumeGeometry) -> VolumeGeometry:
    """The grid along LPS that holds a slab, in sizes that the network takes."""
    corners = slab.to_lps(np.array(np.meshgrid(*[(0, n - 1) for n in slab.shape], indexing="ij")).reshape(3, -1).T)
    low, high = corners.min(axis=0), corners.max(axis=0)
    size_mm = np.minimum(high - low, LARGEST_MM)[::-1]
    k, j, i = (int(n) for n in MULTIPLE * np.ceil((size_mm / GRID_MM + 1) / MULTIPLE))
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = GRID_MM * np.eye(3)[:, ::-1]
    index_to_lps[:3, 3] = (low + high) / 2 - GRID_MM * (np.array([i, j, k]) - 1) / 2
    return VolumeGeometry(
        shape=(k, j, i), index_to_lps=index_to_lps, frame_of_reference_uid=slab.frame_of_reference_uid
    )


def places_of(grid: VolumeGeometry) -> VolumeGeometry:
    """The grid of the network's answer: one place for every block of `STRIDE` voxels along each axis."""
    index_to_lps = grid.index_to_lps.copy()
    index_to_lps[:3, :3] *= STRIDE
    index_to_lps[:3, 3] = grid.to_lps(np.full(3, (STRIDE - 1) / 2))
    k, j, i = (n // STRIDE for n in grid.shape)
    return VolumeGeometry(
        shape=(k, j, i), index_to_lps=index_to_lps, frame_of_reference_uid=grid.frame_of_reference_uid
    )


def best_place(heat: Volume) -> EarProposal:
    """The mean place around the most likely one; `heat` as in `EarProposal`."""
    chances = np.asarray(heat.array, dtype=np.float64)
    best = np.array(np.unravel_index(int(np.argmax(chances)), chances.shape))
    box = around(best, chances.shape)
    probability = float(chances[box].sum())
    mean = np.tensordot(chances[box] / probability, np.moveaxis(np.mgrid[box], 0, -1), axes=3)
    lps_mm = heat.geometry.to_lps(mean).round(POSITION_DECIMALS)
    return EarProposal(lps_mm=lps_mm, probability=probability, heat=heat)


def around(place: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The places near one place, cut at the border."""
    return tuple(
        slice(max(0, int(at) - NEAR_PLACES), max(0, min(n, int(at) + NEAR_PLACES + 1)))
        for at, n in zip(place, shape, strict=True)
    )


@cache
def _model() -> LoadedModel:
    """The shipped network; read once per process."""
    return load_model(MODEL_FOLDER)
