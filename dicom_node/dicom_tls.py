"""DICOM over TLS (PS3.15 B.12: BCP 195): what our listener shows and demands, what our sender trusts.

TLS 1.2 is the least, 1.3 is preferred, and only key exchanges with forward secrecy and authenticated ciphers are
offered. A renewed certificate is taken up at the next connection, without a restart.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_node.errors import ConfigError

log = logging.getLogger(__name__)

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2 (RFC 9325 4.2); the suites of TLS 1.3 are all of this kind."""

ALERT_WAIT_S: Final = 0.5
"""With TLS 1.3 a peer that dislikes our certificate says so only after the handshake."""


@dataclass(frozen=True, kw_only=True)
class ListenerTlsFiles:
    """PEM files of the listening side. With `client_ca` every peer must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file named here."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True, kw_only=True)
class SenderTls:
    """How to call one receiver by TLS: whom to trust (None: the system's authorities), what to show, its name.

    `name` is what the receiver's certificate must be made out to; empty: the host that is called.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str = ""

    def context(self) -> ssl.SSLContext:
        """A fresh context, so that renewed files count from the next connection on.

        Raises
        ------
        ConfigError
            See `client_context`.
        """
        return client_context(ca=self.ca, certificate=self.certificate, key=self.key)


class ListenerTls:
    """The listener's side of every handshake.

    Raises
    ------
    ConfigError
        If a file is missing, is no PEM, or certificate and key do not belong together; names the file.
    """

    def __init__(self, files: ListenerTlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = _stamps(files.paths)
        self._context = server_context(files)

    @property
    def demands_certificates(self) -> bool:
        """Whether a peer without a certificate is sent away."""
        return self._files.client_ca is not None

    def context(self) -> ssl.SSLContext:
        """The context for a new connection; made anew when a file changed and the new ones are good."""
        with self._lock:
            now = _stamps(self._files.paths)
            if now != self._seen:
                self._seen = now
                try:
                    self._context = server_context(self._files)
                    log.info("event=tls_certificate_reloaded file=%s", self._files.certificate)
                except ConfigError as error:
                    log.error('event=tls_certificate_kept reason="%s"', error)
            return self._context


def server_context(files: ListenerTlsFiles) -> ssl.SSLContext:
    """A server's context from PEM files.

    Raises
    ------
    ConfigError
        See `ListenerTls`.
    """
    context = _modern(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    _load_own(context, files.certificate, files.key)
    if files.client_ca is not None:
        _load_trusted(context, files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(*, ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A sender's context: the receiver's certificate must be good for its name and signed by `ca` (None: the system's).

    Raises
    ------
    ConfigError
        If a file is missing or is no PEM, or certificate and key do not belong together; names the file.
    """
    context = _modern(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # checks chain, dates and host name
    if ca is None:
        context.load_default_certs()
    else:
        _load_trusted(context, ca)
    if certificate is not None:
        _load_own(context, certificate, key or certificate)
    return context


def require_file(path: Path) -> None:
    """Nothing, if the file is there and may be read.

    Raises
    ------
    ConfigError
        If not; names the file and what stands in the way.
    """
    try:
        if path.is_file():
            path.open("rb").close()
            return
    except OSError as error:  # of is_file(), too: the folder may be closed to us, as Let's Encrypt leaves its own
        raise ConfigError(f"expected a PEM file, found no way in ({error.strerror}) at {path}") from None
    raise ConfigError(
        f"expected a PEM file, found nothing at {path}: no such file; paths start at the folder of the configuration"
    )


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER as lower-case hex: the digits of `openssl x509 -fingerprint -sha256`."""
    return hashlib.sha256(certificate).hexdigest()


def handshake_problem(host: str, port: int, context: ssl.SSLContext, *, name: str, timeout_s: float) -> str | None:
    """Why a TLS connection to this peer fails, in words; None when the handshake succeeds."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            secured.settimeout(ALERT_WAIT_S)
            _await_alert(secured)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        return f"TLS failed: {(error.reason or 'connection closed').replace('_', ' ').lower()}"
    except OSError as error:
        return f"TLS failed: {error.strerror or 'no answer to the handshake'}"
    return None


def _await_alert(secured: ssl.SSLSocket) -> None:
    """Read what a peer says after the handshake; a DICOM peer says nothing until it is asked."""
    try:
        secured.recv(1)
    except TimeoutError:
        return


def _modern(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    return context


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        require_file(path)
    try:
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigError(
            f"TLS certificate {certificate} with key {key}: expected a PEM certificate and its own unencrypted key, "
            f"found: {_own_fault(certificate, key, getattr(error, 'reason', None))}"
        ) from None


def _own_fault(certificate: Path, key: Path, reason: str | None) -> str:
    """What is wrong with a pair that OpenSSL refused; for most faults its own reason is empty or "PEM lib"."""
    if reason == "KEY_VALUES_MISMATCH":
        return f"the key does not belong to the first certificate in {certificate.name}"
    if reason:
        return reason.replace("_", " ").lower()
    if b"-----BEGIN CERTIFICATE-----" not in _content(certificate):
        return f"no PEM certificate in {certificate.name}"
    key_text = _content(key)
    if b"PRIVATE KEY-----" not in key_text:
        return f"no PEM key in {key.name}"
    if b"ENCRYPTED" in key_text:
        return f"{key.name} has a passphrase"
    return "one of the two is damaged"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # a renewal took it away just now


def _load_trusted(context: ssl.SSLContext, ca: Path) -> None:
    require_file(ca)
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or error.strerror or "not PEM"
        raise ConfigError(f"TLS authority {ca}: expected PEM certificates, found: {why}") from None


def _stamps(paths: tuple[Path, ...]) -> tuple[tuple[int, int] | None, ...]:
    """Time of change and size of each file; None for one that is not there now (it may be being replaced)."""
    stamps: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size))
    return tuple(stamps)
