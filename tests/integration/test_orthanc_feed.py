"""Images travel from a real Orthanc into the spool, whatever is killed, reset, replaced or damaged on the way."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from local_orthanc import LocalOrthanc
from orthanc_parts import dicom_file, mr_series, put, stable_events, storescu
from patience import PATIENCE_S, wait_until
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    SegmentationStorage,
    generate_uid,
)

from dicom_node.database import open_database, writing
from dicom_node.errors import Reason, Refusal, TransientError
from dicom_node.intake.orthanc_feed import FeedCondition, FeedOptions, OrthancFeed
from dicom_node.intake.part10 import split_file
from dicom_node.intake.spool import Spool
from dicom_node.orthanc_client import AttachedFile, OrthancClient
from dicom_node.orthanc_http import Answer, OrthancAccessDenied, OrthancUnavailable

pytestmark = [pytest.mark.orthanc]


class Node:
    """The part of the node that is tested here: state database, spool and feed on one folder."""

    def __init__(self, folder: Path, orthanc: LocalOrthanc, *, password: str | None = None, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.refusals: list[tuple[str, Refusal]] = []
        self.engine: sa.Engine = open_database(f"sqlite:///{folder / 'node.db'}")
        self.spool = Spool(folder / "spool", self.engine)
        self.client = OrthancClient(
            orthanc.url, username=orthanc.username, password=password or orthanc.password, timeout_s=PATIENCE_S
        )
        self.feed = OrthancFeed(
            self.client,
            self.spool,
            self.engine,
            options=FeedOptions(**{"poll_interval_s": 0.2, "quiet_s": 0.0, **options}),
            on_refusal=lambda study, refusal: self.refusals.append((study, refusal)),
        )

    def datasets(self, study: str) -> set[bytes]:
        return {split_file(one.path.read_bytes()).dataset for one in self.spool.instances(study)}


def sent_datasets(files: list[bytes]) -> set[bytes]:
    return {split_file(one).dataset for one in files}


@pytest.fixture
def orthanc() -> Iterator[LocalOrthanc]:
    with LocalOrthanc(extra={"StableAge": 1}) as local:
        yield local


@pytest.fixture
def node(tmp_path: Path, orthanc: LocalOrthanc) -> Node:
    return Node(tmp_path / "node", orthanc)


@pytest.mark.dcmtk
def test_a_series_sent_to_orthanc_is_spooled_byte_for_byte(orthanc: LocalOrthanc, node: Node, tmp_path: Path) -> None:
    study, _, files = mr_series(30)
    storescu(orthanc, files, tmp_path / "sent")
    assert node.feed.poll_once() == 30
    assert node.datasets(study) == sent_datasets(files)
    assert node.feed.poll_once() == 0


def test_orthanc_sends_the_digest_of_receipt_along_with_an_image(orthanc: LocalOrthanc, node: Node) -> None:
    (file,) = mr_series(1)[2]
    (stored,) = put(orthanc, [file])
    sent = node.client.instance_with_md5(stored["ID"], limit_bytes=10_000)
    assert sent == AttachedFile(content=file, md5=hashlib.md5(file, usedforsecurity=False).hexdigest())
    assert node.client.instance_with_md5("0" * 8 + 4 * ("-" + "0" * 8), limit_bytes=10_000) is None


def test_enhanced_mr_is_taken_and_nothing_else_of_the_study(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, enhanced = mr_series(1, sop_class=EnhancedMRImageStorage)
    for sop_class, modality in ((CTImageStorage, "CT"), (SegmentationStorage, "SEG"), (EnhancedSRStorage, "SR")):
        put(orthanc, mr_series(2, study=study, sop_class=sop_class, modality=modality)[2])
    put(orthanc, enhanced)
    assert node.feed.poll_once() == 1
    assert node.datasets(study) == sent_datasets(enhanced)


def test_results_written_back_start_nothing(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, files = mr_series(2)
    put(orthanc, files)
    node.feed.poll_once()
    before = node.spool.studies()
    put(orthanc, mr_series(1, study=study, sop_class=SegmentationStorage, modality="SEG")[2])
    assert node.feed.poll_once() + node.feed.reconcile_once() == 0
    assert node.spool.studies() == before


def test_a_foreign_object_in_an_mr_series_does_not_count_as_expected(orthanc: LocalOrthanc, node: Node) -> None:
    study, series, files = mr_series(3)
    put(orthanc, [*files, dicom_file(study, series, 4, sop_class=UID("1.2.840.10008.5.1.4.1.1.66"))])
    wait_until(lambda: stable_events(orthanc) == 1)
    node.feed.poll_once()
    assert node.spool.arrivals(study)[series].expected == 3


@pytest.fixture
def restless() -> Iterator[LocalOrthanc]:
    """An Orthanc in which no series comes to rest, however long a busy machine takes; only a restart forgets it."""
    with LocalOrthanc(extra={"StableAge": round(10 * PATIENCE_S)}) as local:
        yield local


def test_the_count_is_asked_back_only_when_orthanc_has_come_to_rest(restless: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", restless)
    study, series, files = mr_series(5)
    put(restless, files[:3])
    node.feed.poll_once()
    assert node.spool.arrivals(study)[series].expected is None
    put(restless, files[3:])
    node.feed.poll_once()
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (5, None)
    restless.kill()
    restless.start()
    node.feed.poll_once()
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (5, 5)


def test_a_series_that_came_to_rest_has_its_count(orthanc: LocalOrthanc, node: Node) -> None:
    study, series, files = mr_series(5)
    put(orthanc, files)
    wait_until(lambda: stable_events(orthanc) == 1)
    node.feed.poll_once()
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (5, 5)


def test_orthanc_killed_before_the_series_is_stable_loses_nothing(restless: LocalOrthanc, tmp_path: Path) -> None:
    orthanc, node = restless, Node(tmp_path / "node", restless)
    study, series, files = mr_series(8)
    put(orthanc, files[:4])
    node.feed.poll_once()
    put(orthanc, files[4:])
    orthanc.kill()
    orthanc.start()
    assert stable_events(orthanc) == 0  # it lives in memory and never comes again
    node.feed.poll_once()
    assert node.datasets(study) == sent_datasets(files)
    assert node.spool.arrivals(study)[series].expected == 8


@pytest.mark.parametrize("node_restarted", [False, True], ids=["node runs", "node restarted"])
def test_half_a_series_is_not_taken_for_the_whole_after_orthanc_was_restarted_in_the_middle(
    restless: LocalOrthanc, tmp_path: Path, node_restarted: bool
) -> None:
    orthanc, node = restless, Node(tmp_path / "node", restless, quiet_s=1.0)
    study, series, files = mr_series(6)
    put(orthanc, files[:3])
    node.feed.poll_once()
    orthanc.kill()
    orthanc.start()
    if node_restarted:
        node = Node(tmp_path / "node", restless, quiet_s=1.0)
    put(orthanc, mr_series(1)[2])  # of another series, so that it has news
    assert all(one.is_stable for one in node.client.mr_series() if one.series_instance_uid == series)
    assert (node.feed.poll_once(), node.feed.reconcile_once()) == (1, 0)
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (3, None)
    put(orthanc, files[3:])
    orthanc.kill()
    orthanc.start()
    assert node.feed.poll_once() == 3
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (6, None)
    time.sleep(1.1)
    node.feed.poll_once()
    assert node.spool.arrivals(study)[series].expected == 6


def test_a_series_that_was_at_rest_is_so_still_after_a_restart_of_the_node(
    orthanc: LocalOrthanc, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(orthanc, mr_series(2)[2])
    wait_until(lambda: stable_events(orthanc) == 1)
    node.feed.poll_once()
    again = Node(tmp_path / "node", orthanc, quiet_s=PATIENCE_S)
    again.feed.reconcile_once()
    asked = Mock(wraps=again.client.series)
    monkeypatch.setattr(again.client, "series", asked)
    again.feed.poll_once()
    assert asked.call_count == 0


def test_an_image_damaged_on_the_nodes_disk_is_fetched_again(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, files = mr_series(3)
    put(orthanc, files)
    wait_until(lambda: stable_events(orthanc) == 1)
    assert (node.feed.poll_once(), node.feed.reconcile_once()) == (3, 0)
    path = node.spool.instances(study)[0].path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert len(node.spool.set_damaged_aside(study)) == 1
    assert node.feed.reconcile_once() == 1
    assert node.datasets(study) == sent_datasets(files)
    assert node.spool.refusals(study) == []


def test_an_erased_study_is_not_fetched_again(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, files = mr_series(2)
    put(orthanc, files)
    wait_until(lambda: stable_events(orthanc) == 1)
    assert node.feed.poll_once() == 2
    with writing(node.engine) as connection:
        node.spool.take_out(study, at=time.time(), within=connection)
    assert node.feed.reconcile_once() == 0
    assert node.spool.instances(study) == []


def test_a_series_that_came_while_the_node_was_down_is_read_from_the_cursor(
    orthanc: LocalOrthanc, node: Node, tmp_path: Path
) -> None:
    put(orthanc, mr_series(2)[2])
    node.feed.poll_once()
    study, _, files = mr_series(3)
    put(orthanc, files)
    assert Node(tmp_path / "node", orthanc).feed.poll_once() == 3
    assert node.datasets(study) == sent_datasets(files)


def test_the_look_at_the_start_finds_what_the_change_log_no_longer_tells(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, files = mr_series(3)
    put(orthanc, files)
    assert orthanc.session.delete(f"{orthanc.url}/changes", timeout=PATIENCE_S).status_code == 200
    assert node.feed.poll_once() == 0
    assert node.feed.reconcile_once() == 3
    assert node.datasets(study) == sent_datasets(files)


def test_a_series_that_a_comparison_fails_on_does_not_keep_it_from_the_next_one(
    orthanc: LocalOrthanc, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [mr_series(2) for _ in range(3)]
    bad = {put(orthanc, files)[0]["ParentSeries"] for _, _, files in studies[:1]}
    for _, _, files in studies[1:]:
        put(orthanc, files)
    orthanc.session.delete(f"{orthanc.url}/changes", timeout=PATIENCE_S)
    assert node.feed.poll_once() == 0
    listed = node.client.instances_of_series

    def fail_on_one(series_id: str) -> dict[str, str] | None:
        if series_id in bad:
            raise OrthancUnavailable("HTTP 500", status=500)
        return listed(series_id)

    monkeypatch.setattr(node.client, "instances_of_series", fail_on_one)
    assert (node.feed.reconcile_once(), node.feed.reconcile_once()) == (4, 0)
    bad.clear()
    assert node.feed.reconcile_once() == 2


def test_the_cursor_survives_a_restart_of_the_node(orthanc: LocalOrthanc, node: Node, tmp_path: Path) -> None:
    put(orthanc, mr_series(4)[2])
    node.feed.poll_once()
    elsewhere = Node(tmp_path / "empty", orthanc)
    again = OrthancFeed(node.client, elsewhere.spool, node.engine)
    assert again.poll_once() == 0  # an empty spool, but the cursor says that everything was read
    assert elsewhere.feed.poll_once() == 4


@pytest.mark.parametrize("count", [1, 12], ids=["shorter log", "longer log"])
def test_an_orthanc_begun_anew_is_read_from_its_start(orthanc: LocalOrthanc, node: Node, count: int) -> None:
    put(orthanc, mr_series(5)[2])
    node.feed.poll_once()
    orthanc.kill()
    shutil.rmtree(orthanc.folder / "db")
    orthanc.start()
    study, _, files = mr_series(count)
    put(orthanc, files)
    assert node.feed.poll_once() == count
    assert node.datasets(study) == sent_datasets(files)


def test_a_node_that_meets_an_old_archive_does_not_fetch_its_past(tmp_path: Path) -> None:
    with LocalOrthanc(extra={"StableAge": 60}) as orthanc:
        put(orthanc, mr_series(2)[2])
        time.sleep(2.1)
        node = Node(tmp_path / "node", orthanc, reconcile_window_h=1 / 3600)
        assert node.feed.poll_once() + node.feed.reconcile_once() == 0
        put(orthanc, mr_series(3)[2])
        assert node.feed.poll_once() == 3


def test_a_deleted_study_leaves_a_gap_and_no_error(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, files = mr_series(2)
    gone = put(orthanc, mr_series(2)[2])[0]["ParentStudy"]
    node.feed.poll_once()
    assert orthanc.session.delete(f"{orthanc.url}/studies/{gone}", timeout=PATIENCE_S).status_code == 200
    assert node.feed.poll_once() == 0
    put(orthanc, files)
    assert node.feed.poll_once() == 2
    assert node.datasets(study) == sent_datasets(files)


def test_many_changes_are_read_page_by_page(orthanc: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", orthanc, page_size=3)
    first, second = mr_series(4), mr_series(5)
    for pair in zip(first[2], second[2], strict=False):  # two series whose images alternate
        put(orthanc, list(pair))
    put(orthanc, second[2][4:])
    assert node.feed.poll_once() == 9
    assert node.feed.poll_once() == 0


def test_a_replaced_image_is_kept_as_a_conflict(tmp_path: Path) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True}) as orthanc:
        node = Node(tmp_path / "node", orthanc)
        study, series, _ = mr_series(0)
        uid = generate_uid()
        for number in (1, 2):
            put(orthanc, [dicom_file(study, series, number, sop_instance_uid=uid)])
            assert node.feed.poll_once() == 1
        assert [one.conflict for one in node.spool.instances(study)] == [True, True]


def storage_files(orthanc: LocalOrthanc) -> list[Path]:
    return [path for path in (orthanc.folder / "db").glob("*/*/*") if path.is_file()]


def test_a_file_damaged_on_orthancs_disk_is_refused(orthanc: LocalOrthanc, node: Node) -> None:
    study, series, files = mr_series(1)
    put(orthanc, files)
    orthanc.kill()  # so that it does not answer from memory
    (path,) = storage_files(orthanc)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 0xFF
    path.write_bytes(damaged)
    orthanc.start()
    assert node.feed.poll_once() == 0
    assert node.spool.instances(study) == []
    ((refused_study, refusal),) = node.refusals
    assert (refused_study, refusal.series_instance_uid, refusal.reason) == (study, series, Reason.SOURCE_CORRUPT)
    assert node.spool.refusals(study) == [refusal]


def test_an_image_deleted_while_its_series_is_taken_is_not_counted(
    orthanc: LocalOrthanc, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, series, files = mr_series(3)
    doomed = put(orthanc, files)[0]["ID"]
    wait_until(lambda: stable_events(orthanc) == 1)
    listed = node.client.instances_of_series

    def list_and_delete(series_id: str) -> dict[str, str] | None:
        found = listed(series_id)
        orthanc.session.delete(f"{orthanc.url}/instances/{doomed}", timeout=PATIENCE_S)
        return found

    monkeypatch.setattr(node.client, "instances_of_series", list_and_delete)
    assert node.feed.reconcile_once() == 2
    assert node.spool.arrivals(study)[series].expected == 2


def test_a_damaged_file_that_is_put_back_is_taken_at_the_next_comparison(orthanc: LocalOrthanc, node: Node) -> None:
    study, _, files = mr_series(1)
    put(orthanc, files)
    wait_until(lambda: stable_events(orthanc) == 1)
    orthanc.kill()
    (path,) = storage_files(orthanc)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    orthanc.start()
    assert (node.feed.poll_once(), node.feed.reconcile_once()) == (0, 0)
    assert len(node.refusals) == 1  # the same again is no news
    orthanc.kill()
    path.write_bytes(whole)
    orthanc.start()
    assert node.feed.reconcile_once() == 1
    assert node.datasets(study) == sent_datasets(files)
    assert (node.spool.refusals(study), node.feed.status().left_out) == ([], 0)


def test_an_image_that_is_put_right_at_the_source_is_no_longer_held_against_its_study(
    orthanc: LocalOrthanc, node: Node
) -> None:
    study, series, files = mr_series(2)
    uid = generate_uid()
    bad = dicom_file(study, series, 3, syntax=DeflatedExplicitVRLittleEndian, sop_instance_uid=uid)
    (*_, bad_one) = put(orthanc, [*files, bad])
    node.feed.poll_once()
    (refusal,) = node.spool.refusals(study)
    assert (refusal.series_instance_uid, refusal.reason) == (series, Reason.TS_UNSUPPORTED)
    revision = node.spool.studies()[0].revision
    node.feed.reconcile_once()
    assert node.spool.studies()[0].revision == revision  # the same again is no news
    orthanc.session.delete(f"{orthanc.url}/instances/{bad_one['ID']}")
    put(orthanc, [dicom_file(study, series, 3, sop_instance_uid=uid)])
    assert node.feed.poll_once() == 1
    assert node.spool.refusals(study) == []


def test_a_deflated_image_is_refused_and_its_neighbors_are_taken(orthanc: LocalOrthanc, node: Node) -> None:
    study, series, files = mr_series(2)
    put(orthanc, [*files, dicom_file(study, series, 3, syntax=DeflatedExplicitVRLittleEndian)])
    assert node.feed.poll_once() == 2
    assert node.datasets(study) == sent_datasets(files)
    assert [refusal.reason for _, refusal in node.refusals] == [Reason.TS_UNSUPPORTED]
    assert node.feed.status().left_out == 1


def test_only_what_the_listener_offers_is_taken(orthanc: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", orthanc, transfer_syntaxes=frozenset({"1.2.840.10008.1.2"}))
    put(orthanc, mr_series(1)[2])
    assert node.feed.poll_once() == 0
    assert [refusal.reason for _, refusal in node.refusals] == [Reason.TS_UNSUPPORTED]


def test_an_image_above_the_size_limit_is_refused_without_reading_it(orthanc: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", orthanc, max_instance_bytes=600)
    put(orthanc, mr_series(1)[2])
    assert node.feed.poll_once() == 0
    assert [refusal.reason for _, refusal in node.refusals] == [Reason.SIZE_LIMIT]


def test_a_wrong_password_is_explained_and_tried_again(orthanc: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", orthanc, password="wrong")
    with pytest.raises(OrthancAccessDenied, match=r"refuses user 'hydrops'.*RegisteredUsers"):
        node.feed.poll_once()
    with running(node):
        wait_until(lambda: node.feed.status().condition is FeedCondition.DENIED)


class running:  # noqa: N801 - reads as a sentence: with running(node)
    """Runs the feed of a node in its thread."""

    def __init__(self, node: Node) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=node.feed.run, args=(self.stop,))

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def test_a_wake_up_is_answered_at_once(orthanc: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", orthanc, poll_interval_s=10 * PATIENCE_S)
    with running(node):
        wait_until(lambda: node.feed.status().condition is FeedCondition.READING)
        study, _, files = mr_series(2)
        put(orthanc, files)
        node.feed.wake()
        wait_until(lambda: len(node.spool.instances(study)) == 2)
        assert node.feed.status().condition is FeedCondition.READING


def test_images_are_fetched_while_their_series_arrives(restless: LocalOrthanc, tmp_path: Path) -> None:
    node = Node(tmp_path / "node", restless, poll_interval_s=10 * PATIENCE_S)
    study, _, files = mr_series(5)
    with running(node):
        wait_until(lambda: node.feed.status().condition is FeedCondition.READING)
        for number, one in enumerate(files, start=1):
            put(restless, [one])
            if number == 1:
                node.feed.wake()
            wait_until(lambda number=number: len(node.spool.instances(study)) == number)
        assert node.datasets(study) == sent_datasets(files)


def test_a_look_at_which_nothing_is_new_is_one_question(
    restless: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "node", restless)
    series = put(restless, mr_series(3)[2])[0]["ParentSeries"]
    assert node.feed.look_once() == 3
    asked: list[str] = []
    request = node.client.request

    def noted(method: str, path: str, **more: Any) -> Answer:
        asked.append(path)
        return request(method, path, **more)

    monkeypatch.setattr(node.client, "request", noted)
    assert node.feed.look_once() == 0
    assert asked == ["/changes"]
    assert node.feed.poll_once() == 0
    assert asked[1:] == [f"/series/{series}", "/changes"]


def test_an_image_replaced_while_its_series_arrives_is_kept_as_a_conflict(tmp_path: Path) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True, "StableAge": round(10 * PATIENCE_S)}) as orthanc:
        node = Node(tmp_path / "node", orthanc)
        study, series, files = mr_series(3)
        uid = generate_uid()
        put(orthanc, [*files, dicom_file(study, series, 4, sop_instance_uid=uid)])
        assert (node.feed.look_once(), node.feed.look_once()) == (4, 0)
        put(orthanc, [dicom_file(study, series, 5, sop_instance_uid=uid)])
        assert (node.feed.look_once(), node.feed.poll_once()) == (1, 0)
        assert [one.conflict for one in node.spool.instances(study)].count(True) == 2


class Faults:
    """Stands before a node's way to the files of an Orthanc: counts the questions, and fails where it is told to."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.internal: set[str] = set()  # HTTP 500 for these ids
        self.not_found: set[str] = set()  # HTTP 404 for these
        self.cut_off_at: int | None = None  # come later (HTTP 503) is the answer to the question of this number
        self._get = node.client.instance_with_md5
        monkeypatch.setattr(node.client, "instance_with_md5", self._answer)

    def _answer(self, instance_id: str, *, limit_bytes: int) -> AttachedFile | None:
        self.asked.append(instance_id)
        if len(self.asked) == self.cut_off_at:
            raise OrthancUnavailable("cut off", status=503)
        if instance_id in self.internal:
            raise OrthancUnavailable("HTTP 500", status=500)
        if instance_id in self.not_found:
            return None
        return self._get(instance_id, limit_bytes=limit_bytes)


