"""The audit trail on its way to a syslog server over TLS: in order, nothing lost, nobody waits for it (S24)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import Authority, Certificate
from lxml import etree
from patience import PATIENCE_S, wait_until
from syslog_receiver import SyslogReceiver

from dicom_node.audit import AuditAction, AuditTrail
from dicom_node.audit import forwarding as forwarding_module
from dicom_node.audit.audit_repository import AuditRepository
from dicom_node.audit.forwarding import TrailForwarder, sent_up_to
from dicom_node.cli.wiring import audit_forwarder, load_settings
from dicom_node.errors import ConfigError

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[1] / "support" / "audit_message.rng"))
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
A_DAY_S = 86400.0
FORWARDER = """
import sys
from pathlib import Path
from dicom_node.audit import AuditTrail
from dicom_node.audit.audit_repository import AuditRepository
from dicom_node.audit.forwarding import TrailForwarder
folder, port, ca = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
TrailForwarder(AuditTrail(folder), folder, AuditRepository(host="localhost", port=port, ca=ca)).once()
"""


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_certificate(authority: Authority) -> Certificate:
    return authority.sign("syslog")


@pytest.fixture
def receiver(server_certificate: Certificate) -> Iterator[SyslogReceiver]:
    started = SyslogReceiver(own=server_certificate)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    return AuditTrail(tmp_path / "audit", source="NODE", clock=Clock())


@pytest.fixture
def forward(
    trail: AuditTrail, tmp_path: Path, receiver: SyslogReceiver, authority: Authority
) -> Callable[..., TrailForwarder]:
    """A forwarder of the trail, as after a fresh start."""

    def make(**changes: object) -> TrailForwarder:
        where: dict[str, object] = {"host": "localhost", "port": receiver.port, "ca": authority.certificate, **changes}
        return TrailForwarder(trail, tmp_path / "audit", AuditRepository(**where))  # type: ignore[arg-type]

    return make


def write(trail: AuditTrail, count: int) -> None:
    for number in range(count):
        trail.record(AuditAction.STUDY_RETRY, actor="anna", study_instance_uid=f"2.25.{number}")


def test_s24_every_entry_arrives_once_in_order_as_valid_xml(trail, forward, receiver):
    write(trail, 20)
    forward().once()
    write(trail, 5)
    forward().once()
    forward().once()
    assert receiver.sequences == list(range(1, 26))
    for one in receiver.messages:
        SCHEMA.assertValid(etree.fromstring(one.partition(b"\xef\xbb\xbf")[2]))


def test_s24_a_server_that_is_away_delays_nobody_and_gets_everything_when_it_is_back(
    trail, forward, receiver, monkeypatch
):
    monkeypatch.setattr(forwarding_module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(forwarding_module, "FIRST_RETRY_S", 0.1)
    forwarder = forward()
    forwarder.start()
    write(trail, 3)
    wait_until(lambda: receiver.sequences == [1, 2, 3])
    receiver.stop()
    write(trail, 100)  # comes back although nobody takes them
    assert receiver.sequences == [1, 2, 3]
    receiver.start()
    wait_until(lambda: len(receiver.sequences) == 103)
    forwarder.stop(PATIENCE_S)
    assert not forwarder.is_alive()
    assert receiver.sequences == list(range(1, 104))


def test_s24_the_last_entry_before_a_stop_is_still_sent(trail, forward, receiver):
    forwarder = forward()
    forwarder.start()
    write(trail, 1)
    forwarder.stop(PATIENCE_S)
    assert receiver.sequences == [1]


def test_s24_a_server_that_vanishes_in_the_middle_loses_nothing(trail, forward, receiver, caplog):
    write(trail, 50)
    receiver.cut_after = 10
    forward().once()
    assert "event=audit_not_sent" in caplog.text
    receiver.cut_after = None
    forward().once()
    assert receiver.sequences == [*range(1, 11), *range(1, 51)]


def test_s24_a_server_that_says_goodbye_without_reading_loses_nothing(trail, forward, receiver, caplog):
    receiver.is_stopping = True
    write(trail, 3)
    forward().once()
    assert "event=audit_not_sent" in caplog.text
    receiver.is_stopping = False
    forward().once()
    assert receiver.sequences == [1, 2, 3]


def test_s24_a_kill_before_the_end_is_confirmed_sends_that_batch_twice_and_loses_nothing(
    trail, forward, receiver, tmp_path, authority
):
    write(trail, 30)
    forward().once()
    write(trail, 10)
    receiver.holds_end.clear()
    command = [sys.executable, "-c", FORWARDER, str(tmp_path / "audit"), str(receiver.port), str(authority.certificate)]
    sender = subprocess.Popen(command)
    wait_until(lambda: len(receiver.sequences) == 40)
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    receiver.holds_end.set()
    forward().once()
    assert receiver.sequences == [*range(1, 41), *range(31, 41)]


def test_s24_two_processes_on_one_trail_send_it_once(trail, forward, receiver, tmp_path, authority):
    write(trail, 10)
    receiver.holds_end.clear()
    command = [sys.executable, "-c", FORWARDER, str(tmp_path / "audit"), str(receiver.port), str(authority.certificate)]
    with subprocess.Popen(command) as sender:
        wait_until(lambda: len(receiver.sequences) == 10)
        forward().once()
        receiver.holds_end.set()
        assert sender.wait(PATIENCE_S) == 0
    forward().once()
    assert receiver.sequences == list(range(1, 11))


def test_s24_many_entries_go_in_batches(trail, forward, receiver, monkeypatch):
    monkeypatch.setattr(forwarding_module, "BATCH", 8)
    write(trail, 20)
    forward().once()
    assert receiver.sequences == list(range(1, 21))
    assert receiver.sessions == 3


@pytest.mark.parametrize("stranger", ["server", "client"])
def test_s24_without_good_certificates_on_both_sides_nothing_leaves(
    trail, forward, receiver, authority, server_certificate, tmp_path, stranger
):
    write(trail, 3)
    other = Authority(tmp_path, "other")
    if stranger == "server":
        forward(ca=other.certificate).once()
    else:
        receiver.stop()
        receiver.client_ca = authority.certificate
        receiver.start()
        forward().once()
        shown = other.sign("foreign")
        forward(certificate=shown.certificate, key=shown.key).once()
    assert receiver.messages == []
    ours = authority.sign("node")
    forward(certificate=ours.certificate, key=ours.key).once()
    assert receiver.sequences == [1, 2, 3]


def test_s24_a_server_under_another_name_gets_nothing(trail, receiver, tmp_path, authority):
    receiver.stop()
    receiver.own = authority.sign("elsewhere", host="elsewhere.example", ip="203.0.113.9")
    receiver.start()
    write(trail, 1)
    repository = AuditRepository(host="localhost", port=receiver.port, ca=authority.certificate)
    TrailForwarder(trail, tmp_path / "audit", repository).once()
    assert receiver.messages == []


def test_s24_days_that_are_erased_do_not_disturb_what_follows(tmp_path, forward, receiver):
    clock = Clock()
    trail = AuditTrail(tmp_path / "audit", source="NODE", clock=clock)
    write(trail, 3)
    forward().once()
    clock.now += 40 * A_DAY_S
    write(trail, 1)
    trail.erase_before(clock.now - A_DAY_S)
    write(trail, 1)
    forward().once()
    assert receiver.sequences == [1, 2, 3, 4, 5, 6]


def test_s24_what_a_server_has_not_read_is_not_erased_and_is_counted(tmp_path, forward, receiver):
    folder, clock = tmp_path / "audit", Clock()
    trail = AuditTrail(folder, source="NODE", clock=clock)
    assert sent_up_to(folder) == 0
    write(trail, 2)
    forward().once()
    assert sent_up_to(folder) == 2
    receiver.stop()
    clock.now += A_DAY_S
    write(trail, 3)
    clock.now += 40 * A_DAY_S
    write(trail, 1)
    forward().once()
    assert sent_up_to(folder) == 2
    assert trail.erase_before(clock.now - A_DAY_S, up_to=sent_up_to(folder)) == 1
    receiver.start()
    forward().once()
    assert receiver.sequences == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("loss", ["shorter", "written anew"])
def test_s24_a_trail_that_is_not_the_one_that_was_sent_raises_an_alert_and_is_sent_whole(
    tmp_path, forward, receiver, loss
):
    folder = tmp_path / "audit"
    write(AuditTrail(folder, source="NODE"), 5)
    forward().once()
    for path in folder.glob("*"):
        if path.name != "sent":
            path.unlink()
    write(AuditTrail(folder, source="FORGED"), 2 if loss == "shorter" else 8)
    receiver.messages.clear()
    forward().once()
    assert receiver.sequences == list(range(1, 4 if loss == "shorter" else 10))
    assert b"audit forwarder" in receiver.messages[-1]
    assert b"Object Security Attributes Changed" in receiver.messages[-1]


def test_s24_a_wrong_certificate_file_is_told_at_the_start(tmp_path: Path) -> None:
    configuration = tmp_path / "node.toml"
    configuration.write_text('[audit]\nsyslog_host = "localhost"\nsyslog_ca = "missing.pem"\n')
    with pytest.raises(ConfigError, match=r"missing\.pem: no such file"):
        audit_forwarder(load_settings(configuration))


def test_s24_without_a_server_nothing_is_forwarded(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("")
    assert audit_forwarder(load_settings(tmp_path / "node.toml")) is None
