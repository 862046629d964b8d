"""Where a training step gets its ears from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from inference.cases import InputSet
from inference.ear_grid import SPACING_MM
from inference.training.crop_pool import CropPool
from inference.training.crops import ENDOLYMPH, MARGIN, PERILYMPH
from inference.training.scans import ScanRange, Scans, scan

EDGE: Final = 0.08
"""Of the field's SD: its values change by one SD over some millimeters, so the edge of a rearranged endolymph is less
than half a millimeter wide, and that of a core a sharp one."""

DEPTH: Final = 4.0
"""Largest weight that the distance from the wall has in where endolymph is put, against that of the random field: it
keeps to the walls in some ears and to the middle of the lumen in others. Half of the ears have less than three
eighths of it, more than a third more than half."""

CELLS: Final = (4, 17)
"""Corners of the random field along each axis of the crop, the second one excluded: patches of 1.6 to 8 mm."""

FINER: Final = 2
"""Along each axis: endolymph is put where the field is high at so many places of a voxel, so that a thin core fills a
part of it."""

REARRANGED_RATIOS: Final = (0.03, 0.7)
"""Of endolymph to fluid, evenly. Up to more than anatomy's 0.55: what lies at the end of the trained range is read as
nearer to its middle."""

DISPERSED: Final = 0.4
"""Part of the rearranged ears whose endolymph is finer than voxels: membranous ducts, thin wedges of a scala media, a
saccule's folds leave voxels that are partly endolymph far from any edge."""

DISPERSED_MM: Final = (0.2, 1.2)
"""SD of the smoothing that spreads it."""


