"""The no-training method finds the labyrinth's fluid, leaves the CSF outside, and keeps endolymph inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from inference.anatomy import EarSide
from inference.endolymph import EndolymphOptions, FluidLevels
from inference.findings import EarFluid, EarImages
from inference.geometry import Volume
from inference.labyrinth import LabyrinthOptions
from inference.phantom import PhantomOptions, PhantomStudy, make_study
from inference.segmentation import FluidSegmenter, ThresholdSegmenter, fluid_from_fractions

SEGMENTER: FluidSegmenter = ThresholdSegmenter()


def volume_mm3(amount: Volume) -> float:
    return float(amount.array.sum()) * amount.geometry.voxel_volume_mm3


def truth_on(study: PhantomStudy, fluid: EarFluid) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """True total fluid and endolymph fractions on the ear's grid."""
    grid = study.volumes["MRC"].geometry
    k, j, i = np.rint(grid.to_index(fluid.roi.geometry.to_lps((0, 0, 0)))).astype(int).tolist()
    shape = fluid.roi.geometry.shape
    truth = study.truth
    return truth.total_fluid_fraction.crop((k, j, i), shape).array, truth.endolymph_fraction.crop(
        (k, j, i), shape
    ).array


def dice(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("side", list(EarSide))
def test_total_fluid_agrees_with_the_truth(patient: PhantomStudy, ear_crop: Any, side: EarSide) -> None:
    (fluid,) = SEGMENTER.segment([ear_crop(patient, side)])
    total, _ = truth_on(patient, fluid)
    assert dice(fluid.total_fluid_mask.array, total >= 0.5) > 0.9
    assert volume_mm3(fluid.total_fluid_fraction) == pytest.approx(patient.truth.ears[side].total_fluid_mm3, rel=0.1)


@pytest.mark.parametrize("side", list(EarSide))
@pytest.mark.parametrize("sources", ["ppi and hydrops", "hydrops alone", "real ir"])
def test_the_ratio_agrees_with_the_truth(patient: PhantomStudy, ear_crop: Any, side: EarSide, sources: str) -> None:
    ear: EarImages = ear_crop(patient, side)
    if sources != "ppi and hydrops":
        ear = replace(ear, ppi=None)
    if sources == "real ir":
        grid = patient.volumes["MRC"].geometry
        k, j, i = np.rint(grid.to_index(ear.roi.geometry.to_lps((0, 0, 0)))).astype(int).tolist()
        real_ir = patient.volumes["REAL_IR"].crop((k, j, i), ear.roi.geometry.shape)
        ear = replace(ear, hydrops=real_ir, phase_sensitive=True)
    (fluid,) = SEGMENTER.segment([ear])
    ratio = volume_mm3(fluid.endolymph_fraction) / volume_mm3(fluid.total_fluid_fraction)
    allowed = 0.06 if sources == "ppi and hydrops" else 0.12
    assert ratio == pytest.approx(patient.truth.ears[side].eh_ratio, abs=allowed)


def test_endolymph_is_found_where_it_is(patient: PhantomStudy, ear_crop: Any) -> None:
    (fluid,) = SEGMENTER.segment([ear_crop(patient, EarSide.LEFT)])
    total, endolymph = truth_on(patient, fluid)
    truly = (total >= 0.5) & (endolymph >= 0.5 * total)
    assert dice(fluid.endolymph_mask.array, truly) > 0.7


def test_endolymph_never_leaves_the_total_fluid(patient: PhantomStudy, ear_crop: Any) -> None:
    for fluid in SEGMENTER.segment([ear_crop(patient, side) for side in EarSide]):
        assert (fluid.endolymph_fraction.array <= fluid.total_fluid_fraction.array).all()
        assert not (fluid.endolymph_mask.array & ~fluid.total_fluid_mask.array).any()
        assert fluid.total_fluid_fraction.array.min() >= 0.0
        assert fluid.total_fluid_fraction.array.max() <= 1.0


def test_the_cistern_and_the_auditory_canal_stay_outside(patient: PhantomStudy, ear_crop: Any) -> None:
    """Fluid of the MRC that is far from every true labyrinth voxel is CSF; none of it may be taken."""
    (fluid,) = SEGMENTER.segment([ear_crop(patient, EarSide.RIGHT)])
    total, _ = truth_on(patient, fluid)
    spacing = fluid.roi.geometry.spacing_mm
    far = ndimage.distance_transform_edt(total < 0.01, sampling=spacing) > 1.5
    assert not (fluid.total_fluid_mask.array & far).any()


def test_severe_hydrops_is_not_mistaken_for_csf(ear_crop: Any) -> None:
    study = make_study(
        PhantomOptions(
            seed=41,
            eh_ratio={EarSide.LEFT: 0.5, EarSide.RIGHT: 0.5},
            series=("MRC", "PPI", "HYDROPS"),
            matrix=(280, 160, 64),
            step_mm=0.15,
        )
    )

    for fluid in SEGMENTER.segment([ear_crop(study, side) for side in EarSide]):
        total, endolymph = truth_on(study, fluid)
        certain = (total > 0.9) & (endolymph > 0.9)
        assert fluid.total_fluid_mask.array[certain].mean() > 0.9


def test_an_ear_box_without_fluid_stays_empty(patient: PhantomStudy, ear_crop: Any) -> None:
    ear: EarImages = ear_crop(patient, EarSide.LEFT)
    dark = Volume(array=np.zeros_like(ear.mrc.array), geometry=ear.mrc.geometry)
    (fluid,) = SEGMENTER.segment([replace(ear, mrc=dark)])
    assert not fluid.total_fluid_mask.array.any()
    assert volume_mm3(fluid.endolymph_fraction) == 0.0


def test_scanner_units_do_not_matter(patient: PhantomStudy, ear_crop: Any) -> None:
    ear: EarImages = ear_crop(patient, EarSide.LEFT)
    assert ear.ppi is not None

    def times(volume: Volume, factor: float) -> Volume:
        return Volume(array=volume.array * np.float32(factor), geometry=volume.geometry)

    scaled = replace(ear, mrc=times(ear.mrc, 3.7), hydrops=times(ear.hydrops, 0.2), ppi=times(ear.ppi, 0.2))
    one, other = SEGMENTER.segment([ear, scaled])
    assert volume_mm3(one.endolymph_fraction) == pytest.approx(volume_mm3(other.endolymph_fraction), rel=1e-3)


def test_the_threshold_method_does_not_claim_to_be_trained() -> None:
    assert not SEGMENTER.identity.learned


def test_the_identity_changes_with_any_constant() -> None:
    changed = [
        ThresholdSegmenter(labyrinth=LabyrinthOptions(gap_mm=2.5)),
        ThresholdSegmenter(endolymph=EndolymphOptions(rounds=41)),
    ]
    digests = {SEGMENTER.identity.sha256, *(segmenter.identity.sha256 for segmenter in changed)}
    assert len(digests) == 3
    assert SEGMENTER.identity == ThresholdSegmenter().identity


def test_hydrops_is_flat_for_perilymph_and_crosses_zero_at_seventy_per_cent_endolymph() -> None:
    """The physics with perilymph T1 3.0 s, endolymph 3.7 s: PPI 0.105, HYDROPS +0.065 and -0.061."""
    levels = FluidLevels(perilymph=0.065, endolymph=-0.061, perilymph_ppi=0.105)
    share = np.linspace(0.0, 1.0, 101)
    hydrops = levels.ppi(share) - levels.pei(share)
    assert hydrops[0] == pytest.approx(0.065)
    assert hydrops[-1] == pytest.approx(-0.061)
    assert hydrops[:35].min() > 0.06
    assert 0.65 < share[np.argmax(hydrops < 0)] < 0.75


def test_what_a_method_finds_beyond_the_slab_counts_nowhere(patient: PhantomStudy, ear_crop: Any) -> None:
    images = ear_crop(patient, EarSide.LEFT)
    mrc = images.mrc.array.copy()
    mrc[:5] = 0.0  # the box begins below the slab
    cut = replace(images, mrc=Volume(array=mrc, geometry=images.mrc.geometry))
    everywhere = np.full(mrc.shape, 0.6, np.float32)
    fluid = fluid_from_fractions(cut, everywhere, 0.5 * everywhere)
    for found in (fluid.total_fluid_fraction, fluid.endolymph_fraction, fluid.total_fluid_mask):
        assert not found.array[:5].any()
    assert (fluid.total_fluid_fraction.array[5:] == everywhere[5:]).all()
