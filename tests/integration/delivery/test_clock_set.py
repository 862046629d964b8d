"""The clock is set while a receiver is away: when it is back everything arrives, and nobody has to send again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from dicom_receivers import COMPREHENSIVE_3D_SR, Receiver, destination, encoded
from free_ports import free_port
from patience import PATIENCE_S, wait_until
from queued_results import put

from dicom_node.database import open_database
from dicom_node.delivery.outbox import DeliveryState, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import store

STUDY = "2.25.7001"


@pytest.mark.parametrize("by_s", [-86_400.0, 5 * 86_400.0], ids=["back", "forward"])
def test_f28_a_receiver_that_was_down_when_the_clock_was_set_gets_everything_without_a_resend(
    tmp_path: Path, by_s: float
) -> None:
    outbox = Outbox(tmp_path / "outbox", open_database(f"sqlite:///{tmp_path / 'node.db'}"))
    put(outbox, "key", STUDY, [_report()], ["pacs"], at=time.time())
    receiver, set_by = Receiver(port=free_port()), [0.0]
    pump = DeliveryPump(
        outbox,
        [destination(receiver.port)],
        {"dicom": store},
        policy=RetryPolicy(first_retry_s=600.0, max_retry_s=600.0),
        clock=lambda: time.time() + set_by[0],
    )
    pump.start()
    try:
        wait_until(lambda: outbox.deliveries(STUDY)[0].attempts == 1)
        assert outbox.counts()[DeliveryState.WAITING] == 1
        with receiver.listening():
            set_by[0] = by_s
            pump.wake()
            wait_until(lambda: outbox.counts()[DeliveryState.DELIVERED] == 1)
    finally:
        assert pump.stop(PATIENCE_S)
    assert [uid for uid, _, _ in receiver.received] == [_report().sop_instance_uid]


def _report() -> OutboxObject:
    uid = f"{STUDY}.1"
    return OutboxObject(
        kind="SR",
        sop_class_uid=COMPREHENSIVE_3D_SR,
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}.1",
        data=encoded(COMPREHENSIVE_3D_SR, sop_instance_uid=uid, study_instance_uid=STUDY),
    )
