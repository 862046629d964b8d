"""Metrics against shapes whose overlap and distances can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.evaluation.overlap import Overlap, overlap

SPACING_MM = (1.0, 0.5, 0.5)


def box(k: slice, j: slice, i: slice) -> NDArray[np.bool_]:
    mask = np.zeros((20, 40, 40), dtype=bool)
    mask[k, j, i] = True
    return mask


def of_masks(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> Overlap:
    return overlap(found.astype(np.float32), found, true.astype(np.float32), true, SPACING_MM)


CUBE = box(slice(5, 10), slice(10, 20), slice(10, 20))


def test_a_perfect_segmentation_overlaps_fully_and_lies_at_distance_zero() -> None:
    perfect = of_masks(CUBE, CUBE)
    assert (perfect.dice, perfect.iou, perfect.fraction_dice) == (1.0, 1.0, 1.0)
    assert (perfect.hausdorff_mm, perfect.hausdorff95_mm, perfect.surface_distance_mm) == (0.0, 0.0, 0.0)
    assert perfect.volume_mm3 == perfect.true_volume_mm3 == 5 * 10 * 10 * 0.25


@pytest.mark.parametrize(
    ("moved", "distance_mm"),
    [
        (box(slice(7, 12), slice(10, 20), slice(10, 20)), 2.0),
        (box(slice(5, 10), slice(14, 24), slice(10, 20)), 2.0),
        (box(slice(5, 10), slice(10, 20), slice(7, 17)), 1.5),
        (box(slice(8, 13), slice(18, 28), slice(10, 20)), 5.0),
    ],
    ids=["two slices", "four rows", "three columns", "three slices and eight rows"],
)
def test_a_shifted_cube_is_as_far_away_as_it_was_moved_in_millimeters(
    moved: NDArray[np.bool_], distance_mm: float
) -> None:
    shifted = of_masks(moved, CUBE)
    assert shifted.hausdorff_mm == pytest.approx(distance_mm)
    assert shifted.surface_distance_mm is not None
    assert 0.0 < shifted.surface_distance_mm < distance_mm


def test_half_overlap_is_dice_a_half_and_iou_a_third() -> None:
    half = of_masks(box(slice(5, 10), slice(15, 25), slice(10, 20)), CUBE)
    assert half.dice == pytest.approx(0.5)
    assert half.iou == pytest.approx(1 / 3)


def test_one_stray_voxel_moves_the_largest_distance_but_not_the_95th_percentile() -> None:
    stray = CUBE | box(slice(7, 8), slice(15, 16), slice(35, 36))
    judged = of_masks(stray, CUBE)
    assert judged.hausdorff_mm == pytest.approx((35 - 19) * 0.5)
    assert judged.hausdorff95_mm == 0.0


def test_the_mean_surface_distance_of_two_planes_is_their_distance() -> None:
    one, other = (box(slice(None), slice(None), slice(i, i + 1)) for i in (10, 16))
    assert of_masks(one, other).surface_distance_mm == pytest.approx(3.0)


def test_partial_volume_counts_in_the_fraction_dice_and_in_the_volume_only() -> None:
    found = CUBE.astype(np.float32) * np.float32(0.6)
    soft = overlap(found, CUBE, CUBE.astype(np.float32), CUBE, SPACING_MM)
    assert soft.dice == 1.0
    assert soft.fraction_dice == pytest.approx(2 * 0.6 / 1.6)
    assert soft.volume_mm3 == pytest.approx(0.6 * soft.true_volume_mm3)


def test_an_empty_mask_has_no_distance_and_two_empty_ones_have_no_overlap_either() -> None:
    nothing = np.zeros_like(CUBE)
    missed = of_masks(nothing, CUBE)
    assert (missed.dice, missed.iou) == (0.0, 0.0)
    assert (missed.hausdorff_mm, missed.hausdorff95_mm, missed.surface_distance_mm) == (None, None, None)
    empty = of_masks(nothing, nothing)
    assert (empty.dice, empty.iou, empty.fraction_dice) == (None, None, None)
    assert empty.volume_mm3 == empty.true_volume_mm3 == 0.0
