"""`retention` shows and changes nothing; `erase` says what there is before it erases, and erases what it said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from desk_parts import hydrops_study
from kept_studies import STUDY, KeptStudies

from dicom_node.cli import main

PATIENT = "CASE-4711"


@pytest.fixture
def node(tmp_path: Path) -> KeptStudies:
    """A node with one study that is done and one that is not delivered."""
    (tmp_path / "state").mkdir()
    (tmp_path / "node.toml").write_text("listener.min_free_bytes = 0\n")
    parts = KeptStudies(tmp_path / "state")
    for number, study in enumerate((STUDY, "2.25.200")):
        images = hydrops_study(study)
        for one in images:
            one.PatientID, one.PatientBirthDate = PATIENT, f"197{number}0101"
        parts.receive(images)
        parts.work_off()
        if study == STUDY:
            parts.deliver()
    return parts


def run(node: KeptStudies, *arguments: str) -> int:
    return main([*arguments, "--config", str(node.folder.parent / "node.toml")])


def test_retention_shows_disk_days_what_goes_and_what_is_held(
    node: KeptStudies, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(node, "retention") == 0
    shown = capsys.readouterr().out
    assert "images: 14 days" in shown
    assert "spool" in shown
    assert "images until 1970-01-26" in shown
    assert "held: its results are not everywhere yet where they belong" in shown
    assert len(node.image_files()) == 2 * len(hydrops_study())


def test_retention_tells_programs_the_same(node: KeptStudies, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "retention", "--study", STUDY, "--json") == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert study["keeping"]["images"] == len(hydrops_study())
    assert study["image_bytes"] > 0


def test_erase_without_yes_only_says_what_there_is(node: KeptStudies, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "erase", "--study", "2.25.200") == 0
    said = capsys.readouterr().out
    assert f"{len(hydrops_study())} images" in said
    assert "deliveries that wait will not be sent" in said
    assert "nothing was erased; say --yes" in said
    assert node.ledger.get("2.25.200") is not None


def test_erase_with_yes_erases_this_study_alone(node: KeptStudies, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "erase", "--study", "2.25.200", "--yes") == 0
    assert "study 2.25.200: erased" in capsys.readouterr().out
    assert node.ledger.get("2.25.200") is None
    assert node.ledger.get(STUDY) is not None
    assert len(node.image_files()) == len(hydrops_study())


def test_a_patient_id_of_two_people_erases_nobody(node: KeptStudies, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "erase", "--patient", PATIENT, "--yes") == 2
    problem = capsys.readouterr().err
    assert "studies of different people have this Patient ID" in problem
    assert STUDY in problem
    assert node.ledger.get(STUDY) is not None


def test_every_study_of_one_patient_goes(node: KeptStudies, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "erase", "--study", "2.25.200", "--yes") == 0
    assert run(node, "erase", "--patient", PATIENT, "--yes") == 0
    assert PATIENT not in capsys.readouterr().out
    assert node.ledger.get(STUDY) is None
    assert node.image_files() == []


@pytest.mark.parametrize("whose", [("--study", "2.25.9"), ("--patient", "NOBODY"), ("--patient", "")])
def test_what_is_not_here_cannot_be_erased(
    node: KeptStudies, whose: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(node, "erase", *whose, "--yes") == 2
    assert capsys.readouterr().err.startswith("hydrops-node erase: ")


def test_a_study_at_work_is_not_erased_and_the_exit_status_tells(
    node: KeptStudies, capsys: pytest.CaptureFixture[str]
) -> None:
    node.receive(hydrops_study("2.25.300"))
    node.look_round_after()
    assert run(node, "erase", "--study", "2.25.300", "--yes") == 1
    assert "not erased: it is queued; cancel it first" in capsys.readouterr().out
