"""The real Orthanc of the demo and the tests, on the settings that sites start from."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from local_orthanc import (
    SITE_CONFIG,
    LocalOrthanc,
    OrthancFailed,
    OrthancMissing,
    find_orthanc,
    find_plugin,
    read_commented_json,
)
from patience import PATIENCE_S

pytestmark = [pytest.mark.orthanc]


@pytest.fixture(scope="module")
def orthanc() -> Iterator[LocalOrthanc]:
    with LocalOrthanc() as local:
        yield local


def echo(orthanc: LocalOrthanc, *, calling: str, called: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["echoscu", "-aet", calling, "-aec", called, "127.0.0.1", str(orthanc.dicom_port)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.dcmtk
def test_a_known_caller_may_echo_and_a_stranger_may_not(orthanc: LocalOrthanc) -> None:
    assert echo(orthanc, calling="SCANNER", called=orthanc.aet).returncode == 0
    assert "Calling AE Title Not Recognized" in echo(orthanc, calling="STRANGER", called=orthanc.aet).stderr
    assert "Called AE Title Not Recognized" in echo(orthanc, calling="SCANNER", called="ELSEWHERE").stderr


def test_rest_answers_only_with_the_password(orthanc: LocalOrthanc) -> None:
    assert requests.get(f"{orthanc.url}/system", timeout=PATIENCE_S).status_code == 401
    assert orthanc.session.get(f"{orthanc.url}/system", timeout=PATIENCE_S).json()["DicomAet"] == orthanc.aet


def test_it_starts_again_on_its_folder_and_ports_after_a_kill(tmp_path: Path) -> None:
    with LocalOrthanc(tmp_path / "pacs") as orthanc:
        url, first = orthanc.url, orthanc.pid
        orthanc.kill()
        assert orthanc.pid is None
        orthanc.start()
        assert (orthanc.url, orthanc.pid == first) == (url, False)
        assert orthanc.session.get(f"{orthanc.url}/statistics", timeout=PATIENCE_S).json()["CountInstances"] == 0
    assert (tmp_path / "pacs" / "db").is_dir()


def test_a_temporary_one_leaves_nothing_behind() -> None:
    with LocalOrthanc() as orthanc:
        folder = orthanc.folder
        assert (folder / "orthanc.json").stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_bad_setting_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(OrthancFailed, match=r"nowhere\.lua"):
        LocalOrthanc(tmp_path, lua_scripts=[tmp_path / "nowhere.lua"]).start()


def test_every_setting_of_ours_is_one_that_orthanc_knows(tmp_path: Path) -> None:
    # Orthanc passes over unknown keys without a word, so a misspelt one would switch a guard off unseen.
    sample = tmp_path / "sample.json"
    subprocess.run([find_orthanc(), f"--config={sample}"], capture_output=True, check=True, timeout=PATIENCE_S)
    known = set(re.findall(r'^\s*(?://\s*)?"(\w+)"\s*:', sample.read_text(encoding="utf-8"), flags=re.M))
    read_by_plugins_and_hooks = {"DicomWeb", "HydropsNode"}
    assert read_commented_json(SITE_CONFIG).keys() - known == read_by_plugins_and_hooks


def test_a_missing_plugin_is_named_with_its_package() -> None:
    with pytest.raises(OrthancMissing, match="apt-get install orthanc-nonsense"):
        find_plugin("OrthancNonsense")
