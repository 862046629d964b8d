"""Changed files are taken over when they are whole and good; a worker begins anew only between two studies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import PATIENCE_S, wait_until

from dicom_node.audit import AuditTrail
from dicom_node.cli import configuration_files, live_configuration
from dicom_node.cli.configuration_files import ConfigurationFiles
from dicom_node.cli.live_configuration import LiveConfiguration
from dicom_node.cli.service import until_told_to_stop
from dicom_node.cli.worker_renewal import WorkerRenewal
from dicom_node.errors import ConfigError
from dicom_node.settings import LoadedSettings, read_settings
from dicom_node.settings.effects import Effect
from dicom_node.web.configuration_desk import ConfigurationTexts

SETTINGS = '[listener]\nallowed = [{ ae_title = "A", networks = ["10.0.0.0/8"] }]\n[delivery]\nmax_retry_s = 600.0\n'


class Taken:
    """What `apply` was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[LoadedSettings, frozenset[Effect]]] = []

    def __call__(self, loaded: LoadedSettings, effects: frozenset[Effect]) -> None:
        self.calls.append((loaded, effects))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "series_rules.toml").write_text("", encoding="utf-8")
    path = tmp_path / "node.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


def live(path: Path, taken: Taken) -> LiveConfiguration:
    return LiveConfiguration(path, read_settings(path, {}), taken, clock=lambda: 1.0)


def test_a_file_counts_once_two_looks_find_the_same(path: Path) -> None:
    taken = Taken()
    configuration = live(path, taken)
    path.write_text(SETTINGS.replace("600.0", "700.0")[:-4], encoding="utf-8")  # an editor that is not done yet
    configuration.look()
    path.write_text(SETTINGS.replace("600.0", "700.0"), encoding="utf-8")
    configuration.look()
    assert taken.calls == []
    configuration.look()
    ((loaded, effects),) = taken.calls
    assert loaded.settings.delivery.max_retry_s == 700.0
    assert effects == {Effect.WORKER}
    assert configuration.state.problem == ""


def test_a_file_that_was_only_touched_changes_nothing(path: Path) -> None:
    taken = Taken()
    configuration = live(path, taken)
    path.write_text(SETTINGS, encoding="utf-8")
    configuration.look(settled=True)
    assert taken.calls == []


@pytest.mark.parametrize("bad", ["[listener", "[listener]\nport = 0\n", "[listener]\ncolour = 1\n"])
def test_a_bad_file_is_told_and_the_old_settings_stay(path: Path, bad: str) -> None:
    taken = Taken()
    configuration = live(path, taken)
    path.write_text(bad, encoding="utf-8")
    configuration.look(settled=True)
    assert taken.calls == []
    assert configuration.state.problem
    assert configuration.running.settings.listener.allowed[0].ae_title == "A"
    path.write_text(SETTINGS, encoding="utf-8")
    configuration.look(settled=True)
    assert configuration.state.problem == ""


def test_bad_rules_keep_good_settings_from_being_taken(path: Path) -> None:
    taken = Taken()
    configuration = live(path, taken)
    path.with_name("series_rules.toml").write_text("[[rule]]\nname = 'x'\nrole = 'NOTHING'\n", encoding="utf-8")
    configuration.look(settled=True)
    assert taken.calls == []
    assert "role must be one of" in configuration.state.problem


@pytest.mark.parametrize("name", ["node.toml", "series_rules.toml"])
def test_a_file_in_another_encoding_is_told_like_any_bad_one(path: Path, name: str) -> None:
    taken = Taken()
    configuration = live(path, taken)
    file = path.with_name(name)
    file.write_bytes(file.read_bytes() + "# für Ohren\n".encode("latin-1"))
    configuration.look(settled=True)
    assert taken.calls == []
    assert str(file) in configuration.state.problem


def test_a_key_that_needs_a_restart_is_named_until_it_is_put_back(path: Path) -> None:
    configuration = live(path, Taken())
    path.write_text(f"{SETTINGS}[web]\nport = 9090\n", encoding="utf-8")
    configuration.look(settled=True)
    assert configuration.state.restart_needed == ("web.port",)
    path.write_text(SETTINGS, encoding="utf-8")
    configuration.look(settled=True)
    assert configuration.state.restart_needed == ()


