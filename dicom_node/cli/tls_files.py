"""TLS settings to what listener and sender use; paths start at the folder of the configuration."""

from __future__ import annotations

from pathlib import Path

from dicom_node.dicom_tls import ListenerTls, ListenerTlsFiles, SenderTls
from dicom_node.intake.admission import AllowedPeer
from dicom_node.settings import AllowedCaller, DestinationSettings, LoadedSettings


def listener_tls(loaded: LoadedSettings) -> ListenerTls | None:
    """The listener's TLS, or None when it takes plain connections.

    Raises
    ------
    ConfigError
        If a file is missing or unusable; names the file.
    """
    one = loaded.settings.listener
    if not one.tls_certificate:
        return None
    files = ListenerTlsFiles(
        certificate=loaded.config_dir / one.tls_certificate,
        key=loaded.config_dir / one.tls_key,
        client_ca=_path(loaded, one.tls_client_ca),
    )
    return ListenerTls(files)


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


def allowed_peer(caller: AllowedCaller) -> AllowedPeer:
    """One entry of `listener.allowed` for the listener; a fingerprint may be written with colons and capitals."""
    return AllowedPeer(
        ae_title=caller.ae_title,
        networks=caller.networks,
        certificate_sha256=caller.certificate_sha256.replace(":", "").lower(),
    )


def _path(loaded: LoadedSettings, text: str) -> Path | None:
    return loaded.config_dir / text if text else None
