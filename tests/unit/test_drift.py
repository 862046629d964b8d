"""A shift of a scanner is pointed at, ordinary scatter is not, and the numbers come from ledger, cards and outbox."""

from __future__ import annotations

import random
from math import comb
from pathlib import Path

import pytest
from queued_results import put

from dicom_node.database import open_database
from dicom_node.delivery.outbox import Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.drift import BAND, EARLIER, RECENT, StudyPoint, median_shift, periods, share_shift, shifts, study_points
from dicom_node.ledger import Ledger, StudyEvent
from dicom_node.study_cards import EarResult, StudyCard, StudyCards

POLICY = RetryPolicy()


def point(at: float, *, ratio: float | None = 0.2, refused: bool = False, flagged: bool = False) -> StudyPoint:
    return StudyPoint(
        study_instance_uid="2.25.1",
        scanner="MR1",
        finished_at=at,
        refused=refused,
        flagged=flagged,
        ratios=() if ratio is None else (ratio,),
        latency_s=60.0,
    )


def test_the_band_holds_95_of_100_medians_of_twenty():
    low, high = BAND
    above = sum(comb(20, n) * high**n * (1.0 - high) ** (20 - n) for n in range(11))
    assert above == pytest.approx(0.025, abs=0.0005)
    assert low == pytest.approx(1.0 - high, abs=1e-9)


def test_unchanged_values_are_pointed_at_in_about_one_of_twenty_looks():
    rng = random.Random(7)
    looks = 400
    seen = sum(
        median_shift("EH ratio", [rng.gauss(20.0, 6.0) for _ in range(200 + RECENT)], "%") is not None
        for _ in range(looks)
    )
    assert 0.02 * looks < seen < 0.10 * looks


def test_a_scanner_that_reads_higher_from_one_day_on_is_pointed_at_with_the_numbers():
    rng = random.Random(1)
    values = [rng.gauss(20.0, 5.0) for _ in range(100)] + [rng.gauss(30.0, 5.0) for _ in range(RECENT)]
    shift = median_shift("EH ratio", values, "%")
    assert shift is not None
    assert shift.sentence.startswith(f"EH ratio: the median of the last {RECENT} values is 2")
    assert "95 of 100 such medians lie between" in shift.sentence


def test_too_few_values_say_nothing_whatever_they_are():
    few = [10.0] * (EARLIER - 1) + [90.0] * RECENT
    assert median_shift("EH ratio", few, "%") is None
    assert median_shift("EH ratio", [10.0, *few], "%") is not None


@pytest.mark.parametrize(("before", "now", "pointed"), [(5, 1, False), (5, 8, True), (0, 1, False), (0, 4, True)])
def test_a_share_is_pointed_at_when_so_many_are_hardly_chance(before, now, pointed):
    happened = [n < before for n in range(60)] + [n < now for n in range(RECENT)]
    assert (share_shift("Refusals", happened) is not None) is pointed


def test_a_share_that_fell_is_pointed_at_as_well():
    shift = share_shift("Quality remarks", [True, True, False] * 30 + [False] * RECENT)
    assert shift is not None
    assert f"0 of the last {RECENT} studies" in shift.sentence
    assert "so few" in shift.sentence


def test_refused_studies_count_for_refusals_and_not_for_quality():
    points = [point(float(n)) for n in range(80)] + [
        point(80.0 + n, ratio=None, refused=n % 2 == 0) for n in range(RECENT)
    ]
    assert [shift.subject for shift in shifts(points)] == ["Refusals"]


def test_periods_hold_medians_and_shares_and_leave_empty_ones_out():
    points = [point(1.0, ratio=0.1), point(2.0, ratio=0.3, flagged=True), point(3.0, ratio=None, refused=True)]
    points += [point(25.0, ratio=0.5)]
    first, last = periods(points, since=0.0, until=28.0, length_s=10.0)
    assert (first.begin, first.end, first.studies, first.flagged, first.refused) == (0.0, 10.0, 3, 1, 1)
    assert first.ratio is not None
    assert (first.ratio.count, first.ratio.median) == (2, pytest.approx(0.2))
    assert (first.ratio.low, first.ratio.high) == (pytest.approx(0.15), pytest.approx(0.25))
    assert (last.begin, last.end, last.studies) == (20.0, 28.0, 1)


