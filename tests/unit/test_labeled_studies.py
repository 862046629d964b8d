"""DICOM studies with a SEG as truth: the phantom's own truth written as the node writes results, and read as labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from mr_sources import ENCODED_AT, MODEL, key_of
from phantom_patients import images_of
from result_objects import OPTIONS

from dicom_node.cli.wiring import case_options, load_settings
from dicom_node.encoding.segmentation import build_segmentation
from dicom_node.errors import UnusableInput
from dicom_node.labeled_studies import labeled_ears
from inference.anatomy import EarSide
from inference.cases import EarCase
from inference.findings import EarFindings, EarImages, EarROI, EHRatio, StudyFindings
from inference.geometry import Volume
from inference.phantom import PhantomOptions, PhantomStudy, make_study
from inference.segmentation import fluid_from_fractions
from inference.training.own_ears import labeled_ear

OPTIONS_OF_SITE = case_options(load_settings(None), from_file=False)
BOX = (26, 64, 64)


@pytest.fixture(scope="module")
def patient() -> PhantomStudy:
    return make_study(
        PhantomOptions(
            seed=31,
            eh_ratio={EarSide.LEFT: 0.4, EarSide.RIGHT: 0.15},
            series=("MRC", "HYDROPS"),
            matrix=(280, 160, 64),
            step_mm=0.15,
        )
    )


def truth_of(patient: PhantomStudy) -> StudyFindings:
    """The truth as findings: what a perfect reader would have the node write."""
    ears = {}
    for side, ear in patient.truth.ears.items():
        grid = patient.truth.total_fluid_fraction.geometry
        k, j, i = (np.rint(grid.to_index(ear.center_lps_mm)).astype(int) - np.array(BOX) // 2).tolist()
        total, endolymph = (
            volume.crop((k, j, i), BOX)
            for volume in (patient.truth.total_fluid_fraction, patient.truth.endolymph_fraction)
        )
        roi = EarROI(side=side, center_lps_mm=ear.center_lps_mm, geometry=total.geometry, score=1.0)
        mrc = patient.volumes["MRC"].crop((k, j, i), BOX)
        nothing = Volume(array=np.zeros(BOX, dtype=np.float32), geometry=total.geometry)
        fluid = fluid_from_fractions(EarImages(roi=roi, mrc=mrc, hydrops=nothing), total.array, endolymph.array)
        ratio = EHRatio(
            endolymph_mm3=ear.endolymph_mm3,
            total_fluid_mm3=ear.total_fluid_mm3,
            value=ear.eh_ratio,
            low=ear.eh_ratio,
            high=ear.eh_ratio,
        )
        ears[side] = EarFindings(side=side, ratio=ratio, fluid=fluid)
    return StudyFindings(ears=ears, alignments={}, model=MODEL)


@pytest.fixture(scope="module")
def study(patient: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MRC, HYDROPS and the SEG."""
    folder = tmp_path_factory.mktemp("study")
    images = images_of(patient, "MRC", "HYDROPS")
    for number, image in enumerate(images):
        image.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    mrc = images_of(patient, "MRC")
    seg = build_segmentation(truth_of(patient), mrc, key=key_of(mrc), options=OPTIONS, encoded_at=ENCODED_AT)
    seg.save_as(folder / "truth.dcm")
    return folder


@pytest.fixture(scope="module")
def ears(study: Path) -> list[EarCase]:
    return labeled_ears(study, OPTIONS_OF_SITE)


def test_both_ears_come_with_the_truth_of_their_own_side(patient: PhantomStudy, ears: list[EarCase]) -> None:
    assert [ear.images.roi.side for ear in ears] == [EarSide.RIGHT, EarSide.LEFT]
    for ear in ears:
        true = patient.truth.ears[ear.images.roi.side]
        voxel_mm3 = ear.total_fluid.geometry.voxel_volume_mm3
        off_mm = np.subtract(ear.images.roi.center_lps_mm, true.center_lps_mm)
        assert np.linalg.norm(off_mm) < 0.6  # a mask lacks the thinnest parts of canals
        assert ear.total_fluid.array.sum() * voxel_mm3 == pytest.approx(true.total_fluid_mm3, rel=0.15)
        assert ear.endolymph.array.sum() / ear.total_fluid.array.sum() == pytest.approx(true.eh_ratio, abs=0.1)


