"""The C-STORE SCU against real receivers: pynetdicom, DCMTK and Orthanc, in good and in bad health."""

from __future__ import annotations

import socket
import threading
import time
from io import BytesIO
from pathlib import Path

import pytest
from dicom_receivers import (
    COMPREHENSIVE_3D_SR,
    MR_IMAGE,
    SECONDARY_CAPTURE,
    SEG,
    Receiver,
    data_set_of,
    destination,
    encoded,
    storescp,
)
from free_ports import free_port
from local_orthanc import LocalOrthanc
from patience import PATIENCE_S, wait_until
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless

from dicom_node.delivery import store_scu
from dicom_node.delivery.outcome import Destination, OutcomeKind
from dicom_node.delivery.store_scu import FileOutcome, echo, send_folder, store

PYNETDICOMS_OWN_S = 30.0
"""How long pynetdicom waits for the answer to an association request when nobody tells it otherwise."""


@pytest.mark.parametrize("sop_class", [SEG, COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_the_receiver_gets_the_very_bytes_of_the_data_set(sop_class: str, syntax: str) -> None:
    data = encoded(sop_class, sop_instance_uid="2.25.11", transfer_syntax_uid=syntax)
    with Receiver().listening() as receiver:
        outcome = store(data, destination(receiver.port))
    assert (outcome.kind, outcome.status) == (OutcomeKind.DELIVERED, 0x0000)
    assert receiver.received == [("2.25.11", syntax, data_set_of(data))]


@pytest.mark.dcmtk
def test_storescp_writes_the_same_data_set(tmp_path: Path) -> None:
    data = encoded(extra_bytes=1_000_000)
    with storescp(tmp_path) as port:
        assert store(data, destination(port)).kind is OutcomeKind.DELIVERED
    (written,) = tmp_path.iterdir()
    assert data_set_of(written.read_bytes()) == data_set_of(data)


@pytest.mark.orthanc
def test_orthanc_keeps_the_same_data_set_and_takes_it_twice() -> None:
    data = encoded(sop_instance_uid="2.25.12")
    with LocalOrthanc() as orthanc:
        pacs = destination(orthanc.dicom_port, called_ae=orthanc.aet)
        assert echo(pacs).kind is OutcomeKind.DELIVERED
        assert [store(data, pacs).kind for _ in range(2)] == [OutcomeKind.DELIVERED] * 2
        (instance,) = orthanc.session.get(f"{orthanc.url}/instances").json()
        kept = orthanc.session.get(f"{orthanc.url}/instances/{instance}/file").content
    assert dcmread(BytesIO(kept)) == dcmread(BytesIO(data))  # Orthanc writes sequence lengths its own way


@pytest.mark.orthanc
def test_orthanc_that_does_not_know_us_is_told_with_the_next_step() -> None:
    with LocalOrthanc(callers=("SCANNER",)) as orthanc:
        unknown_caller = store(encoded(), destination(orthanc.dicom_port, called_ae=orthanc.aet))
    assert unknown_caller.kind is OutcomeKind.STOPPED
    assert "'HYDROPS' is not known there; add it" in unknown_caller.detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, OutcomeKind.DELIVERED),
        (0xB000, OutcomeKind.DELIVERED),
        (0xB006, OutcomeKind.DELIVERED),
        (0xB007, OutcomeKind.DELIVERED),
        (0x0111, OutcomeKind.DELIVERED),
        (0xA700, OutcomeKind.RETRY_LATER),
        (0xA702, OutcomeKind.RETRY_LATER),
        (0x0110, OutcomeKind.RETRY_LATER),
        (0xA900, OutcomeKind.STOPPED),
        (0xC000, OutcomeKind.STOPPED),
        (0xC211, OutcomeKind.STOPPED),
        (0x0117, OutcomeKind.STOPPED),
        (0x0122, OutcomeKind.NOT_TAKEN),
        (0x0124, OutcomeKind.STOPPED),
        (0x5555, OutcomeKind.STOPPED),
    ],
)
def test_each_status_of_a_real_receiver_is_sorted(status: int, kind: OutcomeKind) -> None:
    with Receiver(answer=lambda: status).listening() as receiver:
        outcome = store(encoded(), destination(receiver.port))
    assert (outcome.kind, outcome.status) == (kind, status)


