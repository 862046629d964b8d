"""From what happens in the node to a real mail server and a real web hook: once, together, and over restarts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import sqlalchemy as sa
from desk_parts import DeskParts, hydrops_study
from notice_receivers import HookServer, MailServer
from patience import PATIENCE_S
from queued_results import put

from dicom_node.delivery.commitments import Commitments
from dicom_node.delivery.outbox import OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.notices.channels import Channel, MailChannel, MailEncryption, WebhookChannel
from dicom_node.notices.digest import DigestOptions
from dicom_node.notices.messenger import FIRST_RETRY_S, GATHER_S, Messenger, MessengerOptions
from dicom_node.notices.notice import NoticeKind
from dicom_node.notices.notice_book import NoticeBook
from dicom_node.notices.watch import SETTLE_S, Conditions, Watch

EVERY_S = 300.0
ALL = frozenset(NoticeKind)


class Told:
    """A desk with a messenger beside it; the clock is the desk's. `restart` is what a new process would begin with."""

    def __init__(self, folder: Path, channels: Iterable[Channel], *, about: frozenset[NoticeKind] = ALL) -> None:
        self.desk = DeskParts(folder, send_not_computed=False)
        self.conditions: Conditions = {}
        self._channels = tuple(channels)
        self._about = about
        self.restart()
        self.messenger.once()

    def restart(self) -> None:
        book = NoticeBook(self.desk.engine)
        watch = Watch(
            book,
            ledger=self.desk.ledger,
            outbox=self.desk.outbox,
            conditions=lambda: self.conditions,
            about=self._about,
        )
        options = MessengerOptions(every_s=EVERY_S, digest=DigestOptions(node_name="Hydrops Node"))
        self.messenger = Messenger(
            book, watch, self._channels, options=options, clock=lambda: self.desk.now, stop=threading.Event()
        )

    def refuse(self, study_uid: str = "2.25.100") -> None:
        """A study without an ear arrives and is refused."""
        self.desk.receive(hydrops_study(study_uid))
        self.desk.work_off()

    def after(self, seconds: float) -> None:
        """Time passes, then the messenger looks."""
        self.desk.now += seconds
        self.messenger.once()


def hook(server: HookServer) -> WebhookChannel:
    return WebhookChannel(url=server.url, token="hook-token")


def plain_mail(server: MailServer) -> MailChannel:
    return MailChannel(
        host="localhost",
        port=server.port,
        encryption=MailEncryption.NONE,
        sender="node@hospital.org",
        recipients=("admin@hospital.org", "physics@hospital.org"),
    )


def kinds(server: HookServer) -> list[list[str]]:
    """The kinds of notices of each message."""
    return [[one["kind"] for one in document["notices"]] for document in server.documents]


def test_a_refused_study_is_told_by_mail_and_hook(tmp_path: Path) -> None:
    with MailServer().listening() as mail_server, HookServer().listening() as hook_server:
        told = Told(tmp_path, [plain_mail(mail_server), hook(hook_server)])
        told.refuse()
        told.after(GATHER_S)
    (mail,) = mail_server.mails
    assert mail["Subject"] == "[Hydrops Node] 1 x study refused"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail_server.recipients == ["admin@hospital.org", "physics@hospital.org"]
    text = mail.get_content()
    assert "Study 2.25.100" in text
    assert "The images do not show inner ears as expected." in text
    assert "CONTENT" not in text
    (document,) = hook_server.documents
    assert document["notices"][0]["study_instance_uid"] == "2.25.100"
    assert hook_server.headers[0]["Authorization"] == "Bearer hook-token"
    assert hook_server.headers[0]["Idempotency-Key"] == document["id"]


def test_nothing_of_the_patient_goes_out_by_default(tmp_path: Path) -> None:
    with MailServer().listening() as server:
        told = Told(tmp_path, [plain_mail(server)])
        images = hydrops_study()
        for one in images:
            one.PatientName, one.PatientID = "Secret^Person", "ID-4711"
        told.desk.receive(images)
        told.desk.work_off()
        told.after(GATHER_S)
    (raw,) = server.raw
    assert b"Secret" not in raw
    assert b"4711" not in raw


