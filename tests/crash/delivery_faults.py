"""Faults on the way to the PACS: it is away, refuses, breaks off, is slow, answers strangely.

The ledger is the PACS's own: every data set that it was handed, under which UID.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from chaos_proxy import NONE, Harm, chaos
from dicom_receivers import COMPREHENSIVE_3D_SR, SEG, Receiver, data_set_of, destination, encoded
from fault import Fault, Observation, Scale, Trial
from free_ports import free_port

from dicom_node.database import open_database
from dicom_node.delivery.outbox import Delivery, DeliveryState, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import Destination
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store

QUICK: Final = RetryPolicy(first_retry_s=0.05, max_retry_s=0.2, give_up_after_s=3600)
STUDY: Final = "2.25.7001"
PATIENCE_S: Final = 120.0

SILENCE_S: Final = 1.0
"""How long an answer is waited for where none may come; everywhere else only a fault ends the wait."""

WARNINGS: Final = (0x0000, 0xB000, 0xB006, 0xB007, 0x0111)
TRY_LATER: Final = (0xA700, 0xA701)
STOP: Final = (0xA900, 0xC000, 0xC123, 0x0124)


def away_for_a_while(trial: Trial) -> Observation:
    """Nothing listens at first; then the PACS comes back."""
    receiver = Receiver(port=free_port())
    with _pumping(trial, destination(receiver.port, timeout_s=2.0)) as outbox:
        time.sleep(trial.chance.uniform(0.1, 0.6))
        with receiver.listening():
            return _settled(outbox, receiver)


def cut_at_some_byte(trial: Trial) -> Observation:
    """One to four connections end after some byte in either direction, orderly or by reset."""
    chance = trial.chance
    harms = [
        Harm(cut_after=chance.randint(0, 9000), reset=chance.random() < 0.5)
        if chance.random() < 0.6
        else Harm(cut_after_back=chance.randint(0, 500), reset=chance.random() < 0.5)
        for _ in range(chance.randint(1, 4))
    ]
    return _through(trial, harms, timeout_s=SILENCE_S)


def swallowed(trial: Trial) -> Observation:
    """One or two connections go silent after some byte: nothing is passed on, nothing comes back."""
    chance = trial.chance
    harms = [Harm(swallow_after=chance.randint(0, 6000)) for _ in range(chance.randint(1, 2))]
    return _through(trial, harms, timeout_s=SILENCE_S)


def slow_line(trial: Trial) -> Observation:
    """Every connection passes some bytes at a time with a pause between them."""
    chance = trial.chance
    harm = Harm(slice_bytes=chance.randint(50, 400), pause_s=chance.uniform(0.001, 0.01))
    return _through(trial, [harm] * 1000)


def every_kind_of_answer(trial: Trial) -> Observation:
    """The PACS answers its first C-STOREs with a status of each kind, later ones with success."""
    chance = trial.chance
    first = [chance.choice((*TRY_LATER, *TRY_LATER, *WARNINGS)) for _ in range(chance.randint(1, 4))]
    answers, given = iter(first), Counter[bool]()

    def answer() -> int:
        status = next(answers, 0x0000)
        given[status in TRY_LATER] += 1
        return status

    receiver = Receiver(answer=answer)
    with receiver.listening(), _pumping(trial, destination(receiver.port)) as outbox:
        seen = _settled(outbox, receiver)
    # Each object is to be taken once: whoever sends again what a warning said was stored has not believed it.
    return replace(seen, doubled=seen.doubled + given[False] - seen.acknowledged)


def refused_for_good(trial: Trial) -> Observation:
    """The PACS answers with a permanent failure: the object is a dead letter with that status, sent once."""
    status = trial.chance.choice(STOP)
    receiver = Receiver(answer=lambda: status)
    problems = []
    with receiver.listening(), _pumping(trial, destination(receiver.port)) as outbox:
        first = _wait(outbox, lambda found: any(one.state is DeliveryState.STOPPED for one in found))
        stopped = [one for one in first if one.state is DeliveryState.STOPPED]
        problems += [
            f"stopped with {one.last_status}, not {status:04X}" for one in stopped if one.last_status != status
        ]
        problems += [] if stopped else ["no dead letter"]
        problems += [f"tried {one.attempts} times" for one in stopped if one.attempts != 1]
    doubled = sum(count - 1 for count in Counter(uid for uid, _, _ in receiver.received).values())
    return Observation(acknowledged=len(receiver.received), doubled=doubled, problems=tuple(problems))


def _through(trial: Trial, harms: list[Harm], *, timeout_s: float = PATIENCE_S) -> Observation:
    """Deliver through a proxy whose first connections are harmed."""
    with Receiver().listening() as receiver:
        harm_of = lambda number: harms[number] if number < len(harms) else NONE  # noqa: E731 - a table with a default
        with (
            chaos(receiver.port, harm_of) as proxy,
            _pumping(trial, destination(proxy.port, timeout_s=timeout_s)) as outbox,
        ):
            return _settled(outbox, receiver)


@contextmanager
def _pumping(trial: Trial, *destinations: Destination) -> Iterator[Outbox]:
    """An outbox with a segmentation and a report, and a pump that sends them."""
    engine = open_database(f"sqlite:///{trial.folder / 'node.db'}")
    outbox = Outbox(trial.folder / "outbox", engine)
    kept = outbox.keep([result_object("SEG"), result_object("SR")])
    outbox.queue("key", STUDY, kept, [one.name for one in destinations], at=time.time())
    pump = DeliveryPump(outbox, destinations, {"dicom": store}, policy=QUICK, clock=time.time)
    pump.start()
    try:
        yield outbox
    finally:
        if not pump.stop(PATIENCE_S):
            raise RuntimeError("the pump did not stop")
        engine.dispose()


def result_object(kind: str) -> OutboxObject:
    """A segmentation or a report, a few kilobytes long."""
    sop_class = {"SEG": SEG, "SR": COMPREHENSIVE_3D_SR}[kind]
    uid = f"{STUDY}.{len(kind)}"
    data = encoded(sop_class, sop_instance_uid=uid, study_instance_uid=STUDY, extra_bytes=4000)
    return OutboxObject(
        kind=kind, sop_class_uid=sop_class, sop_instance_uid=uid, series_instance_uid=f"{uid}.1", data=data
    )


def _settled(outbox: Outbox, receiver: Receiver) -> Observation:
    """Wait until everything is delivered, then compare what the PACS was handed with what is in the outbox."""
    began = time.monotonic()
    found = _wait(outbox, lambda all_: all(one.state is DeliveryState.DELIVERED for one in all_))
    recovery_s = time.monotonic() - began
    problems = [
        f"{one.kind} is {one.state}: {one.last_detail}" for one in found if one.state != DeliveryState.DELIVERED
    ]
    sent = {one.sop_instance_uid: data_set_of(outbox.read(one.sop_instance_uid)) for one in found}
    whole = {(uid, data) for uid, _, data in receiver.received}
    lost = sum((uid, data) not in whole for uid, data in sent.items())
    other_bytes = len({(uid, data) for uid, data in whole if sent.get(uid) != data})
    uids = {uid for uid, _ in whole}
    return Observation(
        acknowledged=len(found), lost=lost, doubled=other_bytes + len(uids - sent.keys()),
        recovery_s=recovery_s, problems=tuple(problems),
    )  # fmt: skip


def _wait(outbox: Outbox, done: object) -> list[Delivery]:
    deadline = time.monotonic() + PATIENCE_S
    while not done(found := outbox.deliveries(STUDY)):  # type: ignore[operator]
        if time.monotonic() > deadline:
            return found
        time.sleep(0.01)
    return found


FAULTS: Final = (
    Fault(
        number="F13",
        title="the PACS is away for a while",
        promise="everything is delivered once it is back, as the bytes that were encoded once",
        trials={Scale.CI: 3, Scale.NIGHTLY: 100, Scale.RELEASE: 1000},
        run=away_for_a_while,
    ),
    Fault(
        number="F15",
        title="the PACS answers A700, B000, 0111 ... before it answers success",
        promise="warnings and duplicates count as delivered, A7xx is tried again",
        trials={Scale.CI: 4, Scale.NIGHTLY: 200, Scale.RELEASE: 1000},
        run=every_kind_of_answer,
    ),
    Fault(
        number="F15 final",
        title="the PACS answers A900, Cxxx or 0124",
        promise="a dead letter with that status after one try",
        trials={Scale.CI: 4, Scale.NIGHTLY: 100, Scale.RELEASE: 500},
        run=refused_for_good,
    ),
    Fault(
        number="F16",
        title="the connection is cut after some byte, in either direction",
        promise="the same bytes under the same UID go again until they are acknowledged",
        trials={Scale.CI: 8, Scale.NIGHTLY: 300, Scale.RELEASE: 3000},
        run=cut_at_some_byte,
    ),
    Fault(
        number="F16 silent",
        title="the connection goes silent after some byte",
        promise="the same, after the time limit for an answer",
        trials={Scale.CI: 2, Scale.NIGHTLY: 60, Scale.RELEASE: 300},
        run=swallowed,
    ),
    Fault(
        number="F17",
        title="a line of a few kilobytes per second",
        promise="delivered, however slowly",
        trials={Scale.CI: 2, Scale.NIGHTLY: 40, Scale.RELEASE: 200},
        run=slow_line,
    ),
)
