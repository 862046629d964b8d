"""What a request and its report say, and what becomes of each word."""

from __future__ import annotations

import random

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from dicom_node.delivery.commitment_answers import (
    FAILURE_REASONS,
    MAX_REPORT_BYTES,
    REQUEST_STATUSES,
    AfterFailure,
    CommitmentReport,
    Reference,
    UnusableReport,
    meaning_of,
    outcome_of_request,
    read_report,
    request,
)
from dicom_node.delivery.outcome import OutcomeKind

IMPLICIT = "1.2.840.10008.1.2"
SEG = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4", sop_instance_uid="2.25.1")
SR = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", sop_instance_uid="2.25.2")


def test_a_request_names_its_transaction_and_every_object_by_class_and_instance() -> None:
    information = request("2.25.7", [SEG, SR])
    assert information.TransactionUID == "2.25.7"
    assert [(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in information.ReferencedSOPSequence] == [
        (SEG.sop_class_uid, "2.25.1"),
        (SR.sop_class_uid, "2.25.2"),
    ]


def test_p19_what_is_listed_as_kept_and_as_failed_counts_as_failed() -> None:
    report = request("2.25.7", [SEG, SR])
    report.FailedSOPSequence = [_failed(SEG, 0x0112)]
    assert _read(2, report) == CommitmentReport(transaction_uid="2.25.7", answers={SEG: 0x0112, SR: 0})


def test_a_failure_without_a_reason_is_one_of_processing() -> None:
    report = Dataset()
    report.TransactionUID = "2.25.7"
    report.FailedSOPSequence = [_failed(SEG, 0x0112)]
    del report.FailedSOPSequence[0].FailureReason
    assert _read(2, report).answers == {SEG: 0x0110}


def test_an_item_without_both_uids_says_nothing() -> None:
    report = request("2.25.7", [SEG, SR])
    del report.ReferencedSOPSequence[0].ReferencedSOPClassUID
    assert _read(1, report).answers == {SR: 0}


@pytest.mark.parametrize(("event_type", "status"), [(0, 0x0113), (3, 0x0113)])
def test_an_event_of_another_type_is_refused(event_type: int, status: int) -> None:
    with pytest.raises(UnusableReport) as refused:
        _read(event_type, request("2.25.7", [SEG]))
    assert refused.value.status == status


def test_a_report_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(UnusableReport) as refused:
        read_report(1, bytes(MAX_REPORT_BYTES + 1), IMPLICIT)
    assert refused.value.status == 0x0213


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom tells of each value that does not fit
def test_p19_whatever_bytes_a_report_has_it_is_read_or_refused() -> None:
    report = request("2.25.7", [SEG, SR])
    report.FailedSOPSequence = [_failed(SEG, 0x0112)]
    whole, chance = _encoded(report), random.Random(19)
    outcomes = set()
    for _ in range(3000):
        mutant = bytearray(whole)
        for _change in range(chance.randint(1, 6)):
            if mutant and chance.random() < 0.7:
                mutant[chance.randrange(len(mutant))] = chance.randrange(256)
            else:
                del mutant[chance.randint(0, len(mutant)) :]
        try:
            outcomes.add(bool(read_report(2, bytes(mutant), IMPLICIT).answers))
        except UnusableReport as refused:
            outcomes.add(refused.status)
    assert outcomes == {True, False, 0x0114, 0x0115}


def test_p19_each_failure_reason_of_the_standard_has_words_and_a_next_step() -> None:
    assert {one.reason: one.then for one in FAILURE_REASONS} == {
        0x0110: AfterFailure.ASK_AGAIN,
        0x0112: AfterFailure.SEND_AGAIN,
        0x0119: AfterFailure.STOP,
        0x0122: AfterFailure.STOP,
        0x0131: AfterFailure.ASK_AGAIN,
        0x0213: AfterFailure.ASK_AGAIN,
    }
    assert all(len(one.words) > 20 for one in FAILURE_REASONS)
    assert meaning_of(0x0112).then is AfterFailure.SEND_AGAIN
    assert meaning_of(0x4711).then is AfterFailure.STOP


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, OutcomeKind.DELIVERED),
        (0x0110, OutcomeKind.RETRY_LATER),
        (0x0213, OutcomeKind.RETRY_LATER),
        (0x0124, OutcomeKind.STOPPED),
        (0x4711, OutcomeKind.STOPPED),
    ],
)
def test_a_status_of_the_request_says_whether_to_wait_to_ask_later_or_to_stop(status: int, kind: OutcomeKind) -> None:
    outcome = outcome_of_request(status)
    assert (outcome.kind, outcome.status) == (kind, status)
    assert f"{status:04X}H" in outcome.detail


def test_no_status_of_the_request_stands_in_the_table_twice() -> None:
    statuses = [one.first for one in REQUEST_STATUSES]
    assert len(set(statuses)) == len(statuses)


def _failed(reference: Reference, reason: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    item.FailureReason = reason
    return item


def _encoded(information: Dataset) -> bytes:
    encoded = encode(information, True, True)
    assert encoded is not None
    return encoded


def _read(event_type: int, information: Dataset) -> CommitmentReport:
    return read_report(event_type, _encoded(information), IMPLICIT)
