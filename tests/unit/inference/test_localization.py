"""Both ears are found wherever the head lies, sides come from the patient, and no ear is claimed where none is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference import localization
from inference.anatomy import EarSide
from inference.findings import QualityCode, Severity
from inference.geometry import Volume, VolumeGeometry
from inference.localization import EarSearch, locate_ears
from inference.perilymph_search import perilymph_places
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy, make_study
from inference.resampling import coarsen

SMALL = {"matrix": (280, 160, 64), "step_mm": 0.15}
NEAR_MM = 2.0


def search(study: PhantomStudy) -> EarSearch:
    return locate_ears(study.volumes["MRC"], study.volumes["HYDROPS"])


def error_mm(study: PhantomStudy, found: EarSearch, side: EarSide) -> float:
    return float(np.linalg.norm(np.array(study.truth.ears[side].center_lps_mm) - found.rois[side].center_lps_mm))


def scanned(**options: object) -> PhantomStudy:
    return make_study(PhantomOptions(**({"series": ("MRC", "HYDROPS")} | SMALL | options)))


def test_both_ears_are_found_within_two_millimeters(patient: PhantomStudy) -> None:
    found = search(patient)
    assert set(found.rois) == set(EarSide)
    assert all(error_mm(patient, found, side) < NEAR_MM for side in EarSide)
    assert found.quality == ()


def test_an_ear_box_lies_on_whole_voxels_of_the_mrc(patient: PhantomStudy) -> None:
    grid = patient.volumes["MRC"].geometry
    for roi in search(patient).rois.values():
        start = grid.to_index(roi.geometry.to_lps((0, 0, 0)))
        assert np.allclose(start, np.rint(start), atol=1e-6)
        assert np.allclose(roi.geometry.spacing_mm, grid.spacing_mm)
        assert roi.geometry.shape == (26, 64, 64)


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 2, 1), (1, 0, 2)])
def test_sides_do_not_depend_on_the_order_of_the_axes(patient: PhantomStudy, order: tuple[int, int, int]) -> None:
    def turned(volume: Volume) -> Volume:
        geometry = volume.geometry
        affine = geometry.index_to_lps.copy()
        affine[:3, :3] = affine[:3, :3][:, order]
        shape = tuple(geometry.shape[axis] for axis in order)
        grid = VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid=geometry.frame_of_reference_uid)
        return Volume(array=np.ascontiguousarray(volume.array.transpose(order)), geometry=grid)

    found = locate_ears(turned(patient.volumes["MRC"]), turned(patient.volumes["HYDROPS"]))
    assert all(error_mm(patient, found, side) < NEAR_MM for side in EarSide)


def test_the_mirrored_patient_has_the_mirrored_result(patient: PhantomStudy) -> None:
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])

    def mirrored(volume: Volume) -> Volume:
        geometry = volume.geometry
        grid = VolumeGeometry(
            shape=geometry.shape,
            index_to_lps=flip @ geometry.index_to_lps,
            frame_of_reference_uid=geometry.frame_of_reference_uid,
        )
        return Volume(array=volume.array, geometry=grid)

    found = locate_ears(mirrored(patient.volumes["MRC"]), mirrored(patient.volumes["HYDROPS"]))
    for side, other in ((EarSide.LEFT, EarSide.RIGHT), (EarSide.RIGHT, EarSide.LEFT)):
        expected = np.array(patient.truth.ears[other].center_lps_mm) * (-1, 1, 1)
        assert np.linalg.norm(expected - found.rois[side].center_lps_mm) < NEAR_MM


def test_oblique_slab_and_motion_of_five_millimeters_are_followed() -> None:
    study = scanned(seed=32, oblique_deg=(20.0, 10.0, -8.0), motion_mm=5.0, motion_deg=5.0, matrix=(300, 220, 80))
    found = search(study)
    assert all(error_mm(study, found, side) < NEAR_MM for side in EarSide)


@pytest.mark.parametrize("side", list(EarSide))
def test_a_lone_ear_in_view_gets_its_side_from_the_brain(side: EarSide) -> None:
    study = scanned(seed=33, matrix=(144, 144, 60), slab_shift_mm=(side.lps_sign * 40.0, 0.0, 0.0))
    found = search(study)
    other = EarSide.LEFT if side is EarSide.RIGHT else EarSide.RIGHT
    assert set(found.rois) == {side}
    assert error_mm(study, found, side) < NEAR_MM
    assert [flag.code for flag in found.by_side[other]] == [QualityCode.EAR_NOT_FOUND]


def test_a_lone_ear_without_its_surroundings_gets_no_box(patient: PhantomStudy) -> None:
    center = np.array(patient.truth.ears[EarSide.LEFT].center_lps_mm)
    grid = patient.volumes["MRC"].geometry
    k, j, i = (np.rint(grid.to_index(center)).astype(int) - (14, 22, 22)).tolist()
    mrc, hydrops = (patient.volumes[role].crop((k, j, i), (28, 44, 44)) for role in ("MRC", "HYDROPS"))
    found = locate_ears(mrc, hydrops)
    assert found.rois == {}
    assert found.quality[0].code in (QualityCode.SIDE_UNSURE, QualityCode.EAR_NOT_FOUND)


def test_an_ear_cut_by_the_border_is_not_measured() -> None:
    study = scanned(seed=34)
    height = study.volumes["MRC"].geometry.to_index(study.truth.ears[EarSide.RIGHT].center_lps_mm)[0]
    start = (round(height) - 4, 0, 0)
    shape = (40, *study.volumes["MRC"].array.shape[1:])
    found = locate_ears(*(study.volumes[role].crop(start, shape) for role in ("MRC", "HYDROPS")))
    assert EarSide.RIGHT not in found.rois
    assert found.by_side[EarSide.RIGHT][0].severity is Severity.STOP


def test_ears_without_contrast_agent_are_found_by_their_shape() -> None:
    study = scanned(seed=35, contrast=ContrastState.NONE)
    found = search(study)
    assert all(error_mm(study, found, side) < NEAR_MM + 1.0 for side in EarSide)


def test_both_ears_are_found_on_the_mrc_alone(patient: PhantomStudy) -> None:
    found = locate_ears(patient.volumes["MRC"])
    assert all(error_mm(patient, found, side) < NEAR_MM for side in EarSide)


def test_a_head_without_labyrinths_has_no_ears() -> None:
    found = search(scanned(seed=36, ears=frozenset()))
    assert found.rois == {}
    assert all(flag.severity is Severity.STOP for flag in found.quality)


@pytest.mark.parametrize("content", ["noise", "constant", "empty", "not a number"])
def test_images_without_a_head_are_recognized(content: str) -> None:
    rng = np.random.default_rng(5)
    grid = VolumeGeometry(
        shape=(40, 120, 120), index_to_lps=np.diag([1.0, 0.5, 0.5, 1.0]), frame_of_reference_uid="1.2"
    )
    pixels = {
        "noise": np.abs(rng.normal(size=grid.shape)),
        "constant": np.full(grid.shape, 7.0),
        "empty": np.zeros(grid.shape),
        "not a number": np.full(grid.shape, np.nan),
    }[content]
    hydrops = Volume(array=rng.normal(size=grid.shape).astype(np.float32), geometry=grid)
    found = locate_ears(Volume(array=pixels.astype(np.float32), geometry=grid), hydrops)
    assert found.rois == {}
    assert found.quality[0].code is QualityCode.CONTENT


def test_hydrops_may_lie_on_a_grid_of_its_own(patient: PhantomStudy) -> None:
    hydrops = coarsen(patient.volumes["HYDROPS"].crop((6, 10, 10), (52, 140, 250)), 1.0)
    found = locate_ears(patient.volumes["MRC"], hydrops)
    assert all(error_mm(patient, found, side) < NEAR_MM for side in EarSide)


def test_ears_that_the_network_misses_are_found_by_their_perilymph(
    patient: PhantomStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localization, "FOUND", 2.0)
    found = search(patient)
    assert all(error_mm(patient, found, side) < NEAR_MM for side in EarSide)


def faint(places: Any, sides: Sequence[EarSide]) -> Any:
    """`perilymph_places` with 3 mm3 of perilymph left on those sides, as severe hydrops leaves it."""

    def found(maps: Any) -> Any:
        return [
            replace(place, evidence_mm3=3.0)
            if (EarSide.LEFT if place.lps_mm[0] > 0.0 else EarSide.RIGHT) in sides
            else place
            for place in places(maps)
        ]

    return found


def test_an_ear_with_little_perilymph_is_found_beside_one_with_enough(
    patient: PhantomStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localization, "FOUND", 2.0)
    monkeypatch.setattr(localization, "perilymph_places", faint(perilymph_places, [EarSide.LEFT]))
    found = search(patient)
    assert all(error_mm(patient, found, side) < NEAR_MM for side in EarSide)
    monkeypatch.setattr(localization, "HINT", 2.0)  # where the network sees no ear
    assert search(patient).rois == {}
    monkeypatch.setattr(localization, "HINT", 0.1)
    monkeypatch.setattr(localization, "perilymph_places", faint(perilymph_places, list(EarSide)))
    assert search(patient).rois == {}


def test_a_lone_place_with_perilymph_is_no_ear(patient: PhantomStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localization, "FOUND", 2.0)
    left_half = {role: patient.volumes[role].crop((0, 0, 150), (64, 160, 130)) for role in ("MRC", "HYDROPS")}
    found = locate_ears(left_half["MRC"], left_half["HYDROPS"])
    assert found.rois == {}
    assert found.quality[0].code is QualityCode.EAR_NOT_FOUND


def test_two_places_that_do_not_lie_as_ears_do_have_no_side(patient: PhantomStudy) -> None:
    quarter = np.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

    def turned(volume: Volume) -> Volume:
        geometry = volume.geometry
        grid = VolumeGeometry(
            shape=geometry.shape,
            index_to_lps=quarter @ geometry.index_to_lps,
            frame_of_reference_uid=geometry.frame_of_reference_uid,
        )
        return Volume(array=volume.array, geometry=grid)

    found = locate_ears(turned(patient.volumes["MRC"]), turned(patient.volumes["HYDROPS"]))
    assert found.rois == {}
    assert all(flag.severity is Severity.STOP for flag in found.quality)
