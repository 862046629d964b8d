"""Rigid alignment of one series to the MRC, judged at the ears: the head moves as one, but only the ears matter.

Three steps. *Capture*: per ear, the mutual information of every shift of a coarse box; the best pair of shifts that
a rigid head can make is the seed, so no start is too far and no local optimum is in the way. *Refine*: one Euler
transform of the head, Mattes mutual information sampled in balls around the ears, coarse to fine. *Judge*: limits,
similarity against the header geometry, and whether each ear, looked at alone, would still want to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from inference.findings import Alignment, EarROI
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import coarsen, invert_rigid, part_covering, to_sitk
from inference.similarity import Landscape, ShiftSearch, landscape

CAPTURE: Final = ShiftSearch(box_mm=30.0, step_mm=1.5, reach_mm=9.0)
"""The box holds the labyrinth (16 mm), its canal and a rim of cistern; the step is half of what a vestibule is wide;
the reach is 5 mm of the head plus 5 degrees at 40 mm from its middle."""

CAPTURE_BEST: Final = 80
"""Shifts per ear that take part in the search for a rigid pair."""

PAIR_STRETCH_MM: Final = 2.5
"""How much a pair of shifts may change the distance between the ears: rounding of both to the capture grid."""

JUDGE: Final = ShiftSearch(box_mm=22.0, step_mm=1.0, reach_mm=4.0)
"""Shifts of each ear that are tried around the result; a wrong optimum shows as a better one nearby."""

JUDGE_FAR_MM: Final = 2.5
"""Shifts beyond this show another part of the ear: the similarity there is what chance and anatomy give."""

MIN_DISTINCTNESS: Final = 4.0
"""Standard deviations by which the found place must stand out among far shifts. Noise and displaced heads stay below
2.2; phantoms with contrast agent reach 6 (PEI of severe hydrops) to 20, also at half the usual SNR. A PPI without
contrast agent reaches 5.7 although it ends up to 1.4 mm off: that study is refused for its contrast, not here."""

RIM_MM: Final = 4.0
"""Kept around the balls: two coarse voxels, and the most that refinement moves an ear after capture."""

GRADIENT_REACH_MM: Final = 4.0
"""Kept around that for the derivative's smoothing (recursive, SD of one voxel): what lies farther moved
no ratio of 16 phantom ears by more than 0.00002."""

SEED: Final = 20241122
"""The sampling never depends on the clock: same images and threads, same transform."""

HISTOGRAM_BINS: Final = 32
LAST_STEP_MM: Final = 0.004
MAX_STEPS: Final = 60
"""Of the descent; 10 to 15 steps are usual."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One resolution of the refinement: voxel edge, radius of the balls looked at, random points, first step."""

    spacing_mm: float
    radius_mm: float
    samples: int
    first_step_mm: float


LEVELS: Final = (
    _Level(spacing_mm=1.0, radius_mm=17.0, samples=12_000, first_step_mm=0.5),
    _Level(spacing_mm=0.5, radius_mm=10.0, samples=60_000, first_step_mm=0.1),
)
"""The last ball holds the labyrinth and little else. With 30 mm boxes PPI ended 0.3 mm too low in every phantom: on a
magnitude image the border of brain (positive) and CSF (negative) is drawn as a dark line beside its true place."""


