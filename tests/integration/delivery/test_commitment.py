"""Storage commitment with a real archive that answers late, twice, never, partly, on our association or its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from committing_archive import Archive, Saying, committed, said
from dicom_receivers import COMPREHENSIVE_3D_SR, SEG, destination, encoded
from pydicom.dataset import Dataset
from sqlalchemy import Engine

from dicom_node.database import open_database
from dicom_node.delivery import commitment_scu
from dicom_node.delivery.commitment_answers import MAX_REPORT_BYTES
from dicom_node.delivery.commitment_pump import CommitmentPump
from dicom_node.delivery.commitment_reports import ReportDesk
from dicom_node.delivery.commitment_rows import Commitment, CommitmentState
from dicom_node.delivery.commitments import MAX_SENT_AGAIN, Commitments
from dicom_node.delivery.completion import done_at
from dicom_node.delivery.outbox import Delivery, DeliveryState, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import Destination
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

STUDY = "2.25.7001"
SEG_UID, SR_UID = f"{STUDY}.3", f"{STUDY}.2"
QUICK = RetryPolicy(first_retry_s=0.3, max_retry_s=0.6, give_up_after_s=3600)
STAY_S = 0.2
"""So long our association waits for the answer here: reports after it have to come by another one."""


class Node:
    """What delivers and asks, with a listener that takes reports; on a real database."""

    def __init__(self, folder: Path, engine: Engine, archive: Archive, policy: RetryPolicy) -> None:
        self.engine = engine
        self.outbox = Outbox(folder / "outbox", engine)
        self.commitments = Commitments(engine, policy=policy)
        desk = ReportDesk(self.commitments, clock=time.time)
        self.listener = Listener(
            ListenerOptions(ae_title="HYDROPS", port=0, allowed=(_peer("PACS"), _peer("SCANNER"))),
            Spool(folder / "spool", engine),
            on_report=desk.answer,
        )
        self.listener.start()
        archive.home = self.listener.port
        self.destination = replace(destination(archive.port), to_commit=True)
        self._asking = _asking(self.commitments, self.destination)
        self._sending = DeliveryPump(
            self.outbox,
            [self.destination],
            {"dicom": store},
            policy=policy,
            clock=time.time,
            on_delivered=lambda _delivery: self._asking.wake(),
        )

    def start(self, *kinds: str) -> None:
        """Put a study's results and send them."""
        self.outbox.put("key", STUDY, [_result(kind) for kind in kinds], ["pacs"], at=time.time())
        self._sending.start()
        self._asking.start()

    def send_again(self) -> None:
        self.outbox.send_again("key", ["pacs"], at=time.time())
        self._sending.wake()

    def deliveries(self, condition: Callable[[list[Delivery]], bool]) -> list[Delivery]:
        """All deliveries as soon as the condition holds."""
        deadline = time.monotonic() + 10
        while not condition(found := self.outbox.deliveries(STUDY)):
            assert time.monotonic() < deadline, found
            self._sending.wake()  # another process would look by itself, only later
            time.sleep(0.02)
        return found

    def commitments_once(self, *states: CommitmentState) -> list[Commitment]:
        """The commitments of all deliveries in their order, once they are in these states."""
        found = self.deliveries(lambda all_: [one.commitment and one.commitment.state for one in all_] == [*states])
        return [one.commitment for one in found if one.commitment is not None]

    def stop(self) -> None:
        assert self._sending.stop(10.0)
        assert self._asking.stop(10.0)
        self.listener.stop(drain_s=5.0)


AWAITED, COMMITTED, NOT_COMMITTED = CommitmentState.AWAITED, CommitmentState.COMMITTED, CommitmentState.NOT_COMMITTED


@contextmanager
def running(folder: Path, archive: Archive, *, policy: RetryPolicy = QUICK) -> Iterator[Node]:
    with archive.listening():
        engine = open_database(f"sqlite:///{folder / 'node.db'}")
        node = Node(folder, engine, archive, policy)
        try:
            yield node
        finally:
            node.stop()
            engine.dispose()


