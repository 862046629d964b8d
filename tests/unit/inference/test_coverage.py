"""Fluid of which one contrast series shows nothing gets no number, however the series hides it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dicom_node.assembly.headers import SeriesRole
from dicom_node.pipeline import ear_images
from inference.anatomy import EarSide
from inference.coverage import unseen
from inference.findings import Alignment, EarImages, QualityCode, Severity
from inference.geometry import Volume, VolumeGeometry
from inference.phantom import PhantomStudy
from inference.quality import check_ear
from inference.segmentation import ThresholdSegmenter

SHAPE = (12, 20, 24)
A_LITTLE = np.array([[1.0, 0, 0, 0.3], [0, 1, 0, 0.3], [0, 0, 1, 0.3], [0, 0, 0, 1]])
"""A displacement by 0.3 mm: everything is interpolated."""


def noise(shape: tuple[int, int, int] = SHAPE) -> Volume:
    index_to_lps = np.diag([1.0, 1.0, 1.0, 1.0])
    index_to_lps[:3, :3] = index_to_lps[:3, :3][:, ::-1]
    geometry = VolumeGeometry(shape=shape, index_to_lps=index_to_lps, frame_of_reference_uid="1.2.3")
    array = np.random.default_rng(1).normal(100.0, 5.0, shape).round()
    return Volume(array=array.astype(np.float32), geometry=geometry)


def test_a_series_that_covers_everything_leaves_nothing_unseen() -> None:
    series = noise()
    assert not unseen(series, series.geometry).any()
    inner = series.geometry.crop((2, 2, 2), (8, 16, 20))
    assert not unseen(series, inner, moving_to_fixed=A_LITTLE).any()


def test_what_lies_beyond_the_slab_is_unseen() -> None:
    series = noise()
    short = series.crop((0, 0, 0), (5, 20, 24))
    assert (unseen(short, series.geometry) == (np.arange(12) >= 5)[:, None, None]).all()
    elsewhere = series.geometry.crop((0, 0, 0), (2, 2, 2))
    far = np.eye(4)
    far[0, 3] = 1000.0
    assert unseen(series, elsewhere, moving_to_fixed=far).all()


@pytest.mark.parametrize("value", [0.0, -300.0, 100.0])
@pytest.mark.parametrize("moving_to_fixed", [None, A_LITTLE], ids=["in place", "aligned"])
def test_padding_is_unseen_whatever_its_value_also_where_interpolation_rings_into_it(
    value: float, moving_to_fixed: np.ndarray | None
) -> None:
    series = noise()
    series.array.setflags(write=True)
    series.array[:, :, 12:] = value
    nothing = unseen(series, series.geometry, moving_to_fixed=moving_to_fixed)[1:, 1:, 1:]
    assert nothing[..., 13:].all()
    assert not nothing[..., :10].any()


def cut(volume: Volume, planes: int) -> Volume:
    """The series without its last planes."""
    depth, height, width = volume.array.shape
    return volume.crop((0, 0, 0), (depth - planes, height, width))


def padded(volume: Volume, planes: int) -> Volume:
    """The series with zeros in its last planes."""
    array = volume.array.copy()
    array[-planes:] = 0.0
    return Volume(array=array, geometry=volume.geometry)


def aligned(moving_to_fixed: np.ndarray) -> Alignment:
    return Alignment(
        moving_to_fixed=moving_to_fixed,
        translation_mm=0.5,
        rotation_deg=0.0,
        metric_before=0.1,
        metric_after=0.2,
        accepted=True,
        reason="",
    )


@pytest.mark.parametrize("which", ["PPI", "PEI"])
@pytest.mark.parametrize("how", [cut, padded], ids=["cut", "padded"])
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "aligned"])
def test_one_of_two_series_that_ends_inside_the_ear_stops_its_number(
    patient: PhantomStudy, ear_crop: Any, which: str, how: Any, moved: bool
) -> None:
    whole: EarImages = ear_crop(patient, EarSide.LEFT)
    mrc, ppi = patient.volumes["MRC"], patient.volumes["PPI"]
    pei = Volume(array=np.abs(ppi.array - patient.volumes["HYDROPS"].array), geometry=ppi.geometry)
    series = {SeriesRole.PPI: ppi, SeriesRole.PEI: pei}
    alignments = {role: aligned(A_LITTLE) for role in series} if moved else {}
    (last,) = {int(np.rint(mrc.geometry.to_index(whole.roi.center_lps_mm))[0])}
    short = series | {SeriesRole(which): how(series[SeriesRole(which)], mrc.array.shape[0] - last)}
    (fluid,) = ThresholdSegmenter().segment([whole])

    def cut_off(contrast: dict[SeriesRole, Volume]) -> list[Severity]:
        images = ear_images(whole.roi, mrc, contrast, alignments)
        return [flag.severity for flag in check_ear(images, fluid) if flag.code is QualityCode.EAR_CUT_OFF]

    assert cut_off(series) == []
    assert cut_off(short) == [Severity.STOP]


def test_what_was_divided_out_of_a_product_is_not_called_unseen_where_the_cisternogram_was_dark(
    patient: PhantomStudy, ear_crop: Any
) -> None:
    whole: EarImages = ear_crop(patient, EarSide.LEFT)
    mrc, hydrops = patient.volumes["MRC"], patient.volumes["HYDROPS"]
    dark = np.where(mrc.array > np.percentile(mrc.array, 99.0), hydrops.array, np.float32(0.0))
    quotient = Volume(array=dark, geometry=hydrops.geometry)
    divided = ear_images(whole.roi, mrc, {SeriesRole.HYDROPS_MI2: quotient}, {})
    plain = ear_images(whole.roi, mrc, {SeriesRole.HYDROPS: hydrops}, {})
    assert divided.unseen is None
    assert plain.unseen is not None
    assert not plain.unseen.array.any()
