"""A whole study: pictures agree with the truth that is handed out with them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from inference.anatomy import INTER_EAR_DISTANCE_MM, EarSide
from inference.geometry import Volume
from inference.phantom import ROLES, ContrastState, HydropsCoding, PhantomOptions, PhantomStudy, make_study

# A slab that holds both ears, not the whole head: 22 mm high, 110 x 64 mm.
SMALL = PhantomOptions(
    seed=4,
    matrix=(220, 128, 22),
    step_mm=0.14,
    eh_ratio={EarSide.LEFT: 0.1, EarSide.RIGHT: 0.35},
)
QUIET = replace(SMALL, mrc_snr=1e6, contrast_snr=1e6)


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return make_study(SMALL)


@pytest.fixture(scope="module")
def quiet() -> PhantomStudy:
    return make_study(QUIET)


def fluid_voxels(study: PhantomStudy, *, endolymph: bool) -> np.ndarray:
    """Voxels that hold one fluid only."""
    total = study.truth.total_fluid_fraction.array
    inner = study.truth.endolymph_fraction.array
    return (inner > 0.97) if endolymph else (total > 0.97) & (inner < 0.01)


def resampled(moving: Volume, onto: Volume, moving_to_fixed: np.ndarray) -> np.ndarray:
    """`moving` read where a rigid transform puts the voxels of `onto`; an independent, plain implementation."""
    index = np.moveaxis(np.indices(onto.geometry.shape), 0, -1)
    fixed = onto.geometry.to_lps(index)
    inverse = np.linalg.inv(moving_to_fixed)
    found = moving.geometry.to_index(fixed @ inverse[:3, :3].T + inverse[:3, 3])
    return ndimage.map_coordinates(moving.array, np.moveaxis(found, -1, 0), order=1)


def test_every_role_is_a_float32_volume_on_the_nominal_grid(study: PhantomStudy) -> None:
    assert set(study.volumes) == set(ROLES)
    for volume in study.volumes.values():
        assert volume.array.dtype == np.float32
        assert np.isfinite(volume.array).all()
        assert volume.geometry.same_grid(study.truth.total_fluid_fraction.geometry)
        np.testing.assert_allclose(volume.geometry.spacing_mm, (1.0, 0.5, 0.5))


def test_ratios_are_the_wanted_ones(study: PhantomStudy) -> None:
    assert study.truth.ears[EarSide.LEFT].eh_ratio == pytest.approx(0.1, abs=0.005)
    assert study.truth.ears[EarSide.RIGHT].eh_ratio == pytest.approx(0.35, abs=0.005)


def test_fractions_hold_the_true_volumes_at_the_true_places(study: PhantomStudy) -> None:
    total, inner = study.truth.total_fluid_fraction, study.truth.endolymph_fraction
    assert (inner.array <= total.array).all()
    centers = total.geometry.to_lps(np.argwhere(total.array > 0))
    weights = total.array[total.array > 0].astype(float)
    for side, ear in study.truth.ears.items():
        here = centers[:, 0] * side.lps_sign > 0
        volume = weights[here].sum() * total.geometry.voxel_volume_mm3
        assert volume == pytest.approx(ear.total_fluid_mm3, rel=0.01)
        centroid = np.average(centers[here], axis=0, weights=weights[here])
        np.testing.assert_allclose(centroid, ear.center_lps_mm, atol=0.1)


def test_left_ear_is_at_positive_x_and_ears_are_a_head_apart(study: PhantomStudy) -> None:
    left = np.array(study.truth.ears[EarSide.LEFT].center_lps_mm)
    right = np.array(study.truth.ears[EarSide.RIGHT].center_lps_mm)
    assert left[0] > 0 > right[0]
    assert INTER_EAR_DISTANCE_MM[0] < np.linalg.norm(left - right) < INTER_EAR_DISTANCE_MM[1]


def test_same_options_give_identical_arrays_and_another_seed_another_person(study: PhantomStudy) -> None:
    again = make_study(SMALL)
    for role in ROLES:
        np.testing.assert_array_equal(again.volumes[role].array, study.volumes[role].array)
    other = make_study(replace(SMALL, seed=5, series=("MRC",)))
    assert other.truth.ears[EarSide.LEFT].total_fluid_mm3 != study.truth.ears[EarSide.LEFT].total_fluid_mm3


def test_leaving_series_out_does_not_change_the_others(study: PhantomStudy) -> None:
    alone = make_study(replace(SMALL, series=("HYDROPS",)))
    assert set(alone.volumes) == {"HYDROPS"}
    np.testing.assert_array_equal(alone.volumes["HYDROPS"].array, study.volumes["HYDROPS"].array)


def test_hydrops_is_the_subtraction_and_mi2_its_product_with_the_cisternography(study: PhantomStudy) -> None:
    array = {role: volume.array for role, volume in study.volumes.items()}
    np.testing.assert_allclose(array["HYDROPS"], array["PPI"] - array["PEI"])
    np.testing.assert_allclose(array["HYDROPS_MI2"], array["HYDROPS"] * array["MRC"])


def test_perilymph_is_positive_and_endolymph_negative(quiet: PhantomStudy) -> None:
    for role in ("HYDROPS", "HYDROPS_MI2", "REAL_IR"):
        array = quiet.volumes[role].array
        assert (array[fluid_voxels(quiet, endolymph=False)] > 0).mean() > 0.97
        assert (array[fluid_voxels(quiet, endolymph=True)] < 0).mean() > 0.97


def test_fluid_is_bright_on_cisternography_and_the_bone_around_it_dark(quiet: PhantomStudy) -> None:
    mrc, total = quiet.volumes["MRC"].array, quiet.truth.total_fluid_fraction.array
    fluid = np.median(mrc[total > 0.97])
    rim = ndimage.binary_dilation(total > 0, iterations=5) & ~ndimage.binary_dilation(total > 0, iterations=3)
    assert np.median(mrc[rim]) < 0.1 * fluid
    assert (mrc > 0.7 * fluid).sum() > 5 * (total > 0.5).sum()  # cisterns: most bright fluid is not in the ear


def test_without_contrast_the_whole_labyrinth_is_negative() -> None:
    bare = make_study(replace(QUIET, contrast=ContrastState.NONE, series=("HYDROPS",)))
    assert (bare.volumes["HYDROPS"].array[bare.truth.total_fluid_fraction.array > 0.9] < 0).mean() > 0.99


def test_a_contrast_gradient_fades_from_the_round_window_to_the_apex(quiet: PhantomStudy) -> None:
    graded = make_study(replace(QUIET, contrast=ContrastState.GRADIENT, series=("PPI",)))
    even = make_study(replace(QUIET, contrast=ContrastState.NORMAL, series=("PPI",)))
    here = fluid_voxels(quiet, endolymph=False)
    # Same geometry: dividing by the evenly enhanced study leaves the gradient only. T1 2.6 s gives 1.8, 3.5 s 0.24.
    relative = graded.volumes["PPI"].array[here] / even.volumes["PPI"].array[here]
    assert 1.3 < np.percentile(relative, 98) < 1.85
    assert 0.2 < np.percentile(relative, 2) < 0.8


def test_ears_may_enhance_differently() -> None:
    lopsided = make_study(
        replace(QUIET, ear_contrast={EarSide.RIGHT: ContrastState.NONE}, series=("HYDROPS",), side_difference=0.0)
    )
    perilymph = fluid_voxels(lopsided, endolymph=False)
    x = lopsided.volumes["HYDROPS"].geometry.to_lps(np.argwhere(perilymph))[:, 0]
    values = lopsided.volumes["HYDROPS"].array[perilymph]
    assert (values[x > 0] > 0).mean() > 0.97
    assert (values[x < 0] < 0).mean() > 0.97


def test_an_ossified_ear_is_smaller_and_the_other_ear_is_not_changed(study: PhantomStudy) -> None:
    stony = make_study(
        replace(SMALL, ossified={EarSide.LEFT: 0.3}, perilymph_lost={EarSide.LEFT: 0.2}, series=("MRC",))
    )
    left, right = (stony.truth.ears[side].total_fluid_mm3 for side in (EarSide.LEFT, EarSide.RIGHT))
    assert left == pytest.approx(0.7 * 0.8 / 0.98 * study.truth.ears[EarSide.LEFT].total_fluid_mm3, rel=0.01)
    assert right == study.truth.ears[EarSide.RIGHT].total_fluid_mm3


def test_ghosts_of_motion_lie_a_quarter_of_the_field_of_view_away(quiet: PhantomStudy) -> None:
    ghosted = make_study(replace(QUIET, ghosting=0.1, series=("REAL_IR",))).volumes["REAL_IR"].array
    still = quiet.volumes["REAL_IR"].array
    added = ghosted - still
    np.testing.assert_allclose(added[:, 40, :], 0.1 * (still[:, 8, :] - still[:, 72, :]), atol=1.0)
    assert np.abs(added).max() > 0.05 * np.abs(still).max()


def test_noise_is_rician_of_the_stated_size(study: PhantomStudy, quiet: PhantomStudy) -> None:
    """In air the magnitude's mean is sigma * sqrt(pi / 2)."""
    air = quiet.volumes["MRC"].array < 0.01 * np.percentile(quiet.volumes["MRC"].array, 99)
    fluid = np.median(quiet.volumes["MRC"].array[fluid_voxels(quiet, endolymph=False)])
    sigma = study.volumes["MRC"].array[air].mean() / np.sqrt(np.pi / 2)
    assert fluid / sigma == pytest.approx(SMALL.mrc_snr, rel=0.15)