class EarSource(Protocol):
    """Anything that can fill a batch. Equal `step` and `rng` state must give equal batches: trainings resume."""

    def batch(self, size: int, *, step: int, rng: np.random.Generator) -> Scans:
        """`size` ears with their truth."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomSource:
    """Synthetic ears: a crop of the pool, moved by whole voxels and scanned anew each time it is used.

    Parameters
    ----------
    at_first, per_step
        How many crops may be used at step 0, and how many more with every step: training need not wait for the whole
        pool, and which crops a step uses does not depend on how fast they were drawn.
    rearranged
        Part of the ears, 0..1, whose endolymph is put somewhere else in their fluid (`rearranged`).
    """

    pool: CropPool
    within: ScanRange
    at_first: int = 64
    per_step: float = 0.25
    rearranged: float = 0.0

    def batch(self, size: int, *, step: int, rng: np.random.Generator) -> Scans:
        """`size` ears with their truth."""
        usable = min(len(self.pool), int(self.at_first + self.per_step * step))
        chosen = rng.integers(usable, size=size)
        parts = np.stack([moved(self.pool.parts(int(index)), rng) for index in chosen])
        fractions = as_fractions(parts)
        if self.rearranged > 0.0:
            for ear in np.flatnonzero(rng.uniform(size=size) < self.rearranged):
                fractions[ear] = rearranged(fractions[ear], rng)
        return scan(fractions, rng, within=self.within)


def rearranged(parts: Tensor, rng: np.random.Generator) -> Tensor:
    """One ear's `parts` (group, K, J, I) with another amount of endolymph, wherever a smooth random field is high.

    Anatomy must not tell the answer: patients, and other people's phantoms, keep endolymph where ours does not, also
    nearer to the walls or farther from them. Inside a voxel the edge is a soft one, as partial volume leaves it; in
    `DISPERSED` of the ears it is smoothed, slightly or so far that no voxel is full of it. The ratio that was drawn is
    only about the one that comes out.
    """
    fluid = parts[PERILYMPH] + parts[ENDOLYMPH]
    cells = [int(n) for n in rng.integers(*CELLS, 3)]
    coarse = torch.from_numpy(rng.normal(size=(1, 1, *cells)).astype(np.float32))
    field = torch.nn.functional.interpolate(coarse, size=tuple(fluid.shape), mode="trilinear", align_corners=True)[0, 0]
    ratio = float(rng.uniform(*REARRANGED_RATIOS))
    inside = fluid > 0.5
    if not bool(inside.any()):
        return parts
    drawn = float(rng.uniform(-1.0, 1.0))
    weight = DEPTH * drawn * abs(drawn) ** 0.5
    field = _finer(_standard(field, inside) + weight * _standard(_depth(fluid), inside), "trilinear")
    lumen = field[_finer(fluid, "nearest") > 0.5]
    share = torch.sigmoid((field - torch.quantile(lumen, 1.0 - ratio)) / (EDGE * lumen.std().clamp(min=1e-3)))
    share = torch.nn.functional.avg_pool3d(share[None, None], FINER)[0, 0]
    if rng.uniform() < DISPERSED:
        share = _spread(share, fluid, float(rng.uniform(*DISPERSED_MM)))
    out = parts.clone()
    out[ENDOLYMPH] = fluid * share
    out[PERILYMPH] = fluid - out[ENDOLYMPH]
    return out


def _spread(share: Tensor, fluid: Tensor, sd_mm: float) -> Tensor:
    """(K, J, I) mean of the share over the fluid around a voxel. The amount changes with it, by up to a quarter."""
    sd = [sd_mm / spacing for spacing in SPACING_MM]
    weight = ndimage.gaussian_filter(fluid.numpy(), sd).clip(min=1e-6)
    return torch.from_numpy(ndimage.gaussian_filter((fluid * share).numpy(), sd) / weight).clamp(0.0, 1.0)


def _depth(fluid: Tensor) -> Tensor:
    """(K, J, I) how far inside the fluid a voxel lies, mm, smooth across voxels."""
    distance = ndimage.distance_transform_edt(np.pad(fluid.numpy() > 0.5, 1), sampling=SPACING_MM)[1:-1, 1:-1, 1:-1]
    return torch.from_numpy(ndimage.gaussian_filter(distance, (0.5, 1.0, 1.0)).astype(np.float32))


def _finer(image: Tensor, mode: str) -> Tensor:
    """(FINER * K, FINER * J, FINER * I) of (K, J, I)."""
    return torch.nn.functional.interpolate(image[None, None], scale_factor=FINER, mode=mode)[0, 0]


def _standard(field: Tensor, inside: Tensor) -> Tensor:
    """The field with mean 0 and SD 1 inside."""
    return (field - field[inside].mean()) / field[inside].std().clamp(min=1e-3)


def moved(parts: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The network's window of a crop, up to `MARGIN` voxels off center: the localizer is not exact either."""
    start = [int(rng.integers(2 * margin + 1)) for margin in MARGIN]
    k, j, i = (slice(s, n - 2 * margin + s) for s, n, margin in zip(start, parts.shape[1:], MARGIN, strict=True))
    return parts[:, k, j, i]


def centered(parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The network's window in the middle of a crop."""
    k, j, i = (slice(margin, n - margin) for n, margin in zip(parts.shape[1:], MARGIN, strict=True))
    return parts[:, k, j, i]


def as_fractions(parts: NDArray[np.uint8]) -> Tensor:
    """float32 0..1 of parts counted in 255ths."""
    return torch.from_numpy(parts).float() / 255.0


def phantom_scans(pool: CropPool, *, within: ScanRange, seed: int, batch: int) -> list[Scans]:
    """Every ear of `pool` once with each input set: the same pictures every time, to validate on."""
    scans = []
    for begin in range(0, len(pool), batch):
        parts = as_fractions(np.stack([centered(pool.parts(n)) for n in range(begin, min(begin + batch, len(pool)))]))
        scans += [
            scan(parts, np.random.default_rng([seed, begin, n]), within=within, only=chosen)
            for n, chosen in enumerate(InputSet)
        ]
    return scans