def test_what_came_before_a_connection_broke_is_not_fetched_again(
    restless: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "node", restless, parallel=1)
    studies = [mr_series(6) for _ in range(2)]
    for _, _, files in studies:
        put(restless, files)
    faults = Faults(node, monkeypatch)
    for images in (5, 5):  # none of these looks comes to the end of what there is to do
        faults.asked.clear()
        faults.cut_off_at = images + 1
        with pytest.raises(OrthancUnavailable):
            node.feed.poll_once()
    faults.asked.clear()
    faults.cut_off_at = None
    node.feed.poll_once()
    assert len(faults.asked) <= 2 + 2  # one that was on its way when a look ended may be asked for again
    for study, series, files in studies:
        assert node.datasets(study) == sent_datasets(files)
        assert node.spool.arrivals(study)[series].received == 6
    faults.asked.clear()
    assert (node.feed.poll_once(), faults.asked) == (0, [])


def test_an_image_replaced_after_a_look_that_failed_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True, "StableAge": round(10 * PATIENCE_S)}) as orthanc:
        node = Node(tmp_path / "node", orthanc, parallel=1)
        study, series, _ = mr_series(0)
        uids = [generate_uid() for _ in range(3)]
        put(orthanc, [dicom_file(study, series, n, sop_instance_uid=uid) for n, uid in enumerate(uids)])
        faults = Faults(node, monkeypatch)
        faults.cut_off_at = 3
        with pytest.raises(OrthancUnavailable):
            node.feed.look_once()
        put(orthanc, [dicom_file(study, series, 10 + n, sop_instance_uid=uid) for n, uid in enumerate(uids)])
        node.feed.look_once()
        assert len(node.spool.instances(study)) == 3 + 2


