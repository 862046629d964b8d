"""What is found in folders and tables: DICOM by what the files say, NIfTI by what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from mr_images import STUDY, as_file, make_mr

from dicom_node.assembly.headers import SeriesRole
from dicom_node.cohort.sources import SAFE_NAME, DicomStudy, NiftiSubject, find_sources
from dicom_node.errors import UnusableInput

OTHER_STUDY = "1.2.826.0.1.3680043.10.2"


def put_image(path: Path, study: str = STUDY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_file(make_mr(StudyInstanceUID=study)))
    return path


def put_subject(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"not looked into here")
    return folder


def test_images_belong_to_the_study_that_they_name_wherever_they_lie(tmp_path: Path) -> None:
    one = put_image(tmp_path / "a" / "deep" / "IM1")
    two = put_image(tmp_path / "b" / "IM1")
    other = put_image(tmp_path / "a" / "IM2", OTHER_STUDY)
    (tmp_path / "a" / "DICOMDIR.txt").write_text("no image")
    found = find_sources([tmp_path / "a", tmp_path / "b"], results=tmp_path / "out")
    assert [(source.name, source.paths) for source in found if isinstance(source, DicomStudy)] == [
        (OTHER_STUDY, (other,)),
        (STUDY, (one, two)),
    ]
    assert [source.folder for source in found] == [tmp_path / "a", tmp_path]


def test_places_that_overlap_are_read_once(tmp_path: Path) -> None:
    image = put_image(tmp_path / "a" / "deep" / "IM1")
    put_subject(tmp_path / "a" / "sub-01", "mrc.nii.gz")
    found = find_sources([tmp_path / "a", tmp_path / "a" / "deep", tmp_path / "a"], results=tmp_path / "out")
    assert [source.name for source in found] == [STUDY, "sub-01"]
    assert isinstance(found[0], DicomStudy)
    assert found[0].paths == (image,)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_uid_that_is_a_path_stays_out_of_paths(tmp_path: Path) -> None:
    put_image(tmp_path / "a" / "IM1", "../../../etc/cron.d/x")
    (study,) = find_sources([tmp_path / "a"], results=tmp_path / "out")
    assert SAFE_NAME.fullmatch(study.name)
    assert study.name.startswith("illegal-uid-")


def test_results_below_the_input_are_no_input(tmp_path: Path) -> None:
    image = put_image(tmp_path / "IM1")
    put_image(tmp_path / "results" / STUDY / "seg.dcm")
    put_subject(tmp_path / "results" / "x", "mrc.nii.gz", "hydrops.nii.gz")
    (study,) = find_sources([tmp_path], results=tmp_path / "results")
    assert isinstance(study, DicomStudy)
    assert study.paths == (image,)


def test_input_below_the_results_is_still_input_but_not_the_same_folder(tmp_path: Path) -> None:
    image = put_image(tmp_path / "study" / "IM1")
    (study,) = find_sources([tmp_path / "study"], results=tmp_path)
    assert isinstance(study, DicomStudy)
    assert study.paths == (image,)
    with pytest.raises(UnusableInput, match="expected results in another folder than the images"):
        find_sources([tmp_path / "study"], results=tmp_path / "study" / ".")


def test_a_link_that_leads_upward_does_not_lead_in_circles(tmp_path: Path) -> None:
    put_image(tmp_path / "a" / "IM1")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(find_sources([tmp_path], results=tmp_path / "out")) == 1


def test_a_folder_with_an_mrc_is_a_subject_and_unknown_names_are_left_out(tmp_path: Path) -> None:
    folder = put_subject(tmp_path / "site" / "sub-01", "mrc.nii.gz", "ppi.nii", "pei.nii.gz", "flair.nii.gz")
    put_subject(tmp_path / "site" / "sub-02", "hydrops.nii.gz")
    (subject,) = find_sources([tmp_path], results=tmp_path / "out")
    assert isinstance(subject, NiftiSubject)
    assert subject.name == "site_sub-01"
    assert subject.files == {
        SeriesRole.MRC: folder / "mrc.nii.gz",
        SeriesRole.PEI: folder / "pei.nii.gz",
        SeriesRole.PPI: folder / "ppi.nii",
    }
    assert subject.left_out == (folder / "flair.nii.gz",)


def test_subjects_of_one_name_at_two_sites_are_told_apart_the_same_way_each_time(tmp_path: Path) -> None:
    places = [put_subject(tmp_path / site / "sub-01", "mrc.nii.gz").parent for site in ("a", "b")]
    names = [source.name for source in find_sources(places, results=tmp_path / "out")]
    assert len(set(names)) == 2
    assert [name[:7] for name in names] == ["sub-01-", "sub-01-"]
    assert [source.name for source in find_sources(places[::-1], results=tmp_path / "out")] == names[::-1]


def test_a_table_names_files_beside_it_and_may_hold_other_columns(tmp_path: Path) -> None:
    table = tmp_path / "subjects.csv"
    table.write_text("subject,age,mrc,hydrops\nA-1,54,scans/a.nii.gz,scans/b.nii.gz\n", encoding="utf-8-sig")
    (subject,) = find_sources([table], results=tmp_path / "out")
    assert isinstance(subject, NiftiSubject)
    assert subject.files == {
        SeriesRole.MRC: tmp_path / "scans" / "a.nii.gz",
        SeriesRole.HYDROPS: tmp_path / "scans" / "b.nii.gz",
    }


WRONG_TABLES = {
    "no mrc": ("subject,mrc\nA,\n", r"line 2: expected a subject .* and its mrc file, found 'A' and ''"),
    "a path as a name": ("subject,mrc\n../A,a.nii.gz\n", "line 2: expected a subject"),
    "other columns": ("id,image\n1,a.nii.gz\n", "columns are subject, mrc"),
    "twice": ("subject,mrc\nA,a.nii\nA,b.nii\n", "expected every subject once, found twice: A"),
    "empty": ("subject,mrc\n", "found no DICOM image and no mrc"),
}


@pytest.mark.parametrize("kind", WRONG_TABLES)
def test_a_table_that_does_not_name_subjects_is_refused_with_the_line(kind: str, tmp_path: Path) -> None:
    content, message = WRONG_TABLES[kind]
    table = tmp_path / "subjects.csv"
    table.write_text(content)
    with pytest.raises(UnusableInput, match=message):
        find_sources([table], results=tmp_path / "out")


def test_a_place_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"nowhere: expected a folder, or a \.csv table of subjects"):
        find_sources([tmp_path / "nowhere"], results=tmp_path / "out")
