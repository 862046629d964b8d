"""The network sees every slab the same way: along the patient, over the fluid level; its answer is a place in mm."""

from __future__ import annotations

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.ear_proposals import BRIGHTEST, GRID_MM, along_patient, best_place, places_of, propose_ears
from inference.geometry import Volume, VolumeGeometry
from inference.networks.ear_finder import MULTIPLE, EarFinder
from inference.phantom import PhantomStudy


def stored_otherwise(volume: Volume) -> Volume:
    """The same voxels at the same places, sagittal and from the patient's left to the right."""
    affine = volume.geometry.index_to_lps.copy()
    affine[:3, :3] = affine[:3, (2, 1, 0)]
    shape = volume.geometry.shape[::-1]
    affine[:3, 3] += affine[:3, 0] * (shape[0] - 1)
    affine[:3, 0] *= -1.0
    grid = VolumeGeometry(
        shape=shape, index_to_lps=affine, frame_of_reference_uid=volume.geometry.frame_of_reference_uid
    )
    return Volume(array=np.ascontiguousarray(volume.array.transpose(2, 1, 0)[::-1]), geometry=grid)


def test_the_picture_does_not_depend_on_how_the_slab_is_stored(patient: PhantomStudy) -> None:
    mrc = patient.volumes["MRC"]
    one, other = along_patient(mrc), along_patient(stored_otherwise(mrc))
    assert one.geometry.same_grid(other.geometry)
    assert np.allclose(one.array, other.array, atol=1e-4)


def test_the_picture_runs_to_the_head_to_posterior_and_to_the_left(patient: PhantomStudy) -> None:
    seen = along_patient(patient.volumes["MRC"])
    assert np.allclose(seen.geometry.index_to_lps[:3, :3], GRID_MM * np.eye(3)[:, ::-1])
    assert all(n % MULTIPLE == 0 for n in seen.geometry.shape)
    assert seen.array.min() >= 0.0
    assert seen.array.max() <= BRIGHTEST


def test_the_picture_does_not_depend_on_the_scanner_units(patient: PhantomStudy) -> None:
    mrc = patient.volumes["MRC"]
    louder = Volume(array=mrc.array * np.float32(7.0), geometry=mrc.geometry)
    assert np.allclose(along_patient(mrc).array, along_patient(louder).array, atol=1e-5)


def test_an_mrc_without_signal_is_refused(patient: PhantomStudy) -> None:
    mrc = patient.volumes["MRC"]
    with pytest.raises(ValueError, match="holds no signal"):
        along_patient(Volume(array=np.zeros_like(mrc.array), geometry=mrc.geometry))


def test_both_ears_are_proposed_where_they_are(patient: PhantomStudy) -> None:
    for side, proposal in propose_ears(patient.volumes["MRC"]).items():
        assert proposal.probability > 0.5
        assert np.linalg.norm(proposal.lps_mm - patient.truth.ears[side].center_lps_mm) < 3.0


def test_an_ear_outside_the_slab_is_not_proposed(patient: PhantomStudy) -> None:
    mrc = patient.volumes["MRC"]
    right_half = propose_ears(mrc.crop((0, 0, 0), (64, 160, 140)))
    assert right_half[EarSide.LEFT].probability < 0.5


def test_a_heat_maps_place_lies_between_its_voxels() -> None:
    grid = VolumeGeometry(
        shape=(8, 8, 8), index_to_lps=np.diag([4.0, 4.0, 4.0, 1.0])[(2, 1, 0, 3), :], frame_of_reference_uid="1.2"
    )
    heat = np.zeros((8, 8, 8))
    heat[4, 5, 6], heat[4, 5, 7], heat[0, 0, 0] = 0.6, 0.2, 0.1
    found = best_place(Volume(array=heat, geometry=grid))
    assert found.probability == pytest.approx(0.8)
    assert found.lps_mm == pytest.approx((4 * 6.25, 4 * 5, 4 * 4))
    assert found.support(np.zeros(3)) == pytest.approx(0.1)
    assert found.support(np.array([400.0, 0.0, 0.0])) == 0.0


def test_places_lie_in_the_middle_of_their_blocks(patient: PhantomStudy) -> None:
    grid = along_patient(patient.volumes["MRC"]).geometry
    places = places_of(grid)
    assert np.allclose(places.to_lps((1, 2, 3)), grid.to_lps((2.5, 4.5, 6.5)))


def test_the_finder_needs_three_positive_widths() -> None:
    with pytest.raises(ValueError, match=r"three positive widths, found \(16, 32\)"):
        EarFinder((16, 32))
