"""The rigid motion that makes two series most alike around the ears, found from fixed points and exact slopes.

Points are drawn once in balls around the ears. Mutual information of gray levels there, and its derivative by the six
numbers of a motion, come from one pass over the points: nothing is drawn, masked or differentiated outside the balls.
Each point's own slope also tells how sharply the similarity bends (the outer-product estimate of Fisher's
information), so that ten steps are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import coarsen, invert_rigid, part_covering

FloatPoints = NDArray[np.float32]

BINS: Final = 16
"""Gray levels per series; 32 align no better and leave more local optima behind."""

TAIL_PERCENT: Final = 0.3
"""Share of points clipped into the first and the last gray level, as in `similarity`."""

SMOOTHED_BINS: Final = 1.0
"""SD by which the histogram is smoothed along the moving series' levels: noise there is as wide as a level."""

EMPTY: Final = 1e-3
"""Points added to each pair of levels, so that its logarithm exists."""

BESIDE_MM: Final = 1.0
"""How far around a point of the fixed series its darkest neighbor is looked for."""

BESIDE_LEVELS: Final = (0.1, 0.2, 0.4)
"""Of the way from dark to fluid on an MRC: bone and air below, then mixtures and brain, and fluid all around above.

A gray level between brain and CSF is also one between bone and CSF, but shows as another one on inversion recovery.
Told apart by their neighbors, series with visible CSF end 0.07 to 0.09 mm from the truth, and 0.14 mm otherwise."""

DARK_PERCENTILE: Final = 5.0
FLUID_PERCENTILE: Final = 99.5
"""Of the fixed series around an ear: bone, and fluid."""

MIN_INSIDE: Final = 0.5
"""Part of an ear's points that must lie inside the moving series."""

DAMPING: Final = 1e-3
"""Of the mean bend, added along every direction: one that nothing holds stays where it is."""

STOP_MM: Final = 0.005
MAX_STEPS: Final = 20
"""Of the climb; 8 to 15 are usual."""

SEED: Final = 20241122
"""The points never depend on the clock: same images, same motion."""

RIM_MM: Final = 4.0
"""Kept around the balls: what smoothing reaches, and the most that a climb moves an ear."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution: voxel edge, SD of the smoothing, radius of the balls, points per ball, longest step."""

    spacing_mm: float
    smoothing_mm: float
    radius_mm: float
    points: int
    longest_step_mm: float


class NoOverlap(Exception):
    """A series does not show enough around an ear to be compared there; the message says what is missing."""


