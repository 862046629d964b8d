"""What the drift page counts of each study is what ledger, cards and outbox say, whether its line is written or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from local_postgresql import programs, running_postgresql
from queued_results import put
from sqlalchemy import Engine, delete, func, select, text

from dicom_node.database import metadata, open_database, writing
from dicom_node.delivery.commitment_answers import CommitmentReport
from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.drift_points import AT_A_TIME, DriftPoints
from dicom_node.drift_rows import drift_rows, owe_point, owed_points
from dicom_node.ledger import Ledger, StudyEvent
from dicom_node.retention.study_rows import forget
from dicom_node.study_cards import EarResult, StudyCard, StudyCards

POLICY = RetryPolicy()
ONE, TWO = "2.25.1", "2.25.2"
A, B, C = "a" * 64, "b" * 64, "c" * 64
NOW = 10_000.0
PACS = Destination(name="pacs", kind="dicom", called_ae="PACS")


@dataclass(frozen=True, kw_only=True)
class Node:
    """Ledger, cards and outbox on one database, and the lines of the drift page."""

    engine: Engine
    ledger: Ledger
    cards: StudyCards
    outbox: Outbox
    points: DriftPoints

    def seen(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Every study in words that can be compared, oldest first."""
        found = [
            {"scanner": scanner, **{name: record[name].tolist() for name in record.dtype.names}}
            for scanner, records in self.points.read(since=since).items()
            for record in records
        ]
        for one in found:
            one["ratios"] = tuple(ratio for ratio in one["ratios"] if not math.isnan(ratio))
            one["latency_s"] = None if math.isnan(one["latency_s"]) else one["latency_s"]
        return sorted(found, key=lambda one: one["finished_at"])

    def settled(self) -> list[dict[str, Any]]:
        """The same before and after the lines are written, which must not differ."""
        before = self.seen()
        while self.points.settle():
            pass
        assert self.count(owed_points) == 0
        assert self.seen() == before
        return before

    def count(self, table: Any) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0

    def finish(
        self, study: str, work_id: str, *, arrived: float, at: float, event: StudyEvent = StudyEvent.COMPUTED
    ) -> None:
        self.ledger.arrived(study, revision=2, at=arrived)
        self.compute(study, work_id, arrived=arrived, at=at, event=event)

    def compute(
        self, study: str, work_id: str, *, arrived: float, at: float, event: StudyEvent = StudyEvent.COMPUTED
    ) -> None:
        self.ledger.move(study, StudyEvent.COMPLETED, at=arrived + 1.0, work_id=work_id, work={})
        self.ledger.move(study, StudyEvent.STARTED, at=arrived + 2.0)
        self.ledger.move(study, event, at=at, findings={})

    def attempt(self, at: float, kind: OutcomeKind = OutcomeKind.DELIVERED, *, to_commit: bool = False) -> None:
        """One attempt at what waits longest."""
        waiting = self.outbox.due("pacs", NOW)[0]
        self.outbox.record(waiting.delivery_id, DeliveryOutcome(kind=kind, detail=""), at, POLICY, to_commit=to_commit)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    else:
        if programs() is None:
            pytest.skip("PostgreSQL is not installed")
        engine = open_database(request.getfixturevalue("server"))
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    ledger, cards, outbox = Ledger(engine), StudyCards(engine), Outbox(tmp_path / "outbox", engine)
    points = DriftPoints(engine, ledger=ledger, cards=cards, outbox=outbox)
    yield Node(engine=engine, ledger=ledger, cards=cards, outbox=outbox, points=points)
    engine.dispose()


def test_points_come_from_ledger_cards_and_outbox(node: Node) -> None:
    node.finish(ONE, A, arrived=100.0, at=130.0)
    node.finish(TWO, B, arrived=200.0, at=230.0, event=StudyEvent.REFUSED)
    for study in (ONE, TWO):
        node.cards.put(card(study))
    node.cards.put_results([result(ONE, A, "right", 0.2), result(ONE, A, "left", None)])
    for kind, after in (("SEG", 3.0), ("SR", 5.0)):
        put(node.outbox, A, ONE, [stored(kind)], ["pacs"], at=130.0)
        node.attempt(130.0 + after)
    put(node.outbox, B, TWO, [stored("PDF")], ["pacs"], at=230.0)  # still waits

    computed, refused = node.settled()
    assert (computed["ratios"], computed["flagged"], computed["refused"]) == ((0.2,), True, False)
    assert computed["latency_s"] == pytest.approx(35.0)  # from the last arrival to the second object's confirmation
    assert (refused["refused"], refused["scanner"], refused["latency_s"]) == (True, "Vida, MR1", None)
    assert node.seen(since=131.0) == [refused]