def test_an_image_that_was_given_up_is_asked_for_again_though_its_series_came_to_rest(
    orthanc: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "node", orthanc, attempts_per_instance=1)
    study, series, files = mr_series(3)
    faults = Faults(node, monkeypatch)
    faults.internal = {put(orthanc, files)[1]["ID"]}
    node.feed.poll_once()
    wait_until(lambda: stable_events(orthanc) == 1)
    node.feed.poll_once()
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (2, 3)
    faults.internal.clear()
    assert node.feed.reconcile_once() == 1
    assert node.datasets(study) == sent_datasets(files)


def test_a_file_that_is_not_found_though_orthanc_lists_its_image_is_not_taken_for_deleted(
    orthanc: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "node", orthanc, attempts_per_instance=2)
    study, series, files = mr_series(3)
    faults = Faults(node, monkeypatch)
    faults.not_found = {put(orthanc, files)[1]["ID"]}
    wait_until(lambda: stable_events(orthanc) == 1)
    with pytest.raises(TransientError, match="failed on 1 instances"):
        node.feed.poll_once()
    node.feed.poll_once()
    assert (node.spool.arrivals(study)[series].received, node.spool.arrivals(study)[series].expected) == (2, 3)
    faults.not_found.clear()
    assert node.feed.reconcile_once() == 1
    assert node.datasets(study) == sent_datasets(files)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_replaced_image_that_was_given_up_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True, "StableAge": 1}) as orthanc:
        node = Node(tmp_path / "node", orthanc, attempts_per_instance=1)
        study, series, _ = mr_series(0)
        uids = [generate_uid() for _ in range(2)]
        put(orthanc, [dicom_file(study, series, number, sop_instance_uid=uid) for number, uid in enumerate(uids)])
        assert node.feed.poll_once() == 2
        faults = Faults(node, monkeypatch)
        faults.internal = {put(orthanc, [dicom_file(study, series, 5, sop_instance_uid=uids[0])])[0]["ID"]}
        wait_until(lambda: stable_events(orthanc) == 1)
        assert (node.feed.poll_once(), node.feed.reconcile_once()) == (0, 0)
        if restarted:
            node = Node(tmp_path / "node", orthanc)
        faults.internal.clear()
        assert (node.feed.poll_once(), node.feed.reconcile_once()) == (0, 1)
        assert [one.conflict for one in node.spool.instances(study)].count(True) == 2
        faults.asked.clear()
        assert (node.feed.reconcile_once(), faults.asked) == (0, [])
        with node.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM orthanc_replaced").scalar_one() == 0


