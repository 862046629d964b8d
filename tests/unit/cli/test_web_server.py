"""The dashboard's own TLS, on a real socket: Secure cookies, and files that must be there and fit."""

from __future__ import annotations

import errno
import logging
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from certificates import Authority
from dashboard_parts import make_parts, sign_in
from free_ports import free_port
from patience import PATIENCE_S, wait_until

from dicom_node.cli.taken_ports import taken_port
from dicom_node.cli.tls_files import web_tls_problems
from dicom_node.cli.web_server import WebServer
from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings, Settings, WebSettings


def loaded(folder: Path, **web: object) -> LoadedSettings:
    return LoadedSettings(settings=Settings(web=WebSettings(port=free_port(), **web)), config_dir=folder)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[httpx.Client]:
    authority = Authority(tmp_path)
    authority.sign("node")
    settings = loaded(tmp_path, tls_certificate="node.pem", tls_key="node.key")
    server = WebServer(settings, make_parts(tmp_path))
    server.start(taken_port("127.0.0.1", settings.settings.web.port, key="web.port"))
    context = ssl.create_default_context(cafile=authority.certificate)
    address = f"https://localhost:{settings.settings.web.port}"
    with httpx.Client(base_url=address, verify=context, headers={"Accept": "text/html"}, timeout=PATIENCE_S) as client:
        wait_until(lambda: answers(client))
        yield client
    server.stop(PATIENCE_S)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/live").is_success
    except httpx.ConnectError:
        return False


def test_over_tls_the_cookie_is_secure_and_bound_to_this_host(secured: httpx.Client) -> None:
    answer = sign_in(secured, "ada")
    assert answer.status_code == 303
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if "session=" in one]
    assert cookie.startswith("__Host-hydrops_session=")
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= {one.strip().lower() for one in cookie.split(";")}
    assert secured.get("/studies").status_code == 200


def test_a_port_that_somebody_else_has_is_named_with_its_key() -> None:
    with (
        taken_port("127.0.0.1", 0, key="web.port") as mine,
        pytest.raises(ConfigError, match=r"^viewer\.port: cannot listen on 127\.0\.0\.1:\d+: Address already in use"),
    ):
        taken_port("127.0.0.1", mine.getsockname()[1], key="viewer.port")


@pytest.mark.parametrize("lacking", ["tls_certificate", "tls_key"])
def test_a_missing_file_is_named_with_its_key(tmp_path: Path, lacking: str) -> None:
    for name in ("tls_certificate", "tls_key"):
        if name != lacking:
            (tmp_path / f"{name}.pem").touch()
    settings = loaded(tmp_path, tls_certificate="tls_certificate.pem", tls_key="tls_key.pem")
    with pytest.raises(ConfigError, match=rf"^web\.{lacking}: expected a PEM file, found nothing at .*{lacking}\.pem"):
        WebServer(settings, make_parts(tmp_path))


@pytest.mark.parametrize(
    ("certificate", "key", "found"),
    [
        ("node.pem", "other.key", "the key does not belong to the first certificate in node.pem"),
        ("node.key", "node.key", "no PEM certificate in node.key"),
        ("node.pem", "node.pem", "no PEM key in node.pem"),
        ("node.pem", "closed.key", "closed.key has a passphrase"),
        ("half.pem", "node.key", "one of the two is damaged"),
    ],
)
def test_certificate_and_key_that_cannot_serve_are_named_with_what_is_wrong(
    tmp_path: Path, certificate: str, key: str, found: str
) -> None:
    authority = Authority(tmp_path)
    node = authority.sign("node")
    authority.sign("other")
    secret = ("-aes256", "-passout", "pass:secret", "-out", str(tmp_path / "closed.key"))
    subprocess.run(["openssl", "pkey", "-in", str(node.key), *secret], check=True)
    (tmp_path / "half.pem").write_bytes(node.certificate.read_bytes()[:300])
    expected = (
        f"web.tls_certificate: TLS certificate {tmp_path / certificate} with key {tmp_path / key}: expected a PEM "
        f"certificate and its own unencrypted key, found: {found}"
    )
    assert web_tls_problems(loaded(tmp_path, tls_certificate=certificate, tls_key=key)) == [expected]


def test_a_file_in_a_folder_that_is_closed_to_the_node_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", closed)  # chmod would not stop a test that runs as root
    assert web_tls_problems(loaded(tmp_path, tls_certificate="node.pem", tls_key="node.key"))[1].startswith(
        f"web.tls_key: expected a PEM file, found no way in (Permission denied) at {tmp_path / 'node.key'}"
    )


def test_a_fault_is_written_by_our_log_and_not_by_the_servers_own_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uvicorn", "uvicorn.error"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    WebServer(loaded(tmp_path), make_parts(tmp_path))
    assert logging.getLogger("uvicorn").handlers == logging.getLogger("uvicorn.error").handlers == []
    assert logging.getLogger("uvicorn").propagate
