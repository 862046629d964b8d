"""The sign of a subtraction is read from bone, CSF and labyrinth; whatever contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.contrast import (
    ContrastCoding,
    hydrops_from_mi2,
    hydrops_from_ppi_pei,
    hydrops_mi2,
    read_signed,
)
from inference.findings import EarROI
from inference.geometry import GeometryError, Volume
from inference.phantom import ContrastState, HydropsCoding, PhantomOptions, PhantomStudy, make_study

SMALL = PhantomOptions(
    seed=31, series=("MRC", "PPI", "PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR"), matrix=(280, 180, 56), step_mm=0.15
)


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    """A contrast-enhanced patient who lay still."""
    return make_study(SMALL)


def ears_of(study: PhantomStudy) -> list[EarROI]:
    grid = study.volumes["MRC"].geometry
    return [
        EarROI(side=side, center_lps_mm=ear.center_lps_mm, geometry=grid.crop((0, 0, 0), (1, 1, 1)), score=1.0)
        for side, ear in study.truth.ears.items()
    ]


def stored(volume: Volume, change) -> Volume:
    """`volume` as a console would store it: changed, and rounded to whole numbers."""
    return Volume(array=np.rint(change(volume.array)).astype(np.float32), geometry=volume.geometry)


@pytest.mark.parametrize("role", ["HYDROPS", "HYDROPS_MI2", "REAL_IR"])
def test_a_signed_series_is_taken_as_it_is(study: PhantomStudy, role: str) -> None:
    read = read_signed(study.volumes[role], study.volumes["MRC"], ears=ears_of(study))
    assert read.coding is ContrastCoding.SIGNED, read.reason
    assert read.offset == 0.0
    assert np.array_equal(read.volume.array, study.volumes[role].array)
    assert read.dark_csf_share > 0.8
    assert read.perilymph_share > 0.5


@pytest.mark.parametrize("offset", [500, 1024, 2048, 32768])
def test_an_offset_is_found_and_taken_away(study: PhantomStudy, offset: int) -> None:
    signed = study.volumes["HYDROPS"]
    read = read_signed(stored(signed, lambda a: a + offset), study.volumes["MRC"], ears=ears_of(study))
    assert read.coding is ContrastCoding.OFFSET, read.reason
    assert read.offset == pytest.approx(offset, abs=0.1 * read.noise_sd)
    assert np.abs(read.volume.array - signed.array).max() < 0.5 + 0.1 * read.noise_sd


@pytest.mark.parametrize("role", ["HYDROPS", "HYDROPS_MI2"])
def test_the_phantoms_own_offset_coding_is_understood(study: PhantomStudy, role: str) -> None:
    coded = make_study(replace(SMALL, series=("MRC", role), hydrops_coding=HydropsCoding.OFFSET))
    read = read_signed(coded.volumes[role], coded.volumes["MRC"], ears=ears_of(coded))
    assert read.coding is ContrastCoding.OFFSET, read.reason
    difference = np.abs(read.volume.array - study.volumes[role].array)
    assert np.percentile(difference, 99) < 0.1 * read.noise_sd + 1e-3 * np.abs(study.volumes[role].array).max()


@pytest.mark.parametrize("role", ["HYDROPS", "HYDROPS_MI2"])
def test_a_series_that_lost_its_negative_values_is_recognized(study: PhantomStudy, role: str) -> None:
    clipped = stored(study.volumes[role], lambda a: np.maximum(a, 0))
    read = read_signed(clipped, study.volumes["MRC"], ears=ears_of(study))
    assert read.coding is ContrastCoding.CLIPPED, read.reason
    assert read.volume is None
    assert "cut off" in read.reason


def test_zero_padding_around_an_offset_series_is_not_mistaken_for_clipping(study: PhantomStudy) -> None:
    def padded(array: np.ndarray) -> np.ndarray:
        out = array + 1024
        out[:, :50] = 0
        out[:, :, :60] = 0
        return out

    read = read_signed(stored(study.volumes["HYDROPS"], padded), study.volumes["MRC"], ears=ears_of(study))
    assert read.coding is ContrastCoding.OFFSET, read.reason
    assert read.offset == pytest.approx(1024, abs=1)


def test_air_masked_to_zero_does_not_make_a_signed_series_clipped(study: PhantomStudy) -> None:
    mrc = study.volumes["MRC"]
    air = mrc.array < np.percentile(mrc.array, 40)
    masked = stored(study.volumes["HYDROPS"], lambda a: np.where(air, 0, a))
    read = read_signed(masked, mrc, ears=ears_of(study))
    assert read.coding is ContrastCoding.SIGNED, read.reason


@pytest.mark.parametrize("offset", [0, 2048])
def test_a_subtraction_the_other_way_round_is_refused(study: PhantomStudy, offset: int) -> None:
    read = read_signed(
        stored(study.volumes["HYDROPS"], lambda a: offset - a), study.volumes["MRC"], ears=ears_of(study)
    )
    assert read.coding is ContrastCoding.INVERTED, read.reason
    assert read.volume is None
    assert not read.coding.usable


@pytest.mark.parametrize("role", ["PPI", "PEI", "MRC"])
def test_a_magnitude_image_is_never_taken_for_a_subtraction(study: PhantomStudy, role: str) -> None:
    read = read_signed(study.volumes[role], study.volumes["MRC"], ears=ears_of(study))
    assert not read.coding.usable, read.reason


def test_an_ear_without_contrast_agent_keeps_its_sign_and_shows_no_perilymph() -> None:
    bare = make_study(replace(SMALL, series=("MRC", "HYDROPS"), contrast=ContrastState.NONE))
    read = read_signed(bare.volumes["HYDROPS"], bare.volumes["MRC"], ears=ears_of(bare))
    assert read.coding is ContrastCoding.SIGNED, read.reason
    assert read.perilymph_share < 0.3


def test_the_sign_is_read_before_the_series_are_aligned() -> None:
    moved = make_study(replace(SMALL, series=("MRC", "HYDROPS"), motion_mm=4.0, motion_deg=4.0))
    mrc, hydrops, ears = moved.volumes["MRC"], moved.volumes["HYDROPS"], ears_of(moved)
    assert read_signed(hydrops, mrc, ears=ears).coding is ContrastCoding.SIGNED
    assert not read_signed(stored(hydrops, np.negative), mrc, ears=ears).coding.usable
    aligned = read_signed(hydrops, mrc, ears=ears, moving_to_fixed=moved.truth.motion["HYDROPS"])
    assert aligned.perilymph_share > read_signed(hydrops, mrc, ears=ears).perilymph_share


def test_csf_alone_decides_where_no_ear_is_known(study: PhantomStudy) -> None:
    read = read_signed(study.volumes["HYDROPS"], study.volumes["MRC"])
    assert read.coding is ContrastCoding.SIGNED
    assert read.perilymph_share is None


def test_without_csf_and_ears_nothing_is_believed(study: PhantomStudy) -> None:
    corner = ((0, 0, 0), (20, 30, 30))
    read = read_signed(study.volumes["HYDROPS"].crop(*corner), study.volumes["MRC"].crop(*corner))
    assert read.coding is ContrastCoding.UNSURE, read.reason
    assert read.volume is None


def test_a_constant_image_is_refused(study: PhantomStudy) -> None:
    flat = stored(study.volumes["HYDROPS"], np.zeros_like)
    assert not read_signed(flat, study.volumes["MRC"], ears=ears_of(study)).coding.usable


def test_ppi_minus_pei_is_the_consoles_hydrops(study: PhantomStudy) -> None:
    ours = hydrops_from_ppi_pei(study.volumes["PPI"], study.volumes["PEI"])
    assert ours.array.dtype == np.float32
    read = read_signed(ours, study.volumes["MRC"], ears=ears_of(study))
    assert read.coding is ContrastCoding.SIGNED, read.reason
    inside = study.truth.total_fluid_fraction.array > 0.95
    endolymph = inside & (study.truth.endolymph_fraction.array > 0.95)
    perilymph = inside & (study.truth.endolymph_fraction.array < 0.05)
    assert np.mean(ours.array[perilymph] > 0) > 0.9
    assert np.mean(ours.array[endolymph] < 0) > 0.9


def test_unsigned_stored_values_do_not_wrap_when_subtracted(study: PhantomStudy) -> None:
    geometry = study.volumes["PPI"].geometry
    ppi = Volume(array=np.full(geometry.shape, 3, dtype=np.uint16), geometry=geometry)
    pei = Volume(array=np.full(geometry.shape, 5, dtype=np.uint16), geometry=geometry)
    assert (hydrops_from_ppi_pei(ppi, pei).array == -2).all()


def test_the_product_with_the_mrc_can_be_taken_back_inside_fluid(study: PhantomStudy) -> None:
    hydrops, mrc = study.volumes["HYDROPS"], study.volumes["MRC"]
    product = hydrops_mi2(hydrops, mrc)
    assert np.array_equal(product.array, hydrops.array * mrc.array)
    back = hydrops_from_mi2(product, mrc)
    fluid = study.truth.total_fluid_fraction.array > 0.95
    assert np.allclose(back.array[fluid], hydrops.array[fluid], atol=1e-3)
    assert (back.array[mrc.array < 0.05 * np.median(mrc.array[fluid])] == 0).all()


@pytest.mark.parametrize("combine", [hydrops_from_ppi_pei, hydrops_mi2, hydrops_from_mi2])
def test_images_on_two_grids_are_not_combined(study: PhantomStudy, combine) -> None:
    mrc = study.volumes["MRC"]
    beside = mrc.geometry.index_to_lps.copy()
    beside[0, 3] += 0.5
    other = Volume(array=mrc.array, geometry=replace(mrc.geometry, index_to_lps=beside))
    with pytest.raises(GeometryError, match="one grid"):
        combine(mrc, other)
