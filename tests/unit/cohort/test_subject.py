"""A subject's NIfTI files: which are used, what identifies the work, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.assembly.headers import SeriesRole
from dicom_node.cohort.sources import NiftiSubject, find_sources
from dicom_node.cohort.subject import Subject, open_subject
from dicom_node.encoding.nifti import nifti_bytes
from dicom_node.errors import Reason, UnusableInput
from inference.geometry import Volume, VolumeGeometry


def image(seed: int) -> bytes:
    geometry = VolumeGeometry(shape=(4, 5, 6), index_to_lps=np.eye(4), frame_of_reference_uid="1.2.3")
    values = np.random.default_rng(seed).normal(100.0, 10.0, geometry.shape).astype(np.float32)
    return nifti_bytes(Volume(array=values, geometry=geometry))


def put(folder: Path, **seeds: int) -> NiftiSubject:
    folder.mkdir()
    for name, seed in seeds.items():
        (folder / f"{name}.nii.gz").write_bytes(image(seed))
    (source,) = find_sources([folder], results=folder / "out")
    assert isinstance(source, NiftiSubject)
    return source


def digest(subject: Subject) -> str:
    return subject.key(model_sha256="m", settings_digest="s").digest


def test_ppi_and_pei_are_preferred_and_the_rest_is_left_out_with_the_reason(tmp_path: Path) -> None:
    subject = open_subject(put(tmp_path / "a", mrc=1, ppi=2, pei=3, hydrops=4, flair=5))
    assert set(subject.volumes) == {SeriesRole.MRC, SeriesRole.PPI, SeriesRole.PEI}
    assert [(one.role, one.reason) for one in subject.left_out] == [
        (SeriesRole.HYDROPS, "not needed beside MRC and PPI and PEI"),
        (SeriesRole.OTHER, subject.left_out[1].reason),
    ]
    assert "flair.nii.gz is none of mrc.nii.gz" in subject.left_out[1].reason
    assert len({one.series_instance_uid for one in subject.decisions}) == 5


def test_all_volumes_share_one_frame_of_reference_and_are_float32(tmp_path: Path) -> None:
    subject = open_subject(put(tmp_path / "a", mrc=1, hydrops=2))
    assert len({volume.geometry.frame_of_reference_uid for volume in subject.volumes.values()}) == 1
    assert {volume.array.dtype for volume in subject.volumes.values()} == {np.dtype(np.float32)}


def test_the_same_files_are_the_same_work_under_any_folder_and_another_role_is_other_work(tmp_path: Path) -> None:
    one = open_subject(put(tmp_path / "a", mrc=1, ppi=2, pei=3))
    again = open_subject(put(tmp_path / "b", mrc=1, ppi=2, pei=3))
    exchanged = open_subject(put(tmp_path / "c", mrc=1, ppi=3, pei=2))
    changed = open_subject(put(tmp_path / "d", mrc=1, ppi=2, pei=4))
    assert digest(one) == digest(again)
    assert one.study_instance_uid == again.study_instance_uid
    assert len({digest(one), digest(exchanged), digest(changed)}) == 3


def test_an_unused_file_changes_nothing_about_the_work(tmp_path: Path) -> None:
    plain = open_subject(put(tmp_path / "a", mrc=1, ppi=2, pei=3))
    more = open_subject(put(tmp_path / "b", mrc=1, ppi=2, pei=3, real_ir=9))
    assert digest(plain) == digest(more)


def test_an_mrc_alone_is_refused_with_what_was_found(tmp_path: Path) -> None:
    subject = open_subject(put(tmp_path / "a", mrc=1, ppi=2))
    assert subject.chosen is None
    assert subject.refusal is not None
    assert subject.refusal.reason is Reason.PARTNER_MISSING
    assert "found mrc.nii.gz, ppi.nii.gz" in subject.refusal.detail


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = put(tmp_path / "a", mrc=1, hydrops=2)
    (tmp_path / "a" / "hydrops.nii.gz").write_bytes(image(2)[:-20])
    with pytest.raises(UnusableInput, match=r"hydrops\.nii\.gz: expected a NIfTI image; it cannot be read"):
        open_subject(source)
    (tmp_path / "a" / "hydrops.nii.gz").unlink()
    with pytest.raises(UnusableInput, match=r"hydrops\.nii\.gz: cannot be read: No such file"):
        open_subject(source)
