"""Rigid alignment of one series to the MRC, judged at the ears: the head moves as one, but only the ears matter.

Three steps. *Capture*: per ear, the mutual information of every shift of a coarse box; the best pair of shifts that
a rigid head can make is the seed, so no start is too far and no local optimum is in the way. *Refine*: one motion of
the head, climbing mutual information in balls around the ears, coarse to fine. *Judge*: limits, similarity against the
header geometry, and whether each ear, looked at alone, would still want to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from inference.findings import Alignment, EarROI
from inference.geometry import FloatArray, Volume
from inference.refinement import Comparison, Level, NoOverlap
from inference.resampling import invert_rigid
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

COARSE: Final = Level(spacing_mm=1.0, smoothing_mm=1.0, radius_mm=17.0, points=8_000, longest_step_mm=1.0)
FINE: Final = Level(spacing_mm=0.5, smoothing_mm=0.4, radius_mm=17.0, points=25_000, longest_step_mm=0.3)
"""The ball holds the labyrinth and what of canal, cistern and bone lies around it: with 10 mm PPI ends 0.12 mm from the
truth, with 17 mm 0.08 mm, with 22 mm no nearer. Smoothing hides the voxels' grid; without it PPI ends 0.4 mm off."""

ROUGH: Final = Level(spacing_mm=3.0, smoothing_mm=1.5, radius_mm=80.0, points=20_000, longest_step_mm=2.0)
"""The head as a whole: its outline and its ventricles move it, not its ears."""

STILL_MM: Final = 0.1
"""A patient who moved less than refinement can tell did not move: the header's geometry stays."""

HALF_LABYRINTH_MM: Final = 7.0
"""Of a labyrinth's height; a motion is measured at the corners of this cube around each ear."""


@dataclass(frozen=True, kw_only=True)
class RegistrationOptions:
    """What a believable patient motion is.

    `max_shift_mm` is taken at the ears' midpoint, `max_rotation_deg` is the total angle. An ear looked at alone may
    want to move by at most `max_residual_mm`.
    """

    max_shift_mm: float = 10.0
    max_rotation_deg: float = 10.0
    max_residual_mm: float = 1.0


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
        PEI, PPI, HYDROPS or real IR on its own grid; orientation, spacing and frame may differ. HYDROPS-Mi2 has to be
        divided first (`contrast.hydrops_from_mi2`): the product fits the MRC wherever the patient lay.
    fixed
        The MRC.
    ears
        One or both ears, found on the MRC. One ear alone holds the rotation more weakly.
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
    score, captured = _capture(moving, fixed, centers)
    seeds = [captured, *starts[1:]] if score > 0 else starts[1:]
    if not seeds:
        return _declined("the series does not show the region of the ears")
    try:
        refined = _refine(moving, fixed, centers, seeds)
    except NoOverlap as failure:
        return _declined(f"the refinement stopped: {failure}")
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


def align_roughly(moving: Volume, fixed: Volume) -> Alignment:
    """The motion of the whole head between two alike series (PEI and PPI of one visit), to about half a millimeter.

    For finding ears, before `align` can look at them. Series that cannot be compared keep the header geometry.
    """
    center = fixed.geometry.center_lps_mm
    try:
        comparison = Comparison(moving, fixed, center[None, :], np.eye(4), ROUGH)
    except NoOverlap as failure:
        return _declined(f"the series could not be brought together: {failure}")
    found = invert_rigid(_rounded(comparison.climb(np.eye(4))))
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


def _capture(moving: Volume, fixed: Volume, centers: FloatArray) -> tuple[float, FloatArray]:
    """The seed that all ears like best and a rigid head can reach from the headers' geometry, with its similarity.

    The similarity is 0 if an ear is not in view.
    """
    landscapes = [landscape(moving, fixed, center, np.eye(4), CAPTURE) for center in centers]
    if any(view.values.max() <= 0 for view in landscapes):
        return 0.0, np.eye(4)
    if len(centers) == 1:
        shifts, scores = landscapes[0].best(1)
        return float(scores[0]), _rigid(np.eye(3), centers[0] + shifts[0], centers[0])
    score, moved = _best_pair(centers, landscapes)
    turn = _least_turn(moved[0] - moved[1], centers[0] - centers[1])
    return score, _rigid(turn, moved.mean(axis=0), centers.mean(axis=0))


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


def _refine(moving: Volume, fixed: Volume, centers: FloatArray, seeds: Sequence[FloatArray]) -> FloatArray:
    """The best of `seeds` after a climb, improved once more at full resolution: one motion, moving to fixed.

    Raises `NoOverlap` if none of them can be compared.
    """
    tops, failures = [], []
    for seed in seeds:
        near = invert_rigid(seed)
        try:
            comparison = Comparison(moving, fixed, centers, near, COARSE)
        except NoOverlap as failure:  # a start from another series may lead out of this one
            failures.append(failure)
            continue
        top = comparison.climb(near)
        tops.append((comparison.similarity(top), top))
    if not tops:
        raise failures[0]
    _, near = max(tops, key=lambda top: top[0])
    return invert_rigid(_rounded(Comparison(moving, fixed, centers, near, FINE).climb(near)))


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

    The header geometry is the first candidate, the refined motion the last.
    """
    before = _similarity(moving, fixed, centers, candidates[0])
    found = _chosen(moving, fixed, centers, candidates)
    after = _similarity(moving, fixed, centers, found)
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
        f"{before:.3f} by the headers and {after:.3f} aligned, residual of an ear alone "
        f"{residual_mm:.2f} mm, {distinctness:.1f} SD above other places"
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


def _chosen(moving: Volume, fixed: Volume, centers: FloatArray, candidates: Sequence[FloatArray]) -> FloatArray:
    """The refined motion, unless another candidate is a place of its own and more similar.

    A patient who did not move keeps the header geometry, and no voxel is interpolated for the sake of noise. Candidates
    nearer to the refined motion than the judge's step are told apart by refinement alone.
    """
    headers, refined = candidates[0], candidates[-1]
    if _apart_mm(headers, refined, centers) < STILL_MM:
        return headers
    others = [one for one in candidates[:-1] if _apart_mm(one, refined, centers) > JUDGE.step_mm]
    if not others:
        return refined
    return max([refined, *others], key=lambda one: _similarity(moving, fixed, centers, one))


def _apart_mm(one: FloatArray, other: FloatArray, centers: FloatArray) -> float:
    """The largest distance between where two motions take a point of the ears."""
    corners = HALF_LABYRINTH_MM * (2.0 * np.array(list(np.ndindex(2, 2, 2))) - 1.0)
    points = (centers[:, None] + corners).reshape(-1, 3)
    difference = one @ invert_rigid(other)
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3] - points, axis=1).max())


def _similarity(moving: Volume, fixed: Volume, centers: FloatArray, moving_to_fixed: FloatArray) -> float:
    """Mean over the ears, at one transform."""
    here = ShiftSearch(box_mm=JUDGE.box_mm, step_mm=JUDGE.step_mm, reach_mm=0.0)
    return float(np.mean([landscape(moving, fixed, center, moving_to_fixed, here).unshifted for center in centers]))
