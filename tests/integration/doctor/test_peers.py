"""`hydrops-node doctor` beside real peers: Orthanc set up well and badly, DCMTK's receiver, TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from committing_archive import Archive
from dicom_receivers import SECONDARY_CAPTURE, SEG, Receiver, storescp
from doctor_site import DoctorSite, Findings, dicom_destination
from free_ports import free_port
from local_orthanc import LocalOrthanc

from dicom_node.cli.doctor.archive_settings import judge, read_orthanc_json

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "config" / "orthanc.json"


@pytest.fixture(scope="module")
def safe() -> Iterator[LocalOrthanc]:
    """Orthanc with the settings that we ship."""
    with LocalOrthanc(plugins=("OrthancDicomWeb",)) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def unsafe() -> Iterator[LocalOrthanc]:
    """Orthanc as its installer leaves it, and worse."""
    open_doors = {
        "AuthenticationEnabled": False,
        "ExecuteLuaEnabled": True,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomCheckModalityHost": False,
    }
    with LocalOrthanc(extra=open_doors) as orthanc:
        yield orthanc


def reading(orthanc: LocalOrthanc) -> str:
    """TOML that reads from and delivers to this Orthanc."""
    return (
        f'[orthanc]\nurl = "{orthanc.url}"\nusername = "{orthanc.username}"\n'
        f'[[destinations]]\nname = "archive"\nkind = "orthanc"\nurl = "{orthanc.url}"\n'
        f'username = "{orthanc.username}"\ntimeout_s = 60.0\n'
    )


def know_password(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("HYDROPS_ORTHANC_PASSWORD", password)
    monkeypatch.setenv("HYDROPS_DESTINATION_ARCHIVE_PASSWORD", password)


@pytest.mark.orthanc
def test_an_orthanc_with_our_settings_has_no_problem(
    safe: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_password(monkeypatch, safe.password)
    site = DoctorSite(tmp_path, reading(safe))
    found = site.find("orthanc", "receivers", "clock", "tls", "forms")
    assert (found.problems, found.warnings) == ([], [])
    said = found.of("ok")
    assert any(text.startswith("Orthanc 1.") and text.endswith("AE title ORTHANC") for text in said)
    assert "it asks for a password, and the well-known ones do not open it" in said
    assert "its DICOM side sends strangers away" in said
    assert f"the clock of Orthanc at {safe.url} agrees with ours" in said
    assert "archive: gets SEG, SR, SC, as Explicit VR Little Endian" in said
    assert safe.password not in json.dumps(found.lines)


@pytest.mark.orthanc
def test_an_orthanc_that_is_open_is_told_door_by_door(
    unsafe: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_password(monkeypatch, unsafe.password)
    found = DoctorSite(tmp_path, reading(unsafe)).find("orthanc")
    assert found.status == 1
    assert found.problems == [
        f"Orthanc at {unsafe.url} runs any Lua script that it is sent over HTTP",
        f"Orthanc at {unsafe.url} asks nobody for a password",
    ]
    assert found.warnings == [
        f"Orthanc at {unsafe.url} has no DICOMweb plug-in: the viewer cannot show its studies",
        f"Orthanc at {unsafe.url} answers DICOM calls of every AE",
        f"Orthanc at {unsafe.url} answers to whatever AE title it is called by: "
        "images meant for another system end there",
    ]
    assert found.step("answers to whatever") == "set DicomCheckCalledAet to true"


@pytest.mark.orthanc
def test_the_user_of_every_tutorial_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalOrthanc(extra={"RegisteredUsers": {"orthanc": "orthanc"}}) as orthanc:
        know_password(monkeypatch, orthanc.password)
        found = DoctorSite(tmp_path, reading(orthanc)).find("orthanc")
    assert f"Orthanc at {orthanc.url} still has the well-known user 'orthanc'" in found.problems


@pytest.mark.orthanc
def test_a_wrong_password_is_told_as_such(safe: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know_password(monkeypatch, "wrong-4711")
    found = DoctorSite(tmp_path, reading(safe)).find("receivers", "orthanc")
    assert len(found.problems) == 2
    assert all("refuses user 'hydrops' (HTTP 401)" in text for text in found.problems)
    assert "wrong-4711" not in json.dumps(found.lines)


@pytest.mark.orthanc
def test_names_come_back_from_orthanc_as_they_went_in(
    safe: LocalOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_password(monkeypatch, safe.password)
    found = DoctorSite(tmp_path, reading(safe)).find("names", more=("--through", "--yes"))
    assert found.problems == []
    assert sum("reads a" in text and "as it was written" in text for text in found.of("ok")) == 4
    left = safe.session.get(f"{safe.url}/instances", timeout=10).json()
    assert left == [], "what was uploaded is deleted again"


@pytest.mark.orthanc
def test_an_ae_title_that_orthanc_does_not_know_is_told_in_words(safe: LocalOrthanc, tmp_path: Path) -> None:
    site = DoctorSite(tmp_path, dicom_destination(safe.dicom_port, called_ae="ORTHANC"))
    assert site.find("receivers").problems == []
    site.config.write_text(site.config.read_text().replace("[node]", '[node]\nae_title = "NEWCOMER"'))
    found = site.find("receivers")
    (text,) = found.problems
    assert "(1,1,3): our calling AE title 'NEWCOMER' is not known there" in text
    assert found.step("NEWCOMER") == "add it to the receiver's list of known AE titles"


@pytest.mark.orthanc
def test_a_wrong_called_ae_title_is_told_in_words(safe: LocalOrthanc, tmp_path: Path) -> None:
    found = DoctorSite(tmp_path, dicom_destination(safe.dicom_port, called_ae="OTHER")).find("receivers")
    (text,) = found.problems
    assert "(1,1,7): the called AE title 'OTHER' is not known there" in text
    assert found.step("OTHER") == "correct called_ae of destination 'pacs'"


@pytest.mark.dcmtk
def test_a_receiver_that_takes_everything_gets_everything(tmp_path: Path) -> None:
    with storescp(tmp_path) as port:
        found = DoctorSite(tmp_path, dicom_destination(port)).find("receivers", "forms")
    assert found.status == 0
    assert "pacs: gets SEG, SR, SC, as Explicit VR Little Endian" in found.of("ok")


@pytest.mark.dcmtk
def test_a_receiver_that_refuses_every_association_is_told_in_words(tmp_path: Path) -> None:
    with storescp(tmp_path, "--refuse") as port:
        found = DoctorSite(tmp_path, dicom_destination(port)).find("receivers", "forms")
    assert len(found.problems) == 2
    assert "association rejected" in found.problems[0]


def test_p19_an_archive_that_commits_and_may_call_back_has_no_problem(tmp_path: Path) -> None:
    allowed = 'allowed = [{ ae_title = "PACS", networks = ["127.0.0.1/32"] }]'
    with Archive().listening() as archive:
        to_commit = dicom_destination(archive.port) + '\ndone = "committed"'
        found = DoctorSite(tmp_path, to_commit, listener=allowed).find("commitment")
        assert archive.requests == []
    assert found.status == 0
    assert len(found.of("ok")) == 2


def test_p19_an_archive_that_refuses_commitment_and_may_not_call_back_is_told_in_words(tmp_path: Path) -> None:
    with Archive(takes_commitment=False).listening() as archive:
        found = DoctorSite(tmp_path, dicom_destination(archive.port) + '\ndone = "committed"').find("commitment")
    refuses, not_allowed = found.problems
    assert "refuses the presentation context of storage commitment" in refuses
    assert "its AE title PACS is not in listener.allowed" in not_allowed
    assert 'set done = "sent"' in found.step("refuses")


def test_p19_destinations_that_are_not_to_commit_are_not_asked(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path, dicom_destination(free_port())).find("commitment")
    assert found.of("ok") == ['every destination is done with a result when it was sent (no done = "committed")']


@pytest.mark.parametrize(
    ("classes", "level", "words"),
    [
        ((SEG,), "problem", "pacs: gets SEG, as Explicit VR Little Endian; it does not take SR, SC: nothing that"),
        ((SECONDARY_CAPTURE,), "ok", "pacs: gets SC, as Explicit VR Little Endian; it does not take SEG, SR"),
        (("1.2.840.10008.5.1.4.1.1.88.34",), "warning", "pacs: gets SR, as Explicit VR Little Endian; it does not"),
        (("1.2.840.10008.5.1.4.1.1.4",), "problem", "pacs: gets nothing; it does not take SEG, SR, SC"),
    ],
)
def test_what_a_receiver_accepts_decides_what_it_gets(
    tmp_path: Path, classes: tuple[str, ...], level: str, words: str
) -> None:
    verification = "1.2.840.10008.1.1"
    with Receiver(classes=[*classes, verification]).listening() as receiver:
        found = DoctorSite(tmp_path, dicom_destination(receiver.port)).find("forms")
    (text,) = found.of(level)
    assert text.startswith(words)


@pytest.mark.dcmtk
def test_only_what_the_node_makes_is_said_to_go_anywhere(tmp_path: Path) -> None:
    with storescp(tmp_path) as port:
        (text,) = forms_said(tmp_path, dicom_destination(port) + "[results]\npdf = true\nsummary = false\n").of("ok")
        assert text == "pacs: gets SEG, SR, PDF, as Explicit VR Little Endian"
        pdf_only = dicom_destination(port, more='send = ["PDF"]')
        (text,) = forms_said(tmp_path, pdf_only).of("problem")
        assert text.startswith("pacs: gets nothing; ")
        assert "[results] does not make PDF, which its setting 'send' names" in text


def forms_said(folder: Path, config: str) -> Findings:
    return DoctorSite(folder, config).find("forms")


def test_a_receiver_without_c_echo_is_only_a_warning(tmp_path: Path) -> None:
    with Receiver(classes=[SEG]).listening() as receiver:
        found = DoctorSite(tmp_path, dicom_destination(receiver.port)).find("receivers")
    assert found.problems == []
    assert found.warnings == ["pacs: lets us in as HYDROPS, but answers no C-ECHO"]


def test_a_closed_port_is_a_problem(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path, dicom_destination(free_port())).find("receivers")
    assert found.problems[0].startswith("pacs: no connection to PACS@127.0.0.1:")
    assert found.step("no connection").endswith("are host, port and firewall right?")


def test_a_receiver_whose_certificate_nobody_vouches_for_is_a_problem(tmp_path: Path) -> None:
    trusted, other = Authority(tmp_path, "trusted"), Authority(tmp_path, "other")
    signed = other.sign("receiver")
    with storescp(tmp_path, "+tls", str(signed.key), str(signed.certificate), "-ic") as port:
        more = f'tls = true\ntls_ca = "{trusted.certificate}"\n'
        found = DoctorSite(tmp_path, dicom_destination(port, more=more)).find("tls")
    (text,) = found.problems
    assert text.startswith("destination pacs: its certificate is not accepted: ")


@pytest.mark.parametrize(
    ("expired", "level", "words"),
    [
        (True, "problem", "the dashboard's certificate ended "),
        (False, "warning", "the dashboard's certificate ends in "),
    ],
)
def test_a_dashboards_certificate_that_ends_is_told_before_browsers_do(
    tmp_path: Path, expired: bool, level: str, words: str
) -> None:
    own = Authority(tmp_path).sign("web", expired=expired)
    site = DoctorSite(tmp_path, f'tls_certificate = "{own.certificate}"\ntls_key = "{own.key}"\n')
    found = site.find("tls")
    assert [text for text in found.of(level) if text.startswith(words)]
    assert found.step(words) == "renew it, then start the node anew"


def findings_of(config: dict[str, Any]) -> list[str]:
    return [line.text for line in judge(config)]


def test_the_orthanc_settings_that_we_ship_have_no_bad_value() -> None:
    assert findings_of(dict(read_orthanc_json(SHIPPED.read_text(encoding="utf-8")))) == []


def test_orthancs_own_defaults_are_judged_where_the_file_is_silent() -> None:
    texts = findings_of({})
    assert any(text.startswith("Orthanc's DicomCheckCalledAet is false (its default)") for text in texts)
    assert any(text.startswith("Orthanc's DicomAlwaysAllowStore is true (its default)") for text in texts)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"RemoteAccessAllowed": True, "AuthenticationEnabled": False}, "remote access without a user"),
        ({"RemoteAccessAllowed": True}, "remote access without a user"),
        ({"RegisteredUsers": {"orthanc": "orthanc"}}, "user 'orthanc' has a well-known password"),
        ({"ExecuteLuaEnabled": True}, "ExecuteLuaEnabled is true"),
        ({"RestApiWriteToFileSystemEnabled": True}, "RestApiWriteToFileSystemEnabled is true"),
        ({"StableAge": 600}, "StableAge is 600"),
        ({"OverwriteInstances": True}, "OverwriteInstances is true"),
        ({"LimitFindResults": 100}, "LimitFindResults is 100"),
        ({"SynchronousZipStream": False}, "SynchronousZipStream is false"),
    ],
)
def test_a_bad_value_of_orthanc_is_told(config: dict[str, Any], words: str) -> None:
    assert any(words in text for text in findings_of(config))


def test_a_password_in_orthancs_file_is_not_repeated() -> None:
    texts = findings_of({"RegisteredUsers": {"someone": "someone"}, "RemoteAccessAllowed": True})
    assert "Orthanc's user 'someone' has a well-known password" in texts
    assert not any("hidden" in text for text in findings_of({"RegisteredUsers": {"hydrops": "hidden"}}))


def test_comments_in_orthancs_file_are_no_obstacle() -> None:
    text = '{ // one\n "Name": "http://a // b", /* two\n lines */ "StableAge": 600 }'
    assert read_orthanc_json(text) == {"Name": "http://a // b", "StableAge": 600}
