"""Every gate closes on the ear it was made for, says what it measured, and stays open on a good ear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.ear_signal import read_signal
from inference.evaluation.cohort import ear_case
from inference.findings import EarFluid, EarImages, QualityCode, QualityFlag, Severity
from inference.geometry import Volume
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy, make_study
from inference.quality import ONE_SCALE, check_ear
from inference.segmentation import ThresholdSegmenter, fluid_from_fractions


@pytest.fixture(scope="module")
def good(patient: PhantomStudy, ear_crop: Any) -> tuple[EarImages, EarFluid]:
    images = ear_crop(patient, EarSide.LEFT)
    return images, ThresholdSegmenter().segment([images])[0]


def changed(volume: Volume, array: np.ndarray[Any, Any]) -> Volume:
    return Volume(array=array.astype(np.float32), geometry=volume.geometry)


def noisy(volume: Volume, sd: float, seed: int = 8) -> Volume:
    """A magnitude image with more complex noise."""
    rng = np.random.default_rng(seed)
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


@pytest.mark.parametrize(("contrast", "expected"), [(ContrastState.NORMAL, None), (ContrastState.NONE, Severity.STOP)])
def test_contrast_is_judged_also_where_few_voxels_are_full_of_fluid(
    contrast: ContrastState, expected: Severity | None
) -> None:
    study = make_study(
        PhantomOptions(
            seed=61,
            contrast=contrast,
            series=("MRC", "PPI", "PEI"),
            matrix=(116, 92, 52),
            spacing_mm=(1.2, 1.2, 1.2),
            step_mm=0.15,
        )
    )
    case = ear_case(study, EarSide.LEFT, InputSet.PPI_PEI)
    images = case.images
    fluid = fluid_from_fractions(images, case.total_fluid.array, case.endolymph.array)
    assert 20 < np.count_nonzero(fluid.total_fluid_fraction.array >= 0.8) < 50
    stops = [flag.code for flag in check_ear(images, fluid) if flag.severity is Severity.STOP]
    assert (QualityCode.NO_CONTRAST in stops) == (expected is Severity.STOP)
    assert bool(stops) == (expected is Severity.STOP)


def test_an_ear_that_fills_hardly_a_voxel_cannot_be_judged_and_gets_no_number(
    good: tuple[EarImages, EarFluid],
) -> None:
    images, fluid = good
    faint = 0.75 * np.asarray(fluid.total_fluid_fraction.array)
    flag = only(check_ear(images, fluid_from_fractions(images, faint, 0.2 * faint)), QualityCode.LOW_SIGNAL)
    assert (flag.severity, flag.measured) == (Severity.STOP, 0.0)
    assert "0 voxels are full of fluid, at least 20 are needed" in flag.message


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


def dimmed(images: EarImages, fluid: EarFluid, factor: float) -> EarImages:
    """Perilymph with less contrast agent: PPI and HYDROPS fainter in the ear, CSF as it was."""
    scale = np.where(fluid.total_fluid_fraction.array > 0.0, factor, 1.0)
    assert images.ppi is not None
    return replace(
        images,
        ppi=changed(images.ppi, images.ppi.array * scale),
        hydrops=changed(images.hydrops, images.hydrops.array * scale),
    )


@pytest.mark.parametrize(("factor", "severity"), [(0.65, Severity.WARN), (0.3, Severity.STOP)])
@pytest.mark.parametrize("with_ppi", [True, False])
def test_faint_perilymph_is_warned_of_and_then_stops(
    good: tuple[EarImages, EarFluid], factor: float, severity: Severity, with_ppi: bool
) -> None:
    images, fluid = good
    faint = dimmed(images, fluid, factor if with_ppi else 0.8 * factor)
    flag = only(check_ear(faint if with_ppi else replace(faint, ppi=None), fluid), QualityCode.WEAK_CONTRAST)
    assert flag.severity is severity
    assert flag.measured is not None
    assert flag.limit is not None
    assert flag.measured < flag.limit


def by_network(fluid: EarFluid) -> EarFluid:
    """The same fluid from a method that states its own error."""
    return replace(fluid, ratio_half_width=0.08)


@pytest.mark.parametrize(("factor", "severity"), [(0.49, Severity.WARN), (0.2, Severity.STOP)])
@pytest.mark.parametrize("with_ppi", [True, False])
def test_a_method_that_states_its_error_may_read_fainter_perilymph(
    good: tuple[EarImages, EarFluid], factor: float, severity: Severity, with_ppi: bool
) -> None:
    images, fluid = good
    faint = dimmed(images, fluid, factor if with_ppi else 0.6 * factor)
    seen = faint if with_ppi else replace(faint, ppi=None)
    assert only(check_ear(seen, by_network(fluid)), QualityCode.WEAK_CONTRAST).severity is severity
    assert only(check_ear(seen, fluid), QualityCode.WEAK_CONTRAST).severity is Severity.STOP


def test_a_method_that_states_its_error_may_read_faint_perilymph_in_noise(good: tuple[EarImages, EarFluid]) -> None:
    images, fluid = good
    faint = dimmed(images, fluid, 0.65)
    assert faint.ppi is not None
    level = float(np.percentile(faint.ppi.array[fluid.total_fluid_mask.array], 85))
    noisier = replace(faint, ppi=noisy(faint.ppi, level / 1.8))
    assert any(flag.severity is Severity.STOP for flag in check_ear(noisier, fluid))
    assert all(flag.severity is Severity.WARN for flag in check_ear(noisier, by_network(fluid)))


def test_faint_perilymph_in_much_noise_is_stopped(good: tuple[EarImages, EarFluid]) -> None:
    images, fluid = good
    faint = dimmed(images, fluid, 0.65)
    assert faint.ppi is not None
    ppi = noisy(faint.ppi, 0.8 * float(np.median(faint.ppi.array[fluid.total_fluid_mask.array])))
    # HYDROPS as it was: PPI less PEI, so that the noise falls on PPI alone.
    flags = check_ear(replace(faint, ppi=ppi), fluid)
    assert only(flags, QualityCode.WEAK_CONTRAST).severity is Severity.STOP
    assert "noise" in only(flags, QualityCode.WEAK_CONTRAST).message


@pytest.mark.parametrize(("snr", "severity"), [(2.5, Severity.WARN), (1.3, Severity.STOP)])
def test_noise_on_ppi_is_warned_of_and_then_stops(
    good: tuple[EarImages, EarFluid], snr: float, severity: Severity
) -> None:
    images, fluid = good
    assert images.ppi is not None
    level = float(np.percentile(images.ppi.array[fluid.total_fluid_mask.array], 85))
    flags = check_ear(replace(images, ppi=noisy(images.ppi, level / snr)), fluid)
    (flag,) = [one for one in flags if one.code is QualityCode.LOW_SIGNAL]
    assert flag.severity is severity
    assert "PPI" in flag.message


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_ppi_and_pei_on_different_scales_are_stopped(good: tuple[EarImages, EarFluid], scale: float) -> None:
    images, fluid = good
    assert images.ppi is not None
    pei = images.ppi.array - images.hydrops.array
    flags = check_ear(replace(images, hydrops=changed(images.hydrops, images.ppi.array - scale * pei)), fluid)
    assert {flag.code for flag in flags if flag.severity is Severity.STOP} & {
        QualityCode.OUT_OF_DOMAIN,
        QualityCode.WEAK_CONTRAST,
    }


@pytest.mark.parametrize(("scale", "stopped"), [(1.0, False), (2.0, True), (2.5, True)])
def test_in_noise_weak_cerebrospinal_fluid_is_no_other_scale(
    good: tuple[EarImages, EarFluid], scale: float, stopped: bool
) -> None:
    """As weak as endolymph, at an SNR of 4: on HYDROPS as it is, perilymph has more than 2.2 times its signal."""
    images, fluid = good
    assert images.ppi is not None
    level = float(np.percentile(images.mrc.array[fluid.total_fluid_mask.array], 75))
    csf = (images.mrc.array > 0.5 * level) & (fluid.total_fluid_fraction.array == 0.0)
    dimmed = np.where(csf, 0.5, 1.0)
    sd = float(np.percentile(images.ppi.array[fluid.total_fluid_mask.array], 85)) / 4.0
    pei = noisy(changed(images.ppi, dimmed * (images.ppi.array - images.hydrops.array)), sd).array
    ppi = noisy(changed(images.ppi, dimmed * images.ppi.array), sd, seed=9).array
    seen = replace(images, ppi=changed(images.ppi, ppi), hydrops=changed(images.hydrops, ppi - pei / scale))
    signal = read_signal(seen, fluid)
    assert signal.perilymph_on_hydrops is not None
    assert signal.perilymph_on_hydrops > ONE_SCALE[1]
    codes = {flag.code for flag in check_ear(seen, fluid) if flag.severity is Severity.STOP}
    assert (QualityCode.OUT_OF_DOMAIN in codes) is stopped


def test_an_overdriven_receiver_is_stopped(good: tuple[EarImages, EarFluid]) -> None:
    images, fluid = good
    level = float(np.median(images.mrc.array[fluid.total_fluid_mask.array]))
    clipped = replace(images, mrc=changed(images.mrc, np.minimum(images.mrc.array, 0.9 * level)))
    assert only(check_ear(clipped, fluid), QualityCode.OUT_OF_DOMAIN).severity is Severity.STOP


@pytest.mark.parametrize(("area_mm2", "severity"), [((6.5, 99.0), Severity.STOP), ((2.2, 5.8), Severity.WARN)])
def test_fluid_on_the_border_of_the_images_means_a_cut_ear(
    good: tuple[EarImages, EarFluid], area_mm2: tuple[float, float], severity: Severity
) -> None:
    """The slab ends in three slices that hold so much fluid at most; the crop has zeros beyond."""
    images, fluid = good
    pixel_mm2 = float(np.prod(images.mrc.geometry.spacing_mm[1:]))
    areas_mm2 = fluid.total_fluid_fraction.array.sum(axis=(1, 2)) * pixel_mm2
    most_mm2 = np.max([np.roll(areas_mm2, n) for n in range(3)], axis=0)
    last = int(np.flatnonzero((most_mm2 > area_mm2[0]) & (most_mm2 < area_mm2[1]))[-1])
    inside = np.arange(len(areas_mm2))[:, None, None] <= last
    cut = replace(images, mrc=changed(images.mrc, images.mrc.array * inside))
    rest = fluid_from_fractions(
        images, fluid.total_fluid_fraction.array * inside, fluid.endolymph_fraction.array * inside
    )
    assert only(check_ear(cut, rest), QualityCode.EAR_CUT_OFF).severity is severity


def test_an_ear_is_cut_also_where_its_fluid_ends_one_slice_before_the_border(
    good: tuple[EarImages, EarFluid],
) -> None:
    """A method that looks at neighbors leaves the outermost slice out."""
    images, fluid = good
    pixel_mm2 = float(np.prod(images.mrc.geometry.spacing_mm[1:]))
    areas_mm2 = fluid.total_fluid_fraction.array.sum(axis=(1, 2)) * pixel_mm2
    last = int(np.flatnonzero(areas_mm2 > 6.5)[-1])
    slices = np.arange(len(areas_mm2))[:, None, None]
    cut = replace(images, mrc=changed(images.mrc, images.mrc.array * (slices <= last + 1)))
    rest = fluid_from_fractions(
        images,
        fluid.total_fluid_fraction.array * (slices <= last),
        fluid.endolymph_fraction.array * (slices <= last),
    )
    assert only(check_ear(cut, rest), QualityCode.EAR_CUT_OFF).severity is Severity.STOP


def test_an_ear_is_cut_also_where_a_network_finds_less_and_less_fluid_toward_the_border(
    good: tuple[EarImages, EarFluid],
) -> None:
    """Cut across its middle along an axis of small voxels, the outermost planes found empty but for a trace."""
    images, fluid = good
    spacing_mm = images.mrc.geometry.spacing_mm
    areas_mm2 = fluid.total_fluid_fraction.array.sum(axis=(0, 2)) * spacing_mm[0] * spacing_mm[2]
    first = int(np.argmax(areas_mm2))
    rows = np.arange(len(areas_mm2))[None, :, None]
    cut = replace(images, mrc=changed(images.mrc, images.mrc.array * (rows >= first)))
    found = np.select([rows < first, rows == first, rows == first + 1], [0.0, 0.001, 0.1], 1.0)
    rest = fluid_from_fractions(
        images, fluid.total_fluid_fraction.array * found, fluid.endolymph_fraction.array * found
    )
    assert only(check_ear(cut, rest), QualityCode.EAR_CUT_OFF).severity is Severity.STOP


def test_a_contrast_series_that_ends_inside_the_ear_is_stopped(good: tuple[EarImages, EarFluid]) -> None:
    images, fluid = good
    inside = np.arange(images.hydrops.array.shape[0])[:, None, None] < images.hydrops.array.shape[0] // 2
    flags = check_ear(replace(images, hydrops=changed(images.hydrops, images.hydrops.array * inside)), fluid)
    assert only(flags, QualityCode.EAR_CUT_OFF).severity is Severity.STOP