def test_a_study_that_was_measured_twice_counts_once_with_its_last_result(node: Node) -> None:
    node.finish(ONE, A, arrived=100.0, at=130.0)
    node.finish(TWO, B, arrived=200.0, at=230.0)
    node.settled()
    node.ledger.move(ONE, StudyEvent.REPLAYED, at=5000.0)
    node.compute(ONE, C, arrived=5001.0, at=5030.0)
    node.cards.put(card(ONE))
    for work_id, ratio, kind in ((A, 0.2, "SEG"), (C, 0.3, "SR")):
        node.cards.put_results([result(ONE, work_id, "right", ratio)])
        put(node.outbox, work_id, ONE, [stored(kind)], ["pacs"], at=5030.0)
        node.attempt(5035.0)

    other, measured_again = node.settled()
    assert other["finished_at"] == 230.0
    assert (measured_again["ratios"], measured_again["finished_at"]) == ((0.3,), 5030.0)
    assert measured_again["latency_s"] is None  # the images have lain there for long
    assert node.seen(since=5000.0) == [measured_again]  # also where its first result is older than what is looked at


def test_late_images_make_a_latency_of_their_own(node: Node) -> None:
    node.finish(ONE, A, arrived=100.0, at=130.0)
    node.finish(ONE, B, arrived=900.0, at=930.0)
    put(node.outbox, B, ONE, [stored("SEG")], ["pacs"], at=930.0)
    node.attempt(935.0)
    (point,) = node.settled()
    assert point["latency_s"] == pytest.approx(35.0)


def test_latency_counts_from_the_last_arrival_before_the_result(node: Node) -> None:
    node.ledger.arrived(ONE, revision=1, at=10.0)
    node.finish(ONE, A, arrived=500.0, at=530.0)
    node.ledger.arrived(ONE, revision=3, at=900.0)  # late images, after the result
    with node.engine.connect() as connection:
        assert [one.arrived_at for one in node.ledger.finished_of([ONE], within=connection)] == [500.0]


def test_whatever_happens_to_a_delivery_the_line_is_what_the_outbox_says(node: Node) -> None:
    def latency() -> float | None:
        (point,) = node.settled()
        latency_s: float | None = point["latency_s"]
        return latency_s

    node.finish(ONE, A, arrived=100.0, at=130.0)
    put(node.outbox, A, ONE, [stored("SEG")], ["pacs"], at=130.0)
    assert latency() is None
    node.attempt(135.0, OutcomeKind.RETRY_LATER)
    assert node.count(owed_points) == 0  # nothing that counts has changed
    node.attempt(140.0)
    assert latency() == pytest.approx(40.0)
    put(node.outbox, A, ONE, [stored("PAGE")], ["pacs"], at=150.0)  # the page follows
    assert latency() is None
    node.attempt(160.0)
    assert latency() == pytest.approx(60.0)
    node.outbox.send_again(A, ["pacs"], at=200.0)
    assert latency() is None
    node.attempt(210.0)
    node.attempt(220.0, OutcomeKind.STOPPED)
    assert latency() is None
    node.outbox.send_again(A, ["pacs"], at=300.0)
    node.attempt(310.0)
    node.attempt(320.0, OutcomeKind.NOT_TAKEN)
    assert latency() == pytest.approx(210.0)


def test_what_the_receiver_lost_is_on_its_way_again(node: Node) -> None:
    commitments = Commitments(node.engine, policy=POLICY)
    node.finish(ONE, A, arrived=100.0, at=130.0)
    put(node.outbox, A, ONE, [stored("SEG")], ["pacs"], at=130.0)
    node.attempt(140.0, to_commit=True)
    (point,) = node.settled()
    assert point["latency_s"] == pytest.approx(40.0)
    asked = commitments.begin(PACS, NOW)
    assert asked is not None
    lost = CommitmentReport(transaction_uid=asked.transaction_uid, answers={asked.references[0]: 0x0112})
    assert commitments.take(lost, peer_ae="PACS", now=NOW).failed == 1
    (point,) = node.settled()
    assert point["latency_s"] is None


