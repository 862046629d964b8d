"""`hydrops-node doctor` drives a synthetic study end to end, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from doctor_site import DoctorSite


def test_a_synthetic_study_goes_the_whole_way_and_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("HYDROPS_DATABASE_URL", f"sqlite:///{tmp_path / 'real.db'}")
    site = DoctorSite(tmp_path)
    found = site.find("study")
    assert found.problems == []
    kept, computed, arrived = found.of("ok")
    assert kept.startswith("the listener, called as DOCTOR, kept 416 images in ")
    assert "(truth 36 %)" in computed
    assert {"SEG", "SR", "SC"} <= set(arrived.split(" arrived")[0].split(", "))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "real.db").exists(), "the real node's database is not even opened"
    assert not site.state.exists()
