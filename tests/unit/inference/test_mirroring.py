"""A series whose pixels were flipped is told from others, though a head is nearly the same on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import Reason, RejectedStudy
from dicom_node.pipeline import refuse_mirrored
from inference.anatomy import EarSide
from inference.findings import EarROI
from inference.geometry import Volume
from inference.localization import EarSearch
from inference.mirroring import MIN_GAIN, compare_with_mirror
from inference.perilymph_search import ear_box
from inference.phantom import PhantomOptions, PhantomStudy, make_study
from inference.phantom.physics import ContrastState
from inference.registration import align


def ears_of(study: PhantomStudy, *sides: EarSide) -> tuple[EarROI, ...]:
    """The ears at their true places."""
    grid, rois = study.volumes["MRC"].geometry, []
    for side in sides or EarSide:
        center = study.truth.ears[side].center_lps_mm
        start, shape = ear_box(np.array(center), grid)
        rois.append(EarROI(side=side, center_lps_mm=center, geometry=grid.crop(start, shape), score=1.0))
    return tuple(rois)


def flipped(volume: Volume) -> Volume:
    """Each row of pixels from its end to its beginning, under the header that it had."""
    return Volume(array=np.ascontiguousarray(volume.array[:, :, ::-1]), geometry=volume.geometry)


@pytest.mark.parametrize("role", ["PPI", "HYDROPS", "REAL_IR"])
def test_a_flipped_series_fits_better_in_the_mirror_and_no_other_does(patient: PhantomStudy, role: str) -> None:
    mrc, ears = patient.volumes["MRC"], ears_of(patient)
    for moving, is_mirrored in ((patient.volumes[role], False), (flipped(patient.volumes[role]), True)):
        seen = compare_with_mirror(moving, mrc, ears, align(moving, mrc, ears))
        assert seen is not None
        assert seen.is_mirrored == is_mirrored
        assert abs(seen.mirrored - seen.as_it_is) > 2.0 * MIN_GAIN


def test_a_flipped_cisternogram_is_found_by_every_series(patient: PhantomStudy) -> None:
    ears = ears_of(patient)
    mrc = flipped(patient.volumes["MRC"])
    for role in ("PPI", "REAL_IR"):
        moving = patient.volumes[role]
        seen = compare_with_mirror(moving, mrc, ears, align(moving, mrc, ears))
        assert seen is not None
        assert seen.is_mirrored


def test_a_series_whose_alignment_failed_is_not_taken_for_a_flipped_one(patient: PhantomStudy) -> None:
    mrc, ppi, ears = patient.volumes["MRC"], patient.volumes["PPI"], ears_of(patient)
    beside = np.eye(4)
    beside[:3, 3] = (0.0, 3.0, 0.0)
    failed = replace(align(ppi, mrc, ears), moving_to_fixed=beside, accepted=False)
    seen = compare_with_mirror(ppi, mrc, ears, failed)
    assert seen is not None
    assert not seen.is_mirrored


def test_a_flipped_slab_of_one_ear_is_found(patient: PhantomStudy) -> None:
    (ear,) = ears_of(patient, EarSide.LEFT)
    mrc, ppi = (_around(patient.volumes[role], ear) for role in ("MRC", "PPI"))
    for moving, is_mirrored in ((ppi, False), (flipped(ppi), True)):
        seen = compare_with_mirror(moving, mrc, (ear,), align(moving, mrc, (ear,)))
        assert seen is not None
        assert seen.is_mirrored == is_mirrored


def test_without_contrast_agent_no_series_is_taken_for_a_flipped_one() -> None:
    options = PhantomOptions(
        seed=33, contrast=ContrastState.NONE, series=("MRC", "PPI", "PEI"), matrix=(264, 120, 56), step_mm=0.15
    )
    study = make_study(options)
    mrc, ears = study.volumes["MRC"], ears_of(study)
    for role in ("PPI", "PEI"):
        moving = study.volumes[role]
        seen = compare_with_mirror(moving, mrc, ears, align(moving, mrc, ears))
        assert seen is not None
        assert not seen.is_mirrored


def test_a_study_with_a_flipped_series_is_refused_by_its_name(patient: PhantomStudy) -> None:
    mrc, ears = patient.volumes["MRC"], ears_of(patient)
    contrast = {SeriesRole.PPI: flipped(patient.volumes["PPI"]), SeriesRole.REAL_IR: patient.volumes["REAL_IR"]}
    alignments = {role: align(moving, mrc, ears) for role, moving in contrast.items()}
    search = EarSearch(rois={ear.side: ear for ear in ears})
    with pytest.raises(RejectedStudy) as rejected:
        refuse_mirrored(contrast, mrc, search, alignments)
    assert [one.reason for one in rejected.value.refusals] == [Reason.SIDE_UNSURE]
    assert rejected.value.refusal.detail.startswith("PPI: with right and left exchanged it fits the MRC better")


def _around(volume: Volume, ear: EarROI) -> Volume:
    """A slab of 50 mm around one ear."""
    start = np.rint(volume.geometry.to_index(ear.center_lps_mm)).astype(int) - (25, 50, 50)
    return volume.crop((int(start[0]), int(start[1]), int(start[2])), (50, 100, 100))