def test_p19_an_answer_on_the_same_association_commits_all_objects_of_a_study_in_one_question(tmp_path: Path) -> None:
    archive = Archive()
    with running(tmp_path, archive) as node:
        node.start("SEG", "SR")
        found = node.commitments_once(COMMITTED, COMMITTED)
        archive_asked = archive.asked(0)
        assert done_at(node.engine, STUDY) is not None
    assert sorted(archive_asked) == sorted([SEG_UID, SR_UID])
    assert [one.asked for one in found] == [1, 1]
    assert archive.answers == [0x0000]
    assert len(archive.requests) == 1


@pytest.mark.parametrize("with_role", [True, False], ids=["role selection", "no role selection"])
def test_p19_an_answer_on_an_association_that_the_archive_opens_counts(tmp_path: Path, with_role: bool) -> None:
    archive = Archive(plan=lambda _number, asked: [committed(asked, same_association=False)], with_role=with_role)
    with running(tmp_path, archive) as node:
        node.start("SEG")
        node.commitments_once(COMMITTED)
    assert archive.answers == [0x0000]
    assert len(archive.requests) == 1


def test_p19_an_answer_that_comes_late_about_an_earlier_question_counts(tmp_path: Path) -> None:
    def plan(number: int, asked: Dataset) -> Sequence[Saying]:
        return [committed(asked, after_s=0.9, same_association=False)] if number == 0 else []

    archive = Archive(plan=plan)
    with running(tmp_path, archive) as node:
        node.start("SEG")
        (found,) = node.commitments_once(COMMITTED)
    assert found.asked > 1
    assert len(set(archive.transactions)) == len(archive.transactions) > 1


def test_p19_an_answer_that_comes_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    def plan(_number: int, asked: Dataset) -> Sequence[Saying]:
        again = said(asked, {SEG_UID: 0x0112}, same_association=False)
        return [committed(asked), committed(asked, same_association=False), again]

    archive = Archive(plan=plan)
    with running(tmp_path, archive) as node:
        node.start("SEG")
        node.deliveries(lambda _all: len(archive.answers) == 3)
        node.commitments_once(COMMITTED)
    assert archive.answers == [0x0000] * 3
    assert archive.stored == [SEG_UID]


def test_p19_without_an_answer_it_asks_again_under_new_transactions_and_ends_visibly(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive, policy=replace(QUICK, give_up_after_s=1.5)) as node:
        node.start("SEG")
        (found,) = node.commitments_once(NOT_COMMITTED)
        assert node.outbox.not_committed_since(0.0)[0].sop_instance_uid == SEG_UID
        assert done_at(node.engine, STUDY) is None
    assert len(set(archive.transactions)) == len(archive.transactions) == found.asked >= 3
    assert "given up after" in found.last_detail
    assert archive.stored == [SEG_UID]


def test_p19_sending_again_after_the_end_asks_again(tmp_path: Path) -> None:
    silent = [True]
    archive = Archive(plan=lambda _number, asked: [] if silent else [committed(asked)])
    with running(tmp_path, archive, policy=replace(QUICK, give_up_after_s=0.5)) as node:
        node.start("SEG")
        node.commitments_once(NOT_COMMITTED)
        silent.clear()
        node.send_again()
        node.commitments_once(COMMITTED)
    assert archive.stored == [SEG_UID] * 2


def test_p19_what_a_partial_answer_leaves_out_is_asked_again_alone(tmp_path: Path) -> None:
    def plan(number: int, asked: Dataset) -> Sequence[Saying]:
        return [said(asked, {}, leaving_out=[SR_UID]) if number == 0 else committed(asked)]

    archive = Archive(plan=plan)
    with running(tmp_path, archive) as node:
        node.start("SEG", "SR")
        found = node.commitments_once(COMMITTED, COMMITTED)
        assert archive.asked(1) == [SR_UID]
    assert [one.asked for one in found] == [1, 2]


