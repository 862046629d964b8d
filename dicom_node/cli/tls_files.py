"""TLS settings to what listener, sender and web use; paths start at the folder of the configuration."""

from __future__ import annotations

from pathlib import Path

from dicom_node.dicom_tls import ListenerTls, ListenerTlsFiles, SenderTls, require_file, server_context
from dicom_node.errors import ConfigError
from dicom_node.intake.admission import AllowedPeer
from dicom_node.settings import AllowedCaller, DestinationSettings, LoadedSettings


def listener_tls(loaded: LoadedSettings) -> ListenerTls | None:
    """The listener's TLS, or None when it takes plain connections.

    Raises
    ------
    ConfigError
        If a file is missing or unusable; names the key and the file.
    """
    one = loaded.settings.listener
    if not one.tls_certificate:
        return None
    files = ListenerTlsFiles(
        certificate=loaded.config_dir / one.tls_certificate,
        key=loaded.config_dir / one.tls_key,
        client_ca=_path(loaded, one.tls_client_ca),
    )
    try:
        return ListenerTls(files)
    except ConfigError as error:
        raise ConfigError(f"listener.tls_certificate: {error}") from None


def sender_tls(loaded: LoadedSettings, destination: DestinationSettings) -> SenderTls | None:
    """How one destination is called by TLS, or None for a plain connection."""
    if not destination.tls:
        return None
    return SenderTls(
        ca=_path(loaded, destination.tls_ca),
        certificate=_path(loaded, destination.tls_certificate),
        key=_path(loaded, destination.tls_key),
        name=destination.tls_name,
    )


def web_tls(loaded: LoadedSettings) -> ListenerTlsFiles | None:
    """Certificate and key of dashboard and viewer, both good; None when they speak plain HTTP.

    Raises
    ------
    ConfigError
        See `web_tls_problems`; the message has all of them.
    """
    if problems := web_tls_problems(loaded):
        raise ConfigError("; ".join(problems))
    return _web_files(loaded)


def web_tls_problems(loaded: LoadedSettings) -> list[str]:
    """What is wrong with the TLS files of [web]: missing, no PEM, or they do not belong together."""
    files = _web_files(loaded)
    if files is None:
        return []
    problems = []
    for key, path in (("web.tls_certificate", files.certificate), ("web.tls_key", files.key)):
        try:
            require_file(path)
        except ConfigError as error:
            problems.append(f"{key}: {error}")
    if problems:
        return problems
    try:
        server_context(files)
    except ConfigError as error:
        return [f"web.tls_certificate: {error}"]
    return []


def allowed_peer(caller: AllowedCaller) -> AllowedPeer:
    """One entry of `listener.allowed` for the listener; a fingerprint may be written with colons and capitals."""
    return AllowedPeer(
        ae_title=caller.ae_title,
        networks=caller.networks,
        certificate_sha256=caller.certificate_sha256.replace(":", "").lower(),
    )


def _web_files(loaded: LoadedSettings) -> ListenerTlsFiles | None:
    web = loaded.settings.web
    if not web.tls_certificate:
        return None
    return ListenerTlsFiles(certificate=loaded.config_dir / web.tls_certificate, key=loaded.config_dir / web.tls_key)


def _path(loaded: LoadedSettings, text: str) -> Path | None:
    return loaded.config_dir / text if text else None
