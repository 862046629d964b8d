"""How well two series show the same ear, whatever their contrasts, and how that changes when one is shifted.

Mutual information is what perilymph-only PPI, CSF-rich PEI and signed HYDROPS have in common with an MRC that
shows all fluid; correlation fails on PPI by up to 10 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import coarsen, part_covering, resample

Levels = NDArray[np.intp]
"""Gray levels 0..BINS-1, or `OUTSIDE`."""

BINS: Final = 16
"""Gray levels per image: enough for bone, brain, and fluid, few enough that a box of 20 x 20 x 20 fills them."""

OUTSIDE: Final = BINS
"""Level of voxels outside their series; they never enter a histogram."""

TAIL_PERCENT: Final = 0.3
"""Share of voxels clipped into the first and the last level. A labyrinth is 1 % of its box and must stay separate."""

MIN_OVERLAP: Final = 0.7
"""Part of a box that must lie inside both series for its similarity to mean anything."""


@dataclass(frozen=True, kw_only=True)
class ShiftSearch:
    """A cube around an ear along LPS, its voxel edge, and how far it is shifted along each axis."""

    box_mm: float
    step_mm: float
    reach_mm: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    """Similarity (nats) of one ear for every shift: `values[a, b, c]`, shifts along LPS (z, y, x) around the middle.

    A shift is where in the moving series the ear is looked for, relative to where the transform says it is.
    """

    values: FloatArray
    step_mm: float

    @property
    def unshifted(self) -> float:
        """The similarity as it is."""
        return float(self.values[tuple(n // 2 for n in self.values.shape)])

    def best(self, count: int) -> tuple[FloatArray, FloatArray]:
        """The `count` best shifts, (n, 3) LPS mm, and their similarities (n,), best first."""
        order = np.argsort(self.values, axis=None, kind="stable")[::-1][:count]
        index = np.stack(np.unravel_index(order, self.values.shape), axis=-1)
        middle = (np.array(self.values.shape) - 1) / 2
        return (index - middle)[:, ::-1] * self.step_mm, self.values.ravel()[order]

    def peak_distance_mm(self) -> float:
        """How far from the middle the similarity peaks; a parabola along each axis finds parts of a step."""
        peak = np.array(np.unravel_index(np.argmax(self.values), self.values.shape))
        offset = peak - (np.array(self.values.shape) - 1) / 2
        for axis, step in enumerate(np.eye(3, dtype=int)):
            if 0 < peak[axis] < self.values.shape[axis] - 1:
                below, top, above = (float(self.values[tuple(at)]) for at in (peak - step, peak, peak + step))
                bend = below - 2 * top + above
                offset[axis] += 0.5 * (below - above) / bend if bend < 0 else 0.0
        return float(np.linalg.norm(offset) * self.step_mm)

    def distinctness(self, beyond_mm: float) -> float:
        """How far the middle stands out from shifts beyond `beyond_mm`, in their (robust) standard deviations."""
        offsets = np.moveaxis(np.indices(self.values.shape), 0, -1) - (np.array(self.values.shape) - 1) / 2
        far = self.values[np.linalg.norm(offsets, axis=-1) * self.step_mm > beyond_mm]
        level = float(np.median(far))
        spread = 1.4826 * float(np.median(np.abs(far - level)))
        return (self.unshifted - level) / spread if spread > 0 else 0.0


def landscape(
    moving: Volume, fixed: Volume, center_mm: FloatArray, moving_to_fixed: FloatArray, search: ShiftSearch
) -> Landscape:
    """Similarity of the ear at `center_mm` (LPS of the fixed frame) in both series, around `moving_to_fixed`.

    Zero where less than `MIN_OVERLAP` of the box lies inside both series.
    """
    reach, size = round(search.reach_mm / search.step_mm), round(search.box_mm / search.step_mm)
    box = _cube(center_mm, size, search.step_mm, fixed.geometry.frame_of_reference_uid)
    wide = box.crop((-reach, -reach, -reach), (size + 2 * reach,) * 3)
    return Landscape(
        values=_similarities(
            _levels(fixed, box, np.eye(4), search.step_mm), _levels(moving, wide, moving_to_fixed, search.step_mm)
        ),
        step_mm=search.step_mm,
    )


def mutual_information(joint: Levels) -> FloatArray:
    """Mutual information (nats, >= 0) of joint histograms of counts (..., BINS, BINS); 0 for an empty one."""
    total = joint.sum(axis=(-2, -1), keepdims=True)
    share = joint / np.maximum(total, 1)
    independent = share.sum(axis=-1, keepdims=True) * share.sum(axis=-2, keepdims=True)
    of_one = np.divide(share, independent, out=np.ones_like(share), where=share > 0)
    information: FloatArray = (share * np.log(of_one)).sum(axis=(-2, -1))
    return information


def _similarities(fixed: Levels, moving: Levels) -> FloatArray:
    """Mutual information of `fixed` (K, J, I) with every sub-box of `moving` (K + 2a, J + 2b, I + 2c)."""
    windows = sliding_window_view(moving, fixed.shape)
    per_row, pairs = windows.shape[2], (BINS + 1) ** 2
    # One histogram for all shifts along i at once: its bins are numbered shift, level of `fixed`, level of `moving`.
    numbered = fixed * (BINS + 1) + (np.arange(per_row) * pairs)[:, None, None, None]
    both = np.empty_like(numbered)
    counts = np.empty((*windows.shape[:3], BINS + 1, BINS + 1), dtype=np.intp)
    for k, j in np.ndindex(windows.shape[:2]):
        np.add(numbered, windows[k, j], out=both)
        counts[k, j] = np.bincount(both.ravel(), minlength=per_row * pairs).reshape(counts.shape[2:])
    joint = counts[..., :BINS, :BINS]
    enough = joint.sum(axis=(-2, -1)) >= MIN_OVERLAP * fixed.size
    return np.where(enough, mutual_information(joint), 0.0)


def _levels(volume: Volume, box: VolumeGeometry, moving_to_fixed: FloatArray, step_mm: float) -> Levels:
    """Gray levels of `volume` on `box`, averaged to its step, laid out evenly between the tails of their values."""
    part = part_covering(volume, box, moving_to_fixed=moving_to_fixed, rim_mm=2 * step_mm)
    levels = np.full(box.shape, OUTSIDE, dtype=np.intp)
    if part is None:
        return levels
    shown = resample(coarsen(part, step_mm), box, moving_to_fixed=moving_to_fixed, fill=np.nan)
    values = np.asarray(shown.array, dtype=np.float64)
    inside = np.isfinite(values)
    if inside.any():
        low, high = np.percentile(values[inside], (TAIL_PERCENT, 100 - TAIL_PERCENT))
        scale = BINS / (high - low) if high > low else 0.0
        levels[inside] = np.clip((values[inside] - low) * scale, 0, BINS - 1)
    return levels


def _cube(center_mm: FloatArray, size: int, step_mm: float, frame_of_reference_uid: str) -> VolumeGeometry:
    """`size` voxels of `step_mm` along each of LPS (z, y, x), around `center_mm`."""
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = np.eye(3)[:, ::-1] * step_mm
    index_to_lps[:3, 3] = np.asarray(center_mm) - (size - 1) * step_mm / 2
    return VolumeGeometry(
        shape=(size, size, size), index_to_lps=index_to_lps, frame_of_reference_uid=frame_of_reference_uid
    )
