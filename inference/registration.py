"""Rigid alignment of one series to the MRC, judged at the ears: the head moves as one, but only the ears matter.

Three steps. *Capture*: per ear, the mutual information of every shift of a coarse box; the best pair of shifts that
a rigid head can make is the seed, so no start is too far and no local optimum is in the way. *Refine*: one Euler
transform of the head, Mattes mutual information sampled in the boxes around the ears, coarse to fine. *Judge*:
limits, similarity against the header geometry, and whether each ear, looked at alone, would still want to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from inference.findings import Alignment, EarROI
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import coarsen, invert_rigid, resample, to_sitk
from inference.similarity import gray_levels, shift_landscape

BOX_MM: Final = 30.0
"""Edge of the box compared around each ear: the labyrinth (16 mm), the internal auditory canal, a rim of cistern."""

CAPTURE_STEP_MM: Final = 1.5
"""Grid of the capture step: half of what a vestibule is wide, so that no peak falls between two shifts."""

CAPTURE_REACH_MM: Final = 9.0
"""Farthest shift tried at an ear: 5 mm of the head plus 5 degrees at 40 mm from its middle."""

CAPTURE_BEST: Final = 80
"""Shifts per ear that take part in the search for a rigid pair."""

PAIR_STRETCH_MM: Final = 2.5
"""How much a pair of shifts may change the distance between the ears: rounding of both to the capture grid."""

RIM_MM: Final = 4.0
"""Kept around a cropped region: two coarse voxels, and the most that refinement moves an ear after capture."""

JUDGE_STEP_MM: Final = 1.0
JUDGE_REACH_MM: Final = 4.0
"""Shifts of each ear that are tried around the result; a wrong optimum shows as a better one nearby."""

SEED: Final = 20241122
"""The sampling never depends on the clock: same images and threads, same transform."""

HISTOGRAM_BINS: Final = 32
"""Of the Mattes metric; 16 to 64 end within 0.02 mm of each other."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One resolution of the refinement: voxel edge, random points, first step of the descent."""

    spacing_mm: float
    samples: int
    first_step_mm: float


LEVELS: Final = (
    _Level(spacing_mm=1.0, samples=12_000, first_step_mm=0.5),
    _Level(spacing_mm=0.5, samples=40_000, first_step_mm=0.1),
)
LAST_STEP_MM: Final = 0.004
MAX_STEPS: Final = 60


@dataclass(frozen=True, kw_only=True)
class RegistrationOptions:
    """What a believable patient motion is, and how many threads may look for it.

    `max_shift_mm` is taken at the ears' midpoint, `max_rotation_deg` is the total angle. An ear looked at alone may
    want to move by at most `max_residual_mm`.
    """

    max_shift_mm: float = 10.0
    max_rotation_deg: float = 10.0
    max_residual_mm: float = 1.0
    threads: int = 2


def align(
    moving: Volume,
    fixed: Volume,
    ears: Sequence[EarROI],
    *,
    options: RegistrationOptions | None = None,
    start: Alignment | None = None,
) -> Alignment:
    """The rigid motion that brings `moving` onto `fixed` at the ears, and whether to believe it.

    Parameters
    ----------
    moving
        PEI, PPI, HYDROPS, HYDROPS-Mi2 or real IR on its own grid; orientation, spacing and frame may differ.
    fixed
        The MRC.
    ears
        One or both ears, found on the MRC. One ear fixes the rotation poorly; the error at that ear stays small.
    start
        An accepted alignment of another series of the same visit (register PEI first, then PPI from there).

    Returns
    -------
    Alignment
        `accepted` is False, with the reason in words, when the series could not be aligned; images that do not fit
        never raise.
    """
    options = options or RegistrationOptions()
    if not ears:
        return _declined("no ear was found to align on")
    first = start.moving_to_fixed if start is not None and start.accepted else np.eye(4)
    seed = _capture(moving, fixed, ears, first)
    if seed is None:
        return _declined("the series does not show the region of the ears")
    try:
        found = _refine(moving, fixed, ears, seed, options.threads)
    except RuntimeError as failure:  # SimpleITK's only exception: too few samples overlap, or the images are flat
        return _declined(f"the refinement stopped: {str(failure).strip().splitlines()[-1].strip()}")
    return _judge(moving, fixed, ears, found, options)


