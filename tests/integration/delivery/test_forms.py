"""What real receivers accept, and what the pump makes of it: DCMTK with chosen SOP classes, and Orthanc."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dicom_receivers import (
    COMPREHENSIVE_3D_SR,
    ENCAPSULATED_PDF,
    SECONDARY_CAPTURE,
    SEG,
    Receiver,
    destination,
    encoded,
    storescp,
)
from free_ports import free_port
from local_orthanc import LocalOrthanc
from patience import PATIENCE_S, wait_until
from queued_results import put

from dicom_node.database import open_database
from dicom_node.delivery import orthanc_rest
from dicom_node.delivery.capabilities import KINDS, Capabilities, FormChoice
from dicom_node.delivery.outbox import DeliveryState, Outbox, OutboxObject, RetryPolicy
from dicom_node.delivery.outcome import DeliveryOutcome, Destination, OutcomeKind
from dicom_node.delivery.pump import DeliveryPump
from dicom_node.delivery.store_scu import accepted_kinds, store

STUDY = "2.25.7001"
CLASSES = {"SEG": SEG, "SR": COMPREHENSIVE_3D_SR, "SC": SECONDARY_CAPTURE, "PDF": ENCAPSULATED_PDF}
QUICK = RetryPolicy(first_retry_s=0.2, max_retry_s=0.4, give_up_after_s=3600)


class Node:
    """An outbox and what is known of destinations, in one database."""

    def __init__(self, folder: Path) -> None:
        engine = open_database(f"sqlite:///{folder / 'node.db'}")
        self.outbox = Outbox(folder / "outbox", engine)
        self.capabilities = Capabilities(engine)

    def put(self, study: str, *destinations: Destination) -> None:
        """One object of each kind for each destination."""
        objects = [
            OutboxObject(
                kind=kind,
                sop_class_uid=sop_class,
                sop_instance_uid=f"{study}.{number}",
                series_instance_uid=f"{study}.{number}.1",
                data=encoded(sop_class, sop_instance_uid=f"{study}.{number}", study_instance_uid=study),
            )
            for number, (kind, sop_class) in enumerate(CLASSES.items(), start=1)
        ]
        put(self.outbox, study, study, objects, [one.name for one in destinations], at=time.time())

    @contextmanager
    def pumping(self, *destinations: Destination) -> Iterator[None]:
        choice = FormChoice(self.capabilities, accepted_kinds, clock=time.time)
        senders = {"dicom": store, "orthanc": orthanc_rest.upload}
        pump = DeliveryPump(self.outbox, destinations, senders, policy=QUICK, clock=time.time, choice=choice)
        pump.start()
        try:
            yield
        finally:
            assert pump.stop(PATIENCE_S)

    def settled(self, study: str = STUDY) -> dict[str, tuple[DeliveryState, str]]:
        """State and detail of each kind, once nothing of the study waits any more."""
        wait_until(
            lambda: all(one.state is not DeliveryState.WAITING for one in self.outbox.deliveries(study)),
            found=lambda: self.outbox.deliveries(study),
        )
        return {one.kind: (one.state, one.last_detail) for one in self.outbox.deliveries(study)}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "received"
    path.mkdir()
    return path


@pytest.mark.dcmtk
@pytest.mark.parametrize("kinds", [(), ("SR",), ("SC", "PDF"), ("SEG", "SR", "SC", "PDF")])
def test_a_receiver_tells_what_it_accepts_without_being_sent_anything(folder: Path, kinds: tuple[str, ...]) -> None:
    with storescp(folder, classes=[CLASSES[kind] for kind in kinds]) as port:
        assert accepted_kinds(destination(port)) == frozenset(kinds)
    assert list(folder.iterdir()) == []


def test_a_receiver_that_takes_neither_ours_nor_an_echo_takes_nothing() -> None:
    with Receiver(classes=("1.2.840.10008.5.1.4.1.1.2",)).listening() as receiver:
        assert accepted_kinds(destination(receiver.port)) == frozenset()


def test_a_receiver_that_is_away_or_does_not_let_us_in_gives_no_answer() -> None:
    away = accepted_kinds(destination(free_port()))
    assert isinstance(away, DeliveryOutcome)
    assert away.kind is OutcomeKind.RETRY_LATER
    with Receiver().listening(require_calling_aet=["SOMEBODY"]) as receiver:
        stranger = accepted_kinds(destination(receiver.port))
    assert isinstance(stranger, DeliveryOutcome)
    assert stranger.kind is OutcomeKind.STOPPED


@pytest.mark.dcmtk
def test_a_report_goes_without_its_segmentation_where_none_is_taken(node: Node, folder: Path) -> None:
    with storescp(folder, classes=[COMPREHENSIVE_3D_SR]) as port:
        pacs = destination(port)
        node.put(STUDY, pacs)
        with node.pumping(pacs):
            found = node.settled()
    assert {kind: state for kind, (state, _) in found.items()} == {
        "SEG": DeliveryState.NOT_SENT,
        "SR": DeliveryState.DELIVERED,
        "SC": DeliveryState.NOT_SENT,
        "PDF": DeliveryState.NOT_SENT,
    }
    assert found["SEG"][1] == "not sent: this destination does not take SEG"
    assert len(list(folder.iterdir())) == 1
    assert node.outbox.dead_letters() == []


@pytest.mark.dcmtk
def test_a_receiver_that_learns_a_form_gets_it_with_the_next_study(node: Node, folder: Path) -> None:
    port = free_port()
    pacs = destination(port)
    with storescp(folder, port=port, classes=[SECONDARY_CAPTURE]):
        node.put(STUDY, pacs)
        with node.pumping(pacs):
            assert node.settled()["SEG"][0] is DeliveryState.NOT_SENT
    with storescp(folder, port=port, classes=[SECONDARY_CAPTURE, SEG]):
        node.put("2.25.7002", pacs)
        with node.pumping(pacs):
            assert node.settled("2.25.7002")["SEG"][0] is DeliveryState.DELIVERED


@pytest.mark.dcmtk
def test_a_receiver_that_unlearned_a_form_is_noticed_by_its_refusal(node: Node, folder: Path) -> None:
    with storescp(folder, classes=[SECONDARY_CAPTURE]) as port:
        pacs = destination(port)
        node.capabilities.learn(pacs, frozenset(KINDS), at=time.time())
        node.put(STUDY, pacs)
        with node.pumping(pacs):
            found = node.settled()
    assert [state for state, _ in found.values()].count(DeliveryState.NOT_SENT) == 3
    sent = [answer.kind for answer in node.capabilities.of(pacs).answers if answer.sent]
    assert sent == ["SC"]


@pytest.mark.dcmtk
def test_a_list_in_the_configuration_is_all_that_goes_there(node: Node, folder: Path) -> None:
    with storescp(folder) as port:
        chosen = Destination(
            name="pacs", kind="dicom", host="127.0.0.1", port=port, called_ae="PACS", timeout_s=60.0, send=("PDF",)
        )
        node.put(STUDY, chosen)
        with node.pumping(chosen):
            found = node.settled()
    assert [kind for kind, (state, _) in found.items() if state is DeliveryState.DELIVERED] == ["PDF"]
    assert found["SR"][1] == "not sent: this destination is not to get SR (destinations[].send)"


def test_a_receiver_that_comes_back_gets_what_it_takes(node: Node) -> None:
    pacs = destination(free_port())
    node.put(STUDY, pacs)
    with node.pumping(pacs):
        wait_until(lambda: node.capabilities.of(pacs).problem != "")
        with Receiver(port=pacs.port, classes=(COMPREHENSIVE_3D_SR,)).listening():
            found = node.settled()
    assert found["SR"][0] is DeliveryState.DELIVERED
    assert found["SEG"][0] is DeliveryState.NOT_SENT


def test_a_receiver_that_refuses_the_class_after_accepting_the_context_is_no_dead_letter(node: Node) -> None:
    with Receiver(answer=lambda: 0x0122).listening() as receiver:
        pacs = destination(receiver.port)
        node.put(STUDY, pacs)
        with node.pumping(pacs):
            found = node.settled()
    assert {state for state, _ in found.values()} == {DeliveryState.NOT_SENT}
    assert "does not support this kind of object" in found["SEG"][1]


@pytest.mark.orthanc
def test_an_orthanc_takes_every_form_by_both_ways(node: Node, tmp_path: Path) -> None:
    with LocalOrthanc() as orthanc:
        by_dicom = Destination(
            name="dicom", kind="dicom", host="127.0.0.1", port=orthanc.dicom_port, called_ae=orthanc.aet, timeout_s=60.0
        )
        by_rest = Destination(
            name="rest",
            kind="orthanc",
            url=orthanc.url,
            username=orthanc.session.auth[0] if orthanc.session.auth else "",
            password=orthanc.session.auth[1] if orthanc.session.auth else "",
        )
        node.put(STUDY, by_dicom)
        node.put("2.25.7002", by_rest)
        with node.pumping(by_dicom, by_rest):
            for study in (STUDY, "2.25.7002"):
                assert {state for state, _ in node.settled(study).values()} == {DeliveryState.DELIVERED}
    assert node.capabilities.of(by_dicom).sentence == "gets SEG, SR, SC, PDF"