def test_the_worker_ends_after_the_study_that_it_computes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_configuration, "LOOK_EVERY_S", 0.05)
    stop = threading.Event()
    renewal = WorkerRenewal(path, read_settings(path, {}), stop)
    with renewal.gate:  # a study is being computed
        path.write_text(SETTINGS.replace("600.0", "700.0"), encoding="utf-8")
        renewal.start()
        assert not stop.wait(1.0)
    assert stop.wait(PATIENCE_S)
    assert renewal.wanted
    assert not renewal.gate.acquire(blocking=False)  # no other study begins


def test_a_worker_that_is_told_to_stop_while_it_computes_does_not_begin_anew(path: Path) -> None:
    stop = threading.Event()
    renewal = WorkerRenewal(path, read_settings(path, {}), stop)
    with renewal.gate:  # a study is being computed
        path.write_text(SETTINGS.replace("600.0", "700.0"), encoding="utf-8")
        taking = threading.Thread(target=renewal._live.look, kwargs={"settled": True})
        taking.start()
        stop.set()
    taking.join(PATIENCE_S)
    assert not renewal.wanted


def test_f24_after_a_fault_the_worker_begins_anew_before_it_computes_anything_else(path: Path) -> None:
    stop = threading.Event()
    renewal = WorkerRenewal(path, read_settings(path, {}), stop)
    with renewal.gate:  # another study is being computed
        failing = threading.Thread(target=renewal.after_fault)
        failing.start()
        assert not stop.wait(0.5)
    assert stop.wait(PATIENCE_S)
    failing.join(PATIENCE_S)
    assert renewal.wanted
    assert not renewal.gate.acquire(blocking=False)  # no other study begins
    renewal.after_fault()  # one beginning anew is enough: nobody waits for the gate again


TOLD_WHILE_A_STUDY_WAITS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from dicom_node.cli.service import StopEvent
from dicom_node.cli.worker_renewal import WorkerRenewal
from dicom_node.settings import read_settings

