"""The outbox on a real SQLite file and a real folder."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from queued_results import put
from sqlalchemy import Engine

from dicom_node.database import open_database
from dicom_node.delivery.outbox import DeliveryState, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.errors import OutputMismatch

STUDY = "2.25.100"
SEG = OutboxObject(
    kind="SEG",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
    sop_instance_uid="2.25.201",
    series_instance_uid="2.25.200",
    data=b"segmentation",
)
SR = OutboxObject(
    kind="SR",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    sop_instance_uid="2.25.301",
    series_instance_uid="2.25.300",
    data=b"report",
)
DELIVERED = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="stored", status=0)
LATER = DeliveryOutcome(kind=OutcomeKind.RETRY_LATER, detail="no connection")
STOPPED = DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="not supported", status=0x0122)
POLICY = RetryPolicy()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(f"sqlite:///{tmp_path / 'node.db'}")


@pytest.fixture
def outbox(tmp_path: Path, engine: Engine) -> Outbox:
    return Outbox(tmp_path / "outbox", engine, random=Random(1))


def test_every_object_is_queued_once_for_every_destination(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG, SR], ["pacs", "archive"], at=0.0)
    put(outbox, "key", STUDY, [SEG, SR], ["pacs", "archive"], at=5.0)
    queued = [(one.kind, one.destination, one.queued_at) for one in outbox.deliveries(STUDY)]
    assert sorted(queued) == [
        ("SEG", "archive", 0.0),
        ("SEG", "pacs", 0.0),
        ("SR", "archive", 0.0),
        ("SR", "pacs", 0.0),
    ]


def test_the_first_bytes_of_a_uid_stay_whatever_is_put_later(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    encoded_again = OutboxObject(**{**vars(SEG), "data": b"segmentation, encoded a second later"})
    put(outbox, "key", STUDY, [encoded_again], ["pacs"], at=1.0)
    assert outbox.read(SEG.sop_instance_uid) == b"segmentation"
    assert len(list((tmp_path / "outbox").iterdir())) == 1


def test_a_destination_added_later_gets_the_kept_bytes(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    put(outbox, "key", STUDY, [OutboxObject(**{**vars(SEG), "data": b"other"})], ["pacs", "archive"], at=1.0)
    assert [one.sop_instance_uid for one in outbox.due("archive", now=1.0)] == [SEG.sop_instance_uid]
    assert outbox.read(SEG.sop_instance_uid) == b"segmentation"


def test_many_threads_that_put_the_same_leave_one_row_each(outbox: Outbox, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        puts = [pool.submit(put, outbox, "key", STUDY, [SEG, SR], ["pacs", "archive"], 0.0) for _ in range(24)]
        for one in puts:
            one.result()
    assert len(outbox.deliveries(STUDY)) == 4
    assert len(list((tmp_path / "outbox").iterdir())) == 2


def test_the_report_waits_for_its_segmentation_however_they_were_put(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SR, SEG], ["pacs"], at=0.0)
    (segmentation,) = outbox.due("pacs", now=0.0)
    assert segmentation.kind == "SEG"
    outbox.record(segmentation.delivery_id, LATER, 0.0, POLICY)
    assert outbox.due("pacs", now=1.0) == []
    outbox.record(segmentation.delivery_id, DELIVERED, 40.0, POLICY)
    assert [one.kind for one in outbox.due("pacs", now=40.0)] == ["SR"]


def test_a_refused_segmentation_does_not_hold_the_report_back(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG, SR], ["pacs"], at=0.0)
    outbox.record(outbox.due("pacs", now=0.0)[0].delivery_id, STOPPED, 0.0, POLICY)
    assert [one.kind for one in outbox.due("pacs", now=0.0)] == ["SR"]


def test_a_segmentation_that_waits_for_one_destination_holds_no_report_of_another_back(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG, SR], ["pacs", "archive"], at=0.0)
    outbox.record(outbox.due("archive", now=0.0)[0].delivery_id, DELIVERED, 0.0, POLICY)
    assert [one.kind for one in outbox.due("archive", now=0.0)] == ["SR"]
    assert [one.kind for one in outbox.due("pacs", now=0.0)] == ["SEG"]


def test_the_next_attempt_is_that_of_the_segmentation_not_of_the_report_behind_it(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG, SR], ["pacs"], at=0.0)
    planned = outbox.record(outbox.due("pacs", now=0.0)[0].delivery_id, LATER, 0.0, POLICY)
    assert outbox.next_attempt_at("pacs") == planned.next_attempt_at
    assert outbox.next_attempt_at("archive") is None


def test_delays_double_with_jitter_up_to_ten_minutes() -> None:
    full = [POLICY.delay_s(failures, chance=0.0) for failures in range(1, 8)]
    assert full == [30, 60, 120, 240, 480, 600, 600]
    assert POLICY.delay_s(3, chance=1.0) == pytest.approx(96.0)
    assert POLICY.delay_s(100_000, chance=0.0) == 600


def test_a_destination_that_stays_away_becomes_a_dead_letter_after_72_hours(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    now, attempts = 0.0, 0
    while due := outbox.due("pacs", now):
        delivery = outbox.record(due[0].delivery_id, LATER, now, POLICY)
        attempts += 1
        now = delivery.next_attempt_at
    assert delivery.state is DeliveryState.STOPPED
    assert 71.8 * 3600 < delivery.last_attempt_at <= 72 * 3600
    assert "given up after 72 h" in delivery.last_detail
    assert "no connection" in delivery.last_detail
    # 72 h at a cap of 480 to 600 s: neither a busy loop nor a long sleep.
    assert 432 <= attempts <= 560
    assert outbox.dead_letters() == [delivery]


def test_sending_again_gives_a_dead_letter_all_its_time_again(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG, SR], ["pacs", "archive"], at=0.0)
    for destination in ("pacs", "archive"):
        outbox.record(outbox.due(destination, now=0.0)[0].delivery_id, STOPPED, 0.0, POLICY)
    assert outbox.send_again("key", ["pacs"], at=500_000.0) == 2
    (again, _report) = sorted(outbox.deliveries(STUDY), key=lambda one: (one.destination != "pacs", one.kind))[:2]
    assert (again.state, again.attempts, again.queued_at) == (DeliveryState.WAITING, 0, 500_000.0)
    assert outbox.record(again.delivery_id, LATER, 500_000.0, POLICY).state is DeliveryState.WAITING
    assert [one.destination for one in outbox.dead_letters()] == ["archive"]


def test_sending_again_repeats_what_was_delivered_and_nothing_of_other_work(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    outbox.record(outbox.due("pacs", now=0.0)[0].delivery_id, DELIVERED, 0.0, POLICY)
    assert outbox.send_again("other key", ["pacs"], at=1.0) == 0
    assert outbox.due("pacs", now=1.0) == []
    assert outbox.send_again("key", ["pacs"], at=1.0) == 1
    assert [one.sop_instance_uid for one in outbox.due("pacs", now=1.0)] == [SEG.sop_instance_uid]


def test_one_flipped_bit_on_disk_keeps_the_object_in(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    (file,) = (tmp_path / "outbox").iterdir()
    file.write_bytes(bytes([SEG.data[0] ^ 1]) + SEG.data[1:])
    with pytest.raises(OutputMismatch, match=r"2\.25\.201: damaged on disk"):
        outbox.read(SEG.sop_instance_uid)


def test_a_missing_file_keeps_the_object_in(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    (file,) = (tmp_path / "outbox").iterdir()
    file.unlink()
    with pytest.raises(OutputMismatch, match="missing"):
        outbox.read(SEG.sop_instance_uid)


def test_no_file_name_comes_from_a_dicom_value(outbox: Outbox, tmp_path: Path) -> None:
    hostile = OutboxObject(**{**vars(SEG), "sop_instance_uid": "../../escape"})
    put(outbox, "key", STUDY, [hostile], ["pacs"], at=0.0)
    assert outbox.read("../../escape") == SEG.data
    assert not (tmp_path / "escape").exists()
    assert all(len(path.stem) == 129 for path in (tmp_path / "outbox").iterdir())


def test_the_sweep_removes_old_leftovers_and_nothing_else(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    (tmp_path / "outbox" / "half.part").write_bytes(b"half")
    written_at = (tmp_path / "outbox" / "half.part").stat().st_mtime
    assert outbox.sweep(now=written_at + 60) == 0
    assert outbox.sweep(now=written_at + 7200) == 1
    assert outbox.read(SEG.sop_instance_uid) == SEG.data


@pytest.mark.parametrize("rotten", [False, True])
def test_f05_after_a_database_from_an_older_backup_an_object_goes_out_as_the_bytes_it_had(tmp_path: Path, rotten: bool):
    outbox = Outbox(tmp_path / "outbox", open_database(f"sqlite:///{tmp_path / 'node.db'}"))
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    (file,) = (tmp_path / "outbox").iterdir()
    if rotten:
        file.write_bytes(SEG.data[:-1] + b"?")
    restored = Outbox(tmp_path / "outbox", open_database(f"sqlite:///{tmp_path / 'older.db'}"))
    assert restored.sweep(now=file.stat().st_mtime + 86400.0) == 0
    anew = OutboxObject(**{**vars(SEG), "data": SEG.data + b"made a day later"})
    put(restored, "key", STUDY, [anew], ["pacs"], at=1.0)
    assert restored.read(SEG.sop_instance_uid) == (anew.data if rotten else SEG.data)


def test_a_whole_file_that_nobody_knows_is_removed_after_a_month(outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "outbox" / f"{'a' * 64}-{'b' * 64}.dcm").write_bytes(b"whole")
    written_at = next((tmp_path / "outbox").iterdir()).stat().st_mtime
    assert outbox.sweep(now=written_at + 29 * 86400) == 0
    assert outbox.sweep(now=written_at + 31 * 86400) == 1


def test_counts_tell_how_much_waits_arrived_and_stopped(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG, SR], ["pacs", "archive"], at=0.0)
    outbox.record(outbox.due("pacs", now=0.0)[0].delivery_id, DELIVERED, 0.0, POLICY)
    outbox.record(outbox.due("archive", now=0.0)[0].delivery_id, STOPPED, 0.0, POLICY)
    assert dict(outbox.counts()) == {
        DeliveryState.WAITING: 2,
        DeliveryState.DELIVERED: 1,
        DeliveryState.STOPPED: 1,
        DeliveryState.NOT_SENT: 0,
    }


def test_rows_outlive_the_process(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    reopened = Outbox(tmp_path / "outbox", open_database(f"sqlite:///{tmp_path / 'node.db'}"))
    (waiting,) = reopened.due("pacs", now=0.0)
    assert reopened.read(waiting.sop_instance_uid) == SEG.data


def test_hurry_brings_forward_only_what_waits_for_that_destination(outbox: Outbox) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs", "archive"], at=0.0)
    for destination in ("pacs", "archive"):
        outbox.record(outbox.due(destination, now=0.0)[0].delivery_id, LATER, 0.0, POLICY)
    outbox.hurry("pacs", now=5.0)
    assert [one.destination for one in outbox.due("pacs", now=5.0)] == ["pacs"]
    assert outbox.due("archive", now=5.0) == []


@pytest.mark.parametrize("slower", [LATER, STOPPED])
def test_what_another_worker_delivered_stays_delivered_whatever_the_slower_attempt_came_to(
    outbox: Outbox, slower: DeliveryOutcome
) -> None:
    put(outbox, "key", STUDY, [SEG], ["pacs"], at=0.0)
    (delivery,) = outbox.due("pacs", now=0.0)
    outbox.record(delivery.delivery_id, DELIVERED, 1.0, POLICY)
    assert outbox.record(delivery.delivery_id, slower, 2.0, POLICY).state is DeliveryState.DELIVERED
    assert outbox.due("pacs", now=1e9) == []


def test_first_bytes_that_are_found_again_are_not_swept_before_they_have_their_row(
    outbox: Outbox, tmp_path: Path
) -> None:
    outbox.keep([SEG])
    (path,) = (tmp_path / "outbox").iterdir()
    os.utime(path, (0, 0))
    kept = outbox.keep([OutboxObject(**{**vars(SEG), "data": b"encoded anew"})])
    assert outbox.sweep(path.stat().st_mtime + 3600.0) == 0  # by another worker that starts
    outbox.queue("key", STUDY, kept, ["pacs"], at=0.0)
    assert outbox.read(SEG.sop_instance_uid) == SEG.data
