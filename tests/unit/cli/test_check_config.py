"""`hydrops-node check-config`, run as an operator runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from certificates import Authority

from dicom_node.cli import main

CONFIG = Path(__file__).parents[3] / "config"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("node.toml", "series_rules.toml"):
        shutil.copy(CONFIG / name, tmp_path)
    return tmp_path / "node.toml"


def test_the_configuration_that_we_ship_is_ok(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(config)]) == 0
    assert capsys.readouterr().out == f"{config}: OK\n"


def test_every_problem_is_printed_with_its_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = config.read_text(encoding="utf-8").replace("port = 11112", "port = 0").replace("quiet_s =", "quiet =")
    config.write_text(text, encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["assembly.quiet", "listener.port"]
    assert "2 to correct" in lines[-1]


def test_a_missing_file_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().out


def test_a_missing_rules_file_is_a_problem(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "series_rules.toml").unlink()
    assert main(["check-config", "--config", str(config)]) == 2
    assert "assembly.rules_file" in capsys.readouterr().out


def test_a_user_without_a_password_is_a_problem(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config.read_text(encoding="utf-8").replace('url = ""\n', 'url = "http://127.0.0.1:8042"\n', 1)
    text = text.replace('username = ""', 'username = "node"', 1)
    text += '[[destinations]]\nname = "main-pacs"\nkind = "orthanc"\nurl = "http://h"\nusername = "node"\n'
    config.write_text(text, encoding="utf-8")
    monkeypatch.delenv("HYDROPS_ORTHANC_PASSWORD", raising=False)
    assert main(["check-config", "--config", str(config)]) == 2
    output = capsys.readouterr().out
    assert "HYDROPS_ORTHANC_PASSWORD" in output
    assert "HYDROPS_DESTINATION_MAIN_PACS_PASSWORD" in output
    monkeypatch.setenv("HYDROPS_ORTHANC_PASSWORD", "x")
    monkeypatch.setenv("HYDROPS_DESTINATION_MAIN_PACS_PASSWORD", "y")
    assert main(["check-config", "--config", str(config)]) == 0


def test_a_dashboard_for_a_network_without_tls_is_a_problem(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDROPS_WAKE_TOKEN", "0123456789abcdef0123456789abcdef")
    text = config.read_text(encoding="utf-8").replace(
        'host = "127.0.0.1"\n# Its TCP port.\nport = 8080', 'host = "0.0.0.0"'
    )
    config.write_text(text, encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    assert "web.host: the dashboard would listen on 0.0.0.0 without TLS" in capsys.readouterr().out
    config.write_text(text.replace("tls_elsewhere = false", "tls_elsewhere = true"), encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 0


def test_tls_files_of_the_dashboard_that_are_not_there_are_problems(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text('[web]\ntls_certificate = "no.pem"\ntls_key = "no.key"\n', encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    output = capsys.readouterr().out
    assert f"web.tls_certificate: expected a PEM file, found nothing at {config.parent / 'no.pem'}" in output
    assert f"web.tls_key: expected a PEM file, found nothing at {config.parent / 'no.key'}" in output


def test_a_tls_file_of_the_audit_trail_that_is_not_there_is_a_problem(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text('[audit]\nsyslog_host = "localhost"\nsyslog_ca = "no.pem"\n', encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    assert f"audit: expected a PEM file, found nothing at {config.parent / 'no.pem'}" in capsys.readouterr().out


@pytest.mark.parametrize("section", ["web", "listener"])
def test_a_key_of_another_certificate_is_a_problem(
    config: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    authority = Authority(config.parent)
    authority.sign("node")
    authority.sign("other")
    text = f'[{section}]\ntls_certificate = "node.pem"\ntls_key = "KEY"\n'
    config.write_text(text.replace("KEY", "other.key"), encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    (told, _) = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{section}.tls_certificate: TLS certificate {config.parent / 'node.pem'} with key ")
    assert told.endswith("found: the key does not belong to the first certificate in node.pem")
    config.write_text(text.replace("KEY", "node.key"), encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 0
