"""DICOM over TLS as receiver (PS3.15 B.12): who gets through the handshake, and whose title a certificate is."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import Authority, Certificate
from patience import wait_until
from raw_peer import associate_request, connect, pdu, receive_pdu

from dicom_node.dicom_tls import ListenerTls, ListenerTlsFiles, fingerprint
from dicom_node.errors import ConfigError
from dicom_node.intake.listener import AllowedPeer

ACCEPTED, REJECTED = 0x02, 0x03


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Certificate:
    return authority.sign("node")


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Certificate:
    return authority.sign("scanner")


def tls(node: Certificate, *, client_ca: Path | None = None) -> ListenerTls:
    return ListenerTls(ListenerTlsFiles(certificate=node.certificate, key=node.key, client_ca=client_ca))


def peer_context(authority: Authority, shown: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def answer(port: int, context: ssl.SSLContext) -> tuple[int, tuple[int, ...]]:
    """Kind of the first PDU that comes back over TLS, and for a rejection its three numbers."""
    with context.wrap_socket(connect(port), server_hostname="localhost") as peer:
        peer.sendall(associate_request())
        kind, content = receive_pdu(peer)
        if kind == ACCEPTED:
            peer.sendall(pdu(0x05, bytes(4)))
        return kind, tuple(content[1:4]) if kind == REJECTED else ()


def test_s05_a_real_program_sends_over_tls(start_listener, authority, node, scanner, dcmtk):
    listener = start_listener(tls=tls(node, client_ca=authority.certificate))
    files = ("+tls", scanner.key, scanner.certificate, "+cf", authority.certificate)
    ended = dcmtk("echoscu", *files, "-aet", "SCANNER", "-aec", "HYDROPS", "localhost", listener.port, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_s05_tls_1_2_is_the_least(start_listener, authority, node, version, taken):
    listener = start_listener(tls=tls(node))
    context = peer_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else our own side would not even try the old ones
    context.minimum_version = context.maximum_version = version
    if taken:
        assert answer(listener.port, context) == (ACCEPTED, ())
    else:
        with pytest.raises(ssl.SSLError):
            answer(listener.port, context)


def test_s05_tls_1_3_is_spoken_with_whoever_can(start_listener, authority, node):
    listener = start_listener(tls=tls(node))
    with peer_context(authority).wrap_socket(connect(listener.port), server_hostname="localhost") as peer:
        assert peer.version() == "TLSv1.3"


def test_s05_a_cipher_without_forward_secrecy_is_refused(start_listener, authority, node):
    listener = start_listener(tls=tls(node))
    context = peer_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256")
    with pytest.raises(ssl.SSLError):
        answer(listener.port, context)


@pytest.mark.parametrize("shown", ["none", "of another authority", "expired"])
def test_s05_a_peer_without_a_good_certificate_does_not_get_in(
    start_listener, authority, node, tmp_path, caplog, shown
):
    caplog.set_level(logging.INFO)
    listener = start_listener(tls=tls(node, client_ca=authority.certificate))
    certificates = {
        "none": lambda: None,
        "of another authority": lambda: Authority(tmp_path, "other").sign("stranger"),
        "expired": lambda: authority.sign("old", expired=True),
    }
    assert is_turned_away(listener.port, peer_context(authority, certificates[shown]()))
    assert "event=connection_without_request" in wait_for_line(caplog, "reason=tls_")


def test_s05_an_ae_title_is_bound_to_its_certificate(start_listener, authority, node, scanner):
    other = authority.sign("other-scanner")
    mine = fingerprint(ssl.PEM_cert_to_DER_cert(scanner.certificate.read_text()))
    bound = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.0/8",), certificate_sha256=mine)
    listener = start_listener(tls=tls(node, client_ca=authority.certificate), allowed=(bound,))
    assert answer(listener.port, peer_context(authority, scanner)) == (ACCEPTED, ())
    assert answer(listener.port, peer_context(authority, other)) == (REJECTED, (1, 1, 3))


def test_s05_a_renewed_certificate_counts_at_the_next_connection(start_listener, authority, node, tmp_path):
    files = copy_of(node, tmp_path)
    listener = start_listener(tls=tls(files))
    before = shown_by(listener.port, authority)
    renewed = authority.sign("renewed")
    shutil.copy(renewed.key, files.key)
    shutil.copy(renewed.certificate, files.certificate)
    after = shown_by(listener.port, authority)
    assert after != before
    assert after == ssl.PEM_cert_to_DER_cert(renewed.certificate.read_text())


def test_a_bad_renewal_is_told_and_the_old_certificate_stays(start_listener, authority, node, tmp_path, caplog):
    files = copy_of(node, tmp_path)
    listener = start_listener(tls=tls(files))
    before = shown_by(listener.port, authority)
    files.certificate.write_text("half a file")
    assert shown_by(listener.port, authority) == before
    assert str(files.certificate) in wait_for_line(caplog, "event=tls_certificate_kept")


@pytest.mark.parametrize("fault", ["missing", "no PEM", "another key", "encrypted key"])
def test_unusable_files_are_named(authority, node, scanner, tmp_path, fault):
    files = copy_of(node, tmp_path)
    if fault == "missing":
        files.key.unlink()
    elif fault == "no PEM":
        files.certificate.write_bytes(b"\0\1\2")
    elif fault == "another key":
        shutil.copy(scanner.key, files.key)
    else:
        secret = ("-aes256", "-passout", "pass:secret")
        subprocess.run(["openssl", "pkey", "-in", node.key, *secret, "-out", files.key], check=True)
    with pytest.raises(ConfigError, match=str(files.key if fault == "missing" else files.certificate)):
        tls(files)


def is_turned_away(port: int, context: ssl.SSLContext) -> bool:
    """Whether the connection ends before any DICOM is spoken; with TLS 1.3 the peer learns it at its first read."""
    try:
        kind, _ = answer(port, context)
    except (ssl.SSLError, ConnectionError):
        return True
    return kind == 0


def copy_of(certificate: Certificate, folder: Path) -> Certificate:
    copied = Certificate(certificate=folder / "cert.pem", key=folder / "key.pem")
    shutil.copy(certificate.certificate, copied.certificate)
    shutil.copy(certificate.key, copied.key)
    return copied


def shown_by(port: int, authority: Authority) -> bytes:
    with peer_context(authority).wrap_socket(connect(port), server_hostname="localhost") as peer:
        shown = peer.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def wait_for_line(caplog: pytest.LogCaptureFixture, part: str) -> str:
    """The log line that holds `part`, once it is there."""
    wait_until(lambda: any(part in record.getMessage() for record in list(caplog.records)))
    return next(record.getMessage() for record in caplog.records if part in record.getMessage())