def test_points_come_from_ledger_cards_and_outbox(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    ledger, cards, outbox = Ledger(engine), StudyCards(engine), Outbox(tmp_path / "outbox", engine)
    finish(ledger, "2.25.1", "a" * 64, arrived=100.0, at=130.0)
    finish(ledger, "2.25.2", "b" * 64, arrived=200.0, at=230.0, event=StudyEvent.REFUSED)
    for uid in ("2.25.1", "2.25.2"):
        cards.put(card(uid))
    cards.put_results([result("2.25.1", "a" * 64, "right", 0.2), result("2.25.1", "a" * 64, "left", None)])
    for kind, after in (("SEG", 3.0), ("SR", 5.0)):
        put(outbox, "a" * 64, "2.25.1", [stored(kind)], ["pacs"], at=130.0)
        (waiting,) = outbox.due("pacs", 140.0)
        confirmed = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="")
        outbox.record(waiting.delivery_id, confirmed, 130.0 + after, POLICY)
    put(outbox, "b" * 64, "2.25.2", [stored("PDF")], ["pacs"], at=230.0)  # still waits

    computed, refused = study_points(ledger, cards, outbox, since=0.0)
    assert (computed.ratios, computed.flagged, computed.refused) == ((0.2,), True, False)
    assert computed.latency_s == pytest.approx(35.0)  # from the last arrival to the second object's confirmation
    assert (refused.refused, refused.scanner, refused.latency_s) == (True, "Vida, MR1", None)
    assert study_points(ledger, cards, outbox, since=131.0) == [refused]


def test_a_study_that_was_measured_twice_counts_once_with_its_last_result(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    ledger, cards, outbox = Ledger(engine), StudyCards(engine), Outbox(tmp_path / "outbox", engine)
    finish(ledger, "2.25.1", "a" * 64, arrived=100.0, at=130.0)
    finish(ledger, "2.25.2", "b" * 64, arrived=200.0, at=230.0)
    ledger.move("2.25.1", StudyEvent.REPLAYED, at=5000.0)
    ledger.move("2.25.1", StudyEvent.COMPLETED, at=5001.0, work_id="c" * 64, work={})
    ledger.move("2.25.1", StudyEvent.STARTED, at=5002.0)
    ledger.move("2.25.1", StudyEvent.COMPUTED, at=5030.0, findings={})
    cards.put(card("2.25.1"))
    for work_id, ratio, kind in (("a" * 64, 0.2, "SEG"), ("c" * 64, 0.3, "SR")):
        cards.put_results([result("2.25.1", work_id, "right", ratio)])
        put(outbox, work_id, "2.25.1", [stored(kind)], ["pacs"], at=5030.0)
        (waiting,) = outbox.due("pacs", 5040.0)
        outbox.record(waiting.delivery_id, DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail=""), 5035.0, POLICY)

    other, measured_again = study_points(ledger, cards, outbox, since=0.0)
    assert (other.study_instance_uid, other.finished_at) == ("2.25.2", 230.0)
    assert (measured_again.ratios, measured_again.finished_at) == ((0.3,), 5030.0)
    assert measured_again.latency_s is None  # the images have lain there for long


def test_late_images_make_a_latency_of_their_own(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    ledger, cards, outbox = Ledger(engine), StudyCards(engine), Outbox(tmp_path / "outbox", engine)
    finish(ledger, "2.25.1", "a" * 64, arrived=100.0, at=130.0)
    finish(ledger, "2.25.1", "b" * 64, arrived=900.0, at=930.0)
    put(outbox, "b" * 64, "2.25.1", [stored("SEG")], ["pacs"], at=930.0)
    (waiting,) = outbox.due("pacs", 940.0)
    outbox.record(waiting.delivery_id, DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail=""), 935.0, POLICY)
    (point,) = study_points(ledger, cards, outbox, since=0.0)
    assert point.latency_s == pytest.approx(35.0)


def test_latency_counts_from_the_last_arrival_before_the_result(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    ledger = Ledger(engine)
    ledger.arrived("2.25.1", revision=1, at=10.0)
    finish(ledger, "2.25.1", "a" * 64, arrived=500.0, at=530.0)
    ledger.arrived("2.25.1", revision=3, at=900.0)  # late images, after the result
    assert [one.arrived_at for one in ledger.finished_since(0.0)] == [500.0]


def finish(
    ledger: Ledger, uid: str, work_id: str, *, arrived: float, at: float, event: StudyEvent = StudyEvent.COMPUTED
) -> None:
    ledger.arrived(uid, revision=2, at=arrived)
    ledger.move(uid, StudyEvent.COMPLETED, at=arrived + 1.0, work_id=work_id, work={})
    ledger.move(uid, StudyEvent.STARTED, at=arrived + 2.0)
    ledger.move(uid, event, at=at, findings={})


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
