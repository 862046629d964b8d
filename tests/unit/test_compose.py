"""docker-compose.yml as far as it can be checked without an engine: pinned, guarded, nothing missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_orthanc import SITE_CONFIG, read_commented_json

from dicom_node.cli.exposure import check_exposure
from dicom_node.cli.viewer_server import archive_of
from dicom_node.errors import ConfigError
from dicom_node.settings import read_settings
from dicom_node.web.viewer.installation import PINNED

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PUBLISHED = {
    "${HYDROPS_BIND:-127.0.0.1}:4242:4242",
    "${HYDROPS_BIND:-127.0.0.1}:11112:11112",
    "${HYDROPS_ORTHANC_HTTP_BIND:-127.0.0.1}:8042:8042",
    "127.0.0.1:8080:8080",
    "127.0.0.1:8081:8081",
}
SECRETS = {"ORTHANC_PASSWORD", "POSTGRES_PASSWORD", "HYDROPS_WAKE_TOKEN"}


def environment(service: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[service].get("environment", {})
    return found


def mounts(service: str) -> list[tuple[str, str, str]]:
    """(source, target, mode) of every volume line."""
    lines = [line.split(":") for line in SERVICES[service].get("volumes", [])]
    return [(line[0], line[1], line[2] if len(line) > 2 else "rw") for line in lines]


def test_the_three_parts_are_there() -> None:
    assert set(SERVICES) == {"orthanc", "node", "postgres"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_to_a_full_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


def test_the_node_is_built_on_a_pinned_debian_12_python() -> None:
    (base,) = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)


@pytest.mark.parametrize("name", SERVICES)
def test_every_part_says_whether_it_is_well_and_cannot_gain_rights(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]
    assert "privileged" not in SERVICES[name]


@pytest.mark.parametrize("name", ["node", "postgres"])
def test_the_file_system_is_read_only_where_the_program_allows_it(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert "/tmp" in SERVICES[name]["tmpfs"]


def test_every_secret_has_to_be_set_and_has_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{(\w+):\?set (\w+) in \.env\}", text))
    assert used == {(name, name) for name in SECRETS}
    assert not re.search(r"\$\{\w*(PASSWORD|TOKEN)\w*(:?-|\})", text)
    for service in SERVICES:
        for key, value in environment(service).items():
            if re.search("PASSWORD|TOKEN|DATABASE_URL", key):
                assert ":?set " in value, f"{service}.{key} is not taken from .env"


def test_the_example_environment_names_every_variable_and_gives_no_secret() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines() if "=" in line]
    example = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert set(example) == used
    assert {name for name, value in example.items() if not value} == SECRETS


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists_and_our_files_are_read_only(name: str) -> None:
    for source, _, mode in mounts(name):
        if source.startswith("."):
            assert (ROOT / source).exists(), f"{name} mounts {source}, which is not there"
            assert mode == "ro"
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        # Dashboard, viewer and Orthanc's REST speak plain HTTP, so their ports never follow HYDROPS_BIND to a network.
        assert port in PUBLISHED


def test_only_dicom_follows_the_address_that_senders_need() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    orthanc = read_commented_json(SITE_CONFIG)
    node = read_settings(ROOT / "config" / "compose.toml", dict.fromkeys(environment("node"), "x")).settings
    inside = {int(port.rpartition(":")[2]) for port in ports if "HYDROPS_BIND" in port}
    assert inside == {orthanc["DicomPort"], node.listener.port}
    assert sorted(ports) == sorted(PUBLISHED)


def test_the_database_is_reached_by_the_node_alone() -> None:
    assert [name for name in SERVICES if "database" in SERVICES[name]["networks"]] == ["node", "postgres"]
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert "ports" not in SERVICES["postgres"]


def test_orthanc_gets_the_settings_that_were_measured() -> None:
    assert environment("orthanc")["TCP_NODELAY"] == "1"
    assert SERVICES["orthanc"]["stop_grace_period"] == "30s"


def test_the_node_reads_every_variable_that_it_is_given() -> None:
    given = {name: f"value of {name}" for name in environment("node")}
    loaded = read_settings(ROOT / "config" / "compose.toml", given)
    (destination,) = loaded.settings.destinations
    read = {loaded.secrets["HYDROPS_ORTHANC_PASSWORD"], loaded.secrets["HYDROPS_WAKE_TOKEN"], loaded.database_url}
    assert read | {loaded.destination_password(destination.name)} == set(given.values())


def test_the_parts_call_each_other_by_their_names_and_ports() -> None:
    given = dict.fromkeys(environment("node"), "x")
    settings = read_settings(ROOT / "config" / "compose.toml", given).settings
    orthanc = read_commented_json(SITE_CONFIG)
    assert settings.orthanc.url == settings.destinations[0].url == f"http://orthanc:{orthanc['HttpPort']}"
    assert settings.orthanc.username in orthanc["RegisteredUsers"]
    assert environment("orthanc")["HYDROPS_WAKE_URL"] == f"http://node:{settings.web.port}/wake/orthanc"
    assert f"http://127.0.0.1:{settings.web.port}/health" in SERVICES["node"]["healthcheck"]["test"][-1]
    assert SERVICES["node"]["ports"] == [
        f"${{HYDROPS_BIND:-127.0.0.1}}:{settings.listener.port}:11112",
        f"127.0.0.1:8080:{settings.web.port}",
        f"127.0.0.1:8081:{settings.viewer.port}",
    ]


def test_orthanc_finds_its_hook_its_data_and_its_secrets() -> None:
    orthanc = read_commented_json(SITE_CONFIG)
    (script,) = orthanc["LuaScripts"]
    (folder,) = [(source, target) for source, target, _ in mounts("orthanc") if script.startswith(target)]
    assert (ROOT / folder[0] / Path(script).relative_to(folder[1])).is_file()
    assert orthanc["StorageDirectory"] in {target for _, target, _ in mounts("orthanc")}
    used = set(re.findall(r"\$\{(\w+)", SITE_CONFIG.read_text(encoding="utf-8"))) - {"NAME"}
    assert used <= environment("orthanc").keys()


def test_orthanc_is_configured_safely() -> None:
    orthanc = read_commented_json(SITE_CONFIG)
    expected = {
        "AuthenticationEnabled": True,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "ExecuteLuaEnabled": False,
        "RestApiWriteToFileSystemEnabled": False,
        "WebDavEnabled": False,
        "HttpCompressionEnabled": False,
        "OverwriteInstances": False,
        "DeidentifyLogs": True,
    }
    assert {key: orthanc[key] for key in expected} == expected
    assert orthanc["RegisteredUsers"] == {"hydrops": "${ORTHANC_PASSWORD}"}
    assert orthanc["HttpTimeout"] <= 1  # while the hook waits for a hung node, so does Orthanc's REST API


def test_the_node_has_the_viewer_that_its_dashboard_links_to() -> None:
    loaded = read_settings(ROOT / "config" / "compose.toml", dict.fromkeys(environment("node"), "x"))
    assert "RUN hydrops-node install-viewer" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    archive = archive_of(loaded)
    assert archive is not None
    assert archive.url == "http://orthanc:8042/dicom-web"
    assert (loaded.settings.viewer.enabled, loaded.settings.viewer.host) == (True, loaded.settings.web.host)
    assert read_commented_json(SITE_CONFIG)["DicomWeb"]["Enable"] is True
    with pytest.raises(ConfigError, match="has no users"):
        check_exposure(loaded, users=0)
    check_exposure(loaded, users=1)


def test_ohifs_version_is_stated_once() -> None:
    named = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("Dockerfile", "docker-compose.yml", "Makefile", "config/**/*", "dicom_node/**/*.py", "setup/*")
        for path in ROOT.glob(pattern)
        if path.is_file() and re.search(r"ohif[^\n]{0,40}\D3\.\d+\.\d+", path.read_text(encoding="utf-8"), flags=re.I)
    ]
    assert named == []  # installation.py has it as a field of its own
    assert PINNED.archive_name in (ROOT / "docs" / "viewer.md").read_text(encoding="utf-8")


def test_the_viewer_talks_to_its_own_address_only() -> None:
    text = (ROOT / "dicom_node" / "web" / "viewer" / "app-config.js").read_text(encoding="utf-8")
    assert "://" not in text
    assert re.findall(r"(?:qido|wado|wadoUri)Root: '(.*?)'", text) == ["/dicom-web"] * 3