path, stop = Path(sys.argv[1]), StopEvent()
renewal = WorkerRenewal(path, read_settings(path, {}), stop)
renewal.after_fault()
at_the_gate = threading.Event()
ThreadPoolExecutor().submit(lambda: (at_the_gate.set(), renewal.gate.acquire()))  # as the engine runs studies
at_the_gate.wait()
stop.tell()
renewal.after_end(told=stop.told)
"""


def test_f07_a_worker_told_to_stop_when_it_is_about_to_begin_anew_ends_though_a_study_waits(path: Path) -> None:
    command = [sys.executable, "-c", TOLD_WHILE_A_STUDY_WAITS, str(path)]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0


def test_a_signal_counts_also_when_the_worker_is_about_to_begin_anew() -> None:
    with until_told_to_stop() as stop:
        stop.set()  # as a renewal does
        assert not stop.told
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.told


def test_a_model_that_cannot_be_loaded_leaves_the_worker_with_the_one_it_has(path: Path) -> None:
    stop = threading.Event()
    renewal = WorkerRenewal(path, read_settings(path, {}), stop)
    path.write_text(f'{SETTINGS}[processing]\nmodel = "nowhere"\n', encoding="utf-8")
    renewal._live.look(settled=True)
    assert "processing.model = 'nowhere'" in renewal._live.state.problem
    assert not stop.is_set()


def test_senders_do_not_make_the_worker_begin_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_configuration, "LOOK_EVERY_S", 0.05)
    stop = threading.Event()
    renewal = WorkerRenewal(path, read_settings(path, {}), stop)
    path.write_text(SETTINGS.replace('"A"', '"B"'), encoding="utf-8")  # before it is watched: half of it is none
    renewal.start()
    wait_until(lambda: "B" in [one.ae_title for one in renewal._live.running.settings.listener.allowed])
    assert not stop.is_set()
    stop.set()


def test_a_pattern_that_never_ends_ends_the_check_and_not_the_node(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration_files, "JUDGING_S", 5.0)
    files = ConfigurationFiles(live(path, Taken()), AuditTrail(tmp_path / "audit"))
    endless = (
        "[[rule]]\nname = 'x'\nrole = 'OTHER'\nwhen = { protocol_name = { pattern = '^(a+)+$' } }\n"
        f"examples = [{{ protocol_name = '{'a' * 40}' }}]\ncounterexamples = [{{ protocol_name = '{'a' * 40}!' }}]\n"
    )
    (problem,) = files.judge(ConfigurationTexts(settings=SETTINGS, rules=endless)).problems
    assert "did not end within 5 s" in problem.sentence


def test_a_file_that_is_not_utf8_is_told_with_byte_and_line_and_never_overwritten(path: Path, tmp_path: Path) -> None:
    files = ConfigurationFiles(live(path, Taken()), AuditTrail(tmp_path / "audit"))
    found = files.found()
    spoiled = b"# line 1\n# M\xfcnchen\n" + SETTINGS.encode()
    path.write_bytes(spoiled)
    with pytest.raises(ConfigError, match=r"node\.toml: expected a text in UTF-8, found byte 0xfc in line 2"):
        files.found()
    changed = ConfigurationTexts(settings=SETTINGS.replace("600.0", "700.0"), rules="")
    saved = files.save(changed, digest=found.digest, actor="ada")
    assert (saved.done, "0xfc in line 2" in saved.sentence) == (False, True)
    assert path.read_bytes() == spoiled
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        files.found()


def test_a_folder_that_may_not_be_written_is_told_with_the_next_step(path: Path, tmp_path: Path) -> None:
    files = ConfigurationFiles(live(path, Taken()), AuditTrail(tmp_path / "audit"))
    (tmp_path / "state").mkdir()
    (tmp_path / "backups").write_text("a file where the folder of backups should be", encoding="utf-8")
    found = files.found()
    changed = ConfigurationTexts(settings=SETTINGS.replace("600.0", "700.0"), rules="")
    saved = files.save(changed, digest=found.digest, actor="ada")
    assert not saved.done
    assert "ReadWritePaths=" in saved.sentence
    assert path.read_text(encoding="utf-8") == SETTINGS


def test_of_two_files_none_changes_when_the_second_cannot_be_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    files = ConfigurationFiles(live(path, Taken()), AuditTrail(tmp_path / "audit"))
    found, replace_file = files.found(), configuration_files._replace_file

    def full_at_settings(target: Path, text: str) -> None:
        if target.name == "node.toml":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace_file(target, text)

    monkeypatch.setattr(configuration_files, "_replace_file", full_at_settings)
    changed = ConfigurationTexts(settings=SETTINGS.replace("600.0", "700.0"), rules="# new\n")
    saved = files.save(changed, digest=found.digest, actor="ada")
    assert "Nothing was written" in saved.sentence
    assert files.found() == found


def test_a_backup_is_whole_and_as_private_as_the_files(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(0o600)
    (tmp_path / "state").mkdir()
    files = ConfigurationFiles(live(path, Taken()), AuditTrail(tmp_path / "audit"))
    found = files.found()
    changed = ConfigurationTexts(settings=SETTINGS.replace("600.0", "700.0"), rules="")
    assert files.save(changed, digest=found.digest, actor="ada").done
    (backup,) = files.backups()
    assert files.backup(backup.name) == found.texts
    kept = tmp_path / "backups" / backup.name / "node.toml"
    assert kept.stat().st_mode & 0o777 == 0o600

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(configuration_files.shutil, "copymode", no_space)
    assert not files.save(found.texts, digest=files.found().digest, actor="ada").done
    assert files.backups() == (backup,)


def test_a_rules_file_that_is_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    rules, shared = tmp_path / "series_rules.toml", tmp_path / "shared.toml"
    rules.rename(shared)
    rules.symlink_to(shared)
    (tmp_path / "state").mkdir()
    files = ConfigurationFiles(live(path, Taken()), AuditTrail(tmp_path / "audit"))
    changed = ConfigurationTexts(settings=SETTINGS, rules="# ours\n")
    assert files.save(changed, digest=files.found().digest, actor="ada").done
    assert rules.is_symlink()
    assert shared.read_text(encoding="utf-8") == "# ours\n"