ROUGH: Final = _Level(spacing_mm=3.0, radius_mm=80.0, samples=20_000, first_step_mm=2.0)
"""The head as a whole: its outline and its ventricles move it, not its ears."""


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
        PEI, PPI, HYDROPS or real IR on its own grid; orientation, spacing and frame may differ. HYDROPS-Mi2 was
        multiplied with the MRC, so it fits the MRC wherever the patient lay: its acceptance proves nothing.
    fixed
        The MRC.
    ears
        One or both ears, found on the MRC. One ear alone holds the rotation weakly: up to 0.6 mm at its rim.
    start
        Alignment of another series of the same visit, tried beside the header geometry if it was accepted (register
        PEI first, then PPI from there).

    Returns
    -------
    Alignment
        `accepted` is False, with the reason in words, when the series could not be aligned; images that do not fit
        never raise.
    """
    options = options or RegistrationOptions()
    if not ears:
        return _declined("no ear was found to align on")
    centers = np.array([ear.center_lps_mm for ear in ears])
    starts = [np.eye(4)]
    if start is not None and start.accepted:
        starts.append(start.moving_to_fixed)
    score, seed = max((_capture(moving, fixed, centers, first) for first in starts), key=lambda captured: captured[0])
    if score <= 0:
        return _declined("the series does not show the region of the ears")
    try:
        refined = _refine(moving, fixed, centers, seed, options.threads)
    except RuntimeError as failure:  # SimpleITK knows no other class: flat images, or too little overlap
        return _declined(f"the refinement stopped: {str(failure).strip().splitlines()[-1].strip()}")
    return _judge(moving, fixed, centers, [*starts, refined], options)


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


def align_roughly(moving: Volume, fixed: Volume, *, threads: int = 2) -> Alignment:
    """The motion of the whole head between two alike series (PEI and PPI of one visit), to about half a millimeter.

    For finding ears, before `align` can look at them. A descent that failed keeps the header geometry.
    """
    center = fixed.geometry.center_lps_mm
    still, seen = coarsen(fixed, ROUGH.spacing_mm), coarsen(moving, ROUGH.spacing_mm)
    try:
        found = _descend(seen, still, center[None, :], np.eye(4), ROUGH, threads)
    except RuntimeError as failure:  # SimpleITK's only exception: too few samples overlap, or the images are flat
        return _declined(f"the series could not be brought together: {str(failure).strip().splitlines()[-1].strip()}")
    return Alignment(
        moving_to_fixed=found,
        metric_before=0.0,
        metric_after=0.0,
        translation_mm=float(np.linalg.norm(found[:3, :3] @ center + found[:3, 3] - center)),
        rotation_deg=float(np.degrees(Rotation.from_matrix(found[:3, :3]).magnitude())),
        accepted=True,
        reason="brought together by the whole head",
    )


# ------------------------------------------------------------------------------------------------ capture


def _capture(moving: Volume, fixed: Volume, centers: FloatArray, first: FloatArray) -> tuple[float, FloatArray]:
    """The seed that all ears like best and a rigid head can reach from `first`, with its similarity.

    The similarity is 0 if an ear is not in view.
    """
    landscapes = [landscape(moving, fixed, center, first, CAPTURE) for center in centers]
    if any(view.values.max() <= 0 for view in landscapes):
        return 0.0, first
    if len(centers) == 1:
        shifts, scores = landscapes[0].best(1)
        return float(scores[0]), _rigid(np.eye(3), centers[0] + shifts[0], centers[0]) @ first
    score, moved = _best_pair(centers, landscapes)
    turn = _least_turn(moved[0] - moved[1], centers[0] - centers[1])
    return score, _rigid(turn, moved.mean(axis=0), centers.mean(axis=0)) @ first


def _best_pair(centers: FloatArray, landscapes: Sequence[Landscape]) -> tuple[float, FloatArray]:
    """Where both ears stand in the moving series: the most similar pair (2, 3) that keeps the head's width."""
    (one_shifts, one_scores), (other_shifts, other_scores) = (view.best(CAPTURE_BEST) for view in landscapes)
    ones, others = centers[0] + one_shifts, centers[1] + other_shifts
    width_mm = np.linalg.norm(ones[:, None] - others[None], axis=-1)
    stretch_mm = np.abs(width_mm - np.linalg.norm(centers[0] - centers[1]))
    allowed_mm = max(PAIR_STRETCH_MM, float(stretch_mm.min()))
    scores = np.where(stretch_mm <= allowed_mm, one_scores[:, None] + other_scores, -np.inf)
    one, other = np.unravel_index(np.argmax(scores), scores.shape)
    return float(scores[one, other]) / 2, np.array([ones[one], others[other]])


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


def _refine(moving: Volume, fixed: Volume, centers: FloatArray, seed: FloatArray, threads: int) -> FloatArray:
    """`seed`, improved level by level: one rigid transform of the head, sampled only around the ears."""
    region = _region(centers, LEVELS[0].radius_mm, fixed.geometry.frame_of_reference_uid)
    near_fixed = part_covering(fixed, region, rim_mm=RIM_MM)
    near_moving = part_covering(moving, region, moving_to_fixed=seed, rim_mm=RIM_MM)
    if near_fixed is None or near_moving is None:
        raise RuntimeError("the series do not overlap at the ears")
    found = seed
    for level in LEVELS:
        still, seen = coarsen(near_fixed, level.spacing_mm), coarsen(near_moving, level.spacing_mm)
        balls = _region(centers, level.radius_mm, fixed.geometry.frame_of_reference_uid)
        # The descent differentiates all of the moving image that it is given: what no ball reaches is left out.
        reached = part_covering(seen, balls, moving_to_fixed=found, rim_mm=RIM_MM + GRADIENT_REACH_MM)
        found = _descend(seen if reached is None else reached, still, centers, found, level, threads)
    return found


def _region(centers: FloatArray, radius_mm: float, frame_of_reference_uid: str) -> VolumeGeometry:
    """The eight corners of the smallest box along LPS that holds the balls around all ears."""
    low, high = centers.min(axis=0) - radius_mm, centers.max(axis=0) + radius_mm
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = np.diag(high - low)[:, ::-1]
    index_to_lps[:3, 3] = low
    return VolumeGeometry(shape=(2, 2, 2), index_to_lps=index_to_lps, frame_of_reference_uid=frame_of_reference_uid)