def test_truth_of_motion_brings_a_moved_series_back() -> None:
    still = make_study(replace(QUIET, series=("PEI",)))
    moved = make_study(replace(QUIET, series=("PEI",), motion_mm=3.0, motion_deg=3.0))
    move = moved.truth.motion["PEI"]
    reference = still.volumes["PEI"]
    inner = ndimage.binary_dilation(still.truth.total_fluid_fraction.array > 0, iterations=4)

    def correlation(array: np.ndarray) -> float:
        return float(np.corrcoef(array[inner], reference.array[inner])[0, 1])

    corrected = correlation(resampled(moved.volumes["PEI"], reference, move))
    assert correlation(moved.volumes["PEI"].array) < 0.6
    assert corrected > 0.9
    assert correlation(resampled(moved.volumes["PEI"], reference, np.linalg.inv(move))) < 0.6


def test_motion_has_the_wanted_size_and_the_cisternography_does_not_move() -> None:
    truth = make_study(replace(SMALL, series=("MRC",), motion_mm=2.0, motion_deg=4.0)).truth
    np.testing.assert_array_equal(truth.motion["MRC"], np.eye(4))
    pivot = np.array([0.0, 6.0, -6.0, 1.0])
    for role in ("PPI", "PEI", "REAL_IR"):
        move = truth.motion[role]
        angle = np.rad2deg(np.arccos((np.trace(move[:3, :3]) - 1) / 2))
        assert angle == pytest.approx(4.0, abs=1e-6)
        assert np.linalg.norm((np.linalg.inv(move) @ pivot - pivot)[:3]) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("oblique_deg", [(20.0, 0.0, 0.0), (12.0, 8.0, -15.0), (180.0, 0.0, 0.0), (0.0, 90.0, 0.0)])
