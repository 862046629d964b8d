"""Where the dashboard may be shown: on this machine at once, elsewhere only with users and TLS (S08)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.cli.exposure import check_exposure
from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings, Settings, WebSettings


def loaded(**web: Any) -> LoadedSettings:
    return LoadedSettings(settings=Settings(web=WebSettings(**web)), config_dir=Path("/nowhere"))


CERTIFIED = {"tls_certificate": "node.pem", "tls_key": "node.key"}


@pytest.mark.parametrize(
    ("web", "users"),
    [
        ({"host": "127.0.0.1"}, 0),
        ({"host": "::1"}, 0),
        ({"host": "localhost"}, 0),
        ({"host": "0.0.0.0", "dashboard": False}, 0),
        ({"host": "0.0.0.0", **CERTIFIED}, 1),
        ({"host": "10.1.2.3", "tls_elsewhere": True}, 1),
    ],
)
def test_it_starts(web: dict[str, Any], users: int) -> None:
    check_exposure(loaded(**web), users=users)


@pytest.mark.parametrize(
    ("web", "users", "words"),
    [
        ({"host": "0.0.0.0"}, 0, "has no users"),
        ({"host": "0.0.0.0", **CERTIFIED}, 0, "hydrops-node user add NAME --role admin"),
        ({"host": "10.1.2.3", "tls_elsewhere": True}, 0, "has no users"),
        ({"host": "0.0.0.0"}, 1, "without TLS"),
        ({"host": "::"}, 3, "web.tls_certificate"),
        ({"host": "pacs-node.hospital.example"}, 3, "web.tls_elsewhere = true"),
    ],
)
def test_it_refuses_and_says_what_to_do(web: dict[str, Any], users: int, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^web\.host: ") as refused:
        check_exposure(loaded(**web), users=users)
    assert words in str(refused.value)
