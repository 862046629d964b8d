"""No answer of a receiver gets lost between the two threads that read it, however busy the machine is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from dicom_receivers import Receiver, destination, encoded
from patience import PATIENCE_S, wait_until
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from dicom_node.delivery.association import open_association
from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.delivery.store_scu import send_folder

VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")


class InterruptedAssociation(Association):
    """Its reactor loses the processor for a moment each time that it goes on, as it may at any time."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_is_paused" and value is False and threading.current_thread() is self:
            time.sleep(0.03)
        super().__setattr__(name, value)


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupts the two threads of a requestor where it hurts most: the other one just after it sent a request."""
    send = DIMSEServiceProvider.send_msg

    def send_and_be_interrupted(provider: DIMSEServiceProvider, *request: Any) -> None:
        send(provider, *request)
        if provider.assoc.is_requestor:
            time.sleep(0.06)

    monkeypatch.setattr("pynetdicom.ae.Association", InterruptedAssociation)
    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send_and_be_interrupted)


def test_every_file_of_a_busy_machine_gets_its_own_answer(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.dcm" for number in range(20)]
    for path in paths:
        path.write_bytes(encoded())
    with Receiver().listening() as receiver:
        outcomes = send_folder(paths, destination(receiver.port), lambda _: None)
    assert [one.outcome.kind for one in outcomes] == [OutcomeKind.DELIVERED] * 20
    assert (len(receiver.received), receiver.associations) == (20, 1)


def test_an_association_that_the_receiver_ends_is_not_waited_for() -> None:
    with Receiver().listening() as receiver:
        pacs = destination(receiver.port, timeout_s=10 * PATIENCE_S)
        with open_association(pacs, [VERIFICATION]) as association:
            assert isinstance(association, Association)
            association.dul.socket.close()
            wait_until(lambda: not association.is_established)
            began = time.monotonic()
            with pytest.raises(RuntimeError):
                association.send_c_echo()
        assert time.monotonic() - began < PATIENCE_S


def test_p19_a_report_that_is_served_while_the_reactor_stands_holds_up_nobody_who_sends_next() -> None:
    with (
        Receiver().listening() as receiver,
        open_association(destination(receiver.port), [VERIFICATION]) as association,
    ):
        assert isinstance(association, Association)
        association._reactor_checkpoint.clear()
        association._is_paused = False  # as pynetdicom does once the report is served
        wait_until(lambda: association._is_paused)  # as pynetdicom does before it sends a request or a release
        association._reactor_checkpoint.set()


def test_without_our_pause_answers_do_get_lost_which_is_why_there_is_one() -> None:
    """When this fails, pynetdicom has mended it, and `reactor_pause` may go."""
    with Receiver().listening() as receiver:
        ae = AE()
        ae.dimse_timeout = 1.0
        ae.add_requested_context(*VERIFICATION)
        association = ae.associate("127.0.0.1", receiver.port)
        answers = [association.send_c_echo().get("Status") for _ in range(200) if association.is_established]
        association.abort()
    assert None in answers
