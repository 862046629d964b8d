"""A peer whose entry is taken out of the list while it is connected: what it is answered, and what stays kept (S04)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from exact_sender import associated
from free_ports import free_port
from mr_images import encode, make_mr
from patience import PATIENCE_S, wait_until
from raw_peer import associate_request, connect, fragment, receive_pdu, response_status, store_command

from dicom_node.cli.receiving import Receiving
from dicom_node.cli.wiring import load_settings
from dicom_node.intake.admission import RejectedCaller
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool

SCANNER = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",))
NOT_AUTHORIZED = 0x0124
ABORTED, CLOSED = 0x07, 0


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param((), id="entry removed"),
        pytest.param((AllowedPeer(ae_title="SCANNER", networks=("203.0.113.0/24",)),), id="network changed"),
        pytest.param((replace(SCANNER, certificate_sha256="0" * 64),), id="other certificate"),
    ],
)
def test_s04_a_peer_that_lost_its_entry_is_answered_0124_and_what_was_acknowledged_stays(spool: Spool, allowed):
    withdrawn: list[RejectedCaller] = []
    options = ListenerOptions(ae_title="HYDROPS", port=0, allowed=(SCANNER,))
    listener = Listener(options, spool, on_rejected=withdrawn.append)
    listener.start()
    kept, refused = make_mr(), make_mr()
    try:
        with associated(listener.port) as sender:
            assert sender.store(encode(kept), sop_instance=kept.SOPInstanceUID)[0] == 0x0000
            listener.admit(allowed)
            status, comment = sender.store(encode(refused), sop_instance=refused.SOPInstanceUID)
            assert (status, comment) == (NOT_AUTHORIZED, "NOT_AUTHORIZED")
            assert sender.echo() is None  # aborted: nobody stays connected without a right to
    finally:
        assert listener.stop(drain_s=PATIENCE_S) == 0
    assert [caller.calling_ae for caller in withdrawn] == ["SCANNER"]
    assert [one.sop_instance_uid for one in spool.instances(kept.StudyInstanceUID)] == [kept.SOPInstanceUID]


def test_s04_an_echo_is_not_authorized_either(start_listener):
    listener = start_listener()
    with associated(listener.port) as sender:
        assert sender.echo() == 0x0000
        listener.admit(())
        assert sender.echo() == NOT_AUTHORIZED


def test_s04_an_object_on_its_way_when_the_entry_goes_is_not_kept(start_listener, spool):
    listener = start_listener()
    image = make_mr()
    with connect(listener.port) as peer:
        peer.sendall(associate_request())
        receive_pdu(peer)
        content = encode(image)
        peer.sendall(fragment(3, 3, store_command(image.SOPInstanceUID.encode())) + fragment(3, 0, content[:1000]))
        listener.admit(())
        peer.sendall(fragment(3, 2, content[1000:]))
        assert response_status(receive_pdu(peer)[1]) == NOT_AUTHORIZED
        peer.sendall(fragment(3, 3, store_command(image.SOPInstanceUID.encode())) + fragment(3, 2, content))
        assert receive_pdu(peer)[0] in (ABORTED, CLOSED)
    assert spool.studies() == []


def test_s04_whoever_is_still_listed_goes_on_and_a_peer_that_comes_back_into_the_list_is_welcome(start_listener):
    pacs = AllowedPeer(ae_title="PACS", networks=("127.0.0.0/8",))
    listener = start_listener(allowed=(SCANNER, pacs))
    with associated(listener.port) as scanner, associated(listener.port, calling="PACS") as other:
        listener.admit((pacs,))
        assert other.echo() == 0x0000
        listener.admit((SCANNER, pacs))
        assert scanner.echo() == 0x0000


def test_s04_the_running_node_takes_the_entry_out_of_its_configuration_file(tmp_path: Path):
    configuration = tmp_path / "node.toml"
    (tmp_path / "series_rules.toml").write_text("")
    dicom, web = free_port(), free_port()
    rest = f"port = {dicom}\nmin_free_bytes = 0\n[web]\nport = {web}\ndashboard = false\n[viewer]\nenabled = false\n"
    listed = f'[listener]\nallowed = [{{ ae_title = "SCANNER", networks = ["127.0.0.0/8"] }}]\n{rest}'
    configuration.write_text(listed)
    with Receiving(load_settings(configuration), configuration), associated(dicom) as sender:
        assert sender.echo() == 0x0000
        configuration.write_text(f"[listener]\nallowed = []\n{rest}")
        answers = []
        wait_until(lambda: answers.append(sender.echo()) or answers[-1] != 0x0000)
        assert answers[-1] == NOT_AUTHORIZED