def test_a_replaced_image_that_is_damaged_stays_a_reason_against_its_study(tmp_path: Path) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True, "StableAge": 1}) as orthanc:
        node = Node(tmp_path / "node", orthanc)
        study, series, files = mr_series(1)
        uid = generate_uid()
        put(orthanc, [*files, dicom_file(study, series, 7, sop_instance_uid=uid)])
        assert node.feed.poll_once() == 2
        put(orthanc, [dicom_file(study, series, 8, sop_instance_uid=uid, syntax=DeflatedExplicitVRLittleEndian)])
        wait_until(lambda: stable_events(orthanc) == 1)
        assert node.feed.poll_once() == 0
        (refusal,) = node.spool.refusals(study)
        again = Node(tmp_path / "node", orthanc)
        assert (again.feed.poll_once(), again.feed.reconcile_once()) == (0, 0)
        assert again.spool.refusals(study) == [refusal]


def test_the_cursor_does_not_pass_an_image_that_is_owed_though_it_was_asked_for_ahead_of_its_row(
    restless: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "node", restless)
    files = mr_series(2)[2]
    put(restless, files[:1])
    assert node.feed.poll_once() == 1
    faults = Faults(node, monkeypatch)
    faults.internal = {put(restless, files[1:])[0]["ID"]}
    with monkeypatch.context() as patched:
        patched.setattr(node.client, "changes", Mock(side_effect=OrthancUnavailable("away")))
        with pytest.raises(OrthancUnavailable):
            node.feed.poll_once()
    with pytest.raises(TransientError, match="failed on 1 instances"):
        node.feed.look_once()


