"""A patient who moved during the MR cisternography is seen twice there, and no ear of that study is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.cisternogram_motion import check_cisternogram, second_picture
from inference.findings import EarImages, QualityCode, Severity
from inference.geometry import Volume, VolumeGeometry
from inference.phantom import PhantomStudy

EDGES_MM = (1.0, 0.5, 0.5)


@pytest.fixture(scope="module")
def ears(patient: PhantomStudy, ear_crop: Any) -> list[EarImages]:
    return [ear_crop(patient, side) for side in EarSide]


def with_mrc(ear: EarImages, array: NDArray[Any]) -> EarImages:
    return replace(ear, mrc=Volume(array=array.astype(np.float32), geometry=ear.mrc.geometry))


def seen_twice(ears: list[EarImages], voxels: tuple[int, int, int], share: float = 0.5) -> list[EarImages]:
    """Two pictures over each other, as of a patient who lay elsewhere for `share` of the acquisition."""
    moved = []
    for ear in ears:
        still = np.asarray(ear.mrc.array, dtype=np.float64)
        moved.append(with_mrc(ear, (1.0 - share) * still + share * np.roll(still, voxels, (0, 1, 2))))
    return moved


def in_noise(ears: list[EarImages], snr: float) -> list[EarImages]:
    """With so much more noise that fluid has this SNR."""
    rng = np.random.default_rng(3)
    noisy = []
    for ear in ears:
        sd = float(np.percentile(np.asarray(ear.mrc.array, dtype=np.float64), 99.0)) / snr
        along, across = rng.normal(0.0, sd, (2, *ear.mrc.array.shape))
        noisy.append(with_mrc(ear, np.hypot(ear.mrc.array + along, across)))
    return noisy


def interpolated_twofold(ear: EarImages) -> EarImages:
    """Rows and columns filled up with zeros in frequency space, as scanners do."""
    array = ear.mrc.array
    for axis in (1, 2):
        n = array.shape[axis]
        spectrum = np.fft.fftshift(np.fft.fft(array, axis=axis), axes=axis)
        around = [(n // 2, n - n // 2) if one == axis else (0, 0) for one in range(3)]
        array = 2.0 * np.fft.ifft(np.fft.ifftshift(np.pad(spectrum, around), axes=axis), axis=axis).real
    affine = ear.mrc.geometry.index_to_lps @ np.diag([1.0, 0.5, 0.5, 1.0])
    k, j, i = array.shape
    finer = VolumeGeometry(shape=(k, j, i), index_to_lps=affine, frame_of_reference_uid="1.2")
    return replace(ear, mrc=Volume(array=np.maximum(array, 0.0).astype(np.float32), geometry=finer))


def stopped(ears: list[EarImages]) -> bool:
    return [(flag.code, flag.severity) for flag in check_cisternogram(ears)] == [(QualityCode.MOTION, Severity.STOP)]


@pytest.mark.parametrize("snr", [60.0, 25.0, 12.0])
def test_ears_that_lay_still_are_not_stopped(ears: list[EarImages], snr: float) -> None:
    assert check_cisternogram(in_noise(ears, snr)) == ()


def test_ears_that_were_interpolated_are_not_stopped(ears: list[EarImages]) -> None:
    assert check_cisternogram([interpolated_twofold(ear) for ear in ears]) == ()


@pytest.mark.parametrize("snr", [60.0, 20.0])
@pytest.mark.parametrize("voxels", [(0, 8, 0), (0, 4, 0), (0, 0, -4), (4, 0, 0), (1, 3, 3)])
def test_a_patient_who_moved_during_the_cisternogram_is_seen_at_that_distance(
    ears: list[EarImages], voxels: tuple[int, int, int], snr: float
) -> None:
    moved = in_noise(seen_twice(ears, voxels), snr)
    echo = second_picture([ear.mrc for ear in moved])
    assert echo is not None
    assert echo.distance_mm == pytest.approx(np.linalg.norm(np.array(voxels) * EDGES_MM), abs=0.6)
    assert stopped(moved)


@pytest.mark.parametrize("tilt_deg", [0.0, 8.0, 20.0])
def test_a_flat_edge_beside_the_ears_is_not_taken_for_a_second_picture(ears: list[EarImages], tilt_deg: float) -> None:
    """It fits itself at every shift within its plane; here the floor of a bath of CSF, as bright as fluid."""
    flat = []
    for ear in ears:
        array = np.array(ear.mrc.array, dtype=np.float64)
        k, j, _ = np.indices(array.shape) * np.reshape(EDGES_MM, (3, 1, 1, 1))
        depth = (k - 8.0) * np.cos(np.deg2rad(tilt_deg)) + (j - 16.0) * np.sin(np.deg2rad(tilt_deg))
        bath = np.clip(0.5 - depth, 0.0, 1.0)
        flat.append(with_mrc(ear, (1.0 - bath) * array + bath * np.percentile(array, 99.0)))
    assert check_cisternogram(in_noise(flat, 60.0)) == ()


def test_one_ear_is_enough_to_see_it(ears: list[EarImages]) -> None:
    assert stopped(seen_twice(ears[:1], (0, 6, 0)))


def test_a_faint_second_picture_is_let_through(ears: list[EarImages]) -> None:
    """A sixth of the acquisition elsewhere: ratios stay what they are."""
    assert check_cisternogram(seen_twice(ears, (0, 8, 0), share=1 / 6)) == ()


def test_noise_alone_shows_nothing_twice(ears: list[EarImages]) -> None:
    rng = np.random.default_rng(9)
    assert check_cisternogram([with_mrc(ear, rng.rayleigh(10.0, ear.mrc.array.shape)) for ear in ears]) == ()


def test_an_empty_image_shows_nothing_twice(ears: list[EarImages]) -> None:
    assert check_cisternogram([with_mrc(ear, np.zeros(ear.mrc.array.shape)) for ear in ears]) == ()
    assert check_cisternogram([]) == ()


def test_the_sentence_says_what_was_seen_and_where(ears: list[EarImages]) -> None:
    (flag,) = check_cisternogram(seen_twice(ears, (0, 8, 0)))
    assert "MR cisternography shows the inner ears" in flag.message
    assert "4.0 mm away: the patient moved during its acquisition" in flag.message
    assert flag.measured is not None
    assert flag.limit is not None
    assert flag.measured > flag.limit