def test_the_error_comment_of_the_receiver_is_passed_on() -> None:
    refusal = Dataset()
    refusal.Status, refusal.ErrorComment = 0xA700, "quota of this modality is used up"
    with Receiver(answer=lambda: refusal).listening() as receiver:
        assert "quota of this modality" in store(encoded(), destination(receiver.port)).detail


def test_a_receiver_that_takes_no_segmentations_is_no_failure() -> None:
    with Receiver(classes=(MR_IMAGE,)).listening() as receiver:
        outcome = store(encoded(SEG), destination(receiver.port))
    assert outcome.kind is OutcomeKind.NOT_TAKEN
    assert "does not take Segmentation Storage as Explicit VR Little Endian" in outcome.detail


def test_a_transfer_syntax_that_is_not_taken_is_not_sent_rather_than_converted() -> None:
    with Receiver(syntaxes=(ExplicitVRLittleEndian,)).listening() as receiver:
        outcome = store(encoded(SECONDARY_CAPTURE, transfer_syntax_uid=JPEG2000Lossless), destination(receiver.port))
    assert outcome.kind is OutcomeKind.NOT_TAKEN
    assert "JPEG 2000" in outcome.detail
    assert receiver.received == []


def test_a_wrong_called_ae_title_stops_and_names_the_destination() -> None:
    with Receiver().listening(require_called_aet=True) as receiver:
        outcome = store(encoded(), destination(receiver.port, name="archive", called_ae="WRONG"))
    assert outcome.kind is OutcomeKind.STOPPED
    assert "'WRONG' is not known there; correct called_ae of destination 'archive'" in outcome.detail


def test_a_full_receiver_is_tried_later() -> None:
    with (
        Receiver().listening(maximum_associations=1) as receiver,
        socket.create_connection(("127.0.0.1", receiver.port)),
    ):
        wait_until(lambda: receiver.connections == 1)  # the idle one
        outcome = store(encoded(), destination(receiver.port))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert "limit of associations" in outcome.detail


def test_a_closed_port_is_tried_later() -> None:
    outcome = store(encoded(), destination(free_port()))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert "no connection to PACS@127.0.0.1" in outcome.detail


def test_a_host_without_an_address_is_tried_later() -> None:
    lost = Destination(name="pacs", kind="dicom", host="pacs.invalid", port=104, called_ae="PACS", timeout_s=2.0)
    outcome = store(encoded(), lost)
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert "'pacs.invalid'" in outcome.detail


def test_a_receiver_that_never_answers_costs_the_timeout_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        outcome = store(encoded(), destination(silent.getsockname()[1], timeout_s=0.5))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert "no answer to the association request" in outcome.detail
    assert time.monotonic() - began < PYNETDICOMS_OWN_S


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("option", "kind", "words"),
    [
        ("--refuse", OutcomeKind.STOPPED, "association rejected for good"),
        ("--abort-during", OutcomeKind.RETRY_LATER, "broke off during the C-STORE"),
        ("--abort-after", OutcomeKind.RETRY_LATER, "broke off during the C-STORE"),
    ],
)
def test_a_faulty_storescp_is_understood(tmp_path: Path, option: str, kind: OutcomeKind, words: str) -> None:
    with storescp(tmp_path, option) as port:
        for _ in range(5):
            outcome = store(encoded(extra_bytes=200_000), destination(port))
            assert outcome.kind is kind
            assert words in outcome.detail


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    ("extra_bytes", "slowest_line", "words"),
    [
        pytest.param(20_000_000, 64_000, "neither took another byte nor answered for 4 s", id="stops reading"),
        pytest.param(20_000, 1e9, "did not answer the C-STORE within 4 s", id="stops answering"),
    ],
)
def test_a_receiver_that_falls_silent_holds_nobody_longer_than_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra_bytes: int, slowest_line: float, words: str
) -> None:
    monkeypatch.setattr(store_scu, "SLOWEST_LINE_BYTES_PER_S", slowest_line)
    before = threading.active_count()
    with storescp(tmp_path, "--sleep-during", "600") as port:
        began = time.monotonic()
        outcome = store(encoded(extra_bytes=extra_bytes), destination(port, timeout_s=4.0))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert words in outcome.detail
    assert time.monotonic() - began < PATIENCE_S  # the receiver sleeps for 600 s
    wait_until(lambda: threading.active_count() <= before, found=lambda: [one.name for one in threading.enumerate()])


