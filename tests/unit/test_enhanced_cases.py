"""An Enhanced cisternogram whose planes no result could name is refused when the study is opened, before the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from small_studies import SMALL_EARS

from dicom_node.assembly.site_rules import read_rules
from dicom_node.case import Case, CaseOptions, open_case
from dicom_node.encoding.phantom_enhanced import enhanced_dataset
from dicom_node.encoding.phantom_study import phantom_datasets
from dicom_node.errors import Reason
from dicom_node.instance_files import read_folder
from inference.phantom import make_study

LEGACY_CONVERTED = "1.2.840.10008.5.1.4.1.1.4.4"


@pytest.fixture(scope="module")
def classic() -> dict[str, list[Dataset]]:
    """A study's data sets by role."""
    study = make_study(SMALL_EARS)
    return {role: phantom_datasets(study, series=[role]) for role in ("MRC", "PPI", "PEI")}


def opened(folder: Path, images: Sequence[Dataset]) -> Case:
    for number, image in enumerate(images):
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    ((study, files),) = read_folder(folder).items()
    return open_case(study, files, CaseOptions(rules=read_rules(""), digest="0" * 64))


def whole(slices: list[Dataset]) -> list[Dataset]:
    return [enhanced_dataset(slices)]


def with_phase(slices: list[Dataset]) -> list[Dataset]:
    """Every plane twice, the second time its phase."""
    image = enhanced_dataset([*slices, *deepcopy(slices)])
    frame_type = image.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence
    del image.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence
    image.ComplexImageComponent = "MIXED"
    for n, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
        frame.MRImageFrameTypeSequence = deepcopy(frame_type)
        kind = frame.MRImageFrameTypeSequence[0]
        kind.ComplexImageComponent = "MAGNITUDE" if n < len(slices) else "PHASE"
        kind.FrameType = ["ORIGINAL", "PRIMARY", "M" if n < len(slices) else "P", "NONE"]
    return [image]


def in_two_images(slices: list[Dataset]) -> list[Dataset]:
    half = len(slices) // 2
    first, second = enhanced_dataset(slices[:half]), enhanced_dataset(slices[half:])
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return [first, second]


def legacy_converted(slices: list[Dataset]) -> list[Dataset]:
    image = enhanced_dataset(slices)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = LEGACY_CONVERTED
    return [image]


def test_one_enhanced_image_whose_frames_are_all_of_the_cisternogram_is_chosen(
    classic: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    case = opened(tmp_path, [*whole(classic["MRC"]), *classic["PPI"], *classic["PEI"]])
    assert case.assembly.refusal is None
    assert case.assembly.chosen is not None


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (with_phase, "send the magnitude as a series of its own"),
        (in_two_images, "expected one Enhanced MR image, found its frames in 2"),
        (legacy_converted, f"found SOP Class {LEGACY_CONVERTED}"),
    ],
)
def test_planes_that_no_result_could_name_are_refused_at_once(
    classic: dict[str, list[Dataset]], tmp_path: Path, made: Callable[[list[Dataset]], list[Dataset]], said: str
) -> None:
    case = opened(tmp_path, [*made(classic["MRC"]), *classic["PPI"], *classic["PEI"]])
    assert case.assembly.chosen is None
    assert case.assembly.refusal is not None
    assert case.assembly.refusal.reason is Reason.ENHANCED_UNSUPPORTED
    assert said in case.assembly.refusal.detail
    assert case.assembly.refusal.series_instance_uid == str(classic["MRC"][0].SeriesInstanceUID)


def test_a_contrast_series_is_not_referred_to_by_its_frames_and_may_hold_others(
    classic: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    case = opened(tmp_path, [*classic["MRC"], *with_phase(classic["PPI"]), *classic["PEI"]])
    assert case.assembly.refusal is None