def test_an_image_replaced_between_its_fetching_ahead_and_its_row_is_kept_as_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True, "StableAge": round(10 * PATIENCE_S)}) as orthanc:
        node = Node(tmp_path / "node", orthanc)
        study, series, files = mr_series(1)
        uid = generate_uid()
        put(orthanc, files)
        assert node.feed.poll_once() == 1
        put(orthanc, [dicom_file(study, series, 2, sop_instance_uid=uid)])
        with monkeypatch.context() as patched:
            patched.setattr(node.client, "changes", Mock(side_effect=OrthancUnavailable("away")))
            with pytest.raises(OrthancUnavailable):
                node.feed.poll_once()
        assert len(node.spool.instances(study)) == 2
        time.sleep(1.1)  # Orthanc's times are whole seconds
        put(orthanc, [dicom_file(study, series, 3, sop_instance_uid=uid)])
        assert node.feed.look_once() == 1
        assert [one.conflict for one in node.spool.instances(study)].count(True) == 2


def test_an_image_replaced_right_after_a_comparison_fetched_it_is_kept_as_a_conflict(tmp_path: Path) -> None:
    with LocalOrthanc(extra={"OverwriteInstances": True, "StableAge": round(10 * PATIENCE_S)}) as orthanc:
        node = Node(tmp_path / "node", orthanc)
        study, series, _ = mr_series(0)
        uid = generate_uid()
        put(orthanc, [dicom_file(study, series, 1, sop_instance_uid=uid)])
        assert orthanc.session.delete(f"{orthanc.url}/changes", timeout=PATIENCE_S).status_code == 200
        assert (node.feed.poll_once(), node.feed.reconcile_once()) == (0, 1)
        put(orthanc, [dicom_file(study, series, 2, sop_instance_uid=uid)])
        assert node.feed.look_once() == 1
        assert [one.conflict for one in node.spool.instances(study)] == [True, True]


def test_the_running_feed_waits_out_a_dead_orthanc(orthanc: LocalOrthanc, node: Node) -> None:
    with running(node):
        wait_until(lambda: node.feed.status().condition is FeedCondition.READING)
        orthanc.kill()
        wait_until(lambda: node.feed.status().condition is FeedCondition.UNREACHABLE)
        orthanc.start()
        study, series, files = mr_series(3)
        put(orthanc, files)
        wait_until(lambda: node.spool.arrivals(study).get(series) is not None)
        wait_until(lambda: node.spool.arrivals(study)[series].expected == 3)
