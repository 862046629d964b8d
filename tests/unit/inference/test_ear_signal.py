"""The signal of an ear is a number about the ear: not about the scanner's scale, nor about the segmenter's border."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.ear_signal import read_signal
from inference.findings import EarFluid, EarImages
from inference.geometry import FloatArray, Volume
from inference.phantom import PhantomStudy
from inference.phantom.physics import PEI, PPI, ContrastState, Tissue, signals
from inference.segmentation import ThresholdSegmenter, fluid_from_fractions


@pytest.fixture(scope="module")
def left(patient: PhantomStudy, ear_crop: Any) -> tuple[EarImages, EarFluid]:
    images = ear_crop(patient, EarSide.LEFT)
    return images, ThresholdSegmenter().segment([images])[0]


def scaled(volume: Volume, factor: float) -> Volume:
    return Volume(array=np.float32(factor) * volume.array, geometry=volume.geometry)


def changed(volume: Volume, array: FloatArray) -> Volume:
    return Volume(array=array.astype(np.float32), geometry=volume.geometry)


def test_perilymph_shows_on_ppi_what_its_contrast_agent_makes_of_it(left: tuple[EarImages, EarFluid]) -> None:
    """A hydropic ear's perilymph is mixed with endolymph in most voxels, so it shows somewhat less."""
    ppi, pei = (signals(sequence, ContrastState.NORMAL) for sequence in (PPI, PEI))
    expected = abs(ppi[Tissue.PERILYMPH] / pei[Tissue.CSF])
    found = read_signal(*left)
    assert found.perilymph_on_ppi is not None
    assert 0.7 * expected < found.perilymph_on_ppi < 1.05 * expected
    assert found.perilymph_on_hydrops is not None
    assert 0.6 < found.perilymph_on_hydrops < 1.3


def test_noise_makes_weak_cerebrospinal_fluid_weaker_on_hydrops_and_not_in_the_difference(
    left: tuple[EarImages, EarFluid],
) -> None:
    images, fluid = left
    assert images.ppi is not None
    fluid_level = np.percentile(images.mrc.array[fluid.total_fluid_mask.array], 75)
    beside = (np.asarray(images.mrc.array) > 0.5 * fluid_level) & (np.asarray(fluid.total_fluid_fraction.array) == 0.0)
    dimmed = np.where(beside, 0.5, 1.0)
    ppi, pei = dimmed * images.ppi.array, dimmed * (images.ppi.array - images.hydrops.array)
    sd = float(np.percentile(images.ppi.array[fluid.total_fluid_mask.array], 85)) / 4.0
    rng = np.random.default_rng(4)
    in_noise = [np.hypot(one + rng.normal(0.0, sd, one.shape), rng.normal(0.0, sd, one.shape)) for one in (ppi, pei)]

    def read(ppi: FloatArray, pei: FloatArray) -> tuple[float, float]:
        found = read_signal(
            replace(images, ppi=changed(images.mrc, ppi), hydrops=changed(images.hydrops, ppi - pei)), fluid
        )
        assert found.perilymph_on_hydrops is not None
        assert found.perilymph_on_difference is not None
        return found.perilymph_on_hydrops, found.perilymph_on_difference

    (clean, clean_difference), (lifted, difference) = read(ppi, pei), read(in_noise[0], in_noise[1])
    assert clean_difference == pytest.approx(clean, rel=0.15)
    assert lifted > 1.25 * clean
    assert difference == pytest.approx(clean, rel=0.15)


def test_levels_and_noise_do_not_depend_on_the_scale_of_the_images(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    assert images.ppi is not None
    rescaled = replace(
        images, mrc=scaled(images.mrc, 3.0), hydrops=scaled(images.hydrops, 0.2), ppi=scaled(images.ppi, 0.2)
    )
    expected, found = asdict(read_signal(*left)), asdict(read_signal(rescaled, fluid))
    assert found == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}


def test_the_noise_is_that_of_the_scan(left: tuple[EarImages, EarFluid], patient: PhantomStudy) -> None:
    found = read_signal(*left)
    assert found.mrc_snr == pytest.approx(patient.options.mrc_snr, rel=0.4)
    assert found.ppi_snr == pytest.approx(patient.options.contrast_snr, rel=0.4)


def test_without_cerebrospinal_fluid_there_is_no_level(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    ear = fluid.total_fluid_fraction.array > 0.0
    alone = replace(images, mrc=Volume(array=np.where(ear, images.mrc.array, 1.0), geometry=images.mrc.geometry))
    found = read_signal(alone, fluid)
    assert found.perilymph_on_ppi is None
    assert found.perilymph_on_hydrops is None
    assert found.positive_csf_share is None
    assert found.positive_share is not None


def test_an_ear_without_fluid_has_no_signal(left: tuple[EarImages, EarFluid]) -> None:
    images, _ = left
    nothing = np.zeros(images.roi.geometry.shape, np.float32)
    found = asdict(read_signal(images, fluid_from_fractions(images, nothing, nothing)))
    assert found.pop("border_mm2") == 0.0
    assert found.pop("full_voxels") == 0
    assert set(found.values()) == {None}


def test_the_border_is_that_of_the_slab_not_of_the_box(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    assert read_signal(*left).border_mm2 == 0.0
    last = images.mrc.array.shape[0] // 2
    inside = np.arange(images.mrc.array.shape[0])[:, None, None] <= last
    cut = replace(images, mrc=Volume(array=images.mrc.array * inside, geometry=images.mrc.geometry))
    rest = fluid_from_fractions(
        images, fluid.total_fluid_fraction.array * inside, fluid.endolymph_fraction.array * inside
    )
    pixel_mm2 = float(np.prod(images.mrc.geometry.spacing_mm[1:]))
    areas_mm2 = fluid.total_fluid_fraction.array.sum(axis=(1, 2)) * pixel_mm2
    area_mm2 = float(areas_mm2[last - 2 : last + 1].max())  # slices of 1 mm: the last three lie within the reach
    assert area_mm2 > 5.0
    assert read_signal(cut, rest).border_mm2 == pytest.approx(area_mm2, rel=1e-4)