@pytest.mark.dcmtk
def test_an_answer_counts_even_when_the_release_gets_none(tmp_path: Path) -> None:
    with storescp(tmp_path, "--sleep-after", "60") as port:
        outcome = store(encoded(), destination(port, timeout_s=4.0))
    assert outcome.kind is OutcomeKind.DELIVERED


def test_what_is_no_dicom_file_is_not_sent() -> None:
    assert store(b"not DICOM at all", destination(free_port())).kind is OutcomeKind.STOPPED


def test_echo_tells_whether_the_receiver_is_there() -> None:
    with Receiver().listening() as receiver:
        assert echo(destination(receiver.port)).kind is OutcomeKind.DELIVERED
    assert echo(destination(receiver.port)).kind is OutcomeKind.RETRY_LATER


def test_echo_to_a_store_only_receiver_says_so() -> None:
    with Receiver(classes=(SEG,)).listening() as receiver:
        outcome = echo(destination(receiver.port))
    assert outcome.kind is OutcomeKind.NOT_TAKEN
    assert "Verification" in outcome.detail


def _write(folder: Path, count: int, **options: str) -> list[Path]:
    paths = []
    for number in range(count):
        path = folder / f"{number:04}.dcm"
        path.write_bytes(encoded(MR_IMAGE, sop_instance_uid=f"2.25.5{number:04}", **options))
        paths.append(path)
    return paths


def test_a_folder_goes_over_one_association_in_order(tmp_path: Path) -> None:
    paths = _write(tmp_path, 20)
    seen: list[FileOutcome] = []
    with Receiver().listening() as receiver:
        outcomes = send_folder(paths, destination(receiver.port), seen.append)
    assert receiver.associations == 1
    assert [uid for uid, _, _ in receiver.received] == [f"2.25.5{number:04}" for number in range(20)]
    assert [one.outcome.kind for one in outcomes] == [OutcomeKind.DELIVERED] * 20
    assert seen == outcomes


def test_a_dead_receiver_costs_a_folder_one_attempt(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcomes = send_folder(
            _write(tmp_path, 10), destination(silent.getsockname()[1], timeout_s=0.5), lambda _: None
        )
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert [one.outcome.kind for one in outcomes] == [OutcomeKind.RETRY_LATER] * 10


def test_an_association_that_breaks_is_opened_again_for_the_files_that_follow(tmp_path: Path) -> None:
    paths = _write(tmp_path, 4)
    receiver, told = Receiver(), list[FileOutcome]()

    def hang_up_on_the_second() -> int:
        if len(receiver.received) == 2:
            wait_until(lambda: len(told) == 2)
        return 0x0000

    receiver.answer = hang_up_on_the_second
    with receiver.listening():
        outcomes = send_folder(paths, destination(receiver.port, timeout_s=3.0), told.append)
    later, delivered = OutcomeKind.RETRY_LATER, OutcomeKind.DELIVERED
    assert [one.outcome.kind for one in outcomes] == [delivered, later, delivered, delivered]
    assert receiver.associations == 2


def test_kinds_that_the_receiver_does_not_take_spoil_no_others(tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(encoded(SEG))
    (tmp_path / "mr.dcm").write_bytes(encoded(MR_IMAGE))
    (tmp_path / "readme.txt").write_text("no DICOM")
    with Receiver(classes=(MR_IMAGE,)).listening() as receiver:
        outcomes = send_folder(sorted(tmp_path.iterdir()), destination(receiver.port), lambda _: None)
    by_name = {one.path.name: one.outcome.kind for one in outcomes}
    assert by_name == {
        "mr.dcm": OutcomeKind.DELIVERED,
        "seg.dcm": OutcomeKind.NOT_TAKEN,
        "readme.txt": OutcomeKind.STOPPED,
    }
