"""Encryption: certificates that are about to end, handshakes that fail, and connections that have none at all."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dicom_node.cli.doctor.checkup import Line, Site, ok, problem, warning
from dicom_node.cli.tls_files import sender_tls
from dicom_node.dicom_tls import client_context, handshake_problem
from dicom_node.settings import LoadedSettings

SOON_DAYS: Final = 30
"""How long before its end a certificate is worth a warning: most hospitals take weeks to issue the next one."""

TIMEOUT_S: Final = 10.0


def check(site: Site) -> Iterator[Line]:
    """Every connection, encrypted or not."""
    yield from _own_certificate(site.loaded)
    yield from _web_certificate(site.loaded)
    yield from _dicom_destinations(site.loaded)
    for url in orthanc_urls(site.loaded):
        yield _rest(url)


def orthanc_urls(loaded: LoadedSettings) -> list[str]:
    """Every Orthanc that we talk to, once each."""
    settings = loaded.settings
    urls = [settings.orthanc.url, *(one.url for one in settings.destinations if one.kind == "orthanc")]
    return list(dict.fromkeys(url for url in urls if url))


def _own_certificate(loaded: LoadedSettings) -> Iterator[Line]:
    listener = loaded.settings.listener
    if not listener.enabled:
        return
    if listener.tls_certificate:
        yield _remaining("our listener's certificate", loaded.config_dir / listener.tls_certificate)
        if not listener.tls_client_ca:
            yield warning(
                "our listener encrypts, but asks nobody for a certificate: who calls is known by address only",
                "set listener.tls_client_ca to the authority of your senders' certificates",
            )
    elif not _is_local(listener.host):
        yield warning(
            f"our listener takes plain DICOM on {listener.host}: whoever can listen in the network sees the images",
            "keep it in a network of its own, or set listener.tls_certificate and listener.tls_key",
        )
    else:
        yield ok("our listener takes plain DICOM, from this machine only")


def _web_certificate(loaded: LoadedSettings) -> Iterator[Line]:
    """That of dashboard and viewer, which is read when the node starts."""
    web = loaded.settings.web
    if web.tls_certificate:
        path = loaded.config_dir / web.tls_certificate
        yield _remaining("the dashboard's certificate", path, taken_up="renew it, then start the node anew")


def _dicom_destinations(loaded: LoadedSettings) -> Iterator[Line]:
    for one in loaded.settings.destinations:
        if one.kind != "dicom":
            continue
        tls = sender_tls(loaded, one)
        if tls is None:
            yield _plain(f"destination {one.name}", one.host, "set tls = true where the receiver can")
            continue
        if tls.certificate is not None:
            yield _remaining(f"our certificate for destination {one.name}", tls.certificate)
        fault = handshake_problem(one.host, one.port, tls.context(), name=tls.name or one.host, timeout_s=TIMEOUT_S)
        if fault is None:
            yield ok(f"destination {one.name}: TLS to {one.host}:{one.port}, its certificate is trusted")
        else:
            yield problem(
                f"destination {one.name}: {fault}",
                "tls_ca must name the authority of its certificate, tls_name what it is made out to; "
                "if it wants a certificate of ours: tls_certificate and tls_key",
            )


def _plain(what: str, host: str, advice: str) -> Line:
    if _is_local(host):
        return ok(f"{what}: plain, on this machine only")
    return warning(f"{what}: results travel to {host} unencrypted", f"keep it in a network of its own, or {advice}")


def _rest(url: str) -> Line:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        if _is_local(host):
            return ok(f"Orthanc at {url}: plain HTTP, on this machine only")
        return warning(
            f"Orthanc at {url}: password and images travel unencrypted", "put Orthanc behind https (docs/connect.md)"
        )
    fault = handshake_problem(host, parts.port or 443, client_context(ca=None), name=host, timeout_s=TIMEOUT_S)
    if fault is None:
        return ok(f"Orthanc at {url}: TLS, its certificate is trusted")
    return problem(f"Orthanc at {url}: {fault}", "install its authority in the system's certificates of this machine")


def _remaining(what: str, path: Path, *, taken_up: str = "renew it; it is taken up without a restart") -> Line:
    """How long a certificate is still good for; `taken_up` is what to do when it is about to end."""
    days = (ssl.cert_time_to_seconds(_not_after(path)) - time.time()) / 86400
    if days < 0:
        return problem(f"{what} ended {-days:.0f} days ago ({path})", taken_up)
    if days < SOON_DAYS:
        return warning(f"{what} ends in {days:.0f} days ({path})", taken_up)
    return ok(f"{what} is good for {days:.0f} days")


def _not_after(path: Path) -> str:
    """The end of validity of the first certificate in a PEM file."""
    # The public interface shows certificates of peers and of authorities, never a file's own leaf; the decoder behind
    # it does, and spares a dependency on a cryptography package for this one date.
    decoded: dict[str, str] = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    return decoded["notAfter"]


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
