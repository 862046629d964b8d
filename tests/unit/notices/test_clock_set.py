"""The clock is set back: what happens is told as soon as ever."""

from __future__ import annotations

import threading
from pathlib import Path

from desk_parts import DeskParts, hydrops_study
from notice_receivers import HookServer
from queued_results import put

from dicom_node.delivery.outbox import OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, OutcomeKind
from dicom_node.notices.channels import WebhookChannel
from dicom_node.notices.digest import DigestOptions
from dicom_node.notices.messenger import GATHER_S, Messenger, MessengerOptions
from dicom_node.notices.notice import NoticeKind
from dicom_node.notices.notice_book import NoticeBook
from dicom_node.notices.watch import SETTLE_S, Conditions, Watch

EVERY_S = 300.0
A_DAY_S = 86_400.0


class Told:
    """A desk, a messenger beside it, and a web hook that it tells."""

    def __init__(self, folder: Path, server: HookServer) -> None:
        self.desk = DeskParts(folder, send_not_computed=False)
        self.conditions: Conditions = {}
        self._server = server
        book = NoticeBook(self.desk.engine)
        self._messenger = Messenger(
            book,
            Watch(
                book,
                ledger=self.desk.ledger,
                outbox=self.desk.outbox,
                conditions=lambda: self.conditions,
                about=frozenset(NoticeKind),
            ),
            [WebhookChannel(url=server.url, token="hook-token")],
            options=MessengerOptions(every_s=EVERY_S, digest=DigestOptions(node_name="Hydrops Node")),
            clock=lambda: self.desk.now,
            stop=threading.Event(),
        )
        self._messenger.once()

    def after(self, seconds: float) -> None:
        """Time passes, then the messenger looks."""
        self.desk.now += seconds
        self._messenger.once()

    def refuse(self, study_uid: str) -> None:
        """A study without an ear arrives and is refused."""
        self.desk.receive(hydrops_study(study_uid))
        self.desk.work_off()

    def give_up(self) -> None:
        """A result becomes a dead letter."""
        outbox, now = self.desk.outbox, self.desk.now
        result = OutboxObject(
            kind="SEG", sop_class_uid="1.2", sop_instance_uid="2.25.5", series_instance_uid="2.25.6", data=b"x"
        )
        put(outbox, "key", "2.25.100", [result], ["pacs"], at=now)
        (delivery,) = outbox.due("pacs", now)
        refusal = DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="locked", status=0xA900)
        outbox.record(delivery.delivery_id, refusal, now, RetryPolicy())

    def kinds(self) -> list[list[str]]:
        """The kinds of notices of each message."""
        return [[one["kind"] for one in document["notices"]] for document in self._server.documents]


def test_f28_a_notice_that_waits_while_the_clock_is_set_back_goes_at_once(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, server)
        told.refuse("2.25.100")
        told.after(GATHER_S)
        told.refuse("2.25.200")
        told.after(1.0)
        told.desk.set_clock(-A_DAY_S)
        told.after(1.0)
        assert told.kinds() == [["study_refused"], ["study_refused"]]


def test_f28_a_dead_letter_after_the_clock_was_set_back_is_told(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, server)
        told.after(1.0)
        told.desk.set_clock(-A_DAY_S)
        told.give_up()
        told.after(1.0)
        told.after(GATHER_S)
        assert told.kinds() == [["dead_letter"]]


def test_f28_a_condition_that_began_before_the_clock_was_set_back_is_told_when_it_lasts(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, server)
        told.conditions = {NoticeKind.WORKER_GONE: "The worker has been silent for 61 s."}
        told.after(1.0)
        told.desk.set_clock(-A_DAY_S)
        told.after(1.0)
        told.after(SETTLE_S)
        told.after(GATHER_S)
        assert told.kinds() == [["worker_gone"]]