def _declined(reason: str) -> Alignment:
    return Alignment(
        moving_to_fixed=np.eye(4),
        metric_before=0.0,
        metric_after=0.0,
        translation_mm=0.0,
        rotation_deg=0.0,
        accepted=False,
        reason=reason,
    )


# ------------------------------------------------------------------------------------------------ capture


def _capture(moving: Volume, fixed: Volume, ears: Sequence[EarROI], first: FloatArray) -> FloatArray | None:
    """The seed that both ears like best and a rigid head can reach; None if the moving series does not show them."""
    centers = [np.array(ear.center_lps_mm) for ear in ears]
    candidates = []
    for center in centers:
        landscape = _landscape(moving, fixed, center, first, step_mm=CAPTURE_STEP_MM, reach_mm=CAPTURE_REACH_MM)
        if landscape.max() <= 0:
            return None
        candidates.append(_best_shifts(landscape))
    if len(centers) == 1:
        (shifts, _), (center,) = candidates[0], centers
        return _rigid(np.eye(3), center + shifts[0], center) @ first
    moved = _best_pair(centers, candidates)
    turn = _least_turn(moved[0] - moved[1], centers[0] - centers[1])
    return _rigid(turn, np.mean(moved, axis=0), np.mean(centers, axis=0)) @ first


def _landscape(
    moving: Volume,
    fixed: Volume,
    center_mm: FloatArray,
    moving_to_fixed: FloatArray,
    *,
    step_mm: float,
    reach_mm: float,
) -> FloatArray:
    """Similarity of one ear for shifts of the looked-at place in `moving` by whole steps along LPS (z, y, x)."""
    reach, size = round(reach_mm / step_mm), round(BOX_MM / step_mm)
    box = _cube(center_mm, size, step_mm, fixed.geometry.frame_of_reference_uid)
    wide = box.crop((-reach, -reach, -reach), (size + 2 * reach,) * 3)
    still = resample(coarsen(_around(fixed, wide, np.eye(4)), step_mm), box, fill=np.nan).array
    near = coarsen(_around(moving, wide, moving_to_fixed), step_mm)
    seen = resample(near, wide, moving_to_fixed=moving_to_fixed, fill=np.nan).array
    return shift_landscape(gray_levels(still), gray_levels(seen))


