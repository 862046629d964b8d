"""Faults by whoever reaches the port: floods, peers that stall, scans. A receiver is looked at from outside."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from certificates import Authority
from exact_sender import associated
from fault import Fault, Observation, Scale, Trial
from process_size import ProcessSize, size_of
from raw_peer import associate_request, connect, pdu, receive_pdu
from receiver_stem import forked_receiver
from sending import Acknowledged, look_at, send_until_refused

ACCEPTED: Final = 0x02
STALLED_PEERS: Final = 15

MOST_GROWTH_BYTES: Final = 32 * 1024**2

MOST_WAIT_S: Final = 2.0
"""A good peer may be let in so much later than without the others."""

LONG_PDU: Final = struct.pack(">BxI", 1, 0xFFFFFFFE) + bytes(4 * 1024**2)
"""The beginning of an association request that announces 4 GiB: fifteen of them are more than may be kept."""

STALLS: Final[Mapping[str, bytes]] = {
    "silent TLS": b"",
    "silent": b"",
    "one byte": b"\x01",
    "half a PDU": associate_request()[:100],
    "4 GiB announced": LONG_PDU,
    "4 GiB announced, on TLS": LONG_PDU,
}
"""What a peer sends before it falls silent."""


def stalled_peers(trial: Trial) -> Observation:
    """Fifteen peers that stall in one way while a good one comes: how long that takes, and what the receiver grows."""
    stall = list(STALLS)[trial.seed % len(STALLS)]
    over_tls = "TLS" in stall
    if over_tls:
        _certify(trial.folder)
    with forked_receiver(trial.folder) as (process_id, port), ExitStack() as crowd:
        undisturbed_s = min(_admission_s(port, over_tls=over_tls) for _ in range(3))
        before = size_of(process_id)
        for _ in range(STALLED_PEERS):
            peer = crowd.enter_context(_spoken_to(port, over_tls="on TLS" in stall))
            with suppress(OSError):  # cut off while it still announces
                peer.sendall(STALLS[stall])
        waited_s = _admission_s(port, over_tls=over_tls)
        growth = size_of(process_id).memory_bytes - before.memory_bytes
    problems = []
    if waited_s > MOST_WAIT_S + undisturbed_s:
        problems.append(f"{stall}: a good peer waited {waited_s:.2f} s, without the others {undisturbed_s:.2f} s")
    if growth > MOST_GROWTH_BYTES:
        problems.append(f"{stall}: the receiver grew by {growth} bytes")
    return Observation(injected=STALLED_PEERS, recovery_s=waited_s, problems=tuple(problems))


def _certify(folder: Path) -> None:
    """Have the receiver in `folder` speak TLS."""
    made = Authority(folder).sign("signed")
    shutil.copy(made.certificate, folder / "node.pem")
    shutil.copy(made.key, folder / "node.key")


def _admission_s(port: int, *, over_tls: bool) -> float:
    """How long a listed peer takes from its connection to its association."""
    began = time.monotonic()
    with _spoken_to(port, over_tls=over_tls) as peer:
        peer.sendall(associate_request())
        kind, _ = receive_pdu(peer)
        took_s = time.monotonic() - began
        if kind != ACCEPTED:
            raise ConnectionRefusedError(f"a good peer was answered with a PDU of type {kind:02X}")
        peer.sendall(pdu(0x05, bytes(4)))
        receive_pdu(peer)
    return took_s


@contextmanager
def _spoken_to(port: int, *, over_tls: bool) -> Iterator[socket.socket]:
    with connect(port) as plain:
        if not over_tls:
            yield plain
            return
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        with anyone.wrap_socket(plain) as peer:
            yield peer


CROWD: Final = 200
SENDERS: Final = 50
IMAGES_EACH: Final = 2
PATIENCE_S: Final = 600.0
IDLE_TIMES: Final = 1.5
BUFFERS_BYTES: Final = 20 * 2 * 1024**2
"""Twenty associations at a time, each with an image in its hands and one on its way."""


def flood(trial: Trial) -> Observation:
    """Two hundred peers connect and say nothing while fifty send two images each, more than there are places."""
    shares: list[Acknowledged] = [{} for _ in range(SENDERS)]
    problems = []
    with forked_receiver(trial.folder) as (process_id, port), ExitStack() as crowd:
        with associated(port) as sender:
            sender.echo()
        idle = size_of(process_id)
        for _ in range(CROWD):
            crowd.enter_context(connect(port))
        senders = [threading.Thread(target=_send_patiently, args=(port, share)) for share in shares]
        for one in senders:
            one.start()
        for one in senders:
            one.join(PATIENCE_S)
        after = size_of(process_id)
    if (missing := sum(len(share) < IMAGES_EACH for share in shares)) > 0:
        problems.append(f"{missing} of {SENDERS} senders did not get rid of their images")
    if after.memory_bytes > IDLE_TIMES * idle.memory_bytes + BUFFERS_BYTES:
        problems.append(f"the receiver grew from {idle.memory_bytes} to {after.memory_bytes} bytes")
    ledger = {uid: sha256 for share in shares for uid, sha256 in share.items()}
    kept = look_at(trial.folder, ledger)
    return Observation(
        injected=CROWD,
        acknowledged=len(ledger),
        lost=kept.lost,
        doubled=kept.doubled,
        left_over=kept.left_over,
        problems=(*problems, *kept.problems),
    )


def _send_patiently(port: int, ledger: Acknowledged) -> None:
    """Two images, however often it takes: whoever is told "later" comes later."""
    deadline = time.monotonic() + PATIENCE_S
    while len(ledger) < IMAGES_EACH and time.monotonic() < deadline:
        try:
            with associated(port) as sender:
                send_until_refused(sender, ledger, size=64, most=IMAGES_EACH - len(ledger))
        except OSError:
            time.sleep(0.1)


CONNECTS: Final = 100_000
WARM_UP: Final = 2_000
MOST_THREADS: Final = 2
MOST_GROWTH: Final = 0.10

HELLOS: Final = (
    b"",
    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + bytes(238),
    b"SSH-2.0-OpenSSH_9.2\r\n",
    associate_request(calling=b"STRANGER"),
)
"""A port scan and health checks, a browser, TLS where there is none, another protocol, and a caller nobody knows."""


def many_connects(trial: Trial) -> Observation:
    """A hundred thousand strangers, one after the other; then the receiver is what it was after the first of them."""
    chance = trial.chance
    problems = []
    with forked_receiver(trial.folder) as (process_id, port):
        for number in range(CONNECTS):
            if number == WARM_UP:
                before = _settled(process_id)
            _knock(port, chance.choice(HELLOS), waits=chance.random() < 0.1)
        after = _settled(process_id)
        recovery_s = _admission_s(port, over_tls=False)
    if abs(after.threads - before.threads) > MOST_THREADS or after.descriptors > before.descriptors:
        problems.append(f"before {before}, after {after}")
    if abs(after.memory_bytes - before.memory_bytes) > MOST_GROWTH * before.memory_bytes:
        problems.append(f"the receiver went from {before.memory_bytes} to {after.memory_bytes} bytes")
    return Observation(injected=CONNECTS, recovery_s=recovery_s, problems=tuple(problems))


def _knock(port: int, hello: bytes, *, waits: bool) -> None:
    """Connect, say something, leave; some wait for an answer first."""
    with suppress(OSError), connect(port) as peer:
        peer.sendall(hello)
        if waits and hello:
            peer.recv(64)


def _settled(process_id: int) -> ProcessSize:
    """What a process holds once it has dealt with whoever has left: threads are as few as they get for a second."""
    fewest, since = size_of(process_id), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        now = size_of(process_id)
        if (now.threads, now.descriptors) < (fewest.threads, fewest.descriptors):
            since = time.monotonic()
            fewest = now
    return size_of(process_id)


FAULTS: Final = (
    Fault(
        number="F20",
        title="two hundred connections that say nothing, beside fifty senders",
        promise="everybody gets rid of everything by trying again; memory stays below one and a half times that of an "
        "idle receiver and what is being received",
        trials={Scale.CI: 1, Scale.NIGHTLY: 10, Scale.RELEASE: 50},
        run=flood,
    ),
    Fault(
        number="F21",
        title="fifteen peers that stall: silent (plain, TLS), one byte, half a PDU, 4 GiB announced (plain, TLS)",
        promise="a good peer is let in at most two seconds later than without them (recovery: how long it took); the "
        "receiver grows by less than 32 MiB",
        trials={Scale.CI: 0, Scale.NIGHTLY: 60, Scale.RELEASE: 300},
        run=stalled_peers,
    ),
    Fault(
        number="F22",
        title="a hundred thousand connections of port scans, browsers, TLS and SSH clients and unknown callers",
        promise="no thread, no descriptor and no memory is left of them, and a good peer is let in (recovery: how long "
        "that took)",
        trials={Scale.CI: 0, Scale.NIGHTLY: 1, Scale.RELEASE: 1},
        run=many_connects,
    ),
)
