"""Statuses and rejections sorted into delivered, try later, stop."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.delivery.peer_answers import C_STORE_STATUSES, outcome_of_rejection, outcome_of_status

DELIVERED = [0x0000, 0xB000, 0xB006, 0xB007, 0x0111]
RETRY_LATER = [0xA700, 0xA701, 0xA702, 0xA7FF, 0x0110, 0x0213]
STOPPED = [0xA900, 0xA9FF, 0xC000, 0xC123, 0xCFFF, 0x0117, 0x0124, 0x0210, 0x0211, 0x0212]
NOT_TAKEN = [0x0122]
UNKNOWN = [0x0001, 0x0999, 0xA6FF, 0xA800, 0xAA00, 0xB001, 0xBFFF, 0xD000, 0xFE00, 0xFF00, 0xFFFF]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, OutcomeKind.DELIVERED) for status in DELIVERED),
        *((status, OutcomeKind.RETRY_LATER) for status in RETRY_LATER),
        *((status, OutcomeKind.NOT_TAKEN) for status in NOT_TAKEN),
        *((status, OutcomeKind.STOPPED) for status in STOPPED + UNKNOWN),
    ],
)
def test_a_status_decides_what_happens_next(status: int, kind: OutcomeKind) -> None:
    outcome = outcome_of_status(status)
    assert outcome.kind is kind
    assert outcome.status == status
    assert f"{status:04X}H" in outcome.detail


def test_no_two_lines_of_the_table_claim_the_same_status() -> None:
    ranges = sorted((line.first, line.last) for line in C_STORE_STATUSES)
    assert all(last < first for (_, last), (first, _) in pairwise(ranges))


def test_the_comment_of_the_receiver_reaches_the_operator() -> None:
    assert "disk 98 % full" in outcome_of_status(0xA700, "disk 98 % full").detail


@pytest.mark.parametrize(
    ("numbers", "kind", "hint"),
    [
        ((1, 1, 3), OutcomeKind.STOPPED, "'HYDROPS' is not known there; add it"),
        ((1, 1, 7), OutcomeKind.STOPPED, "'PACS' is not known there; correct called_ae of destination 'archive'"),
        ((2, 3, 1), OutcomeKind.RETRY_LATER, "congested"),
        ((2, 3, 2), OutcomeKind.RETRY_LATER, "limit of associations"),
        ((2, 1, 3), OutcomeKind.RETRY_LATER, "'HYDROPS'"),
        ((1, 3, 9), OutcomeKind.STOPPED, "does not define"),
    ],
)
def test_a_rejection_is_told_in_words_with_the_next_step(
    numbers: tuple[int, int, int], kind: OutcomeKind, hint: str
) -> None:
    outcome = outcome_of_rejection(*numbers, calling="HYDROPS", called="PACS", name="archive")
    assert outcome.kind is kind
    assert outcome.status is None
    assert hint in outcome.detail
    assert "({},{},{})".format(*numbers) in outcome.detail
