"""Faults of what the node keeps: turned bits, a locked or damaged database, two nodes on one folder, bad configuration.

Also poison: an image that somebody damaged on purpose, in a study beside a good one.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from configuration_mutants import BASIS, MUTANTS
from delivery_faults import PATIENCE_S, QUICK, result_object
from desk_parts import DeskParts, hydrops_study
from dicom_receivers import Receiver, destination
from exact_sender import associated
from fault import Fault, Observation, Scale, Trial
from free_ports import free_port
from mr_images import data_set_bytes
from mutants import mutant, plain_bytes
from pydicom.dataset import Dataset
from receiver_stem import forked_receiver
from sending import Acknowledged, look_at, send_until_refused

from dicom_node.cli.live_configuration import LiveConfiguration
from dicom_node.database import open_database, require_whole
from dicom_node.delivery.outbox import DeliveryState, Outbox
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store
from dicom_node.errors import ConfigError
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool
from dicom_node.intake.wire_check import UnstorableInstance
from dicom_node.ledger import StudyState
from dicom_node.settings import LoadedSettings, read_settings

OUT_OF_RESOURCES: Final = 0xA700
SCANNER: Final = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))
STUDY: Final = "2.25.100"
GOOD_STUDY: Final = "2.25.900"


def rotten_image(trial: Trial) -> Observation:
    """One bit of one kept image turns before its study is computed; later the image is sent again."""
    chance = trial.chance
    parts = DeskParts(trial.folder)
    try:
        images = hydrops_study()
        parts.receive(images)
        (work,) = parts.look_round_after()
        victim = chance.choice(parts.spool.instances(STUDY))
        content = victim.path.read_bytes()
        begin = len(content) - len(data_set_bytes(content))
        _turn_a_bit(victim.path, chance.randrange(begin, len(content)), chance.randrange(8))
        parts.desk.compute(work)
        problems = [] if not parts.sent() else ["something was sent of a study with a damaged image"]
        parts.work_off()
        if parts.state() != (StudyState.REFUSED, "SOURCE_CORRUPT"):
            problems.append(f"the study with the damaged image is {parts.state()}")
        parts.receive(images)
        parts.work_off()
        if parts.state() != (StudyState.REFUSED, "CONTENT"):  # that is how a study without ears must end
            problems.append(f"with the image sent again the study is {parts.state()}")
        kept = {one.sop_instance_uid: one.path.read_bytes() for one in parts.spool.instances(STUDY)}
        lost = len(images) - len(kept) + (kept.get(victim.sop_instance_uid) != content)
        return Observation(acknowledged=len(images), lost=lost, problems=tuple(problems))
    finally:
        parts.engine.dispose()


def rotten_result(trial: Trial) -> Observation:
    """One bit of one result turns before it is sent."""
    chance = trial.chance
    engine = open_database(f"sqlite:///{trial.folder / 'node.db'}")
    outbox = Outbox(trial.folder / "outbox", engine)
    outbox.queue("key", "2.25.7001", outbox.keep([result_object("SEG"), result_object("SR")]), ["pacs"], at=time.time())
    victim = chance.choice(sorted(path for path in (trial.folder / "outbox").rglob("*") if path.is_file()))
    _turn_a_bit(victim, chance.randrange(victim.stat().st_size), chance.randrange(8))
    with Receiver().listening() as receiver:
        pump = DeliveryPump(
            outbox, [destination(receiver.port, timeout_s=5.0)], {"dicom": store}, policy=QUICK, clock=time.time
        )
        pump.start()
        deadline = time.monotonic() + PATIENCE_S
        while any(one.state is DeliveryState.WAITING for one in outbox.deliveries("2.25.7001")):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        pump.stop(PATIENCE_S)
        found = outbox.deliveries("2.25.7001")
    engine.dispose()
    stopped = [one for one in found if one.state is DeliveryState.STOPPED]
    problems = [] if len(stopped) == 1 else [f"{len(stopped)} dead letters, expected 1"]
    problems += [f"dead letter says {one.last_detail!r}" for one in stopped if "damaged" not in one.last_detail]
    sent = {uid for uid, _, _ in receiver.received}
    if sent & {one.sop_instance_uid for one in stopped}:
        problems.append("a damaged result was sent")
    others = {one.sop_instance_uid: one.state for one in found if one not in stopped}
    lost = len(others.keys() - sent)
    problems += [f"the other object is {state}" for state in others.values() if state is not DeliveryState.DELIVERED]
    return Observation(acknowledged=len(receiver.received), lost=lost, problems=tuple(problems))


def locked_database(trial: Trial) -> Observation:
    """Another process holds the write lock for longer than we wait, or reads for so long that the log must grow."""
    chance = trial.chance
    ledger: Acknowledged = {}
    problems: list[str] = []
    engine = open_database(f"sqlite:///{trial.folder / 'node.db'}", busy_timeout_s=0.2)
    listener = Listener(
        ListenerOptions(ae_title="HYDROPS", port=0, allowed=(SCANNER,)), Spool(trial.folder / "spool", engine)
    )
    listener.start()
    try:
        with associated(listener.port, timeout_s=60) as sender:
            if send_until_refused(sender, ledger, size=32, most=3) != 0:
                problems.append("images are not taken before the lock")
            other = sqlite3.connect(trial.folder / "node.db", isolation_level=None)
            writes = chance.random() < 0.7
            other.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            other.execute("SELECT count(*) FROM spool_instance").fetchone()
            statuses = [send_until_refused(sender, ledger, size=32, most=1) for _ in range(chance.randint(1, 3))]
            expected = OUT_OF_RESOURCES if writes else 0
            problems += [f"answered {one}, expected {expected:04X}" for one in statuses if one != expected]
            if sender.echo() != 0:
                problems.append("no answer to C-ECHO while the database is locked")
            other.execute("ROLLBACK")
            other.close()
            if send_until_refused(sender, ledger, size=32, most=3) != 0:
                problems.append("images are not taken after the lock")
    finally:
        listener.stop(5.0)
        engine.dispose()
    kept = look_at(trial.folder, ledger)
    return Observation(
        acknowledged=len(ledger), lost=kept.lost, doubled=kept.doubled, left_over=kept.left_over,
        problems=(*problems, *kept.problems),
    )  # fmt: skip


def damaged_database(trial: Trial) -> Observation:
    """Kill -9, then bytes of the database file turn; it must be refused untouched, and made anew from the files."""
    chance = trial.chance
    ledger: Acknowledged = {}
    images = chance.randint(3, 12)
    with forked_receiver(trial.folder) as (_, port), associated(port, timeout_s=60) as sender:
        send_until_refused(sender, ledger, size=32, most=images)
    path = trial.folder / "node.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    start = 0 if chance.random() < 0.5 else 4096 * chance.randint(1, 3)
    content[start : start + 2048] = chance.randbytes(2048)
    path.write_bytes(content)
    problems = [] if len(ledger) == images else [f"{len(ledger)} of {images} images were taken before the damage"]
    try:
        require_whole(open_database(f"sqlite:///{path}"))
        problems.append("a damaged database was taken")
    except ConfigError:
        if path.read_bytes() != bytes(content):
            problems.append("a damaged database was written to")
    for one in trial.folder.glob("node.db*"):
        one.rename(trial.folder / f"damaged-{one.name}")
    began = time.monotonic()
    with forked_receiver(trial.folder) as (_, port), associated(port, timeout_s=60) as sender:
        problems += [] if sender.echo() == 0 else ["no answer to C-ECHO after the index was made anew"]
        recovery_s = time.monotonic() - began
    kept = look_at(trial.folder, ledger, sweep=False)
    return Observation(
        acknowledged=len(ledger), lost=kept.lost, doubled=kept.doubled, left_over=kept.left_over,
        recovery_s=recovery_s, problems=(*problems, *kept.problems),
    )  # fmt: skip


def two_nodes(trial: Trial) -> Observation:
    """The receiving command, twice on one state folder, with some time between the two."""
    port, web = free_port(), free_port()
    config = trial.folder / "node.toml"
    config.write_text(
        f'[node]\nstate_dir = "state"\n[listener]\nport = {port}\nmin_free_bytes = 0\n'
        'allowed = [{ ae_title = "SCANNER", networks = ["127.0.0.0/8"] }]\n'
        f'[web]\nport = {web}\n[assembly]\nrules_file = "rules.toml"\n'
    )
    (trial.folder / "rules.toml").write_text("")
    first = _listen(config)
    time.sleep(trial.chance.choice((0.0, trial.chance.uniform(0.0, 3.0))))
    second = _listen(config)
    ledger: Acknowledged = {}
    try:
        _require_port(port)
        ended = _first_to_end(first, second)
        problems = [] if ended is not None else ["both run"]
        if ended is not None:
            said = ended.stderr.read().decode() if ended.stderr is not None else ""
            if ended.returncode in (0, None) or "another process already runs" not in said:
                problems.append(f"the second ended with {ended.returncode}: {said[-200:]}")
        with associated(port, timeout_s=60) as sender:
            send_until_refused(sender, ledger, size=32, most=2)
    finally:
        for one in (first, second):
            one.send_signal(signal.SIGTERM)
        for one in (first, second):
            one.wait(PATIENCE_S)
    kept = look_at(trial.folder / "state", ledger)
    lost = kept.lost + (2 - len(ledger))
    return Observation(
        acknowledged=len(ledger), lost=lost, doubled=kept.doubled, left_over=kept.left_over,
        problems=(*problems, *kept.problems),
    )  # fmt: skip


def _listen(config: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dicom_node.cli", "listen", "--config", str(config)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _require_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with associated(port) as sender:
                sender.echo()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nobody listens on port {port}")


def _first_to_end(*processes: subprocess.Popen[bytes]) -> subprocess.Popen[bytes] | None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for one in processes:
            if one.poll() is not None:
                return one
        time.sleep(0.05)
    return None


def bad_configuration(trial: Trial) -> Observation:
    """A bad edit of the configuration file while images come; then the good file again."""
    chance = trial.chance
    ledger: Acknowledged = {}
    (trial.folder / "series_rules.toml").write_text("")
    path = trial.folder / "node.toml"
    path.write_text(BASIS)
    engine = open_database(f"sqlite:///{trial.folder / 'node.db'}")
    listener = Listener(
        ListenerOptions(ae_title="HYDROPS", port=0, allowed=(SCANNER,)), Spool(trial.folder / "spool", engine)
    )
    listener.start()
    live = LiveConfiguration(path, read_settings(path, {}), _admitting(listener))
    words, edit = chance.choice(MUTANTS)
    problems = []
    try:
        with associated(listener.port, timeout_s=60) as sender:
            send_until_refused(sender, ledger, size=16, most=1)
            path.write_text(edit(BASIS, chance))
            live.look()
            live.look()
            if not any(word in live.state.problem for word in words):
                problems.append(f"the problem is told as {live.state.problem!r}, expected one of {words}")
            if send_until_refused(sender, ledger, size=16, most=1) != 0:
                problems.append("an image was refused because of a bad edit")
        with associated(listener.port, timeout_s=60) as sender:
            if send_until_refused(sender, ledger, size=16, most=1) != 0:
                problems.append("a sender was refused because of a bad edit")
        path.write_text(BASIS.replace("600.0", "700.0"))
        live.look()
        live.look()
        if live.state.problem or live.running.settings.delivery.max_retry_s != 700.0:
            problems.append(f"a good file after the bad one was not taken: {live.state.problem!r}")
    finally:
        listener.stop(5.0)
        engine.dispose()
    kept = look_at(trial.folder, ledger)
    return Observation(
        acknowledged=len(ledger), lost=kept.lost, doubled=kept.doubled, left_over=kept.left_over,
        problems=(*problems, *kept.problems),
    )  # fmt: skip


def _admitting(listener: Listener) -> Callable[[LoadedSettings, object], None]:
    """What the receiving process does with a changed list of senders."""

    def take_over(loaded: LoadedSettings, _effects: object) -> None:
        allowed = loaded.settings.listener.allowed
        listener.admit(tuple(AllowedPeer(ae_title=one.ae_title, networks=one.networks) for one in allowed))

    return take_over


def poison(trial: Trial) -> Observation:
    """A good study, and one of which an image was damaged on purpose, at the same desk."""
    chance = trial.chance
    parts = DeskParts(trial.folder)
    try:
        poisoned, good = hydrops_study(), hydrops_study(GOOD_STUDY)
        originals = [plain_bytes(one) for one in poisoned]
        bad = mutant(chance.randrange(1 << 40), originals)
        parts.receive(good[:10])
        with suppress(UnstorableInstance):  # then it was refused on the wire, and the rest of its study comes
            parts.spool.store_dataset(bad.dataset, bad.transfer_syntax_uid, source="SCANNER", at=parts.now)
        parts.receive(poisoned[chance.randint(0, 1) :])
        parts.receive(good[10:])
        for _ in range(2):
            parts.work_off()
        problems = []
        if parts.state(GOOD_STUDY) != (StudyState.REFUSED, "CONTENT"):
            problems.append(f"the good study is {parts.state(GOOD_STUDY)} beside {', '.join(bad.damage)}")
        ends = [record for record in parts.ledger.recent() if record.state is StudyState.FAILED]
        problems += [f"{one.study_instance_uid} FAILED with {one.detail} ({', '.join(bad.damage)})" for one in ends]
        reports = sum(kind == "SR" for kind, _ in parts.sent(GOOD_STUDY))
        kept = {one.sop_instance_uid: one.path.read_bytes() for one in parts.spool.instances(GOOD_STUDY)}
        whole = [uid for uid, sent in _sent(good).items() if uid in kept and data_set_bytes(kept[uid]) == sent]
        return Observation(
            acknowledged=len(good),
            lost=len(good) - len(whole) + (reports == 0),
            doubled=max(0, reports - 1) + len(kept) - len(good),
            problems=tuple(problems),
        )
    finally:
        parts.engine.dispose()


def _sent(images: Sequence[Dataset]) -> dict[str, bytes]:
    """Encoded data sets by SOP Instance UID."""
    return {str(one.SOPInstanceUID): plain_bytes(one) for one in images}


def _turn_a_bit(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


FAULTS: Final = (
    Fault(
        number="F12",
        title="a bit of a kept image turns before its study is computed",
        promise="found before computing; the study is refused with the image's name, and computed when it comes again",
        trials={Scale.CI: 2, Scale.NIGHTLY: 100, Scale.RELEASE: 1000},
        run=rotten_image,
    ),
    Fault(
        number="F12 result",
        title="a bit of a result turns before it is sent",
        promise="found before sending; that object is a dead letter that says so, the other one is delivered",
        trials={Scale.CI: 2, Scale.NIGHTLY: 100, Scale.RELEASE: 1000},
        run=rotten_result,
    ),
    Fault(
        number="F25",
        title="an image damaged on purpose, in a study beside a good one",
        promise="the good study ends as if it were alone; the other one ends with a reason or waits, never as a fault",
        trials={Scale.CI: 2, Scale.NIGHTLY: 200, Scale.RELEASE: 2000},
        run=poison,
    ),
    Fault(
        number="F26",
        title="two nodes started on one state folder",
        promise="one runs; the other one ends and says that another process already runs there",
        trials={Scale.CI: 1, Scale.NIGHTLY: 10, Scale.RELEASE: 50},
        run=two_nodes,
    ),
    Fault(
        number="F29",
        title="the database is locked for longer than we wait, or read for so long that its log must grow",
        promise="A700 while nothing can be written, C-ECHO answered; a reader disturbs nothing",
        trials={Scale.CI: 2, Scale.NIGHTLY: 50, Scale.RELEASE: 500},
        run=locked_database,
    ),
    Fault(
        number="F29 damaged",
        title="the database file is damaged after a kill",
        promise="refused untouched; made anew from the files, it holds everything that was acknowledged",
        trials={Scale.CI: 2, Scale.NIGHTLY: 50, Scale.RELEASE: 500},
        run=damaged_database,
    ),
    Fault(
        number="F31",
        title="the configuration file is edited badly while images come",
        promise="what runs goes on, the problem names the key; the next good file is taken over",
        trials={Scale.CI: 6, Scale.NIGHTLY: 100, Scale.RELEASE: 1000},
        run=bad_configuration,
    ),
)
