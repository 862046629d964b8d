"""`hydrops-node doctor` on this machine alone: what it says of configuration, ports, disk, clock, model and itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tomlkit
from certificates import Authority
from dicom_receivers import storescp
from doctor_site import DoctorSite, dicom_destination
from local_postgresql import running_postgresql
from notice_receivers import HookServer, MailServer
from patience import STUDY_S

from dicom_node.accounts.roles import ROLES
from dicom_node.accounts.users import Users
from dicom_node.cli.doctor import CHECKS, certificates, character_sets, clocks, storage
from dicom_node.cli.doctor.checkup import Level, Site
from dicom_node.cli.doctor.trial_node import trial_settings
from dicom_node.cli.state_folder import only_one, prepare, running_as
from dicom_node.database import open_database
from dicom_node.intake.listener import AllowedPeer, Listener, ListenerOptions
from dicom_node.intake.spool import Spool
from dicom_node.settings import read_settings
from inference.model_store import SHIPPED

SCANNER = 'allowed = [{ ae_title = "SCANNER", networks = ["127.0.0.1/32"] }]'


def test_a_wrong_key_is_a_problem_and_nothing_else_is_examined(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path, "[delivery]\nfirst_retry = 1\n")
    found = site.find()
    assert found.status == 1
    (text,) = found.problems
    assert text.startswith("delivery.first_retry: unknown key")
    assert len(found.lines) == 1


def test_lines_are_words_for_people_and_the_exit_status_is_zero_when_all_is_well(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    printed = site.run("--only", "clock", "--only", "ports").splitlines()
    assert site.status == 0
    assert printed[0] == "ports"
    assert printed[1].startswith("  ok       DICOM port ")
    assert printed[-1] == "All is well."


def test_the_help_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    from dicom_node.cli import main

    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    text = capsys.readouterr().out
    assert [name for name in CHECKS if f"\n  {name} " not in text] == []


def test_no_password_is_ever_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDROPS_ORTHANC_PASSWORD", "secret-4711")
    monkeypatch.setenv("HYDROPS_DESTINATION_PACS_PASSWORD", "secret-4712")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        site = DoctorSite(
            tmp_path,
            f'[orthanc]\nurl = "{url}"\nusername = "node"\n'
            f'[[destinations]]\nname = "pacs"\nkind = "orthanc"\nurl = "{url}"\nusername = "node"\ntimeout_s = 2.0\n',
        )
        printed = site.run("--only", "receivers", "--only", "orthanc", "--only", "configuration", "--json")
    assert json.loads(printed)["problems"] == 2
    assert "secret" not in printed


def test_a_port_of_another_program_is_named_with_that_program(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    with storescp(tmp_path, port=site.dicom_port):
        found = site.find("ports")
    (text,) = found.problems
    assert f"DICOM port {site.dicom_port}" in text
    assert "is taken by storescp (process " in text


def test_an_address_that_is_not_ours_is_a_problem(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path, listener='host = "192.0.2.7"').find("ports")
    (text,) = found.problems
    assert text == "192.0.2.7 is not an address of this machine"
    assert "listener.host" in found.step("192.0.2.7")


SHOWN = 'host = "0.0.0.0"\ntls_elsewhere = true\n'


def test_a_dashboard_for_a_network_without_a_user_is_a_problem_until_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDROPS_WAKE_TOKEN", "0123456789abcdef0123456789abcdef")
    site = DoctorSite(tmp_path, SHOWN)
    found = site.find("users")
    assert found.problems == [
        "web.host: the dashboard would listen on 0.0.0.0 and has no users: the node does not start"
    ]
    assert found.step("has no users") == f"hydrops-node user add NAME --role admin --config {site.config}"
    assert not site.state.exists()  # looking changes nothing
    engine = open_database(f"sqlite:///{prepare(site.state) / 'node.db'}")
    assert site.find("users").status == 1
    Users(engine).add("ada", ROLES["admin"], "correct horse battery", at=0.0)
    assert site.find("users").of("ok") == ["1 may sign in to dashboard and viewer"]  # as beside a node that runs
    engine.dispose()
    assert site.find("users").status == 0


def test_users_in_postgresql_are_counted_and_a_server_that_is_away_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = DoctorSite(tmp_path)
    with running_postgresql() as url:
        monkeypatch.setenv("HYDROPS_DATABASE_URL", url)
        assert site.find("users").of("ok")[0].startswith("there are no users")
        engine = open_database(url)
        Users(engine).add("ada", ROLES["admin"], "correct horse battery", at=0.0)
        engine.dispose()
        assert site.find("users").of("ok") == ["1 may sign in to dashboard and viewer"]
    assert site.find("users").warnings == ["the users cannot be read from the state database (OperationalError)"]


def test_a_dashboard_for_this_machine_needs_no_user(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path).find("users")
    assert found.of("ok") == ["there are no users, and dashboard and viewer show themselves to this machine only"]


def test_users_that_cannot_be_read_are_a_warning(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    (prepare(site.state) / "node.db").write_bytes(b"no database" * 100)
    found = site.find("users")
    assert found.warnings == ["the users cannot be read from the state database (DatabaseError)"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[DoctorSite]:
    """A node as far as this check can see it: the lock, and its real listener."""
    site = DoctorSite(tmp_path, listener=SCANNER)
    folder = prepare(site.state)
    spool = Spool(folder / "spool", open_database(f"sqlite:///{folder / 'node.db'}"))
    scanner = AllowedPeer(ae_title="SCANNER", networks=("127.0.0.1/32",))
    listener = Listener(ListenerOptions(ae_title="HYDROPS", port=site.dicom_port, allowed=(scanner,)), spool)
    with only_one(folder, "listen"):
        listener.start()
        yield site
        listener.stop(1.0)


def test_a_running_node_holds_its_own_port(running: DoctorSite) -> None:
    assert running_as(running.state, "listen") == os.getpid()
    found = running.find("ports")
    assert any(f"is held by our running node (process {os.getpid()})" in text for text in found.of("ok"))
    assert f"does not listen on its dashboard and health port {running.web_port}" in found.problems[0]


def test_every_allowed_caller_is_let_in_and_a_stranger_is_not(running: DoctorSite) -> None:
    found = running.find("callers")
    assert found.status == 0
    assert found.of("ok") == [
        "SCANNER gets in from 127.0.0.1: our listener answers its C-ECHO",
        "an AE that is not in listener.allowed is sent away",
    ]


def test_a_caller_that_the_running_node_does_not_know_yet_is_told_with_the_next_step(running: DoctorSite) -> None:
    text = running.config.read_text().replace('"SCANNER"', '"NEW_MR"')
    running.config.write_text(text)
    found = running.find("callers")
    (problem,) = found.problems
    assert problem == "NEW_MR is sent away from 127.0.0.1, although listener.allowed lets it in"
    assert found.step("NEW_MR").startswith("restart the node")


def test_a_listener_that_lets_everybody_in_is_a_problem(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path, listener=SCANNER)
    with only_one(prepare(site.state), "listen"), storescp(tmp_path, port=site.dicom_port):
        found = site.find("callers")
    assert [text for text in found.problems if "lets in an AE that nobody allowed" in text]


def test_callers_that_can_never_reach_us_are_a_problem(tmp_path: Path) -> None:
    listener = 'allowed = [{ ae_title = "MR2", networks = ["10.1.2.0/24"] }]'
    found = DoctorSite(tmp_path, listener=listener).find("callers")
    assert found.problems == ["MR2 may call from 10.1.2.0/24, but the node listens on 127.0.0.1 only"]


def test_a_node_that_nobody_can_send_to_is_a_problem(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path).find("callers")
    assert found.problems == ["no AE may send to us and no Orthanc is read: no image will ever arrive"]


def test_weights_that_were_changed_are_a_problem(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = DoctorSite(tmp_path, '[processing]\nmodel = "model"\n').find("model")
    (text,) = found.problems
    assert "expected the SHA-256" in text
    assert str(weights) in text


def test_the_shipped_model_measures_a_synthetic_ear(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path).find("model")
    assert found.status == 0
    assert "as described" in found.of("ok")[0]
    assert "EH ratio 30 % measures" in found.of("ok")[1]


def test_names_in_four_scripts_come_through(tmp_path: Path) -> None:
    found = DoctorSite(tmp_path).find("names")
    assert found.status == 0
    said = " ".join(found.of("ok"))
    for character_set in ("ISO 2022 IR 87", "ISO 2022 IR 149", "ISO_IR 192", "ISO_IR 100"):
        assert character_set in said


def test_a_name_that_a_result_cannot_carry_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tabbed = character_sets.WrittenName(language="French", character_sets=("ISO_IR 100",), name="Buc\t^Marie")
    monkeypatch.setattr(character_sets, "NAMES", (tabbed,))
    found = DoctorSite(tmp_path).find("names")
    assert found.status == 1
    (text,) = found.problems
    assert text.startswith("a patient with a French (ISO_IR 100) name would be refused: TAG_INVALID")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_in_memory_that_is_full_is_two_problems(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    site.state.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", site.state], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        found = site.find("disk")
        (site.state / "filler").write_bytes(bytes(1_900_000))
        full = site.find("disk")
    finally:
        subprocess.run(["umount", site.state], check=True)
    assert [text for text in found.problems if "lies in memory (tmpfs)" in text]
    assert [text for text in full.problems if text.endswith("No space left on device")]


def test_the_state_folder_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    found = site.find("disk")
    assert found.of("ok")[0] == f"{site.state} is not there yet; the node makes it when it starts"
    assert not site.state.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_state_folder_of_another_user_is_told(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    site.state.mkdir()
    os.chown(site.state, 12345, -1)
    found = site.find("disk")
    # Beside it, a disk that is busy with something else may be called slow.
    told = [text for text in found.warnings if "written and flushed" not in text]
    assert told == [f"{site.state} belongs to user 12345, doctor runs as user {os.getuid()}"]


def test_the_trial_node_differs_only_in_what_it_would_meet(tmp_path: Path) -> None:
    (tmp_path / "pacs-ca.pem").touch()
    more = (
        '[results]\nsegmentation_series_number = 77\n[processing]\nmodel = "own-model"\nmax_shift_mm = 3.0\n'
        + dicom_destination(104, more='tls = true\ntls_ca = "pacs-ca.pem"\nsend = ["SR"]')
    )
    site = DoctorSite(tmp_path, more, listener=SCANNER)
    loaded = read_settings(site.config, {})
    seen = Site(loaded=loaded, config=site.config, through=True, orthanc_config=None, say=str)
    content = trial_settings(seen, state=tmp_path / "trial", port=4711, receiver=None)
    path = tmp_path / "elsewhere" / "node.toml"
    path.parent.mkdir()
    path.write_text(tomlkit.dumps(content), encoding="utf-8")
    trial = read_settings(path, {}).settings
    assert trial.results == loaded.settings.results
    assert trial.processing == replace(loaded.settings.processing, model=str(tmp_path / "own-model"))
    (real,), (there,) = loaded.settings.destinations, trial.destinations
    assert there == replace(real, tls_ca=str(tmp_path / "pacs-ca.pem"))
    assert trial.node.state_dir == str(tmp_path / "trial")
    assert [one.ae_title for one in trial.listener.allowed] == ["DOCTOR"]
    assert (trial.listener.port, trial.viewer.enabled, trial.orthanc.url) == (4711, False, "")


def test_the_file_system_of_a_folder_is_known() -> None:
    assert storage.file_system(Path("/proc")) == "proc"


@pytest.mark.parametrize(
    ("free", "least", "level"),
    [(4 * 10**9, 5 * 10**9, Level.PROBLEM), (6 * 10**9, 5 * 10**9, Level.WARNING), (10**12, 5 * 10**9, Level.OK)],
)
def test_room_is_judged_by_what_images_need(free: int, least: int, level: Level) -> None:
    assert storage.room(free, least, Path("/state")).level is level


@pytest.mark.parametrize(("name", "level"), [("nfs4", Level.WARNING), ("ext4", Level.OK), ("tmpfs", Level.PROBLEM)])
def test_the_kind_of_file_system_decides_whether_to_rely_on_it(name: str, level: Level) -> None:
    assert storage.kind(name, Path("/state")).level is level


def test_a_clock_without_battery_is_a_problem_and_a_slow_one_of_orthanc_a_warning() -> None:
    assert clocks.own_clock(0.0).level is Level.PROBLEM
    assert "the year 1970" in clocks.own_clock(0.0).text
    assert clocks.compared(-125.0, "http://o").text == "the clock of Orthanc at http://o is 125 s behind ours"
    assert clocks.compared(2.0, "http://o").level is Level.OK


def test_a_certificate_that_ended_is_a_problem_and_one_that_ends_soon_a_warning(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ended = certificates._remaining("our certificate", authority.sign("old", expired=True).certificate)
    assert ended.level is Level.PROBLEM
    assert "ended " in ended.text
    soon = certificates._remaining("our certificate", authority.sign("new").certificate)
    assert soon.level is Level.WARNING
    assert " days (" in soon.text


def test_a_test_notice_reaches_mail_server_and_hook(tmp_path: Path) -> None:
    with MailServer().listening() as mail, HookServer().listening() as hook:
        site = DoctorSite(
            tmp_path,
            f'[notices]\nmail_host = "localhost"\nmail_port = {mail.port}\nmail_encryption = "none"\n'
            f'mail_from = "node@h.org"\nmail_to = ["a@h.org"]\nwebhook_url = "{hook.url}"\n',
        )
        found = site.find(more=("--test-notice",))
    assert found.status == 0
    assert mail.mails[0]["Subject"] == "[Hydrops Node] 1 x test"
    assert hook.documents[0]["notices"][0]["kind"] == "test"


def test_a_hook_that_is_away_is_a_problem(tmp_path: Path) -> None:
    with HookServer().listening() as hook:
        pass
    site = DoctorSite(tmp_path, f'[notices]\nwebhook_url = "{hook.url}"\n')
    assert site.find(more=("--test-notice",)).problems == ["webhook: not sent, webhook: ConnectionError"]


def test_real_archives_get_nothing_while_nobody_can_be_asked(tmp_path: Path) -> None:
    site = DoctorSite(tmp_path)
    asked = subprocess.run(
        [sys.executable, "-m", "dicom_node.cli", "doctor", "--config", site.config, "--only", "names", "--through"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STUDY_S,
        check=False,
    )
    assert asked.returncode == 1
    assert "add --yes" in asked.stderr
    assert asked.stdout == ""
