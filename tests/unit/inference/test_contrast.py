"""The sign of a subtraction is read from bone, CSF and labyrinth; whatever contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.contrast import (
    READABLE_FRACTION,
    ContrastCoding,
    fluid_level,
    hydrops_from_mi2,
    hydrops_from_ppi_pei,
    hydrops_mi2,
    made_with,
    read_signed,
)
from inference.findings import EarROI
from inference.geometry import GeometryError, Volume
from inference.phantom import ContrastState, HydropsCoding, PhantomOptions, PhantomStudy, make_study
from inference.resampling import resample

SMALL = PhantomOptions(
    seed=31, series=("MRC", "PPI", "PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR"), matrix=(280, 180, 56), step_mm=0.15
)

MI2_STEP = 20.0
"""Rescale Slope of a stored product whose fluid reaches 200 000."""


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


def test_the_product_with_the_mrc_can_be_taken_back_everywhere(study: PhantomStudy) -> None:
    hydrops, mrc = study.volumes["HYDROPS"], study.volumes["MRC"]
    product = hydrops_mi2(hydrops, mrc)
    assert np.array_equal(product.array, hydrops.array * mrc.array)
    assert made_with(product, mrc)
    back = hydrops_from_mi2(product, mrc)
    readable = mrc.array > READABLE_FRACTION * fluid_level(mrc)
    assert readable.mean() > 0.95
    assert np.allclose(back.array[readable], hydrops.array[readable], atol=1e-3)
    assert (back.array[~readable] == 0).all()


@pytest.fixture(scope="module")
def moved() -> PhantomStudy:
    """A patient who moved between the MRC and the contrast series, whose product is stored above an offset."""
    return make_study(
        replace(
            SMALL,
            series=("MRC", "HYDROPS", "HYDROPS_MI2"),
            motion_mm=2.5,
            motion_deg=2.0,
            hydrops_coding=HydropsCoding.OFFSET,
        )
    )


def in_whole_steps(volume: Volume, step: float) -> Volume:
    """`volume` as a series with that Rescale Slope keeps it."""
    return Volume(array=np.rint(volume.array / step).astype(np.float32) * np.float32(step), geometry=volume.geometry)


def test_of_a_patient_who_moved_the_product_gives_back_the_hydrops_where_it_was_acquired(moved: PhantomStudy) -> None:
    """As stored: whole numbers of MRC, the product in steps of 20."""
    mrc, mi2 = in_whole_steps(moved.volumes["MRC"], 1.0), in_whole_steps(moved.volumes["HYDROPS_MI2"], MI2_STEP)
    assert made_with(mi2, mrc)
    hydrops, product = (read_signed(one, mrc, ears=ears_of(moved)) for one in (moved.volumes["HYDROPS"], mi2))
    back = hydrops_from_mi2(product.volume, mrc)
    acquired = moved.volumes["HYDROPS"].array - hydrops.offset
    bone = np.median(np.abs(acquired[mrc.array < 0.1 * fluid_level(mrc)]))
    displaced = (mrc.array < 0.1 * fluid_level(mrc)) & (np.abs(acquired) > 6 * bone)
    assert np.count_nonzero(displaced) > 100, "fluid of HYDROPS lies where the MRC shows bone"
    error = np.abs(back.array - acquired)
    assert np.median(error[displaced]) < 0.1 * np.median(np.abs(acquired[displaced]))
    assert np.median(error) < 0.1 * bone


def test_a_product_with_another_cisternogram_is_divided_in_fluid_alone(study: PhantomStudy) -> None:
    """The same patient scanned again lies as before, but the noise is another."""
    hydrops, mrc = study.volumes["HYDROPS"], study.volumes["MRC"]
    clean = make_study(replace(SMALL, series=("MRC",), mrc_snr=1e6)).volumes["MRC"].array
    noise = np.random.default_rng(5).normal(0.0, fluid_level(mrc) / SMALL.mrc_snr, (2, *clean.shape))
    again = Volume(array=np.hypot(clean + noise[0], noise[1]).astype(np.float32), geometry=mrc.geometry)
    product = hydrops_mi2(hydrops, again)
    assert made_with(product, again)
    assert not made_with(product, mrc)
    back = hydrops_from_mi2(product, mrc)
    fluid = study.truth.total_fluid_fraction.array > 0.95
    assert np.median(np.abs(back.array / hydrops.array - 1.0)[fluid]) < 0.1
    assert (back.array[mrc.array < 0.2 * fluid_level(mrc)] == 0).all()


def test_a_product_on_a_grid_of_its_own_is_divided_in_fluid_alone(study: PhantomStudy) -> None:
    mrc = study.volumes["MRC"]
    beside = mrc.geometry.index_to_lps.copy()
    beside[:3, 3] += beside[:3, :3] @ (0.5, 0.5, 0.5)
    between = replace(mrc.geometry, index_to_lps=beside)
    product = resample(study.volumes["HYDROPS_MI2"], between)
    assert not made_with(product, mrc)
    back = hydrops_from_mi2(product, mrc)
    assert back.geometry.same_grid(between)
    fluid = resample(study.truth.total_fluid_fraction, between).array > 0.95
    perilymph = fluid & (resample(study.truth.endolymph_fraction, between).array < 0.05)
    assert np.mean(back.array[perilymph] > 0) > 0.9
    assert (back.array[resample(mrc, between).array < 0.2 * fluid_level(mrc)] == 0).all()


def test_without_bone_in_view_nobody_can_tell_what_a_product_was_multiplied_with(study: PhantomStudy) -> None:
    k, j, i = np.rint(study.volumes["MRC"].geometry.to_index(study.truth.ears[EarSide.LEFT].center_lps_mm)).astype(int)
    within = ((int(k) - 2, int(j) - 4, int(i) - 4), (5, 9, 9))
    assert not made_with(study.volumes["HYDROPS_MI2"].crop(*within), study.volumes["MRC"].crop(*within))


@pytest.mark.parametrize("combine", [hydrops_from_ppi_pei, hydrops_mi2])
def test_images_on_two_grids_are_not_combined(study: PhantomStudy, combine) -> None:
    mrc = study.volumes["MRC"]
    beside = mrc.geometry.index_to_lps.copy()
    beside[0, 3] += 0.5
    other = Volume(array=mrc.array, geometry=replace(mrc.geometry, index_to_lps=beside))
    with pytest.raises(GeometryError, match="one grid"):
        combine(mrc, other)
