"""Two methods that part company over one ear are both named, and far apart neither is believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.findings import EarFluid, EarImages, QualityCode, Severity
from inference.phantom import PhantomStudy
from inference.quantification import eh_ratio, measure_ear
from inference.second_opinion import compare
from inference.segmentation import ThresholdSegmenter, fluid_from_fractions


@pytest.fixture(scope="module")
def left(patient: PhantomStudy, ear_crop: Any) -> tuple[EarImages, EarFluid]:
    images = ear_crop(patient, EarSide.LEFT)
    return images, ThresholdSegmenter().segment([images])[0]


def other(
    ear: tuple[EarImages, EarFluid], *, moved: int = 0, filled: float = 1.0, share: float = 1.0, kept: float = 1.0
) -> EarFluid:
    """The same ear by a method that errs.

    It puts the ear elsewhere (voxels along i), fills its voxels less, finds another share of endolymph, or sees only a
    part of the fluid, counted along i.
    """
    images, fluid = ear
    along_i = np.cumsum(fluid.total_fluid_mask.array.sum(axis=(0, 1)))
    seen = filled * (along_i <= kept * along_i[-1])
    total = np.roll(seen * fluid.total_fluid_fraction.array, moved, axis=2)
    endolymph = np.roll(share * seen * fluid.endolymph_fraction.array, moved, axis=2)
    return fluid_from_fractions(images, total.astype(np.float32), endolymph.astype(np.float32))


def test_the_method_without_training_agrees_with_the_truth(
    left: tuple[EarImages, EarFluid], patient: PhantomStudy
) -> None:
    images, found = left
    grid = patient.volumes["MRC"].geometry
    k, j, i = np.rint(grid.to_index(images.roi.geometry.to_lps((0, 0, 0)))).astype(int).tolist()
    total, endolymph = (
        volume.crop((k, j, i), images.roi.geometry.shape).array
        for volume in (patient.truth.total_fluid_fraction, patient.truth.endolymph_fraction)
    )
    truth = fluid_from_fractions(images, total, endolymph)
    assert compare(truth, eh_ratio(truth), found, eh_ratio(found)) == ()


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"kept": 0.6}, Severity.WARN, "overlaps"),
        ({"moved": 6}, Severity.STOP, "overlaps"),
        ({"filled": 0.7}, Severity.WARN, "mm3"),
        ({"filled": 0.5}, Severity.STOP, "mm3"),
        ({"share": 0.1}, Severity.WARN, "EH ratio"),
    ],
)
def test_every_kind_of_disagreement_is_named(
    left: tuple[EarImages, EarFluid], changes: dict[str, Any], severity: Severity, words: str
) -> None:
    _, fluid = left
    parted = other(left, **changes)
    flags = [flag for flag in compare(fluid, eh_ratio(fluid), parted, eh_ratio(parted)) if words in flag.message]
    assert [(flag.code, flag.severity) for flag in flags] == [(QualityCode.DISAGREEMENT, severity)]
    assert flags[0].measured is not None
    assert flags[0].limit is not None
    assert "Left ear" in flags[0].message


def test_nothing_found_by_the_other_method_is_a_remark(left: tuple[EarImages, EarFluid]) -> None:
    _, fluid = left
    (flag,) = compare(fluid, eh_ratio(fluid), other(left, filled=0.0), None)
    assert flag.severity is Severity.WARN


def test_a_number_that_the_other_method_contradicts_is_withheld(left: tuple[EarImages, EarFluid]) -> None:
    images, fluid = left
    assert measure_ear(images, fluid, unlearned=fluid).evaluated
    contradicted = measure_ear(images, fluid, unlearned=other(left, moved=6))
    assert not contradicted.evaluated
    assert contradicted.fluid is None
    assert QualityCode.DISAGREEMENT in {flag.code for flag in contradicted.quality}
