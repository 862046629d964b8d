"""What the spool promises: durable before acknowledged, as received, once, and findable again after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pydicom
import pytest
from mr_images import as_file
from pydicom.uid import generate_uid

from dicom_node.database import open_database, writing
from dicom_node.errors import TransientError
from dicom_node.intake.spool import Spool, StoredKind
from dicom_node.intake.wire_check import UnstorableInstance

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@pytest.fixture
def keep(spool, encode):
    """Store an image in a spool, explicit VR little endian."""

    def kept(image, *, at=1000.0, into=spool):
        return into.store_dataset(encode(image), EXPLICIT_LE, source="SCANNER", at=at)

    return kept


def files(spool: Spool) -> list[Path]:
    return sorted(path for path in spool.directory.rglob("*") if path.is_file())


def test_a_new_instance_is_kept_byte_for_byte_under_our_own_header(spool, encode, make_mr):
    image = make_mr()
    dataset = encode(image, implicit=True)
    stored = spool.store_dataset(dataset, IMPLICIT_LE, source="SCANNER", at=1000.0)
    assert stored.kind is StoredKind.NEW
    assert stored.sha256 == hashlib.sha256(dataset).hexdigest()
    written = stored.path.read_bytes()
    assert written.startswith(bytes(128) + b"DICM")
    assert written.endswith(dataset)
    read = pydicom.dcmread(stored.path)
    assert read.file_meta.TransferSyntaxUID == IMPLICIT_LE
    assert read.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert read.file_meta.MediaStorageSOPClassUID == image.SOPClassUID
    assert read.file_meta.SourceApplicationEntityTitle == "SCANNER"
    assert read.PixelData == image.PixelData


def test_b16_a_preamble_that_is_a_program_is_not_kept(spool, make_mr):
    stored = spool.store(b"MZ" + as_file(make_mr())[2:], source="orthanc", at=1000.0)
    assert stored.path.read_bytes()[:128] == bytes(128)


@pytest.mark.parametrize(
    "broken", [b"", b"DICM", bytes(128) + b"DICM", bytes(128) + b"DICM\x02\x00\x10\x00UI\xff\xff1"]
)
def test_a_file_without_a_whole_header_is_refused(spool, broken):
    with pytest.raises(UnstorableInstance):
        spool.store(broken, source="orthanc", at=1000.0)
    assert files(spool) == []


def test_no_name_on_disk_is_a_value_of_the_data_set(keep, make_mr, spool):
    image = make_mr()
    keep(image)
    (path,) = files(spool)
    assert len(path.stem) == 64
    for value in (image.SOPInstanceUID, image.SeriesInstanceUID, image.PatientID, "SCANNER"):
        assert str(value) not in str(path.relative_to(spool.directory))


def test_b44_the_same_bytes_again_change_nothing(keep, make_mr, spool):
    image = make_mr()
    first = keep(image, at=1000.0)
    before = spool.studies()
    again = keep(image, at=2000.0)
    assert again.kind is StoredKind.DUPLICATE
    assert again.path == first.path
    assert spool.studies() == before
    assert len(files(spool)) == 1


def test_b45_another_content_of_a_uid_is_kept_beside_the_first_and_both_are_marked(keep, make_mr, spool):
    image = make_mr()
    keep(image, at=1000.0)
    revision = spool.studies()[0].revision
    image.PixelData = bytes(512)
    assert keep(image, at=2000.0).kind is StoredKind.CONFLICT
    both = spool.instances(image.StudyInstanceUID)
    assert [instance.conflict for instance in both] == [True, True]
    assert len({instance.sha256 for instance in both}) == 2
    assert all(instance.path.exists() for instance in both)
    assert spool.sop_instance_uids(image.StudyInstanceUID) == {image.SOPInstanceUID}
    assert spool.studies()[0].revision > revision
    assert spool.arrivals(image.StudyInstanceUID)[image.SeriesInstanceUID].received == 1
    assert keep(image, at=3000.0).kind is StoredKind.DUPLICATE


def test_b46_one_uid_in_two_series_of_two_studies_marks_both_studies(keep, make_mr, spool):
    image = make_mr()
    keep(image)
    study, revision = image.StudyInstanceUID, spool.studies()[0].revision
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    assert keep(image).kind is StoredKind.CONFLICT
    assert [instance.conflict for instance in spool.instances(study)] == [True]
    assert [instance.conflict for instance in spool.instances("1.2.3")] == [True]
    assert {one.study_instance_uid: one.revision for one in spool.studies()}[study] == revision + 1


def test_the_same_image_in_another_encoding_is_another_content(spool, encode, make_mr):
    image = make_mr()
    spool.store_dataset(encode(image), EXPLICIT_LE, source="A", at=1.0)
    stored = spool.store_dataset(encode(image, implicit=True), IMPLICIT_LE, source="A", at=2.0)
    assert stored.kind is StoredKind.CONFLICT


def test_arrivals_count_instances_and_remember_what_the_source_expects(keep, make_mr, spool):
    series = ["1.2.3.1", "1.2.3.2"]
    spool.set_expected(series[0], 3)
    for n, uid in enumerate([series[0], series[1], series[0]]):
        keep(make_mr(SeriesInstanceUID=uid), at=1000.0 + n)
    study = make_mr().StudyInstanceUID
    arrivals = spool.arrivals(study)
    assert {uid: (one.received, one.expected, one.last_received_at) for uid, one in arrivals.items()} == {
        series[0]: (2, 3, 1002.0),
        series[1]: (1, None, 1001.0),
    }
    assert spool.arrivals("1.9") == {}


def test_revision_grows_with_every_change_and_only_then(keep, make_mr, spool):
    image = make_mr()
    revisions = []
    for change in (
        lambda: keep(image),
        lambda: keep(make_mr()),
        lambda: keep(image),
        lambda: spool.set_expected(image.SeriesInstanceUID, 2),
        lambda: spool.set_expected(image.SeriesInstanceUID, 2),
        lambda: spool.set_expected(image.SeriesInstanceUID, 3),
    ):
        change()
        revisions.append(spool.studies()[0].revision)
    assert revisions == [1, 2, 2, 3, 3, 4]


def test_studies_come_in_the_order_of_their_last_image(keep, make_mr, spool):
    for study, at in (("1.1", 10.0), ("1.2", 20.0), ("1.1", 30.0)):
        keep(make_mr(StudyInstanceUID=study), at=at)
    assert [(one.study_instance_uid, one.instances, one.last_received_at) for one in spool.studies()] == [
        ("1.2", 1, 20.0),
        ("1.1", 2, 30.0),
    ]


def test_everything_is_there_after_a_restart(keep, make_mr, spool, tmp_path):
    image = make_mr()
    keep(image)
    again = Spool(tmp_path / "spool", open_database(f"sqlite:///{tmp_path / 'node.db'}"))
    report = again.sweep()
    assert (report.temporary_removed, report.reindexed, report.missing, report.damaged) == (0, (), (), ())
    assert again.instances(image.StudyInstanceUID) == spool.instances(image.StudyInstanceUID)


def test_sweep_removes_what_a_killed_receiver_left_half_written(keep, make_mr, spool):
    path = keep(make_mr()).path
    (path.parent / "0123-7.part").write_bytes(b"half an image")
    assert spool.sweep().temporary_removed == 1
    assert files(spool) == [path]


def test_sweep_gives_a_file_its_row_back_when_the_index_is_lost(keep, make_mr, spool, tmp_path):
    images = [make_mr() for _ in range(3)]
    for image in images:
        keep(image)
    images[0].PixelData = bytes(512)
    keep(images[0])
    rebuilt = Spool(tmp_path / "spool", open_database(f"sqlite:///{tmp_path / 'empty.db'}"))
    report = rebuilt.sweep()
    assert set(report.reindexed) == {image.SOPInstanceUID for image in images}
    study = images[0].StudyInstanceUID
    old = {one.sha256: (one.path, one.conflict, one.sop_class_uid) for one in spool.instances(study)}
    new = {one.sha256: (one.path, one.conflict, one.sop_class_uid) for one in rebuilt.instances(study)}
    assert new == old
    assert rebuilt.sweep().reindexed == ()


def test_sweep_takes_out_rows_whose_file_is_gone_and_says_which(keep, make_mr, spool):
    image, other = make_mr(), make_mr()
    path = keep(image).path
    keep(other)
    revision = spool.studies()[0].revision
    path.unlink()
    assert [gone.sop_instance_uid for gone in spool.sweep().missing] == [image.SOPInstanceUID]
    assert [kept.sop_instance_uid for kept in spool.instances(image.StudyInstanceUID)] == [other.SOPInstanceUID]
    assert spool.studies()[0].revision == revision + 1


def test_f12_an_image_that_is_sent_again_while_the_sweep_runs_keeps_its_row(keep, make_mr, spool, monkeypatch):
    """Between the look at its folder and the end of the sweep; another receiver has acknowledged it."""
    image = make_mr()
    keep(image).path.unlink()
    remove = Path.unlink

    def sent_again(path: Path, *, missing_ok: bool = False) -> None:
        keep(image)
        remove(path, missing_ok=missing_ok)

    half_written = spool.directory / "00" / "of-a-killed-receiver.part"
    half_written.touch()
    monkeypatch.setattr(Path, "unlink", sent_again)
    report = spool.sweep()
    assert (report.temporary_removed, report.missing) == (1, ())
    assert [one.sop_instance_uid for one in spool.instances(image.StudyInstanceUID)] == [image.SOPInstanceUID]


def test_a_file_that_was_lost_is_written_again_when_it_is_sent_again(keep, make_mr, spool):
    image = make_mr()
    path = keep(image).path
    path.unlink()
    assert keep(image).kind is StoredKind.DUPLICATE
    assert path.exists()


def test_f12_sweep_sets_aside_a_file_whose_content_is_not_what_its_name_says(keep, make_mr, spool, tmp_path):
    path = keep(make_mr()).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (path.parent / "stranger.dcm").write_bytes(b"no DICOM")
    fresh = Spool(tmp_path / "spool", open_database(f"sqlite:///{tmp_path / 'empty.db'}"))
    report = fresh.sweep()
    assert {one.name for one in report.damaged} == {path.name, "stranger.dcm"}
    assert report.reindexed == ()
    assert fresh.sweep().damaged == ()


def test_f08_below_the_watermark_nothing_is_written(spool, encode, make_mr, engine, tmp_path):
    full = Spool(tmp_path / "spool", engine, min_free_bytes=spool.free_bytes() * 2)
    with pytest.raises(TransientError, match="free"):
        full.store_dataset(encode(make_mr()), EXPLICIT_LE, source="A", at=1.0)
    assert files(full) == []
    assert full.studies() == []


@pytest.mark.parametrize("is_failing", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "directory"])
def test_f10_a_failed_fsync_is_a_failure_and_leaves_nothing(keep, make_mr, spool, monkeypatch, is_failing):
    keep(make_mr())
    before = files(spool)
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if is_failing(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    image = make_mr()
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TransientError, match="disk"):
        keep(image)
    monkeypatch.undo()
    assert files(spool) == before
    assert keep(image).kind is StoredKind.NEW


def test_f10_a_failed_flush_of_the_folder_leaves_alone_what_another_sender_was_promised(
    keep, make_mr, spool, monkeypatch
):
    image = make_mr()
    real_fsync, promised = os.fsync, []

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and not promised:
            promised.append(None)  # the same image by another association comes through just before
            promised.append(keep(image))
            raise OSError(errno.EIO, "injected")
        real_fsync(descriptor)

    keep(make_mr())  # folders are there
    monkeypatch.setattr("dicom_node.durable_file.os.fsync", fsync)
    with pytest.raises(TransientError):
        keep(image)
    assert promised[1].kind is StoredKind.NEW
    assert promised[1].path.is_file()


def test_f29_a_locked_index_is_try_later_and_the_file_is_found_at_the_next_start(tmp_path, encode, make_mr):
    url = f"sqlite:///{tmp_path / 'busy.db'}"
    spool = Spool(tmp_path / "busy", open_database(url, busy_timeout_s=0.1))
    with writing(open_database(url)), pytest.raises(TransientError, match="index"):
        spool.store_dataset(encode(make_mr()), EXPLICIT_LE, source="A", at=1.0)
    assert len(spool.sweep().reindexed) == 1


def test_b09_hostile_uids_reach_neither_disk_nor_index(spool, encode, make_mr, tmp_path):
    before = {path for path in tmp_path.rglob("*") if path.suffix == ".dcm"}
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        image = make_mr()
        encoded = encode(image).replace(getattr(image, keyword).encode(), b"../" * 5 + b"x" * 5, 1)
        with pytest.raises(UnstorableInstance):
            spool.store_dataset(encoded, EXPLICIT_LE, source="A", at=1.0)
    assert {path for path in tmp_path.rglob("*") if path.suffix == ".dcm"} == before
    assert spool.studies() == []


def test_a_source_that_is_no_ae_title_stays_out_of_the_file(spool, encode, make_mr):
    stored = spool.store_dataset(encode(make_mr(SOPInstanceUID=generate_uid())), EXPLICIT_LE, source="x" * 40, at=1.0)
    assert "SourceApplicationEntityTitle" not in pydicom.dcmread(stored.path).file_meta
