"""Whether the dashboard may be shown where it is configured to be shown."""

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
    web = loaded.settings.web
    if not web.dashboard or web.host in LOOPBACK:
        return
    if users == 0:
        raise ConfigError(
            f"web.host: the dashboard would listen on {web.host} and has no users; make one with "
            "`hydrops-node user add NAME --role admin`, or set web.dashboard = false, or web.host = '127.0.0.1'"
        )
    if not web.tls_certificate and not web.tls_elsewhere:
        raise ConfigError(
            f"web.host: the dashboard would listen on {web.host} without TLS; set web.tls_certificate and "
            "web.tls_key, or say web.tls_elsewhere = true where a proxy protects the way to the browsers"
        )
