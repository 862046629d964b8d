"""Whether there is a viewer, why not, where it is, and which archive it shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.cli import viewer_place
from dicom_node.cli.exposure import check_exposure
from dicom_node.cli.viewer_place import viewer_address, why_no_viewer
from dicom_node.cli.viewer_server import archive_of, doors_of, viewing_audits
from dicom_node.cli.wiring import audit_trail
from dicom_node.database import open_database
from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings, OrthancSettings, Settings, ViewerSettings, WebSettings
from dicom_node.study_cards import StudyCards, card_of
from dicom_node.web.viewer.access import Onlooker
from dicom_node.web.viewer.archive import Archive

ORTHANC = OrthancSettings(url="http://pacs:8042/", username="hydrops")
SECRETS = {"HYDROPS_ORTHANC_PASSWORD": "of orthanc", "HYDROPS_VIEWER_PASSWORD": "of viewer"}


def loaded(**sections: object) -> LoadedSettings:
    settings = replace(Settings(orthanc=ORTHANC), **sections)
    return LoadedSettings(settings=settings, config_dir=Path(), secrets=SECRETS)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.html").touch()
    monkeypatch.setattr(viewer_place, "viewer_folder", lambda: tmp_path)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"viewer": ViewerSettings(enabled=False)}, "viewer.enabled is false"),
        ({"orthanc": OrthancSettings()}, "no archive"),
    ],
)
def test_a_node_without_viewer_says_why_and_links_nowhere(
    sections: dict[str, object], reason: str, installed: None
) -> None:
    assert reason in why_no_viewer(loaded(**sections))
    assert viewer_address(loaded(**sections)) == ""


def test_without_ohif_the_reason_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_place, "viewer_folder", lambda: tmp_path)
    assert "hydrops-node install-viewer" in why_no_viewer(loaded())


def test_the_dashboard_links_to_the_viewers_port_or_to_what_is_configured(installed: None) -> None:
    assert viewer_address(loaded()) == "http://{host}:8081"
    assert viewer_address(loaded(web=WebSettings(tls_certificate="a", tls_key="b"))) == "https://{host}:8081"
    elsewhere = ViewerSettings(address="https://view.example/")
    assert viewer_address(loaded(viewer=elsewhere)) == "https://view.example"


def test_the_viewer_shows_the_orthanc_we_read_or_the_archive_that_is_configured() -> None:
    ours = archive_of(loaded())
    assert ours is not None
    assert (ours.url, ours.username, ours.password) == ("http://pacs:8042/dicom-web", "hydrops", "of orthanc")
    other = archive_of(loaded(viewer=ViewerSettings(dicomweb_url="https://vna/dw/", username="eye")))
    assert other is not None
    assert (other.url, other.username, other.password) == ("https://vna/dw", "eye", "of viewer")
    assert "of viewer" not in repr(other)


@pytest.mark.parametrize(("users", "complaint"), [(0, "has no users"), (1, "without TLS")])
def test_a_viewer_for_other_machines_needs_users_and_tls(users: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"viewer.host: .*{complaint}"):
        check_exposure(loaded(viewer=ViewerSettings(host="0.0.0.0")), users=users)
    check_exposure(loaded(viewer=ViewerSettings(host="0.0.0.0", enabled=False)), users=users)


def test_behind_a_proxy_the_viewer_answers_to_the_name_that_the_dashboard_links_to() -> None:
    doors = doors_of(loaded(viewer=ViewerSettings(address="https://viewer.hospital.example:8443/")))
    assert doors.are_for("viewer.hospital.example")
    assert doors.are_for("localhost")
    assert not doors.are_for("evil.example")
    assert not doors.are_for("")
    assert doors.dashboard_url("viewer.hospital.example") == ""
    alone = doors_of(loaded(viewer=ViewerSettings()))
    assert not alone.are_for("viewer.hospital.example")
    assert not alone.are_for("")
    assert alone.dashboard_url("localhost") == "http://localhost:8080/"


def test_the_audit_trail_names_who_opened_which_patients_study(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    settings = replace(Settings(), node=replace(Settings().node, state_dir=str(tmp_path)))
    node = LoadedSettings(settings=settings, config_dir=tmp_path, secrets={})
    header = Dataset()
    header.PatientID = "P7"
    StudyCards(engine).put(card_of("1.2.3", header))
    opened, searched = viewing_audits(node, engine, Archive(url="http://archive.example:8042/dicom-web"))
    for session in ("1", "1", "2"):
        opened(Onlooker(name="vera", session_id=session), "1.2.3", "10.1.2.3")
    searched(Onlooker(name="vera", session_id="1"), "studies?PatientName=Secret", "10.1.2.3")
    *messages, search = [entry.message for entry in audit_trail(node).entries()]
    assert [one["UserID"] for one in search["ActiveParticipant"][::2]] == ["vera", "archive.example:8042"]
    assert len(messages) == 2
    for message in messages:
        people, things = message["ActiveParticipant"], message["ParticipantObjectIdentification"]
        assert (people[0]["UserID"], people[0]["NetworkAccessPointID"]) == ("vera", "10.1.2.3")
        assert [one["ParticipantObjectID"] for one in things] == ["1.2.3", "P7"]
