"""Who is let in, and with which words and codes the others are sent away (S01, B63)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.intake.admission import Admission, AllowedPeer, AssociateRequest

WELCOME, CALLER, CALLED = None, (1, 1, 3), (1, 1, 7)
ADMISSION = Admission(
    "HYDROPS",
    [
        AllowedPeer(ae_title="SCANNER", networks=("10.1.2.0/24", "fd00::/8")),
        AllowedPeer(ae_title="PACS", networks=("192.0.2.7/32",)),
    ],
)


@pytest.mark.parametrize(
    ("calling", "called", "address", "verdict"),
    [
        ("SCANNER", "HYDROPS", "10.1.2.3", WELCOME),
        ("SCANNER", "HYDROPS", "::ffff:10.1.2.3", WELCOME),
        ("SCANNER", "HYDROPS", "fd00::1%eth0", WELCOME),
        ("PACS", "HYDROPS", "192.0.2.7", WELCOME),
        ("SCANNER", "HYDROPS", "10.1.3.3", CALLER),
        ("SCANNER", "HYDROPS", "192.0.2.7", CALLER),
        ("PACS", "HYDROPS", "10.1.2.3", CALLER),
        ("STRANGER", "HYDROPS", "10.1.2.3", CALLER),
        ("scanner", "HYDROPS", "10.1.2.3", CALLER),
        ("", "HYDROPS", "10.1.2.3", CALLER),
        (None, "HYDROPS", "10.1.2.3", CALLER),
        ("STRANGER", "OTHER", "10.1.2.3", CALLER),
        ("SCANNER", "hydrops", "10.1.2.3", CALLED),
        ("SCANNER", "ANY-SCP", "10.1.2.3", CALLED),
        ("SCANNER", "", "10.1.2.3", CALLED),
        ("SCANNER", None, "10.1.2.3", CALLED),
    ],
)
def test_only_a_listed_title_from_its_own_network_calling_our_exact_title_is_welcome(calling, called, address, verdict):
    rejection = ADMISSION.judge(AssociateRequest(pdu=b"", calling_ae=calling, called_ae=called), address)
    if verdict is WELCOME:
        assert rejection is None
    else:
        assert rejection is not None
        assert (rejection.result, rejection.source, rejection.reason) == verdict
        assert rejection.encoded() == bytes((3, 0, 0, 0, 0, 4, 0, *verdict))
        assert len(rejection.words.split()) > 4


def test_a_peer_of_another_protocol_version_is_told_so_unless_it_is_a_stranger():
    ours = AssociateRequest(pdu=b"", calling_ae="SCANNER", called_ae="HYDROPS", is_version_1=False)
    rejection = ADMISSION.judge(ours, "10.1.2.3")
    assert rejection is not None
    assert rejection.code == "1/2/2"  # PS3.8 table 9-21: permanent, by the provider (ACSE), protocol version
    stranger = replace(ours, calling_ae="STRANGER")
    assert ADMISSION.judge(stranger, "10.1.2.3").code == "1/1/3"


def test_nobody_is_welcome_when_nobody_is_listed():
    request = AssociateRequest(pdu=b"", calling_ae="SCANNER", called_ae="HYDROPS")
    assert Admission("HYDROPS", []).judge(request, "127.0.0.1") is not None