def _best_shifts(landscape: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The best shifts of an ear, (n, 3) LPS mm and (n,) similarities, best first."""
    best = np.argsort(landscape, axis=None)[::-1][:CAPTURE_BEST]
    index = np.stack(np.unravel_index(best, landscape.shape), axis=-1)
    middle = (np.array(landscape.shape) - 1) / 2
    return (index - middle)[:, ::-1] * CAPTURE_STEP_MM, landscape.ravel()[best]


def _best_pair(
    centers: Sequence[FloatArray], candidates: Sequence[tuple[FloatArray, FloatArray]]
) -> tuple[FloatArray, FloatArray]:
    """Where both ears stand in the moving series: most similar among pairs that keep the head's width."""
    (one_shifts, one_scores), (other_shifts, other_scores) = candidates
    ones, others = centers[0] + one_shifts, centers[1] + other_shifts
    width_mm = np.linalg.norm(ones[:, None] - others[None], axis=-1)
    stretch_mm = np.abs(width_mm - np.linalg.norm(centers[0] - centers[1]))
    scores = np.where(stretch_mm <= max(PAIR_STRETCH_MM, stretch_mm.min()), one_scores[:, None] + other_scores, -np.inf)
    one, other = np.unravel_index(np.argmax(scores), scores.shape)
    return ones[one], others[other]


def _least_turn(source: FloatArray, target: FloatArray) -> FloatArray:
    """The smallest rotation (3, 3) from direction `source` to direction `target`; neither may be zero."""
    axis = np.cross(source, target)
    sine = float(np.linalg.norm(axis))
    if sine == 0.0:
        return np.eye(3)
    turn: FloatArray = Rotation.from_rotvec(axis / sine * np.arctan2(sine, source @ target)).as_matrix()
    return turn


def _rigid(rotation: FloatArray, source_mm: FloatArray, target_mm: FloatArray) -> FloatArray:
    """The (4, 4) motion that rotates and brings `source_mm` to `target_mm`."""
    rigid = np.eye(4)
    rigid[:3, :3] = rotation
    rigid[:3, 3] = target_mm - rotation @ source_mm
    return rigid


# ------------------------------------------------------------------------------------------------ refine


def _refine(moving: Volume, fixed: Volume, ears: Sequence[EarROI], seed: FloatArray, threads: int) -> FloatArray:
    """`seed`, improved level by level; one rigid transform of the head, sampled only in the ears' boxes."""
    centers = np.array([ear.center_lps_mm for ear in ears])
    size = np.ptp(centers, axis=0) + BOX_MM
    both = _cuboid(centers.mean(axis=0), (2, 2, 2), size, fixed.geometry.frame_of_reference_uid)
    near_fixed, near_moving = _around(fixed, both, np.eye(4)), _around(moving, both, seed)
    found = seed
    for level in LEVELS:
        still, seen = coarsen(near_fixed, level.spacing_mm), coarsen(near_moving, level.spacing_mm)
        found = _descend(seen, still, centers, found, level, threads)
    return found


def _descend(
    moving: Volume, fixed: Volume, centers: FloatArray, seed: FloatArray, level: _Level, threads: int
) -> FloatArray:
    """One level: Mattes mutual information, regular steps measured in mm of movement at the ears."""
    middle = centers.mean(axis=0)
    places = fixed.geometry.to_lps(np.moveaxis(np.indices(fixed.array.shape), 0, -1))
    inside = np.any([(np.abs(places - center) <= BOX_MM / 2).all(axis=-1) for center in centers], axis=0)
    squared = ((places[inside] - middle) ** 2).mean(axis=0)
    levers = squared.sum() - squared  # mean squared distance from each axis: one step turns as far as it shifts
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(threads)
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    mask = to_sitk(Volume(array=inside, geometry=fixed.geometry))
    method.SetMetricFixedMask(sitk.Cast(mask, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, level.samples / max(int(inside.sum()), 1)), SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(level.first_step_mm, LAST_STEP_MM, MAX_STEPS)
    method.SetOptimizerScales([*levers.tolist(), 1.0, 1.0, 1.0])
    transform = _euler(invert_rigid(seed), middle)
    method.SetInitialTransform(transform, True)
    method.Execute(to_sitk(fixed), to_sitk(moving))
    return invert_rigid(_matrix(transform))


def _euler(rigid: FloatArray, center_mm: FloatArray) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(center_mm.tolist())
    transform.SetMatrix(rigid[:3, :3].flatten().tolist(), 1e-6)
    transform.SetTranslation((rigid[:3, 3] - center_mm + rigid[:3, :3] @ center_mm).tolist())
    return transform


def _matrix(transform: sitk.Euler3DTransform) -> FloatArray:
    center = np.array(transform.GetCenter())
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    return _rigid(rotation, center, center + np.array(transform.GetTranslation()))


# ------------------------------------------------------------------------------------------------ judge


def _judge(
    moving: Volume, fixed: Volume, ears: Sequence[EarROI], found: FloatArray, options: RegistrationOptions
) -> Alignment:
    """The result with its measurements, accepted only if every check holds; the reason names what was measured."""
    centers = np.array([ear.center_lps_mm for ear in ears])
    middle = centers.mean(axis=0)
    shift_mm = float(np.linalg.norm(middle - (invert_rigid(found) @ np.append(middle, 1.0))[:3]))
    rotation_deg = float(np.degrees(Rotation.from_matrix(found[:3, :3]).magnitude()))
    before = float(np.mean([_similarity(moving, fixed, center, np.eye(4)) for center in centers]))
    residuals, peaks = [], []
    for center in centers:
        landscape = _landscape(moving, fixed, center, found, step_mm=JUDGE_STEP_MM, reach_mm=JUDGE_REACH_MM)
        residuals.append(_residual_mm(landscape))
        peaks.append(landscape[tuple(n // 2 for n in landscape.shape)])
    after, residual_mm = float(np.mean(peaks)), max(residuals)
    doubts = []
    if shift_mm > options.max_shift_mm:
        doubts.append(f"the shift exceeds {options.max_shift_mm:g} mm")
    if rotation_deg > options.max_rotation_deg:
        doubts.append(f"the rotation exceeds {options.max_rotation_deg:g} degrees")
    if after < before:
        doubts.append("the images fit worse than by their headers")
    if residual_mm > options.max_residual_mm:
        doubts.append(f"an ear alone would still move by more than {options.max_residual_mm:g} mm")
    measured = (
        f"shift {shift_mm:.2f} mm and rotation {rotation_deg:.2f} degrees at the ears, similarity "
        f"{before:.3f} before and {after:.3f} after, residual of an ear alone {residual_mm:.2f} mm"
    )
    return Alignment(
        moving_to_fixed=found,
        metric_before=before,
        metric_after=after,
        translation_mm=shift_mm,
        rotation_deg=rotation_deg,
        accepted=not doubts,
        reason=f"{'; '.join(doubts)}: {measured}" if doubts else measured,
    )


def _similarity(moving: Volume, fixed: Volume, center_mm: FloatArray, moving_to_fixed: FloatArray) -> float:
    landscape = _landscape(moving, fixed, center_mm, moving_to_fixed, step_mm=JUDGE_STEP_MM, reach_mm=0.0)
    return float(landscape[0, 0, 0])


def _residual_mm(landscape: FloatArray) -> float:
    """How far from the middle the similarity of one ear peaks, in mm; a parabola along each axis finds sub-steps."""
    peak = np.array(np.unravel_index(np.argmax(landscape), landscape.shape))
    offset = peak - (np.array(landscape.shape) - 1) / 2
    for axis, step in enumerate(np.eye(3, dtype=int)):
        if 0 < peak[axis] < landscape.shape[axis] - 1:
            below, top, above = (float(landscape[tuple(at)]) for at in (peak - step, peak, peak + step))
            bend = below - 2 * top + above
            offset[axis] += 0.5 * (below - above) / bend if bend < 0 else 0.0
    return float(np.linalg.norm(offset) * JUDGE_STEP_MM)


# ------------------------------------------------------------------------------------------------ places


def _cuboid(
    center_mm: ArrayLike, shape: tuple[int, int, int], size_mm: FloatArray, frame_of_reference_uid: str
) -> VolumeGeometry:
    """A grid along LPS whose corner voxels' centers span `size_mm` (x, y, z) around `center_mm`."""
    spacing_mm = size_mm[::-1] / np.maximum(np.array(shape) - 1, 1)
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = np.eye(3)[:, ::-1] * spacing_mm
    index_to_lps[:3, 3] = np.asarray(center_mm) - size_mm / 2
    return VolumeGeometry(shape=shape, index_to_lps=index_to_lps, frame_of_reference_uid=frame_of_reference_uid)


def _cube(center_mm: ArrayLike, size: int, step_mm: float, frame_of_reference_uid: str) -> VolumeGeometry:
    return _cuboid(center_mm, (size, size, size), np.full(3, (size - 1) * step_mm), frame_of_reference_uid)


def _around(volume: Volume, box: VolumeGeometry, moving_to_fixed: FloatArray) -> Volume:
    """The part of `volume` that covers `box` with a rim for blurring and for the motion still to be found."""
    corners = box.to_lps(np.array(np.meshgrid(*[(0, n - 1) for n in box.shape], indexing="ij")).reshape(3, -1).T)
    back = invert_rigid(moving_to_fixed)
    index = volume.geometry.to_index(corners @ back[:3, :3].T + back[:3, 3])
    rim = RIM_MM / volume.geometry.spacing_mm
    last = np.array(volume.array.shape) - 1
    low = np.clip(np.floor(index.min(axis=0) - rim), 0, last).astype(int)
    high = np.clip(np.ceil(index.max(axis=0) + rim), low, last).astype(int)
    k, j, i = (int(n) for n in low)
    depth, height, width = (int(n) for n in high - low + 1)
    return volume.crop((k, j, i), (depth, height, width))
