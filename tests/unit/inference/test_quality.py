"""Every gate closes on the ear it was made for, says what it measured, and stays open on a good ear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.findings import EarFluid, EarImages, QualityCode, QualityFlag, Severity
from inference.geometry import Volume
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy, make_study
from inference.quality import check_ear, read_signal
from inference.segmentation import ThresholdSegmenter, fluid_from_fractions


@pytest.fixture(scope="module")
def good(patient: PhantomStudy, ear_crop: Any) -> tuple[EarImages, EarFluid]:
    images = ear_crop(patient, EarSide.LEFT)
    return images, ThresholdSegmenter().segment([images])[0]


def changed(volume: Volume, array: np.ndarray[Any, Any]) -> Volume:
    return Volume(array=array.astype(np.float32), geometry=volume.geometry)


def noisy(volume: Volume, sd: float) -> Volume:
    """A magnitude image with more complex noise."""
    rng = np.random.default_rng(8)
    real, imaginary = sd * rng.normal(size=(2, *volume.array.shape))
    return changed(volume, np.hypot(volume.array + real, imaginary))


def only(flags: tuple[QualityFlag, ...], code: QualityCode) -> QualityFlag:
    (flag,) = [flag for flag in flags if flag.code is code]
    return flag


def test_a_good_ear_has_no_remarks(good: tuple[EarImages, EarFluid]) -> None:
    assert check_ear(*good) == ()


def test_a_severely_hydropic_ear_is_not_called_without_contrast(ear_crop: Any) -> None:
    study = make_study(
        PhantomOptions(
            seed=51,
            eh_ratio={EarSide.LEFT: 0.5, EarSide.RIGHT: 0.5},
            series=("MRC", "PPI", "HYDROPS"),
            matrix=(280, 160, 64),
            step_mm=0.15,
        )
    )
    for side in EarSide:
        images = ear_crop(study, side)
        flags = check_ear(images, ThresholdSegmenter().segment([images])[0])
        assert all(flag.severity is Severity.WARN for flag in flags)


def test_an_ear_without_contrast_agent_is_stopped(ear_crop: Any) -> None:
    study = make_study(
        PhantomOptions(
            seed=52,
            contrast=ContrastState.NONE,
            series=("MRC", "PPI", "HYDROPS"),
            matrix=(280, 160, 64),
            step_mm=0.15,
        )
    )
    images = ear_crop(study, EarSide.RIGHT)
    fluid = ThresholdSegmenter().segment([images])[0]
    flag = only(check_ear(images, fluid), QualityCode.NO_CONTRAST)
    assert flag.severity is Severity.STOP
    assert flag.measured is not None
    assert flag.limit is not None
    assert flag.measured < flag.limit
    assert "Right ear" in flag.message


def test_an_inverted_subtraction_is_stopped(good: tuple[EarImages, EarFluid]) -> None:
    images, fluid = good
    inverted = replace(images, hydrops=changed(images.hydrops, -images.hydrops.array))
    assert only(check_ear(inverted, fluid), QualityCode.CONTRAST_SIGN).severity is Severity.STOP


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_a_volume_that_no_labyrinth_has_is_stopped(good: tuple[EarImages, EarFluid], factor: float) -> None:
    images, _ = good
    total = np.zeros(images.roi.geometry.shape, np.float32)
    total[5:15, 10:30, 10:30] = 0.2 * factor  # 200 mm3 times the factor
    flags = check_ear(images, fluid_from_fractions(images, total, 0.3 * total))
    flag = only(flags, QualityCode.VOLUME_IMPLAUSIBLE)
    assert flag.measured == pytest.approx(200.0 * factor)
    assert flag.severity is Severity.STOP


@pytest.mark.parametrize(("snr", "severity"), [(8.0, Severity.WARN), (2.0, Severity.STOP)])
def test_noise_is_warned_of_and_then_stops(good: tuple[EarImages, EarFluid], snr: float, severity: Severity) -> None:
    images, fluid = good
    level = float(np.percentile(images.mrc.array[fluid.total_fluid_mask.array], 75))
    noisier = replace(images, mrc=noisy(images.mrc, level / snr))
    assert only(check_ear(noisier, fluid), QualityCode.LOW_SIGNAL).severity is severity


def test_the_signal_is_measured_in_shares_and_multiples_of_noise(good: tuple[EarImages, EarFluid]) -> None:
    signal = read_signal(*good)
    assert signal.positive_share is not None
    assert signal.mrc_snr is not None
    assert signal.hydrops_snr is not None
    assert 0.4 < signal.positive_share <= 1.0
    assert signal.mrc_snr > 20.0
    assert signal.hydrops_snr > 2.0


def test_fainter_fluid_than_the_slab_has_is_another_structure(good: tuple[EarImages, EarFluid]) -> None:
    images, fluid = good
    level = float(np.median(images.mrc.array[fluid.total_fluid_mask.array]))
    assert check_ear(images, fluid, slab_fluid_level=level) == ()
    assert only(check_ear(images, fluid, slab_fluid_level=5.0 * level), QualityCode.CONTENT).severity is Severity.STOP


@pytest.mark.parametrize("share", [0.0, 0.95])
def test_a_ratio_that_no_ear_has_is_stopped(good: tuple[EarImages, EarFluid], share: float) -> None:
    images, fluid = good
    total = np.asarray(fluid.total_fluid_fraction.array)
    flags = check_ear(images, fluid_from_fractions(images, total, (share * total).astype(np.float32)))
    assert only(flags, QualityCode.CONTENT).measured == pytest.approx(share, abs=1e-4)