def test_a_card_that_names_the_scanner_late_is_what_counts(node: Node) -> None:
    node.finish(ONE, A, arrived=100.0, at=130.0, event=StudyEvent.REFUSED)
    assert [one["scanner"] for one in node.settled()] == [""]
    node.cards.put(card(ONE))
    assert [one["scanner"] for one in node.settled()] == ["Vida, MR1"]


def test_an_erased_study_counts_no_more(node: Node) -> None:
    node.finish(ONE, A, arrived=100.0, at=130.0)
    node.settled()
    node.cards.put(card(ONE))  # its line is to be written anew
    with writing(node.engine) as connection:
        forget(connection, ONE)
    assert node.settled() == []
    assert node.count(drift_rows) == 0
    with writing(node.engine) as connection:
        owe_point(connection, ONE)  # somebody who came too late
    assert node.settled() == []


def test_studies_of_an_older_version_are_found_at_the_next_start(node: Node) -> None:
    for number in range(AT_A_TIME + 5):
        node.finish(f"2.25.9.{number}", f"{number:064x}", arrived=100.0 + number, at=130.0 + number)
    node.finish("2.25.9.0", A, arrived=2000.0, at=2030.0)
    before = node.seen()
    with writing(node.engine) as connection:
        connection.execute(delete(owed_points))
    assert node.seen() == []
    assert node.points.settle() == AT_A_TIME
    assert node.points.settle() == 5
    assert node.points.settle() == 0
    assert node.seen() == before
    node.finish("2.25.9.1", B, arrived=3000.0, at=3030.0)
    with writing(node.engine) as connection:
        connection.execute(delete(owed_points))  # by a worker of that version that ran beside
    assert node.points.owe_missing(NOW) == 1
    assert node.settled()[-1]["finished_at"] == 3030.0


def test_what_changes_while_its_line_is_written_is_not_lost(node: Node) -> None:
    if node.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    node.finish(ONE, A, arrived=100.0, at=130.0, event=StudyEvent.REFUSED)
    with writing(node.engine) as connection:
        node.cards.put(card(ONE), within=connection)
        assert node.points.settle() == 1  # sees neither the card nor its note
    assert [one["scanner"] for one in node.settled()] == ["Vida, MR1"]


def test_workers_that_settle_at_once_write_what_one_would(node: Node) -> None:
    for number in range(3 * AT_A_TIME):
        node.finish(f"2.25.9.{number}", f"{number:064x}", arrived=100.0 + number, at=130.0 + number)
    before = node.seen()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: node.points.settle(), range(16)))
    assert node.count(drift_rows) == 3 * AT_A_TIME
    assert node.settled() == before


def stored(kind: str) -> OutboxObject:
    return OutboxObject(
        kind=kind, sop_class_uid="1.2.3", sop_instance_uid=f"2.25.7{len(kind)}", series_instance_uid="2.25.8", data=b"1"
    )


def card(uid: str) -> StudyCard:
    return StudyCard(
        study_instance_uid=uid,
        patient_key="",
        patient_name="",
        patient_id="",
        birth_date="",
        sex="",
        study_date="20261122",
        study_time="",
        accession_number="",
        description="",
        scanner="Vida, MR1",
        institution="",
    )


def result(uid: str, work_id: str, side: str, ratio: float | None) -> EarResult:
    return EarResult(
        study_instance_uid=uid,
        work_id=work_id,
        side=side,
        ratio=ratio,
        low=None if ratio is None else ratio - 0.05,
        high=None if ratio is None else ratio + 0.05,
        total_fluid_mm3=None if ratio is None else 180.0,
        endolymph_mm3=None if ratio is None else 180.0 * ratio,
        quality=() if ratio is not None else ("EAR_NOT_FOUND",),
        model="oto 1",
        scanner="Vida, MR1",
        study_date="20261122",
        computed_at=130.0,
        seconds=5.0,
    )