def _descend(
    moving: Volume, fixed: Volume, centers: FloatArray, seed: FloatArray, level: _Level, threads: int
) -> FloatArray:
    """One level: Mattes mutual information, regular steps measured in mm of movement at the ears."""
    middle = centers.mean(axis=0)
    inside = _balls(fixed.geometry, centers, level.radius_mm)
    squared = ((fixed.geometry.to_lps(np.argwhere(inside)) - middle) ** 2).mean(axis=0)
    levers = squared.sum() - squared  # mean squared distance from each axis: one step turns as far as it shifts
    mask = to_sitk(Volume(array=inside, geometry=fixed.geometry))
    transform = _euler(invert_rigid(seed), middle)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(threads)
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricFixedMask(sitk.Cast(mask, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, level.samples / max(int(inside.sum()), 1)), SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(level.first_step_mm, LAST_STEP_MM, MAX_STEPS)
    method.SetOptimizerScales([*levers.tolist(), 1.0, 1.0, 1.0])
    method.SetInitialTransform(transform, True)
    method.Execute(to_sitk(fixed), to_sitk(moving))
    return invert_rigid(_rounded(_matrix(transform)))


def _balls(grid: VolumeGeometry, centers: FloatArray, radius_mm: float) -> NDArray[np.bool_]:
    """(K, J, I) true where a voxel's center lies in a ball; only the box around each ball is looked at."""
    inside = np.zeros(grid.shape, dtype=bool)
    rim = radius_mm / grid.spacing_mm
    for center in centers:
        index = grid.to_index(center)
        low = np.clip(np.floor(index - rim), 0, grid.shape).astype(int)
        high = np.clip(np.ceil(index + rim) + 1, low, grid.shape).astype(int)
        box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        away = grid.to_lps(np.moveaxis(np.mgrid[box], 0, -1)) - center
        inside[box] |= (away**2).sum(axis=-1) <= radius_mm**2
    return inside


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


def _rounded(rigid: FloatArray) -> FloatArray:
    """`rigid` to a billionth: threads add in changing order, and the same images must give the same bytes."""
    turn = Rotation.from_matrix(rigid[:3, :3]).as_rotvec().round(9)
    return _rigid(Rotation.from_rotvec(turn).as_matrix(), np.zeros(3), rigid[:3, 3].round(9))


# ------------------------------------------------------------------------------------------------ judge


def _judge(
    moving: Volume,
    fixed: Volume,
    centers: FloatArray,
    candidates: Sequence[FloatArray],
    options: RegistrationOptions,
) -> Alignment:
    """The most similar candidate with its measurements, accepted only if every check holds.

    The header geometry is the first candidate: a patient who did not move keeps it, and no voxel is interpolated
    for the sake of noise.
    """
    similarities = [_similarity(moving, fixed, centers, candidate) for candidate in candidates]
    found = candidates[int(np.argmax(similarities))]
    views = [landscape(moving, fixed, center, found, JUDGE) for center in centers]
    middle = centers.mean(axis=0)
    shift_mm = float(np.linalg.norm(found[:3, :3].T @ (middle - found[:3, 3]) - middle))
    rotation_deg = float(np.degrees(Rotation.from_matrix(found[:3, :3]).magnitude()))
    residual_mm = max(view.peak_distance_mm() for view in views)
    distinctness = min(view.distinctness(JUDGE_FAR_MM) for view in views)
    doubts = [
        doubt
        for doubt, holds in (
            (f"the shift exceeds {options.max_shift_mm:g} mm", shift_mm > options.max_shift_mm),
            (f"the rotation exceeds {options.max_rotation_deg:g} degrees", rotation_deg > options.max_rotation_deg),
            (
                f"an ear alone would still move by more than {options.max_residual_mm:g} mm",
                residual_mm > options.max_residual_mm,
            ),
            ("an ear fits no better here than elsewhere", distinctness < MIN_DISTINCTNESS),
        )
        if holds
    ]
    measured = (
        f"shift {shift_mm:.2f} mm and rotation {rotation_deg:.2f} degrees at the ears, similarity "
        f"{similarities[0]:.3f} by the headers and {max(similarities):.3f} aligned, residual of an ear alone "
        f"{residual_mm:.2f} mm, {distinctness:.1f} SD above other places"
    )
    return Alignment(
        moving_to_fixed=found,
        metric_before=similarities[0],
        metric_after=max(similarities),
        translation_mm=shift_mm,
        rotation_deg=rotation_deg,
        accepted=not doubts,
        reason=f"{'; '.join(doubts)}: {measured}" if doubts else measured,
    )


def _similarity(moving: Volume, fixed: Volume, centers: FloatArray, moving_to_fixed: FloatArray) -> float:
    """Mean over the ears, at one transform."""
    here = ShiftSearch(box_mm=JUDGE.box_mm, step_mm=JUDGE.step_mm, reach_mm=0.0)
    return float(np.mean([landscape(moving, fixed, center, moving_to_fixed, here).unshifted for center in centers]))