def test_a_flood_is_one_message_and_the_rest_waits_for_the_next(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        for n in range(3):
            told.refuse(f"2.25.{n + 1}")
        told.after(GATHER_S)
        for n in range(3, 6):
            told.refuse(f"2.25.{n + 1}")
        for _ in range(4):
            told.after(GATHER_S)
        assert [len(one) for one in kinds(server)] == [3]
        told.after(EVERY_S)
        assert [len(one) for one in kinds(server)] == [3, 3]
        told.after(EVERY_S)
    assert [len(one) for one in kinds(server)] == [3, 3]


def test_a_hundred_notices_are_counted_and_the_first_fifty_listed(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        book = NoticeBook(told.desk.engine)
        for n in range(100):
            book.add(NoticeKind.STUDY_FAILED, key=f"many {n}", at=told.desk.now, text="Failed.")
        told.after(GATHER_S)
    (document,) = server.documents
    assert len(document["notices"]) == 50
    assert document["not_listed"] == 50
    assert "100 x study failed" in document["text"]
    assert "... and 50 more" in document["text"]


def test_nothing_is_told_twice_or_lost_over_a_restart(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.refuse("2.25.1")
        told.after(GATHER_S)
        told.refuse("2.25.2")
        told.restart()
        told.after(EVERY_S)
        told.restart()
        told.after(EVERY_S)
    assert [one["notices"][0]["study_instance_uid"] for one in server.documents] == ["2.25.1", "2.25.2"]


def test_what_happened_before_notices_were_configured_is_not_told(tmp_path: Path) -> None:
    earlier = DeskParts(tmp_path, send_not_computed=False)
    earlier.receive(hydrops_study("2.25.7"))
    earlier.work_off()
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.after(EVERY_S)
        assert server.documents == []
        told.refuse("2.25.8")
        told.after(EVERY_S)
    assert [one["notices"][0]["study_instance_uid"] for one in server.documents] == ["2.25.8"]


def test_a_message_that_fails_is_tried_again_with_the_same_content_and_identification(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with HookServer(status=503).listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.refuse("2.25.1")
        with caplog.at_level(logging.WARNING):
            told.after(GATHER_S)
        assert "event=notice_not_sent channel=webhook" in caplog.text
        assert "webhook answered HTTP 503" in caplog.text
        told.refuse("2.25.2")
        told.after(1.0)
        assert len(server.documents) == 1, "not before the pause is over"
        server.status = 200
        told.restart()
        told.after(FIRST_RETRY_S)
        first, again = server.documents
        assert again == first
        told.after(EVERY_S)
    assert [len(one) for one in kinds(server)] == [1, 1, 1]


def test_a_mail_server_that_is_away_holds_up_neither_the_hook_nor_the_mail_later(tmp_path: Path) -> None:
    mail_server = MailServer()
    with mail_server.listening():
        pass  # it has a port now, and is gone
    with HookServer().listening() as hook_server:
        told = Told(tmp_path, [plain_mail(mail_server), hook(hook_server)])
        told.refuse()
        told.after(GATHER_S)
        assert len(hook_server.documents) == 1
        with mail_server.listening():
            told.after(FIRST_RETRY_S)
    assert len(mail_server.mails) == 1
    assert len(hook_server.documents) == 1


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with HookServer(status=307).listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.refuse()
        told.after(GATHER_S)
        assert len(server.documents) == 1
        server.status = 204
        told.after(FIRST_RETRY_S)
    assert len(server.documents) == 2


def test_a_delivery_that_is_given_up_is_told_without_the_receivers_comment(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.after(60.0)
        result = OutboxObject(
            kind="SEG", sop_class_uid="1.2", sop_instance_uid="2.25.5", series_instance_uid="2.25.6", data=b"x"
        )
        outbox = told.desk.outbox
        put(outbox, "key", "2.25.100", [result], ["pacs"], at=told.desk.now)
        (delivery,) = outbox.due("pacs", told.desk.now)
        refusal = DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="Secret^Person is locked", status=0xA900)
        outbox.record(delivery.delivery_id, refusal, told.desk.now, RetryPolicy())
        told.after(GATHER_S)
        told.after(EVERY_S)
    (document,) = server.documents
    (item,) = document["notices"]
    assert item["kind"] == "dead_letter"
    assert "SEG was not taken by destination pacs after 1 tries" in item["text"]
    assert "A900H" in item["text"]
    assert "Secret" not in document["text"]


def test_p19_a_result_that_is_never_committed_is_told_with_what_to_do(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.after(60.0)
        outbox, pacs = told.desk.outbox, Destination(name="pacs", kind="dicom", called_ae="PACS")
        result = OutboxObject(
            kind="SEG", sop_class_uid="1.2", sop_instance_uid="2.25.5", series_instance_uid="2.25.6", data=b"x"
        )
        put(outbox, "key", "2.25.100", [result], ["pacs"], at=told.desk.now)
        (delivery,) = outbox.due("pacs", told.desk.now)
        stored = DeliveryOutcome(kind=OutcomeKind.DELIVERED, detail="stored", status=0)
        outbox.record(delivery.delivery_id, stored, told.desk.now, RetryPolicy(), to_commit=True)
        commitments = Commitments(told.desk.engine, policy=RetryPolicy())
        asked = commitments.begin(pacs, told.desk.now)
        assert asked is not None
        refused = DeliveryOutcome(kind=OutcomeKind.STOPPED, detail="not allowed", status=0x0124)
        commitments.note(asked, refused, told.desk.now)
        told.after(GATHER_S)
        told.after(EVERY_S)
    (document,) = server.documents
    (item,) = document["notices"]
    assert item["kind"] == "dead_letter"
    assert "SEG was taken by destination pacs, which did not commit to keeping it" in item["text"]
    assert "0124H" in item["text"]


def test_a_condition_is_told_once_when_it_lasts_and_once_when_it_is_over(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.conditions = {NoticeKind.DISK_LOW: "1.0 GB are free."}
        told.after(1.0)
        told.after(SETTLE_S - 1.0)
        assert server.documents == []
        told.after(1.0)
        told.after(GATHER_S)
        assert kinds(server) == [["disk_low"]]
        told.restart()
        for _ in range(5):
            told.after(EVERY_S)
        assert kinds(server) == [["disk_low"]]
        told.conditions = {NoticeKind.DISK_LOW: ""}
        told.after(1.0)
        told.after(EVERY_S)
    assert kinds(server) == [["disk_low"], ["disk_low"]]
    assert server.documents[1]["notices"][0]["text"].startswith("Over after ")


def test_a_condition_that_passes_at_once_is_not_told(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        for sentence in ("away", "", "away", ""):
            told.conditions = {NoticeKind.ORTHANC_UNREACHABLE: sentence}
            told.after(SETTLE_S * 0.9)
        told.after(EVERY_S)
    assert server.documents == []


def test_only_the_kinds_that_were_asked_for_are_told(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)], about=frozenset({NoticeKind.STUDY_FAILED}))
        told.refuse()
        told.conditions = {NoticeKind.DISK_LOW: "1.0 GB are free."}
        for _ in range(4):
            told.after(SETTLE_S)
    assert server.documents == []


def test_notices_that_every_channel_has_sent_are_forgotten_after_a_while(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.refuse()
        told.after(GATHER_S)
        book = NoticeBook(told.desk.engine)
        assert book.forget_before(told.desk.now + 1.0) == 1
        told.refuse("2.25.2")
        told.after(EVERY_S)
    assert len(server.documents) == 2


def test_a_channel_that_is_no_longer_configured_keeps_no_notice_for_ever(tmp_path: Path) -> None:
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        book = NoticeBook(told.desk.engine)
        book.open_channel("mail of another year")
        told.refuse()
        told.after(GATHER_S)
        told.after(91 * 86400.0)
        assert book.forget_before(told.desk.now) == 0, "it is forgotten already"
    assert len(server.documents) == 1


def test_an_event_that_shows_up_behind_a_later_one_is_told_once(tmp_path: Path) -> None:
    """On PostgreSQL the transaction with the lower number may commit last."""
    with HookServer().listening() as server:
        told = Told(tmp_path, [hook(server)])
        told.refuse("2.25.101")
        with told.desk.engine.begin() as connection:
            last = connection.execute(sa.text("SELECT max(id) FROM ledger_events")).scalar_one()
            connection.execute(sa.text(f"UPDATE ledger_events SET id = {last + 1} WHERE id = {last}"))
        told.after(0.0)
        with told.desk.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO ledger_events (id, study_instance_uid, at, event, detail) "
                    f"VALUES ({last}, '2.25.102', {told.desk.now}, 'failed', '')"
                )
            )
        told.after(1.0)
        told.after(GATHER_S)
        (message,) = kinds(server)
        assert sorted(message) == ["study_failed", "study_refused"]
        told.after(2 * EVERY_S)
    assert len(kinds(server)) == 1


def test_a_fault_of_ours_does_not_end_the_telling_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.notices.messenger.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("dicom_node.notices.messenger.FIRST_RETRY_S", 0.05)
    told = Told(tmp_path, [])
    looks = threading.Semaphore(0)

    def breaks() -> Conditions:
        looks.release()
        raise UnicodeEncodeError("ascii", "ü", 0, 1, "a password that the mail server's protocol does not know")

    monkeypatch.setattr(told.messenger._watch, "_conditions", breaks)
    told.messenger.start()
    assert all(looks.acquire(timeout=PATIENCE_S) for _ in range(3))
    told.messenger._stop_asked.set()
    told.messenger.join(PATIENCE_S)
