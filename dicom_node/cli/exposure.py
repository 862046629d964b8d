"""Whether dashboard and viewer may be shown where it is configured to be shown."""

from __future__ import annotations

from typing import Final

from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def check_exposure(loaded: LoadedSettings, *, users: int) -> None:
    """Refuse to show patients' data to a network without users or without TLS.

    Raises
    ------
    ConfigError
        If the dashboard is on, the address is not this machine's own, and one of the two is missing.
    """
    web, viewer = loaded.settings.web, loaded.settings.viewer
    if web.dashboard:
        _check(loaded, "web.host", web.host, "dashboard", "web.dashboard = false", users)
    if viewer.enabled:
        _check(loaded, "viewer.host", viewer.host, "viewer", "viewer.enabled = false", users)


def _check(loaded: LoadedSettings, key: str, host: str, what: str, switch: str, users: int) -> None:
    web = loaded.settings.web
    if host in LOOPBACK:
        return
    if users == 0:
        raise ConfigError(
            f"{key}: the {what} would listen on {host} and has no users; make one with "
            f"`hydrops-node user add NAME --role admin`, or set {switch}, or {key} = '127.0.0.1'"
        )
    if not web.tls_certificate and not web.tls_elsewhere:
        raise ConfigError(
            f"{key}: the {what} would listen on {host} without TLS; set web.tls_certificate and "
            "web.tls_key, or say web.tls_elsewhere = true where a proxy protects the way to the browsers"
        )