class Comparison:
    """Two series at fixed points around the ears: how alike they are under a motion, and where to move for more.

    Parameters
    ----------
    moving, fixed
        On any grids; compared at `level`.
    centers
        (n, 3) LPS mm of the fixed frame, the middles of the balls.
    near
        (4, 4) fixed to moving, LPS mm: about where the motion is looked for.

    Raises
    ------
    NoOverlap
        If one of the series does not reach a ball, is flat there, or holds values that are no numbers.
    """

    def __init__(self, moving: Volume, fixed: Volume, centers: FloatArray, near: FloatArray, level: Level) -> None:
        self._longest_step_mm = level.longest_step_mm
        self._pivot = np.mean(centers, axis=0)
        self._balls = [_ball(moving, fixed, center, self._pivot, near, level) for center in centers]
        squared = (np.concatenate([ball.offsets for ball in self._balls]).astype(np.float64) ** 2).mean(axis=0)
        self._lever_mm = np.sqrt(squared.sum() - squared)  # one unit of rotation moves the points as far as one mm

    def similarity(self, fixed_to_moving: FloatArray) -> float:
        """Mutual information (nats), mean over the balls; -inf where too little of a ball is inside."""
        return self._slopes(fixed_to_moving)[0]

    def climb(self, start: FloatArray) -> FloatArray:
        """The fixed-to-moving motion (4, 4) at the top of the similarity's slope from `start`."""
        found, trust = start, self._longest_step_mm
        height, slope, bend = self._slopes(found)
        for _ in range(MAX_STEPS):
            held = bend + DAMPING * np.trace(bend) / 6.0 * np.eye(6) + np.finfo(float).tiny * np.eye(6)
            step = np.linalg.solve(held, slope)
            length = float(np.linalg.norm(step))
            step *= min(1.0, trust / max(length, 1e-12))
            length = min(length, trust)
            tried = self._moved(found, step)
            at_tried = self._slopes(tried)
            if at_tried[0] > height:
                found, (height, slope, bend) = tried, at_tried
                trust = min(self._longest_step_mm, 2.0 * trust)
            else:
                trust = length / 3.0
            if min(length, trust) < STOP_MM:
                break
        return found

    def _moved(self, motion: FloatArray, step: FloatArray) -> FloatArray:
        """`motion` after a step (6,) about the pivot: rotation by lever, then shift, mm."""
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(step[:3] / self._lever_mm).as_matrix()
        turn[:3, 3] = self._pivot - turn[:3, :3] @ self._pivot + step[3:]
        moved: FloatArray = motion @ turn
        return moved

    def _slopes(self, motion: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Similarity, its derivative (6,) by a step, and the bend (6, 6) of its top."""
        heights, slope, bend = [], np.zeros(6), np.zeros((6, 6))
        for ball in self._balls:
            height, pull = ball.pulls(motion, self._pivot)
            by_step = np.concatenate([np.cross(ball.offsets, pull) / self._lever_mm, pull], axis=1)
            heights.append(height)
            slope += by_step.mean(axis=0, dtype=np.float64)
            bend += (by_step.T @ by_step).astype(np.float64) / len(by_step)
        return float(np.mean(heights)), slope / len(self._balls), bend / len(self._balls)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ball:
    """Points around one ear: (n, 3) float32 mm from the pivot, the fixed series' level of each, the moving image.

    `values` is the moving image, flat, on `grid`; `low` and `high` are the ends of its gray levels.
    """

    offsets: FloatPoints
    levels: NDArray[np.int32]
    values: FloatPoints
    grid: VolumeGeometry
    low: float
    high: float

    def pulls(self, motion: FloatArray, pivot: FloatArray) -> tuple[float, FloatPoints]:
        """Mutual information (nats) and, per point, its derivative (n, 3) by a shift along the fixed frame's LPS."""
        values, slopes, inside = self.seen(motion, pivot)
        if inside.mean() < MIN_INSIDE:
            return -np.inf, np.zeros_like(slopes)
        scale = np.float32((BINS - 1) / (self.high - self.low))
        raised = np.clip((values - np.float32(self.low)) * scale, 0.0, BINS - 1.001)
        level = raised.astype(np.int32)
        part, pair = raised - level, self.levels * BINS + level
        size = (len(BESIDE_LEVELS) + 1) * BINS * BINS
        counts = np.bincount(pair, weights=(1.0 - part) * inside, minlength=size).astype(np.float64)
        counts += np.bincount(pair + 1, weights=part * inside, minlength=size)
        joint = _smooth(counts.reshape(-1, BINS)) + EMPTY
        joint /= joint.sum()
        surprise = np.log(joint / (joint.sum(axis=0) * joint.sum(axis=1, keepdims=True)))
        told = _smooth(surprise).ravel()
        within = inside & (values > self.low) & (values < self.high)
        by_value = ((told[pair + 1] - told[pair]) * within).astype(np.float32) * scale
        return float((joint * surprise).sum()), by_value[:, None] * slopes

    def seen(self, motion: FloatArray, pivot: FloatArray) -> tuple[FloatPoints, FloatPoints, NDArray[np.bool_]]:
        """The moving image at the points, its derivative (n, 3) by a shift of the fixed frame, and who is inside."""
        to_index = np.linalg.inv(self.grid.index_to_lps[:3, :3])
        along = (to_index @ motion[:3, :3]).astype(np.float32)
        index = self.offsets @ along.T + self.grid.to_index(motion[:3, :3] @ pivot + motion[:3, 3]).astype(np.float32)
        last = np.array(self.grid.shape, dtype=np.float32) - 1
        inside = np.logical_and.reduce((index >= 0) & (index <= last), axis=1)
        index = np.clip(index, 0, last - np.float32(1e-3))
        corner = index.astype(np.int32)
        values, by_index = _between(self.values, self.grid.shape, corner, (index - corner).T)
        slopes: FloatPoints = by_index @ along
        return values, slopes, inside


def _between(
    flat: FloatPoints, shape: tuple[int, int, int], corner: NDArray[np.int32], part: FloatPoints
) -> tuple[FloatPoints, FloatPoints]:
    """Linear interpolation of a flat (K, J, I) image at `corner` (n, 3) + `part` (3, n), and its slope by index."""
    row, plane = shape[2], shape[1] * shape[2]
    first = corner[:, 0] * plane + corner[:, 1] * row + corner[:, 2]
    a, b, c, d, e, f, g, h = (
        flat[first + offset] for offset in (0, 1, row, row + 1, plane, plane + 1, plane + row, plane + row + 1)
    )
    k, j, i = part
    ab, cd, ef, gh = b - a, d - c, f - e, h - g
    on_ab, on_cd, on_ef, on_gh = a + i * ab, c + i * cd, e + i * ef, g + i * gh
    lower, upper = on_cd - on_ab, on_gh - on_ef
    below, above = on_ab + j * lower, on_ef + j * upper
    by_i = (1 - k) * (ab + j * (cd - ab)) + k * (ef + j * (gh - ef))
    by_j = lower + k * (upper - lower)
    return below + k * (above - below), np.stack([above - below, by_j, by_i], axis=1)


def _ball(
    moving: Volume, fixed: Volume, center: FloatArray, pivot: FloatArray, near: FloatArray, level: Level
) -> _Ball:
    """The points around one ear, drawn and looked up in `fixed`; raises `NoOverlap`."""
    box = _box(center, level.radius_mm, fixed.geometry.frame_of_reference_uid)
    still = _smoothed(fixed, box, np.eye(4), level)
    image = _smoothed(moving, box, invert_rigid(near), level)
    points = _points(center, level)
    index = still.geometry.to_index(points)
    within = ((index >= 0) & (index <= np.array(still.geometry.shape) - 1)).all(axis=1)
    if not within.any():
        raise NoOverlap("the MRC does not show the surroundings of an ear")
    ball = _Ball(
        offsets=(points[within] - pivot).astype(np.float32),
        levels=_levels(still, index[within]),
        values=np.ascontiguousarray(image.array, dtype=np.float32).ravel(),
        grid=image.geometry,
        low=0.0,
        high=1.0,
    )
    shown, _, inside = ball.seen(near, pivot)
    if inside.mean() < MIN_INSIDE:
        raise NoOverlap("the series does not show enough around an ear")
    bottom, top = (float(p) for p in np.percentile(shown[inside], (TAIL_PERCENT, 100 - TAIL_PERCENT)))
    if top <= bottom:
        raise NoOverlap("the series is flat around an ear")
    return _Ball(offsets=ball.offsets, levels=ball.levels, values=ball.values, grid=ball.grid, low=bottom, high=top)


def _levels(still: Volume, index: FloatArray) -> NDArray[np.int32]:
    """The fixed series' level at each index (n, 3): its gray level, and how dark its darkest neighbor is."""
    image = np.asarray(still.array)
    values = ndimage.map_coordinates(image, index.T, order=1)
    low, high = np.percentile(values, (TAIL_PERCENT, 100 - TAIL_PERCENT))
    dark, fluid = np.percentile(image, (DARK_PERCENTILE, FLUID_PERCENTILE))
    if high <= low or fluid <= dark:
        raise NoOverlap("the MRC is flat around an ear")
    gray = np.clip((values - low) / (high - low) * BINS, 0, BINS - 1).astype(np.int32)
    size = 2 * np.maximum(1, np.rint(BESIDE_MM / still.geometry.spacing_mm).astype(int)) + 1
    darkest = ndimage.minimum_filter(image, size=tuple(size.tolist()))[tuple(np.rint(index).astype(int).T)]
    beside = np.digitize((darkest - dark) / (fluid - dark), BESIDE_LEVELS)
    levels: NDArray[np.int32] = (gray * (len(BESIDE_LEVELS) + 1) + beside).astype(np.int32)
    return levels


def _points(center: FloatArray, level: Level) -> FloatArray:
    """(n, 3) LPS mm, evenly spread in the ball; never on voxel centers, where interpolation would not blur noise."""
    rng = np.random.default_rng(SEED)
    away = rng.normal(size=(level.points, 3))
    away *= (level.radius_mm * np.cbrt(rng.uniform(size=level.points)) / np.linalg.norm(away, axis=1))[:, None]
    points: FloatArray = center + away
    return points


def _smoothed(volume: Volume, box: VolumeGeometry, moving_to_fixed: FloatArray, level: Level) -> Volume:
    """The part of `volume` around `box` at the level's resolution, float32; raises `NoOverlap`."""
    part = part_covering(volume, box, moving_to_fixed=moving_to_fixed, rim_mm=RIM_MM)
    if part is None or min(part.array.shape) < 2:
        raise NoOverlap("the series do not overlap around an ear")
    coarse = coarsen(part, level.spacing_mm)
    if min(coarse.array.shape) < 2:
        raise NoOverlap("the series do not overlap around an ear")
    smooth = ndimage.gaussian_filter(
        np.asarray(coarse.array, dtype=np.float32), level.smoothing_mm / coarse.geometry.spacing_mm, truncate=3.0
    )
    if not np.isfinite(smooth).all():
        raise NoOverlap("values around an ear are no numbers")
    return Volume(array=smooth, geometry=coarse.geometry)


def _smooth(levels: FloatArray) -> FloatArray:
    """Along the moving series' levels; reflected at the ends it keeps all points and is its own transpose."""
    smooth: FloatArray = ndimage.gaussian_filter1d(levels, SMOOTHED_BINS, axis=1, mode="reflect")
    return smooth


def _box(center: FloatArray, radius_mm: float, frame_of_reference_uid: str) -> VolumeGeometry:
    """The corners of the cube along LPS that holds a ball."""
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = 2.0 * radius_mm * np.eye(3)[:, ::-1]
    index_to_lps[:3, 3] = center - radius_mm
    return VolumeGeometry(shape=(2, 2, 2), index_to_lps=index_to_lps, frame_of_reference_uid=frame_of_reference_uid)