def test_p19_an_object_that_was_lost_there_is_sent_again_and_then_committed(tmp_path: Path) -> None:
    def plan(number: int, asked: Dataset) -> Sequence[Saying]:
        return [said(asked, {SEG_UID: 0x0112} if number == 0 else {})]

    archive = Archive(plan=plan)
    with running(tmp_path, archive) as node:
        node.start("SEG", "SR")
        found = node.commitments_once(COMMITTED, COMMITTED)
        assert archive.asked(1) == [SEG_UID]
    assert archive.stored == [SEG_UID, SR_UID, SEG_UID]
    assert [one.sent_again for one in found] == [1, 0]


def test_p19_an_archive_that_loses_every_copy_is_given_up_after_some(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, asked: [said(asked, {SEG_UID: 0x0112})])
    with running(tmp_path, archive) as node:
        node.start("SEG")
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
    with running(tmp_path, archive) as node:
        node.start("SEG")
        node.deliveries(lambda _all: len(archive.requests) == 3)  # ... lost, sent again and asked about once more
        assert archive.say(committed(first[0])) == 0x0000  # ... and now vouched for as it was at first
        (found,) = node.commitments_once(AWAITED)
    assert found.sent_again == 1


def test_p19_an_archive_that_is_no_scp_of_storage_commitment_is_told_at_once(tmp_path: Path) -> None:
    archive = Archive(takes_commitment=False)
    with running(tmp_path, archive) as node:
        node.start("SEG")
        (found,) = node.commitments_once(NOT_COMMITTED)
        assert "does not take Storage Commitment" in commitment_scu.would_vouch(node.destination).detail
    assert 'set done = "sent"' in found.last_detail


def test_p19_a_report_that_we_did_not_ask_for_changes_nothing_and_is_answered_with_a_failure(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive) as node:
        node.start("SEG")
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
        node.start("SEG")
        node.deliveries(lambda _all: bool(archive.requests))
        with pytest.raises(AssertionError, match="did not let the archive in"):
            replace(archive, ae_title="STRANGER").say(committed(archive.requests[0]))
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
    with running(tmp_path, archive) as node:
        node.start("SEG")
        (found,) = node.commitments_once(COMMITTED)
    assert found.asked == 2
    assert archive.answers == [0x0000, 0x0000]


def test_p19_reports_that_say_nothing_are_answered_with_a_failure_each(tmp_path: Path) -> None:
    archive = Archive(plan=lambda _number, _asked: [])
    with running(tmp_path, archive) as node:
        node.start("SEG")
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
        node.start("SEG")
        node.commitments_once(AWAITED)
        only_sent = _asking(node.commitments, replace(node.destination, to_commit=False))
        only_sent.start()
        (delivery,) = node.deliveries(lambda all_: all_[0].commitment is None)
        assert only_sent.stop()
        assert done_at(node.engine, STUDY) == delivery.last_attempt_at
    assert delivery.state is DeliveryState.DELIVERED


def _asking(commitments: Commitments, *destinations: Destination) -> CommitmentPump:
    return CommitmentPump(
        commitments,
        destinations,
        reports=ReportDesk(commitments, clock=time.time),
        asker=partial(commitment_scu.ask, stay_s=STAY_S),
        clock=time.time,
    )


def _peer(ae_title: str) -> AllowedPeer:
    return AllowedPeer(ae_title=ae_title, networks=("127.0.0.0/8",))


def _result(kind: str) -> OutboxObject:
    sop_class = {"SEG": SEG, "SR": COMPREHENSIVE_3D_SR}[kind]
    uid = f"{STUDY}.{len(kind)}"
    data = encoded(sop_class, sop_instance_uid=uid, study_instance_uid=STUDY)
    return OutboxObject(
        kind=kind, sop_class_uid=sop_class, sop_instance_uid=uid, series_instance_uid=f"{uid}.1", data=data
    )
