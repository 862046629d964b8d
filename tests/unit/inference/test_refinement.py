"""A motion is refined to hundredths of a millimeter from fixed points, whatever borders what, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.phantom import motion
from inference.refinement import Comparison, Level, NoOverlap
from inference.registration import FINE

LEVEL = Level(spacing_mm=1.0, smoothing_mm=0.7, radius_mm=14.0, points=6_000, longest_step_mm=1.0)
CENTERS = np.array([[-16.0, 1.0, 2.0], [17.0, -1.0, 0.0]])


def volume_of(array: np.ndarray) -> Volume:
    """(K, J, I) at 1 mm, its middle at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, ::-1]
    affine[:3, 3] = -(np.array(array.shape[::-1]) - 1) / 2.0
    return Volume(
        array=array, geometry=VolumeGeometry(shape=array.shape, index_to_lps=affine, frame_of_reference_uid="2.25.1")
    )


@pytest.fixture(scope="module")
def anatomy() -> Volume:
    """Blobs of 3 mm, 0..1: dark in one place, bright in another, gray between."""
    noise = np.random.default_rng(3).normal(size=(48, 56, 84))
    smooth = ndimage.gaussian_filter(noise, 3.0)
    return volume_of(np.clip(0.5 + smooth / (3.0 * smooth.std()), 0.0, 1.0).astype(np.float32))


def displaced(volume: Volume, moved: FloatArray) -> Volume:
    """The same values at places moved by `moved`: the headers say so, no voxel is interpolated."""
    return Volume(
        array=volume.array, geometry=replace(volume.geometry, index_to_lps=moved @ volume.geometry.index_to_lps)
    )


def inverted(volume: Volume) -> Volume:
    """Bright where it was dark, and curved: mutual information must not care."""
    return Volume(array=(1.0 - np.asarray(volume.array)) ** 2, geometry=volume.geometry)


def test_a_known_motion_is_found_again_whatever_the_contrast(anatomy: Volume) -> None:
    moved = motion.about(np.zeros(3), motion.rotation(np.array([0.3, -0.5, 0.8]), 3.0), np.array([1.2, -0.8, 0.9]))
    comparison = Comparison(displaced(inverted(anatomy), moved), anatomy, CENTERS, np.eye(4), LEVEL)
    found = comparison.climb(np.eye(4))
    corners = (CENTERS[:, None] + 7.0 * (2.0 * np.array(list(np.ndindex(2, 2, 2))) - 1.0)).reshape(-1, 3)
    missed = corners @ (found - moved)[:3, :3].T + (found - moved)[:3, 3]
    assert np.linalg.norm(missed, axis=1).max() < 0.05
    assert comparison.similarity(found) > comparison.similarity(np.eye(4))


def test_the_slope_is_the_difference_that_a_small_step_makes(anatomy: Volume) -> None:
    near = motion.about(np.zeros(3), motion.rotation(np.array([1.0, 0.2, 0.1]), 1.0), np.array([0.6, 0.3, -0.5]))
    comparison = Comparison(inverted(anatomy), anatomy, CENTERS, near, LEVEL)
    _, slope, _ = comparison._slopes(near)
    step = 0.02
    for axis, way in enumerate(np.eye(6)):
        beyond, before = (comparison.similarity(comparison._moved(near, sign * step * way)) for sign in (1.0, -1.0))
        assert slope[axis] == pytest.approx((beyond - before) / (2 * step), abs=0.03 * np.abs(slope).max())


def layers(levels: tuple[float, float, float], noise_sd: float, seed: int) -> Volume:
    """Bone below, brain above, and between them CSF of 3 mm, as rims of cistern around both ears lie."""
    depth = np.arange(480) / 10.0 - 24.0
    away = np.abs(np.arange(84)[None, None, :] - 41.5) / 6.0 + np.arange(56)[None, :, None] / 9.0  # nothing is flat
    height = depth[:, None, None] + 3.0 * np.sin(away)
    bone, csf, brain = levels
    fine = np.where(height < -1.5, bone, np.where(height < 1.5, csf, brain))
    blurred = ndimage.gaussian_filter1d(fine, 6.0, axis=0).reshape(48, 10, 56, 84).mean(axis=1)
    noise = np.random.default_rng(seed).normal(size=blurred.shape) * noise_sd
    return volume_of((blurred + noise).astype(np.float32))


def test_a_rim_of_fluid_between_bone_and_brain_stays_where_it_is() -> None:
    """Gray between brain and fluid on MRC is also gray between bone and fluid, but not on inversion recovery.

    Without a look at what lies beside a point the motion ends 0.34 mm too far to the feet here, where nothing but rims
    holds it.
    """
    mrc = layers((0.0, 1.0, 0.2), 0.02, 1)
    recovered = layers((0.0, -1.0, 0.6), 0.1, 2)
    level = replace(LEVEL, smoothing_mm=FINE.smoothing_mm, points=FINE.points)
    found = Comparison(recovered, mrc, CENTERS, np.eye(4), level).climb(np.eye(4))
    assert np.abs(CENTERS @ found[:3, :3].T + found[:3, 3] - CENTERS).max() < 0.2


def test_the_same_images_give_the_same_motion(anatomy: Volume) -> None:
    one, other = (Comparison(inverted(anatomy), anatomy, CENTERS, np.eye(4), LEVEL).climb(np.eye(4)) for _ in range(2))
    assert np.array_equal(one, other)


def flat(volume: Volume) -> Volume:
    return Volume(array=np.full_like(volume.array, 3.0), geometry=volume.geometry)


def far_away(volume: Volume) -> Volume:
    return displaced(volume, motion.about(np.zeros(3), np.eye(3), np.array([0.0, 0.0, 300.0])))


def half_beside(volume: Volume) -> Volume:
    return displaced(volume, motion.about(np.zeros(3), np.eye(3), np.array([0.0, 0.0, 34.0])))


def one_value_missing(volume: Volume) -> Volume:
    array = np.array(volume.array)
    array[24, 28, 26] = np.nan
    return Volume(array=array, geometry=volume.geometry)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flat, "flat"),
        (far_away, "do not overlap"),
        (half_beside, "does not show enough"),
        (one_value_missing, "no numbers"),
    ],
)
def test_a_series_that_cannot_be_compared_says_why(
    anatomy: Volume, spoil: Callable[[Volume], Volume], words: str
) -> None:
    with pytest.raises(NoOverlap, match=words):
        Comparison(spoil(anatomy), anatomy, CENTERS, np.eye(4), LEVEL)


def test_an_mrc_that_is_flat_around_an_ear_says_so(anatomy: Volume) -> None:
    with pytest.raises(NoOverlap, match="MRC is flat"):
        Comparison(anatomy, flat(anatomy), CENTERS, np.eye(4), LEVEL)