def test_turning_the_slab_turns_the_grid_and_not_the_patient(
    study: PhantomStudy, oblique_deg: tuple[float, float, float]
) -> None:
    cube = replace(SMALL, series=("MRC",), matrix=(110, 110, 110), spacing_mm=(1.0, 1.0, 1.0), oblique_deg=oblique_deg)
    turned = make_study(cube)
    for side, ear in study.truth.ears.items():
        assert turned.truth.ears[side] == ear
    fraction = turned.truth.total_fluid_fraction
    volume = fraction.array.sum(dtype=float) * fraction.geometry.voxel_volume_mm3
    assert volume == pytest.approx(sum(ear.total_fluid_mm3 for ear in study.truth.ears.values()), rel=0.01)
    bright = turned.volumes["MRC"].array[fraction.array > 0.9].mean()
    # The middle voxel of the cube is brain, a fifth of the fluid.
    assert bright > 4 * np.median(turned.volumes["MRC"].array)
    k, j, i = fraction.geometry.directions.T
    np.testing.assert_allclose(np.cross(i, j), k, atol=1e-9)


@pytest.mark.parametrize("ears", [frozenset({EarSide.LEFT}), frozenset()])
def test_a_missing_ear_has_no_truth_and_no_fluid(ears: frozenset[EarSide], study: PhantomStudy) -> None:
    partial = make_study(replace(SMALL, ears=ears, series=("MRC",)))
    assert set(partial.truth.ears) == ears
    x = partial.volumes["MRC"].geometry.to_lps(np.argwhere(study.truth.total_fluid_fraction.array > 0.9))[:, 0]
    values = partial.volumes["MRC"].array[study.truth.total_fluid_fraction.array > 0.9]
    full = np.median(study.volumes["MRC"].array[study.truth.total_fluid_fraction.array > 0.9])
    for side in EarSide:
        here = np.median(values[x * side.lps_sign > 0])
        assert (here > 0.5 * full) if side in ears else (here < 0.1 * full)


@pytest.mark.parametrize(
    ("coding", "check"),
    [
        (HydropsCoding.OFFSET, lambda coded, signed: np.allclose(coded, signed + 2048.0, atol=1e-3)),
        (HydropsCoding.CLIPPED, lambda coded, signed: np.array_equal(coded, np.maximum(signed, 0.0))),
    ],
)
def test_subtraction_is_kept_the_way_the_console_codes_it(
    study: PhantomStudy, coding: HydropsCoding, check: Callable[[np.ndarray, np.ndarray], bool]
) -> None:
    coded = make_study(replace(SMALL, hydrops_coding=coding, series=("HYDROPS",))).volumes["HYDROPS"].array
    assert check(coded, study.volumes["HYDROPS"].array)


@pytest.mark.parametrize(
    "wrong",
    [
        {"series": ("MRC", "FLAIR")},
        {"mrc_snr": 0.0},
        {"resolution": 0.5},
        {"ghosting": 1.5},
        {"step_mm": -0.1},
        {"seed": -1},
        {"motion_mm": -2.0},
        {"matrix": (0, 5, 5)},
        {"ossified": {EarSide.LEFT: 1.0}},
        {"perilymph_lost": {EarSide.RIGHT: -0.1}},
    ],
)
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PhantomOptions(**wrong)
