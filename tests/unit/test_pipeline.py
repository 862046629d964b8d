"""The steps of the story that need no whole study: what is refused at the door, and who is asked twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import Reason, RejectedStudy
from dicom_node.pipeline import check_images, second_opinions, with_pictures
from inference.anatomy import EarSide
from inference.findings import EarFindings, EarFluid, EarImages, EarROI, ModelIdentity, QualityCode, Severity
from inference.geometry import Volume, VolumeGeometry
from inference.segmentation import ThresholdSegmenter, fluid_from_fractions


def volume(array: np.ndarray, *, slice_mm: float = 1.0) -> Volume:
    """An axial volume of 0.5 mm pixels."""
    index_to_lps = np.eye(4)
    index_to_lps[:3, :3] = np.diag([0.5, 0.5, slice_mm])[:, ::-1]
    geometry = VolumeGeometry(shape=array.shape, index_to_lps=index_to_lps, frame_of_reference_uid="1.2.3")
    return Volume(array=array.astype(np.float32), geometry=geometry)


def images_of_a_ball() -> EarImages:
    """A ball of fluid, 3 mm in radius, positive on HYDROPS."""
    k, j, i = np.indices((26, 64, 64)) - np.array([13, 32, 32])[:, None, None, None]
    ball = (k**2 + (0.5 * j) ** 2 + (0.5 * i) ** 2 <= 9.0).astype(np.float64)
    mrc = volume(900.0 * ball + 20.0)
    roi = EarROI(side=EarSide.LEFT, center_lps_mm=(16.0, 16.0, 13.0), geometry=mrc.geometry, score=1.0)
    return EarImages(roi=roi, mrc=mrc, hydrops=volume(200.0 * ball))


class Trained:
    """A segmenter that was trained to find nothing."""

    identity = ModelIdentity(name="nothing", version="1", sha256="ab" * 32)

    def segment(self, ears: Sequence[EarImages]) -> list[EarFluid]:
        nothing = np.zeros(ears[0].mrc.array.shape, np.float32)
        return [fluid_from_fractions(ear, nothing, nothing) for ear in ears]


def test_a_trained_segmenter_is_held_against_the_method_without_training():
    images = images_of_a_ball()
    (opinion,) = second_opinions([images], Trained())
    assert opinion is not None
    volume_mm3 = float(opinion.total_fluid_fraction.array.sum()) * images.mrc.geometry.voxel_volume_mm3
    assert volume_mm3 == pytest.approx(4.0 / 3.0 * np.pi * 27.0, rel=0.15)


def test_the_method_without_training_is_not_asked_twice():
    images = images_of_a_ball()
    assert list(second_opinions([images, images], ThresholdSegmenter())) == [None, None]


def test_a_series_of_another_kind_is_refused_before_anything_is_measured():
    content = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    volumes = {SeriesRole.MRC: volume(content), SeriesRole.HYDROPS: volume(np.zeros((4, 6, 8)))}
    with pytest.raises(RejectedStudy) as rejected:
        check_images(volumes)
    assert [one.reason for one in rejected.value.refusals] == [Reason.OUT_OF_DOMAIN]
    assert "HYDROPS" in rejected.value.refusal.detail


def test_unusual_voxels_are_a_remark_of_the_study():
    content = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    (flag,) = check_images({SeriesRole.MRC: volume(content, slice_mm=1.3), SeriesRole.PPI: volume(content)})
    assert (flag.code, flag.severity) == (QualityCode.OUT_OF_DOMAIN, Severity.WARN)
    assert check_images({SeriesRole.MRC: volume(content)}) == ()


def test_a_measured_ear_keeps_what_people_look_at_before_and_after_alignment():
    images = images_of_a_ball()
    moved = images.hydrops.geometry.index_to_lps.copy()
    moved[0, 3] += 1.0  # one millimeter to the left: two pixels
    beside = Volume(array=images.hydrops.array, geometry=replace(images.hydrops.geometry, index_to_lps=moved))
    ear = EarFindings(side=EarSide.LEFT, ratio=None, fluid=None)
    shown = with_pictures(ear, images, {SeriesRole.HYDROPS: beside})
    assert shown.images is images
    assert shown.hydrops_before_alignment is not None
    np.testing.assert_allclose(
        shown.hydrops_before_alignment.array[:, :, 2:], images.hydrops.array[:, :, :-2], atol=1e-3
    )
