"""Finds out what is to be told: from the ledger and the outbox since the last look, and from conditions that hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from dicom_node.delivery.commitment_rows import Commitment
from dicom_node.delivery.outbox import Delivery, Outbox
from dicom_node.errors import Reason
from dicom_node.ledger import Ledger, StudyHappening
from dicom_node.notices.notice import NoticeKind
from dicom_node.notices.notice_book import NoticeBook
from dicom_node.study_moves import StudyEvent

SETTLE_S: Final = 60.0
"""A condition that passes sooner (a restart, a network that blinks) is not worth a message."""

OVERLAP_S: Final = 600.0
"""Dead letters are looked for from this long before the last look: a slow commit may show one late."""

OVERLAP_EVENTS: Final = 100
"""So many of the ledger's events are looked at again: on PostgreSQL a higher number may be there before a lower one."""

_LEDGER_MARK: Final = "ledger"
_OUTBOX_MARK: Final = "outbox"
_OF_EVENT: Final = {
    StudyEvent.REFUSED: NoticeKind.STUDY_REFUSED,
    StudyEvent.FAILED: NoticeKind.STUDY_FAILED,
    StudyEvent.NOT_DRAWN: NoticeKind.STUDY_FAILED,
    StudyEvent.NOT_TOLD: NoticeKind.STUDY_FAILED,
}

Conditions = Mapping[NoticeKind, str]
"""What is wrong now, each with a sentence; "" says that all is well, and a kind that is absent is not known."""


class Watch:
    """Writes notices of the kinds in `about` into the book. One thread calls `look`.

    The first look on a state folder tells nothing of the past.
    """

    def __init__(
        self,
        book: NoticeBook,
        *,
        ledger: Ledger,
        outbox: Outbox,
        conditions: Callable[[], Conditions],
        about: frozenset[NoticeKind],
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._outbox = outbox
        self._conditions = conditions
        self._about = about
        self._since: dict[NoticeKind, float] = {}

    def look(self, now: float) -> None:
        """Write down what is new."""
        self._look_at_studies(now)
        self._look_at_dead_letters(now)
        for kind, sentence in self._conditions().items():
            if kind in self._about:
                self._judge(kind, sentence, now)

    def _look_at_studies(self, now: float) -> None:
        seen = self._book.mark(_LEDGER_MARK)
        if seen is None:
            self._book.set_mark(_LEDGER_MARK, self._ledger.last_event_number())
            return
        began = self._book.mark(f"{_LEDGER_MARK} began")
        if began is None:
            began = seen
            self._book.set_mark(f"{_LEDGER_MARK} began", began)
        for one in self._ledger.happened_after(int(max(seen - OVERLAP_EVENTS, began)), tuple(_OF_EVENT)):
            if one.number <= seen and one.at < now - OVERLAP_S:
                continue  # long told, and perhaps forgotten since
            kind = _OF_EVENT[one.event]
            if kind in self._about:
                self._book.add(
                    kind,
                    key=f"event {one.number}",
                    at=one.at,
                    text=self._about_study(one),
                    study_instance_uid=one.study_instance_uid,
                )
            if one.number > seen:
                self._book.set_mark(_LEDGER_MARK, one.number)

    def _about_study(self, one: StudyHappening) -> str:
        if one.event is StudyEvent.FAILED:
            return "The node failed on this study. It is kept and can be repeated; the node's log says more."
        if one.event is StudyEvent.NOT_DRAWN:
            return "SEG and SR of this study stand, but its summary page was not drawn. A replay draws it."
        if one.event is StudyEvent.NOT_TOLD:
            return "The node failed on this study, and no report of that could be sent: its readers do not know."
        record = self._ledger.get(one.study_instance_uid)
        reason = record.reason if record is not None else ""
        return Reason(reason).sentence if reason in set(Reason) else "The study was not computed."

    def _look_at_dead_letters(self, now: float) -> None:
        looked_at = self._book.mark(_OUTBOX_MARK)
        if looked_at is None:
            self._book.set_mark(_OUTBOX_MARK, now)
            return
        began_at = self._book.mark(f"{_OUTBOX_MARK} began")
        if began_at is None:
            began_at = looked_at
            self._book.set_mark(f"{_OUTBOX_MARK} began", began_at)
        # A mark of the future was made before the clock was set back.
        since = max(min(looked_at, now) - OVERLAP_S, began_at if began_at <= now else 0.0)
        for one in self._outbox.stopped_since(since):
            if NoticeKind.DEAD_LETTER in self._about:
                self._book.add(
                    NoticeKind.DEAD_LETTER,
                    key=f"delivery {one.delivery_id} {one.last_attempt_at}",
                    at=one.last_attempt_at or now,
                    text=_about_delivery(one),
                    study_instance_uid=one.study_instance_uid,
                )
        if NoticeKind.DEAD_LETTER in self._about:
            self._look_at_commitments(since)
        self._book.set_mark(_OUTBOX_MARK, now)

    def _look_at_commitments(self, since: float) -> None:
        """A receiver that never vouched for an object is told like one that never took it."""
        for one in self._outbox.not_committed_since(since):
            word = one.commitment
            if word is not None and word.last_at is not None:
                self._book.add(
                    NoticeKind.DEAD_LETTER,
                    key=f"commitment of delivery {one.delivery_id} {word.last_at}",
                    at=word.last_at,
                    text=_about_commitment(one, word),
                    study_instance_uid=one.study_instance_uid,
                )

    def _judge(self, kind: NoticeKind, sentence: str, now: float) -> None:
        """Tell a condition once when it lasts, and once when it is over, also across restarts."""
        mark = f"condition {kind.value}"
        told_at = self._book.mark(mark)
        if not sentence:
            self._since.pop(kind, None)
            if told_at is not None:
                minutes = max(0.0, now - told_at) / 60
                over = f"Over after {minutes:.0f} minutes."
                self._book.add(kind, key=f"{kind.value} over {told_at}", at=now, text=over)
                self._book.set_mark(mark, None)
            return
        since = self._since[kind] = min(self._since.get(kind, now), now)
        if told_at is None and now - since >= SETTLE_S:
            self._book.add(kind, key=f"{kind.value} since {since}", at=now, text=sentence)
            self._book.set_mark(mark, since)


def _about_commitment(one: Delivery, word: Commitment) -> str:
    answer = "" if word.last_reason is None else f" Its last answer was {word.last_reason:04X}H."
    return (
        f"{one.kind} was taken by destination {one.destination}, which did not commit to keeping it.{answer} Look "
        "there whether it still has the object, correct the cause, then send it again."
    )


def _about_delivery(one: Delivery) -> str:
    # Not `last_detail`: it may quote a receiver's comment, and such comments were seen to name patients.
    answer = "" if one.last_status is None else f" Its last answer was {one.last_status:04X}H."
    return (
        f"{one.kind} was not taken by destination {one.destination} after {one.attempts} tries, and is not tried "
        f"again.{answer} Correct the cause, then send it again."
    )
