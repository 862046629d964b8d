"""Who gets an association, who does not, and that nobody who stalls keeps a good peer out."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import threading
import time

import pytest
from certificates import Authority
from exact_sender import associated
from mr_images import encode, make_mr
from patience import PATIENCE_S, wait_until
from raw_peer import associate_request, connect, fragment, item, pdu, receive_pdu, store_command

from dicom_node.dicom_tls import ListenerTls, ListenerTlsFiles
from dicom_node.intake.admission import Admission, RejectedCaller
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

ACCEPTED, REJECTED, ABORTED, CLOSED = 0x02, 0x03, 0x07, 0
STALLED_PEERS = 15
TIME_TO_ASK_S = 4.0


def answer_to(port: int, request: bytes) -> tuple[int, tuple[int, ...]]:
    """Kind of the first PDU that comes back, and for a rejection its result, source and reason."""
    with connect(port) as peer:
        peer.sendall(request)
        kind, content = receive_pdu(peer)
        return kind, tuple(content[1:4]) if kind == REJECTED else ()


@pytest.mark.parametrize(
    ("calling", "called", "answer"),
    [
        (b"SCANNER", b"HYDROPS", (ACCEPTED, ())),
        (b" SCANNER ", b"  HYDROPS", (ACCEPTED, ())),
        (b"SCANNER".ljust(16, b"\0"), b"HYDROPS".ljust(16, b"\0"), (ACCEPTED, ())),
        (b"scanner", b"HYDROPS", (REJECTED, (1, 1, 3))),
        (b"STRANGER", b"HYDROPS", (REJECTED, (1, 1, 3))),
        (b"STRANGER", b"OTHER", (REJECTED, (1, 1, 3))),
        (b"", b"HYDROPS", (REJECTED, (1, 1, 3))),
        (b"SCANNER\xe9", b"HYDROPS", (REJECTED, (1, 1, 3))),
        (b"SCAN\r\nNER", b"HYDROPS", (REJECTED, (1, 1, 3))),
        (b"ELSEWHERE", b"HYDROPS", (REJECTED, (1, 1, 3))),
        (b"SCANNER", b"hydrops", (REJECTED, (1, 1, 7))),
        (b"SCANNER", b"ANY-SCP", (REJECTED, (1, 1, 7))),
        (b"SCANNER", b"", (REJECTED, (1, 1, 7))),
    ],
)
def test_s01_b63_only_listed_callers_of_our_exact_title_are_accepted(start_listener, caplog, calling, called, answer):
    caplog.set_level(logging.INFO)
    elsewhere = AllowedPeer(ae_title="ELSEWHERE", networks=("203.0.113.0/24",))
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.1/32",))
    listener = start_listener(allowed=(scanner, elsewhere))
    assert answer_to(listener.port, associate_request(calling=calling, called=called)) == answer
    rejections = [r.getMessage() for r in caplog.records if "event=association_rejected" in r.getMessage()]
    assert len(rejections) == (answer[0] == REJECTED)
    assert not any("\n" in line for line in rejections)


@pytest.mark.dcmtk
def test_a_rejected_sender_reads_the_reason_from_a_real_program(start_listener, dcmtk):
    listener = start_listener()
    told = dcmtk("echoscu", "-aet", "STRANGER", "-aec", "HYDROPS", "127.0.0.1", listener.port, check=False)
    assert "Calling AE Title Not Recognized" in told.stderr
    told = dcmtk("echoscu", "-aet", "SCANNER", "-aec", "OTHER", "127.0.0.1", listener.port, check=False)
    assert "Called AE Title Not Recognized" in told.stderr


def test_f20_one_association_too_many_is_a_transient_reject_and_a_place_comes_free_again(start_listener):
    listener = start_listener(max_associations=2)
    with associated(listener.port), associated(listener.port):
        assert answer_to(listener.port, associate_request()) == (REJECTED, (2, 3, 2))
        assert listener.live_associations == 2
    wait_until(lambda: listener.live_associations == 0)
    assert answer_to(listener.port, associate_request())[0] == ACCEPTED


@pytest.mark.parametrize(("version", "answer"), [(1, (ACCEPTED, ())), (3, (ACCEPTED, ())), (2, (REJECTED, (1, 2, 2)))])
def test_only_the_first_version_of_the_protocol_is_spoken_whatever_else_the_peer_can(start_listener, version, answer):
    assert answer_to(start_listener().port, associate_request(version=version)) == answer


@pytest.mark.parametrize(
    "request_pdu",
    [
        pytest.param(associate_request(more=item(0x52, "1.2.\N{DEGREE SIGN}".encode())), id="a UID that is no ASCII"),
        pytest.param(associate_request(more=item(0x99, b"12")), id="an item that there is not"),
        pytest.param(associate_request(more=item(0x53, b"\0")), id="half an item of asynchronous operations"),
        pytest.param(associate_request(more=struct.pack(">BxH", 0x54, 60_000)), id="an item longer than its PDU"),
        pytest.param(
            associate_request(more=item(0x54, struct.pack(">H", 900) + b"1.2\1\0")), id="a name longer than its item"
        ),
        pytest.param(associate_request(proposals=item(0x20, b"\7\0\0\0")), id="a context of nothing"),
        pytest.param(
            associate_request(proposals=item(0x20, b"\7\0\0\0" + item(0x30, b"1.2.840.10008.1.1"))),
            id="a context without transfer syntax",
        ),
        pytest.param(
            associate_request(proposals=item(0x20, b"\7\0\0\0" + item(0x40, b"1.2.840.10008.1.2"))),
            id="a context without abstract syntax",
        ),
        pytest.param(
            associate_request(proposals=item(0x20, b"\7\0\0\0" + item(0x30, b"1.2.840.10008.1.1") + item(0x40, b""))),
            id="an empty transfer syntax",
        ),
    ],
)
def test_s02_a_request_that_cannot_be_read_is_answered_at_once_and_the_next_peer_is_served(
    start_listener, caplog, request_pdu
):
    listener = start_listener(acse_timeout_s=2 * PATIENCE_S)
    with connect(listener.port) as peer:
        peer.sendall(request_pdu)
        assert receive_pdu(peer) == (ABORTED, bytes((0, 0, 2, 6)))  # by the provider: invalid PDU parameter value
    wait_until(lambda: listener.live_associations == 0)
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000
    assert not [record for record in caplog.records if "connection_failed" in record.getMessage()]  # no fault of ours


def test_f20_a_peer_takes_one_thread(start_listener):
    listener = start_listener()
    before = threading.active_count()
    with connect(listener.port) as one, connect(listener.port) as other:
        for peer in (one, other):
            peer.sendall(associate_request())
            assert receive_pdu(peer)[0] == ACCEPTED
        assert threading.active_count() == before + 2


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x01", id="one byte"),
        pytest.param(associate_request()[:100], id="half a PDU"),
        pytest.param(struct.pack(">BxI", 1, 500_000) + bytes(70), id="long PDU"),
    ],
)
def test_f21_stalled_peers_hold_no_association_and_are_dropped(start_listener, opening):
    listener = start_listener(max_associations=3, acse_timeout_s=TIME_TO_ASK_S)
    stalled = [connect(listener.port) for _ in range(STALLED_PEERS)]
    for peer in stalled:
        peer.sendall(opening)
    started_s = time.monotonic()
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000
    assert [receive_pdu(peer)[0] for peer in stalled] == [CLOSED] * STALLED_PEERS
    assert time.monotonic() - started_s < STALLED_PEERS * TIME_TO_ASK_S  # not one after another
    for peer in stalled:
        peer.close()


def test_f21_a_byte_now_and_then_does_not_stretch_the_time_to_ask(start_listener):
    listener = start_listener(acse_timeout_s=1.0)
    with connect(listener.port) as peer:
        started_s = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_byte_by_byte(peer, bytes(10_000), pause_s=0.2)
    assert time.monotonic() - started_s < PATIENCE_S  # all of it would have taken half an hour


def test_f21_a_crowd_of_silent_peers_loses_its_oldest_not_the_good_one(start_listener):
    listener = start_listener(max_waiting_peers=8, acse_timeout_s=2 * PATIENCE_S)
    silent = [connect(listener.port) for _ in range(20)]
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000
    assert receive_pdu(silent[0])[0] == CLOSED
    for peer in silent:
        peer.close()


@pytest.mark.parametrize(("contexts", "answer"), [(128, ACCEPTED), (129, ABORTED), (8000, ABORTED)])
def test_s02_more_presentation_contexts_than_there_are_numbers_for_are_not_negotiated(start_listener, contexts, answer):
    listener = start_listener()
    with connect(listener.port) as peer:
        peer.sendall(associate_request(contexts=contexts))
        kind, content = receive_pdu(peer)
        assert kind == answer
        if kind == ACCEPTED:
            assert content.count(b"\x21\x00") >= contexts  # a result for each
        else:
            assert content[2:] == bytes((2, 6))  # by the provider: invalid PDU parameter value
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000


@pytest.mark.parametrize("kind", [0x01, 0x04], ids=["association request", "data"])
def test_f21_an_announced_pdu_of_4_gib_is_never_collected(start_listener, kind):
    listener = start_listener()
    before_kib = resident_kib()
    with connect(listener.port) as peer:
        if kind == 0x04:
            peer.sendall(associate_request())
            assert receive_pdu(peer)[0] == ACCEPTED
        with pytest.raises(OSError, match=r"reset|pipe"):
            send_until_cut_off(peer, struct.pack(">BxI", kind, 0xFFFFFFFE), most_kib=before_kib + 32 * 1024)
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000


def test_f21_a_stall_in_the_middle_of_an_object_ends_after_the_network_timeout(start_listener, spool):
    listener = start_listener(network_timeout_s=1.0)
    with connect(listener.port) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == ACCEPTED
        peer.sendall(fragment(3, 3, store_command(b"1.2.3")) + fragment(3, 2, bytes(1000))[:500])
        assert receive_pdu(peer)[0] in (ABORTED, CLOSED)  # within the patience of this test's own socket
    wait_until(lambda: listener.live_associations == 0)
    assert spool.studies() == []


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", pdu(0x04, bytes(100))])
def test_f22_strangers_on_the_port_leave_no_thread_behind(start_listener, opening):
    listener = start_listener()
    before = threading.active_count()
    for _ in range(100):
        with connect(listener.port) as peer:
            peer.sendall(opening)
    wait_until(lambda: threading.active_count() <= before)
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000


def test_f07_stop_lets_a_live_association_finish_and_takes_no_new_one(start_listener, spool):
    listener = start_listener()
    port = listener.port
    images = [make_mr() for _ in range(5)]
    aborted: list[int] = []
    stopping = threading.Thread(target=lambda: aborted.append(listener.stop(drain_s=PATIENCE_S)))
    with associated(port) as sender:
        stopping.start()
        wait_until(lambda: is_closed(port))
        for image in images:
            assert sender.store(encode(image), sop_instance=image.SOPInstanceUID)[0] == 0x0000
    stopping.join(PATIENCE_S)
    assert aborted == [0]
    assert spool.studies()[0].instances == len(images)


def test_f07_who_is_being_judged_while_the_node_stops_is_told_to_try_later(start_listener, monkeypatch):
    listener = start_listener()
    judged, go_on = threading.Event(), threading.Event()
    judge = Admission.judge

    def slowly(*words, **more):
        judged.set()
        assert go_on.wait(PATIENCE_S)
        return judge(*words, **more)

    monkeypatch.setattr(Admission, "judge", slowly)
    with connect(listener.port) as peer:
        peer.sendall(associate_request())
        assert judged.wait(PATIENCE_S)
        assert listener.stop(drain_s=0.0) == 0
        go_on.set()
        kind, content = receive_pdu(peer)
        assert (kind, tuple(content[1:4])) == (REJECTED, (2, 3, 1))


def test_f07_stop_aborts_who_does_not_leave_in_time(start_listener):
    listener = start_listener()
    with connect(listener.port) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == ACCEPTED
        assert listener.stop(drain_s=0.2) == 1
        assert receive_pdu(peer)[0] == ABORTED


def test_f20_two_hundred_connects_and_eight_senders_lose_nothing(start_listener, spool):
    listener = start_listener(max_associations=4)
    crowd = [connect(listener.port) for _ in range(200)]
    images = [make_mr() for _ in range(40)]

    def send(mine: list) -> None:
        while mine:
            try:
                with associated(listener.port) as sender:
                    while mine:
                        status, _ = sender.store(encode(mine[-1]), sop_instance=mine[-1].SOPInstanceUID)
                        assert status == 0x0000
                        mine.pop()
            except ConnectionRefusedError:
                time.sleep(0.2)

    senders = [threading.Thread(target=send, args=(images[n::8],)) for n in range(8)]
    for one in senders:
        one.start()
    for one in senders:
        one.join(PATIENCE_S)
    assert spool.studies()[0].instances == len(images)
    for peer in crowd:
        peer.close()


@pytest.fixture(scope="module")
def listener_tls(tmp_path_factory: pytest.TempPathFactory) -> ListenerTls:
    made = Authority(tmp_path_factory.mktemp("tls")).sign("node")
    return ListenerTls(ListenerTlsFiles(certificate=made.certificate, key=made.key))


def test_s06_silent_tls_peers_do_not_hold_up_a_good_one(start_listener, listener_tls):
    listener = start_listener(tls=listener_tls, acse_timeout_s=2 * PATIENCE_S)
    silent = [connect(listener.port) for _ in range(STALLED_PEERS)]
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    started_s = time.monotonic()
    with anyone.wrap_socket(connect(listener.port)) as peer:
        peer.sendall(associate_request())
        assert receive_pdu(peer)[0] == ACCEPTED
        assert time.monotonic() - started_s < PATIENCE_S  # the silent ones are still waited for
        peer.sendall(pdu(0x05, bytes(4)))
        assert receive_pdu(peer)[0] == 0x06
    for one in silent:
        one.close()


@pytest.mark.parametrize(
    ("opening", "in_tls"),
    [
        pytest.param(b"\x16", False, id="one byte of a handshake"),
        pytest.param(b"\x01", True, id="one byte"),
        pytest.param(struct.pack(">BxI", 1, 0xFFFFFFFE) + bytes(1000), True, id="4 GiB announced"),
    ],
)
def test_f21_peers_that_stall_on_tls_are_dropped_and_hold_up_nobody(start_listener, listener_tls, opening, in_tls):
    listener = start_listener(tls=listener_tls, max_associations=3, acse_timeout_s=TIME_TO_ASK_S)
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    stalled = []
    for _ in range(STALLED_PEERS):
        peer = connect(listener.port)
        stalled.append(anyone.wrap_socket(peer) if in_tls else peer)
        stalled[-1].sendall(opening)  # at once: all their handshakes may take longer than each of them is waited for
    with anyone.wrap_socket(connect(listener.port)) as good:
        good.sendall(associate_request())
        assert receive_pdu(good)[0] == ACCEPTED
        good.sendall(pdu(0x05, bytes(4)))
        assert receive_pdu(good)[0] == 0x06
    assert {receive_pdu(peer)[0] for peer in stalled} <= {CLOSED, ABORTED}
    for peer in stalled:
        peer.close()
    wait_until(lambda: listener.live_associations == 0)


def send_byte_by_byte(peer: socket.socket, content: bytes, *, pause_s: float) -> None:
    for byte in content:
        peer.send(bytes([byte]))
        time.sleep(pause_s)


def send_until_cut_off(peer: socket.socket, opening: bytes, *, most_kib: int) -> None:
    """Send on and on, and look whether anybody in this process collects it."""
    peer.sendall(opening)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        peer.sendall(bytes(1 << 20))
        assert resident_kib() < most_kib


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def resident_kib() -> int:
    with open(f"/proc/{os.getpid()}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_a_caller_that_was_turned_away_is_told_of_but_not_one_that_only_found_no_place(spool: Spool) -> None:
    rejected: list[RejectedCaller] = []
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))
    options = ListenerOptions(ae_title="HYDROPS", port=0, allowed=(scanner,), max_associations=1)
    listener = Listener(options, spool, on_rejected=rejected.append)
    listener.start()
    try:
        assert answer_to(listener.port, associate_request(calling=b"STRANGER"))[0] == REJECTED
        with connect(listener.port) as first:
            first.sendall(associate_request())
            assert receive_pdu(first)[0] == ACCEPTED
            assert answer_to(listener.port, associate_request())[1] == (2, 3, 2)
        wait_until(lambda: rejected)  # who was turned away knows it before it is told of
    finally:
        listener.stop(drain_s=0)
    assert rejected == [
        RejectedCaller(calling_ae="STRANGER", address="127.0.0.1", words="calling AE title is not in listener.allowed")
    ]


def test_s03_one_ae_title_never_takes_all_places(start_listener):
    pacs = AllowedPeer(ae_title="PACS", networks=("127.0.0.0/8",))
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))
    listener = start_listener(allowed=(scanner, pacs), max_associations=4, max_associations_per_ae=2)
    with associated(listener.port) as first, associated(listener.port) as second:
        assert answer_to(listener.port, associate_request()) == (REJECTED, (2, 3, 2))
        with associated(listener.port, calling="PACS") as other:
            assert [one.echo() for one in (first, second, other)] == [0x0000] * 3
        assert listener.tally.rejections() == {"2/3/2": 1}
    wait_until(lambda: listener.live_associations == 0)
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000
