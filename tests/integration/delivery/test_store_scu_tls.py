"""DICOM over TLS as sender: which receivers are trusted, against a real one (DCMTK's storescp)."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from certificates import Authority, Certificate
from dicom_receivers import MR_IMAGE, destination, encoded
from free_ports import free_port
from patience import PATIENCE_S, wait_until
from pynetdicom import AE, evt

from dicom_node.delivery.outcome import OutcomeKind
from dicom_node.delivery.store_scu import echo, store
from dicom_node.dicom_tls import SenderTls, handshake_problem


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@contextmanager
def storescp(shown: Certificate, folder: Path, *, trusting: Authority | None) -> Iterator[int]:
    """A receiver over TLS; with `trusting` it demands a certificate of that authority."""
    port = free_port()
    asks = ("--require-peer-cert", "+cf", str(trusting.certificate)) if trusting else ("--ignore-peer-cert",)
    command = ["storescp", "+tls", str(shown.key), str(shown.certificate), *asks, "-od", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        try:
            anyone = SenderTls(ca=shown.certificate).context()
            problem = partial(handshake_problem, "127.0.0.1", port, anyone, name="x", timeout_s=PATIENCE_S)
            wait_until(lambda: "refused" not in (problem() or "").lower())
            yield port
        finally:
            program.terminate()


def test_s05_an_object_goes_over_tls_with_our_certificate(authority, tmp_path):
    ours = authority.sign("ours")
    tls = SenderTls(ca=authority.certificate, certificate=ours.certificate, key=ours.key)
    with storescp(authority.sign("pacs"), tmp_path, trusting=authority) as port:
        outcome = store(encoded(MR_IMAGE), replace(destination(port), tls=tls))
    assert (outcome.kind, outcome.status) == (OutcomeKind.DELIVERED, 0)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("of another authority", "certificate is not accepted: unable to get local issuer certificate"),
        ("expired", "certificate is not accepted: certificate has expired"),
        ("for another host", "certificate is not accepted: "),
    ],
)
def test_s05_a_receiver_with_a_bad_certificate_gets_nothing(authority, tmp_path, shown, words):
    certificate = {
        "of another authority": lambda: Authority(tmp_path, "other").sign("stranger"),
        "expired": lambda: authority.sign("old", expired=True),
        "for another host": lambda: authority.sign("elsewhere", host="elsewhere.example", ip=""),
    }[shown]()
    received = tmp_path / "received"
    received.mkdir()
    tls = SenderTls(ca=authority.certificate)
    with storescp(certificate, received, trusting=None) as port:
        outcome = store(encoded(MR_IMAGE), replace(destination(port), tls=tls))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert words in outcome.detail
    assert list(received.iterdir()) == []


@pytest.mark.parametrize(
    ("most", "spoken"),
    [
        pytest.param(ssl.TLSVersion.TLSv1_1, [], id="1.1"),
        pytest.param(ssl.TLSVersion.TLSv1_2, ["TLSv1.2"], id="1.2"),
        pytest.param(ssl.TLSVersion.TLSv1_3, ["TLSv1.3"], id="1.2 and 1.3"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_s05_tls_1_2_is_the_least_and_1_3_is_spoken_with_a_receiver_that_can(authority, most, spoken):
    shown = authority.sign("pacs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else the receiver itself would not speak the old ones
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, most
    heard: list[str | None] = []
    entity = AE("PACS")
    entity.add_supported_context(MR_IMAGE)
    handlers = [
        (evt.EVT_CONN_OPEN, lambda event: heard.append(event.assoc.dul.socket.socket.version())),
        (evt.EVT_C_STORE, lambda _event: 0x0000),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)
    try:
        tls = SenderTls(ca=authority.certificate)
        outcome = store(encoded(MR_IMAGE), replace(destination(server.socket.getsockname()[1]), tls=tls))
    finally:
        server.shutdown()
    assert outcome.kind is (OutcomeKind.DELIVERED if spoken else OutcomeKind.RETRY_LATER)
    assert heard == spoken


def test_s05_a_receiver_that_demands_our_certificate_is_quoted(authority, tmp_path):
    with storescp(authority.sign("pacs"), tmp_path, trusting=authority) as port:
        outcome = echo(replace(destination(port), tls=SenderTls(ca=authority.certificate)))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert "certificate required" in outcome.detail or "handshake failure" in outcome.detail


def test_the_name_in_the_certificate_may_differ_from_the_host_that_is_called(authority, tmp_path):
    tls = SenderTls(ca=authority.certificate, name="elsewhere.example")
    with storescp(authority.sign("away", host="elsewhere.example", ip=""), tmp_path, trusting=None) as port:
        assert echo(replace(destination(port), tls=tls)).kind is OutcomeKind.DELIVERED


def test_files_that_went_missing_delay_a_delivery_and_are_named(tmp_path):
    tls = SenderTls(ca=tmp_path / "gone.pem")
    outcome = echo(replace(destination(free_port()), tls=tls))
    assert outcome.kind is OutcomeKind.RETRY_LATER
    assert str(tmp_path / "gone.pem") in outcome.detail
