"""Storage commitment with a real archive that answers late, twice, never, partly, on our association or its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from committing_archive import Archive, Saying, committed, said
from committing_node import ONCE, QUICK, SEG_UID, SR_UID, STUDY, CommittingNode, archive_at, asking, committing_node
from dicom_receivers import COMPREHENSIVE_3D_SR, SEG
from free_ports import free_port
from local_orthanc import LocalOrthanc
from patience import PATIENCE_S
from pydicom.dataset import Dataset
from sqlalchemy import update

from dicom_node.database import writing
from dicom_node.delivery.commitment_answers import MAX_REPORT_BYTES
from dicom_node.delivery.commitment_rows import CommitmentState, commitment_rows
from dicom_node.delivery.commitment_scu import would_vouch
from dicom_node.delivery.commitments import MAX_SENT_AGAIN
from dicom_node.delivery.completion import done_at
from dicom_node.delivery.outbox import Delivery, DeliveryState, RetryPolicy

AWAITED, COMMITTED, NOT_COMMITTED = CommitmentState.AWAITED, CommitmentState.COMMITTED, CommitmentState.NOT_COMMITTED


KILL_WHILE_ASKING = Path(__file__).with_name("kill_while_asking.py")


@contextmanager
def running(folder: Path, archive: Archive, *, policy: RetryPolicy = ONCE) -> Iterator[CommittingNode]:
    """A node that sends to the archive and asks it, and whose listener the archive knows."""
    with archive.listening(), committing_node(folder, policy=policy) as node:
        archive.home = node.listener.port
        node.ask(archive_at(archive.port))
        node.send_to(archive.port)
        yield node


def test_p19_an_answer_on_the_same_association_commits_all_objects_of_a_study_in_one_question(tmp_path: Path) -> None:
    archive = Archive()
    with running(tmp_path, archive) as node:
        node.put("SEG", "SR")
        found = node.commitments_once(COMMITTED, COMMITTED)
        archive_asked = archive.asked(0)
        assert done_at(node.engine, STUDY) is not None
    assert sorted(archive_asked) == sorted([SEG_UID, SR_UID])
    assert [one.asked for one in found] == [1, 1]
    assert archive.answers == [0x0000]
    assert len(archive.requests) == 1


def test_p19_an_answer_that_comes_before_the_response_to_the_question_counts(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, asked: [committed(asked, before_response=True)])
    with running(tmp_path, archive) as node:
        node.put("SEG")
        (found,) = node.commitments_once(COMMITTED)
    assert archive.answers == [0x0000]
    assert found.asked == 1


@pytest.mark.parametrize("with_role", [True, False], ids=["role selection", "no role selection"])
def test_p19_an_answer_on_an_association_that_the_archive_opens_counts(tmp_path: Path, with_role: bool) -> None:
    archive = Archive(plan=lambda _number, asked: [committed(asked, same_association=False)], with_role=with_role)
    with running(tmp_path, archive) as node:
        node.put("SEG")
        node.commitments_once(COMMITTED)
    assert archive.answers == [0x0000]
    assert len(archive.requests) == 1


def test_p19_an_answer_that_comes_late_about_an_earlier_question_counts(tmp_path: Path) -> None:
    def plan(number: int, _asked: Dataset) -> Sequence[Saying]:
        # Only once the second question is here: how long our association stays, and how busy the machine is, is one.
        return [committed(archive.requests[0], same_association=False)] if number == 1 else []

    archive = Archive(plan=plan)
    with running(tmp_path, archive, policy=QUICK) as node:
        node.put("SEG")
        (found,) = node.commitments_once(COMMITTED)
    assert found.asked > 1
    assert len(set(archive.transactions)) == len(archive.transactions) > 1


def test_p19_an_answer_that_comes_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    def plan(_number: int, asked: Dataset) -> Sequence[Saying]:
        again = said(asked, {SEG_UID: 0x0112}, same_association=False)
        return [committed(asked), committed(asked, same_association=False), again]

    archive = Archive(plan=plan)
    with running(tmp_path, archive) as node:
        node.put("SEG")
        node.deliveries(lambda _all: len(archive.answers) == 3)
        node.commitments_once(COMMITTED)
    assert archive.answers == [0x0000] * 3
    assert archive.stored == [SEG_UID]


def test_p19_without_an_answer_it_asks_again_under_new_transactions_and_ends_visibly(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive, policy=replace(QUICK, give_up_after_s=5.0)) as node:
        node.put("SEG")
        (found,) = node.commitments_once(NOT_COMMITTED)
        assert node.outbox.not_committed_since(0.0)[0].sop_instance_uid == SEG_UID
        assert done_at(node.engine, STUDY) is None
    assert len(set(archive.transactions)) == len(archive.transactions) == found.asked > 1
    assert "given up after" in found.last_detail
    assert archive.stored == [SEG_UID]


def test_p19_sending_again_after_the_end_asks_again(tmp_path: Path) -> None:
    silent = [True]
    archive = Archive(plan=lambda _number, asked: [] if silent else [committed(asked)])
    with running(tmp_path, archive, policy=replace(QUICK, give_up_after_s=0.5)) as node:
        node.put("SEG")
        node.commitments_once(NOT_COMMITTED)
        silent.clear()
        node.send_again()
        node.commitments_once(COMMITTED)
    assert archive.stored == [SEG_UID] * 2


def test_p19_what_a_partial_answer_leaves_out_is_asked_again_alone(tmp_path: Path) -> None:
    def plan(_number: int, asked: Dataset) -> Sequence[Saying]:
        return [committed(asked) if len(asked.ReferencedSOPSequence) == 1 else said(asked, {}, leaving_out=[SR_UID])]

    archive = Archive(plan=plan)
    with running(tmp_path, archive, policy=QUICK) as node:
        node.put("SEG", "SR")
        found = node.commitments_once(COMMITTED, COMMITTED)
        assert archive.asked(-1) == [SR_UID]
    assert found[0].asked < found[1].asked


def test_p19_an_object_that_was_lost_there_is_sent_again_and_then_committed(tmp_path: Path) -> None:
    def plan(number: int, asked: Dataset) -> Sequence[Saying]:
        return [said(asked, {SEG_UID: 0x0112} if number == 0 else {})]

    archive = Archive(plan=plan)
    with running(tmp_path, archive) as node:
        node.put("SEG", "SR")
        found = node.commitments_once(COMMITTED, COMMITTED)
        assert archive.asked(1) == [SEG_UID]
    assert archive.stored == [SEG_UID, SR_UID, SEG_UID]
    assert [one.sent_again for one in found] == [1, 0]


def test_p19_an_archive_that_loses_every_copy_is_given_up_after_some(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, asked: [said(asked, {SEG_UID: 0x0112})])
    with running(tmp_path, archive) as node:
        node.put("SEG")
        (found,) = node.commitments_once(NOT_COMMITTED)
    assert archive.stored == [SEG_UID] * (1 + MAX_SENT_AGAIN)
    assert found.last_reason == 0x0112
    assert f"{1 + MAX_SENT_AGAIN} copies were lost" in found.last_detail


def test_p19_an_answer_about_a_copy_that_was_lost_since_does_not_count(tmp_path: Path) -> None:
    first: list[Dataset] = []

    def plan(number: int, asked: Dataset) -> Sequence[Saying]:
        if number == 0:  # never answered in time ...
            first.append(asked)
            return []
        return [said(asked, {SEG_UID: 0x0112})] if number == 1 else []

    archive = Archive(plan=plan)
    with running(tmp_path, archive, policy=QUICK) as node:
        node.put("SEG")
        node.deliveries(_asked_about_again)  # ... lost, sent again and asked about once more
        assert archive.say(committed(first[0])) == 0x0000  # ... and now vouched for as it was at first
        (found,) = node.commitments_once(AWAITED)
    assert found.sent_again == 1


def test_p19_an_archive_that_is_no_scp_of_storage_commitment_is_told_at_once(tmp_path: Path) -> None:
    archive = Archive(takes_commitment=False)
    with running(tmp_path, archive) as node:
        node.put("SEG")
        (found,) = node.commitments_once(NOT_COMMITTED)
        assert "does not take Storage Commitment" in would_vouch(archive_at(archive.port)).detail
    assert 'set done = "sent"' in found.last_detail


def test_p19_a_report_that_we_did_not_ask_for_changes_nothing_and_is_answered_with_a_failure(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive) as node:
        node.put("SEG")
        node.deliveries(lambda _all: bool(archive.requests))
        invented = Dataset()
        invented.update(archive.requests[0])
        invented.TransactionUID = "2.25.4711"
        elsewhere = replace(archive, ae_title="SCANNER")
        refused = [archive.say(committed(invented)), elsewhere.say(committed(archive.requests[0]))]
        node.commitments_once(AWAITED)
    assert refused == [0x0115, 0x0115]


def test_p19_a_peer_that_is_not_listed_cannot_report(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive) as node:
        node.put("SEG")
        node.deliveries(lambda _all: bool(archive.requests))
        assert replace(archive, ae_title="STRANGER").say(committed(archive.requests[0])) is None
        assert node.listener.tally.rejections() == {"1/1/3": 1}
        node.commitments_once(AWAITED)


def test_p19_objects_that_we_did_not_ask_about_and_other_classes_are_passed_over(tmp_path: Path) -> None:
    def plan(number: int, asked: Dataset) -> Sequence[Saying]:
        report = committed(asked)
        assert report.information is not None
        kept = report.information.ReferencedSOPSequence
        if number == 0:
            kept[0].ReferencedSOPClassUID = COMPREHENSIVE_3D_SR  # the right instance as another kind of object
        stranger = Dataset()
        stranger.ReferencedSOPClassUID, stranger.ReferencedSOPInstanceUID = SEG, "2.25.4711"
        kept.append(stranger)
        return [report]

    archive = Archive(plan=plan)
    with running(tmp_path, archive, policy=QUICK) as node:
        node.put("SEG")
        (found,) = node.commitments_once(COMMITTED)
    assert found.asked > 1
    assert set(archive.answers) == {0x0000}


def test_p19_reports_that_say_nothing_are_answered_with_a_failure_each(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive) as node:
        node.put("SEG")
        node.deliveries(lambda _all: bool(archive.requests))
        asked = archive.requests[0]
        nameless = committed(asked)
        assert nameless.information is not None
        del nameless.information.TransactionUID
        endless = committed(asked)
        assert endless.information is not None
        endless.information.add_new(0x00091010, "OB", bytes(MAX_REPORT_BYTES))
        empty = Saying(event_type=1, information=None)
        unlike = (replace(committed(asked), event_type=3), nameless, empty, endless)
        statuses = [archive.say(one) for one in unlike]
        node.commitments_once(AWAITED)
    assert statuses == [0x0113, 0x0114, 0x0114, 0x0213]


def test_p19_a_destination_that_is_to_commit_no_longer_is_asked_nothing_more(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive) as node:
        node.put("SEG")
        node.commitments_once(AWAITED)
        only_sent = asking(node.commitments, replace(archive_at(archive.port), to_commit=False))
        only_sent.start()
        (delivery,) = node.deliveries(lambda all_: all_[0].commitment is None)
        assert only_sent.stop()
        assert done_at(node.engine, STUDY) == delivery.last_attempt_at
    assert delivery.state is DeliveryState.DELIVERED


@pytest.mark.parametrize("step", ["delivery kept", "question kept", "question sent", "report came", "report kept"])
def test_p19_a_node_killed_at_any_step_goes_on_and_sends_nothing_twice(tmp_path: Path, step: str) -> None:
    silent = Archive(plan=lambda _number, asked: [committed(asked)] if step.startswith("report") else [])
    with silent.listening(), committing_node(tmp_path) as node:
        node.put("SEG")
        command = [sys.executable, str(KILL_WHILE_ASKING), str(tmp_path), str(silent.port), step]
        ended = subprocess.run(command, timeout=PATIENCE_S, check=False)
        assert ended.returncode == -signal.SIGKILL
    archive = Archive(port=silent.port)
    with running(tmp_path, archive, policy=QUICK) as node:
        _let_time_pass(node)
        node.commitments_once(COMMITTED)
    assert [*silent.stored, *archive.stored] == [SEG_UID]
    assert not {*silent.transactions} & {*archive.transactions}


@pytest.mark.orthanc
def test_p19_orthanc_commits_what_it_has_and_gets_again_what_it_lost(tmp_path: Path) -> None:
    home = free_port()
    us = {"AET": "HYDROPS", "Host": "127.0.0.1", "Port": home}
    with (
        LocalOrthanc(aet="PACS", extra={"DicomModalities": {"hydrops": us}}) as orthanc,
        committing_node(tmp_path, port=home) as node,
    ):
        node.put("SEG", "SR")
        node.send_to(orthanc.dicom_port)
        node.deliveries(lambda all_: all(one.state is DeliveryState.DELIVERED for one in all_))
        (lost,) = orthanc.session.post(f"{orthanc.url}/tools/lookup", data=SEG_UID).json()
        orthanc.session.delete(f"{orthanc.url}/instances/{lost['ID']}").raise_for_status()
        node.ask(archive_at(orthanc.dicom_port))
        found = node.commitments_once(COMMITTED, COMMITTED)
        assert orthanc.session.post(f"{orthanc.url}/tools/lookup", data=SEG_UID).json()
    assert [one.sent_again for one in found] == [1, 0]


def _asked_about_again(deliveries: list[Delivery]) -> bool:
    """Whether the first object was lost, sent again, and asked about since."""
    word = deliveries[0].commitment
    return word is not None and word.sent_again == 1 and word.asked > 0


def _let_time_pass(node: CommittingNode) -> None:
    """The pause after an unanswered question is over."""
    with writing(node.engine) as connection:
        connection.execute(update(commitment_rows).values(next_ask_at=0.0))
