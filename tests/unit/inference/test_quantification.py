"""Numbers are sums of fractions in mm3; an ear without fluid or with a STOP has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.findings import EarFluid, EarImages, QualityCode, QualityFlag, Severity
from inference.geometry import Volume
from inference.phantom import PhantomStudy
from inference.quantification import eh_ratio, measure_ear, slice_ratios, volume_mm3
from inference.segmentation import ThresholdSegmenter, fluid_from_fractions


@pytest.fixture(scope="module")
def left(patient: PhantomStudy, ear_crop: Any) -> tuple[EarImages, EarFluid]:
    images = ear_crop(patient, EarSide.LEFT)
    return images, ThresholdSegmenter().segment([images])[0]


def cube(images: EarImages, *, total: float, endolymph: float) -> EarFluid:
    """Fluid of the same fraction in 10 x 20 x 20 voxels (1000 mm3)."""
    fluid, inner = (np.zeros(images.roi.geometry.shape, np.float32) for _ in range(2))
    fluid[5:15, 10:30, 10:30], inner[5:15, 10:30, 10:30] = total, endolymph
    return fluid_from_fractions(images, fluid, inner)


def test_volumes_are_sums_of_fractions_not_counts_of_voxels(left: tuple[EarImages, EarFluid]) -> None:
    images, _ = left
    fluid = cube(images, total=0.4, endolymph=0.1)
    assert volume_mm3(fluid.total_fluid_fraction) == pytest.approx(400.0)
    assert not fluid.total_fluid_mask.array.any()
    assert eh_ratio(fluid).value == pytest.approx(0.25)


def test_a_measured_ear_has_volumes_ratio_and_interval(left: tuple[EarImages, EarFluid], patient: PhantomStudy) -> None:
    truth = patient.truth.ears[EarSide.LEFT]
    found = measure_ear(*left)
    assert found.ratio is not None
    assert found.side is EarSide.LEFT
    assert found.ratio.total_fluid_mm3 == pytest.approx(truth.total_fluid_mm3, rel=0.1)
    assert found.ratio.endolymph_mm3 / found.ratio.total_fluid_mm3 == pytest.approx(found.ratio.value)
    assert found.ratio.low <= truth.eh_ratio <= found.ratio.high


def test_the_interval_widens_where_the_rule_matters(left: tuple[EarImages, EarFluid]) -> None:
    """Voxels that are all one fluid leave no choice; mixed voxels flip whole when the rule flips."""
    images, _ = left
    pure, mixed = cube(images, total=1.0, endolymph=0.0), cube(images, total=1.0, endolymph=0.45)
    width = [ratio.high - ratio.value for ratio in (eh_ratio(pure), eh_ratio(mixed))]
    assert width[1] > 2 * width[0]


def test_slices_add_up_to_the_volume_and_are_counted_on_the_mrc(left: tuple[EarImages, EarFluid]) -> None:
    _, fluid = left
    slices = slice_ratios(fluid, first_slice=40)
    thickness_mm = float(fluid.roi.geometry.spacing_mm[0])
    area_mm2 = sum(one.total_fluid_mm2 for one in slices)
    assert area_mm2 * thickness_mm == pytest.approx(volume_mm3(fluid.total_fluid_fraction), rel=0.01)
    first = int(np.flatnonzero(fluid.total_fluid_mask.array.any(axis=(1, 2)))[0])
    assert slices[0].slice_index in (40 + first, 40 + first - 1)
    assert all(0.0 <= one.ratio <= 1.0 for one in slices)


def test_an_ear_without_fluid_is_undefined_not_zero(left: tuple[EarImages, EarFluid]) -> None:
    images, _ = left
    found = measure_ear(images, cube(images, total=0.0, endolymph=0.0))
    assert found.ratio is None
    assert not found.evaluated
    assert QualityCode.VOLUME_IMPLAUSIBLE in {flag.code for flag in found.quality}


def test_a_stop_remark_of_an_earlier_step_means_no_number(left: tuple[EarImages, EarFluid]) -> None:
    stop = QualityFlag(code=QualityCode.REGISTRATION_POOR, severity=Severity.STOP, message="not aligned")
    found = measure_ear(*left, remarks=(stop,))
    assert found.ratio is None
    assert found.fluid is None
    assert stop in found.quality


def test_a_warning_keeps_the_number(left: tuple[EarImages, EarFluid]) -> None:
    warning = QualityFlag(code=QualityCode.EAR_CUT_OFF, severity=Severity.WARN, message="near the border")
    found = measure_ear(*left, remarks=(warning,))
    assert found.evaluated
    assert warning in found.quality


def test_endolymph_outside_the_fluid_is_never_reported(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    everywhere = Volume(array=np.ones_like(fluid.endolymph_mask.array), geometry=fluid.roi.geometry)
    found = measure_ear(images, replace(fluid, endolymph_mask=everywhere))
    assert found.ratio is None
    assert QualityCode.ENDOLYMPH_OUTSIDE_FLUID in {flag.code for flag in found.quality}


def test_without_ppi_the_interval_is_wider(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    with_ppi, without = measure_ear(images, fluid), measure_ear(replace(images, ppi=None), fluid)
    assert with_ppi.ratio is not None
    assert without.ratio is not None
    assert without.ratio.high - without.ratio.low > with_ppi.ratio.high - with_ppi.ratio.low


def test_a_segmenter_that_knows_its_error_sets_the_interval(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    known = measure_ear(images, replace(fluid, ratio_half_width=0.02)).ratio
    by_rule = measure_ear(images, fluid).ratio
    assert known is not None
    assert by_rule is not None
    assert known.value == by_rule.value
    assert known.high - known.value == pytest.approx(0.02)
    assert known.value - known.low == pytest.approx(0.02)


@pytest.mark.parametrize("from_product", [True, False])
def test_an_interval_too_wide_to_compare_by_is_called_low_confidence(
    left: tuple[EarImages, EarFluid], from_product: bool
) -> None:
    images, fluid = replace(left[0], ppi=None, from_product=from_product), left[1]
    wide = measure_ear(images, replace(fluid, ratio_half_width=0.2))
    (flag,) = [one for one in wide.quality if one.code is QualityCode.LOW_CONFIDENCE]
    assert wide.ratio is not None
    assert flag.severity is Severity.WARN
    assert flag.measured == pytest.approx(0.2)
    assert f"from {100 * wide.ratio.low:.0f} to {100 * wide.ratio.high:.0f} %" in flag.message
    assert ("HYDROPS-Mi2 alone" in flag.message) == from_product
    narrow = measure_ear(images, replace(fluid, ratio_half_width=0.1))
    assert QualityCode.LOW_CONFIDENCE not in {one.code for one in narrow.quality}


@pytest.mark.parametrize("half_width", [-0.01, 1.5, float("nan")])
def test_a_half_width_that_no_ratio_can_have_is_refused(left: tuple[EarImages, EarFluid], half_width: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        replace(left[1], ratio_half_width=half_width)


@pytest.mark.parametrize("code", [QualityCode.WEAK_CONTRAST, QualityCode.LOW_SIGNAL])
def test_weak_contrast_and_noise_widen_the_interval_of_the_rule(
    left: tuple[EarImages, EarFluid], code: QualityCode
) -> None:
    doubt = QualityFlag(code=code, severity=Severity.WARN, message="read it with care")
    certain, doubtful = measure_ear(*left).ratio, measure_ear(*left, remarks=(doubt,)).ratio
    assert certain is not None
    assert doubtful is not None
    assert doubtful.high - doubtful.value >= 0.2 > certain.high - certain.value
