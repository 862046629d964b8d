"""A patient who moved during an acquisition is seen twice, and no ear of that study is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.double_image import check_double_image, surest_second_picture
from inference.evaluation.cohort import patient as patient_of_evaluation
from inference.findings import EarFluid, EarImages, QualityCode, Severity
from inference.geometry import Volume
from inference.phantom import PhantomStudy, make_study
from inference.resampling import resample
from inference.segmentation import ThresholdSegmenter

Ears = list[tuple[EarImages, EarFluid]]
ROW_MM = 0.5


@pytest.fixture(scope="module")
def ears(patient: PhantomStudy, ear_crop: Any) -> Ears:
    images = [ear_crop(patient, side) for side in EarSide]
    return list(zip(images, ThresholdSegmenter().segment(images), strict=True))


def with_hydrops(images: EarImages, hydrops: np.ndarray[Any, Any]) -> EarImages:
    return replace(images, hydrops=Volume(array=hydrops.astype(np.float32), geometry=images.hydrops.geometry))


def twice(array: np.ndarray[Any, Any], share: float, rows: int) -> np.ndarray[Any, Any]:
    """Two pictures over each other, as of a patient who lay elsewhere for `share` of the acquisition."""
    return (1.0 - share) * array + share * np.roll(array, rows, axis=1)


def moved_during_ppi(ears: Ears, share: float, rows: int) -> Ears:
    moved = []
    for images, fluid in ears:
        assert images.ppi is not None
        change = twice(images.ppi.array, share, rows) - images.ppi.array
        moved.append((with_hydrops(images, images.hydrops.array + change), fluid))
    return moved


def moved_during_pei(ears: Ears, share: float, rows: int) -> Ears:
    moved = []
    for images, fluid in ears:
        assert images.ppi is not None
        pei = images.ppi.array - images.hydrops.array
        moved.append((with_hydrops(images, images.ppi.array - twice(pei, share, rows)), fluid))
    return moved


def on_real_ir(study: PhantomStudy, ear_crop: Any) -> Ears:
    """Both ears as 3D-real IR shows them."""
    images = []
    for side in EarSide:
        ear = ear_crop(study, side)
        real_ir = resample(study.volumes["REAL_IR"], ear.mrc.geometry)
        images.append(replace(ear, hydrops=real_ir, phase_sensitive=True, ppi=None))
    return list(zip(images, ThresholdSegmenter().segment(images), strict=True))


def stopped_for_motion(ears: Sequence[tuple[EarImages, EarFluid]]) -> bool:
    flags = check_double_image(ears)
    return [(flag.code, flag.severity) for flag in flags] == [(QualityCode.MOTION, Severity.STOP)]


def test_ears_that_lay_still_have_no_second_picture(ears: Ears) -> None:
    assert check_double_image(ears) == ()


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("rows", [-8, 6])
def test_a_patient_who_moved_during_ppi_is_seen_at_that_distance(ears: Ears, share: float, rows: int) -> None:
    moved = moved_during_ppi(ears, share, rows)
    found = surest_second_picture(moved)
    assert found is not None
    assert np.linalg.norm(found.shift_lps_mm) == pytest.approx(abs(rows) * ROW_MM, abs=1.0)
    assert found.strength > 0.0
    assert stopped_for_motion(moved)


def test_a_patient_who_moved_during_pei_is_seen_with_the_other_sign(ears: Ears) -> None:
    moved = moved_during_pei(ears, 0.5, 8)
    found = surest_second_picture(moved)
    assert found is not None
    assert found.strength < 0.0
    assert stopped_for_motion(moved)


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("rows", [-8, 6])
def test_a_patient_who_moved_during_real_ir_is_seen_by_that_name(
    patient: PhantomStudy, ear_crop: Any, share: float, rows: int
) -> None:
    moved = [
        (with_hydrops(images, twice(images.hydrops.array, share, rows)), fluid)
        for images, fluid in on_real_ir(patient, ear_crop)
    ]
    found = surest_second_picture(moved)
    assert found is not None
    assert found.strength > 0.0
    assert stopped_for_motion(moved)
    assert check_double_image(moved)[0].message.startswith("3D-real IR shows the inner ears a second time")


def test_soft_tissue_beside_bone_is_no_second_picture(ear_crop: Any) -> None:
    """Mucosa in air cells and the edge of brain: dark on MRC where they fill part of a voxel, bright on real IR."""
    drawn = patient_of_evaluation(900234, (InputSet.REAL_IR,))
    still = replace(
        drawn,
        series=("MRC", "HYDROPS", "REAL_IR"),
        matrix=(288, 176, 64),
        step_mm=0.15,
        motion_mm=0.0,
        motion_deg=0.0,
    )
    assert check_double_image(on_real_ir(make_study(still), ear_crop)) == ()


def test_it_is_seen_beside_a_noisy_cisternogram_too(ears: Ears) -> None:
    """At an SNR of 8 noise alone makes bone as bright, on average, as its surroundings may be at most."""
    rng = np.random.default_rng(6)
    noisy = []
    for images, fluid in moved_during_ppi(ears, 0.5, 8):
        level = np.percentile(images.mrc.array[fluid.total_fluid_mask.array], 75.0)
        real, imaginary = rng.normal(0.0, level / 8.0, (2, *images.mrc.array.shape))
        mrc = np.hypot(images.mrc.array + real, imaginary).astype(np.float32)
        noisy.append((replace(images, mrc=Volume(array=mrc, geometry=images.mrc.geometry)), fluid))
    assert stopped_for_motion(noisy)


def test_one_ear_is_enough_to_see_it(ears: Ears) -> None:
    assert stopped_for_motion(moved_during_ppi(ears, 0.5, 8)[:1])


def test_noise_alone_is_no_second_picture(ears: Ears) -> None:
    rng = np.random.default_rng(5)
    noisy = [
        (with_hydrops(images, images.hydrops.array + rng.normal(0.0, 100.0, images.hydrops.array.shape)), fluid)
        for images, fluid in ears
    ]
    assert check_double_image(noisy) == ()


@pytest.mark.parametrize("noises", [-2.0, 1.0])
def test_bone_that_is_not_at_zero_shows_no_second_picture(ears: Ears, noises: float) -> None:
    """As where PPI and PEI were averaged unequally often, or HYDROPS came with a small offset."""
    lifted = []
    for images, fluid in ears:
        noise_sd = images.hydrops.array[~fluid.total_fluid_mask.array].std()
        lifted.append((with_hydrops(images, images.hydrops.array + noises * noise_sd), fluid))
    assert check_double_image(lifted) == ()


def zero_filled_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Noise of SD 1 as a console shows it that interpolates twofold along each axis (ZIP)."""
    acquired = np.fft.fftshift(np.fft.fftn(rng.normal(size=[size // 2 for size in shape])))
    rim = [(size - size // 2) // 2 for size in shape]
    filled = np.pad(acquired, [(r, size - size // 2 - r) for r, size in zip(rim, shape, strict=True)])
    noise: np.ndarray[Any, Any] = np.fft.ifftn(np.fft.ifftshift(filled)).real
    return noise / noise.std()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_that_neighbors_share_is_no_second_picture(ears: Ears, seed: int) -> None:
    rng = np.random.default_rng(seed)
    interpolated = []
    for images, fluid in ears:
        perilymph = np.percentile(images.hydrops.array[fluid.total_fluid_mask.array], 85.0)
        noise = perilymph / 3.0 * zero_filled_noise(images.hydrops.array.shape, rng)
        interpolated.append((with_hydrops(images, images.hydrops.array + noise), fluid))
    assert check_double_image(interpolated) == ()


def test_ears_without_contrast_agent_are_left_to_the_gate_that_says_so(ears: Ears) -> None:
    without = [
        (with_hydrops(images, np.where(fluid.total_fluid_mask.array, -1.0, 1.0) * abs(images.hydrops.array)), fluid)
        for images, fluid in moved_during_ppi(ears, 0.5, 8)
    ]
    assert surest_second_picture(without) is None


def test_a_contrast_that_says_nothing_about_bone_is_not_judged(ears: Ears) -> None:
    """HYDROPS divided out of a HYDROPS-Mi2 is zero wherever the MRC is dark."""
    dark = [
        (with_hydrops(images, np.where(fluid.total_fluid_mask.array, images.hydrops.array, 0.0)), fluid)
        for images, fluid in ears
    ]
    assert surest_second_picture(dark) is None
    assert check_double_image([]) == ()