def test_images_are_those_of_serving_and_signed(ears: list[EarCase]) -> None:
    for ear in ears:
        endolymph, fluid = ear.endolymph.array > 0, ear.total_fluid.array > 0
        assert ear.images.hydrops.array[endolymph].mean() < 0 < ear.images.hydrops.array[fluid & ~endolymph].mean()
        assert ear.images.mrc.array[fluid].mean() > 3.0 * ear.images.mrc.array[~fluid].mean()
        assert ear.images.mrc.geometry.same_grid(ear.total_fluid.geometry)


def test_ears_of_one_person_are_kept_together_without_a_name(ears: list[EarCase], patient: PhantomStudy) -> None:
    assert len({ear.tags["patient"] for ear in ears}) == 1
    header = images_of(patient, "MRC")[0]
    assert str(header.PatientID) not in str(ears[0].tags)
    assert {str(ear.tags["input_set"]) for ear in ears} == {"HYDROPS"}
    assert all(labeled_ear(ear).case == str(header.StudyInstanceUID) for ear in ears)


Edit = Callable[[pydicom.Dataset], None]


def exchange_sides(seg: pydicom.Dataset) -> None:
    for segment in seg.SegmentSequence:
        modifier = segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0]
        modifier.CodeValue = "7771000" if modifier.CodeValue == "24028007" else "24028007"


def without_side(seg: pydicom.Dataset) -> None:
    del seg.SegmentSequence[1].AnatomicRegionSequence[0].AnatomicRegionModifierSequence


def other_tissue(seg: pydicom.Dataset) -> None:
    seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "80169004"


def twice(seg: pydicom.Dataset) -> None:
    seg.SegmentSequence[2].SegmentedPropertyTypeCodeSequence = seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence


def of_another_series(seg: pydicom.Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.99"


def shifted(seg: pydicom.Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = [round(float(position[0]) + 0.2, 4), *position[1:]]


EDITS: dict[str, tuple[Edit, str]] = {
    "sides exchanged": (exchange_sides, "are the sides exchanged"),
    "no side": (without_side, r"segment 2 .* with 0 side\(s\); expected \(TFS, 99EHNODE\)"),
    "another tissue": (other_tissue, r"segment 1 .* is \(80169004, 99EHNODE\)"),
    "one fluid twice": (twice, "missing: right endolymph, more than once: right total fluid space"),
    "another series": (of_another_series, r"expected labels on the MRC, series .*, found 2\.25\.99"),
    "beside the grid": (shifted, r"expected voxels of the MRC's grid, .* up to 0\.40 voxels beside one"),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS.keys())
def test_a_segmentation_that_cannot_be_meant_is_refused(study: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    seg = pydicom.dcmread(copy / "truth.dcm")
    edit(seg)
    seg.save_as(copy / "truth.dcm")
    with pytest.raises(UnusableInput, match=message):
        labeled_ears(copy, OPTIONS_OF_SITE)


def test_a_study_without_truth_or_with_two_is_refused(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    second = pydicom.dcmread(copy / "truth.dcm")
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = "2.25.5"
    second.save_as(copy / "second.dcm")
    with pytest.raises(UnusableInput, match=r"expected one DICOM segmentation with the truth, found second.dcm, truth"):
        labeled_ears(copy, OPTIONS_OF_SITE)
    for name in ("second.dcm", "truth.dcm"):
        (copy / name).unlink()
    with pytest.raises(UnusableInput, match=r"study 2\.25\..*: expected one DICOM segmentation .*, found none"):
        labeled_ears(copy, OPTIONS_OF_SITE)


def test_a_study_that_the_node_would_refuse_is_no_training_data(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    for path in sorted(copy.glob("0*.dcm"))[-64:]:  # HYDROPS
        path.unlink()
    with pytest.raises(UnusableInput, match="expected a study that the node can compute"):
        labeled_ears(copy, OPTIONS_OF_SITE)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="expected DICOM studies with a segmentation each, found no DICOM file"):
        labeled_ears(tmp_path, OPTIONS_OF_SITE)
