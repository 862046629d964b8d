"""`hydrops-node train --preset ear-finder`: three stages in one command, each kept, none trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.cli import main
from inference.model_store import load_model

SHORT = ("--preset", "ear-finder", "--crops", "2", "--steps", "2", "--batch", "1", "--threads", "1")


def train(out: Path, *more: str) -> int:
    return main(["train", "--out", str(out), *SHORT, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finder")
    assert train(out) == 0
    return out


def test_one_command_trains_all_stages_and_records_how_to_make_them_again(trained: Path) -> None:
    told = load_model(trained / "model").description.training
    assert told["command"] == (
        "hydrops-node train --out FOLDER --preset ear-finder --crops 2 --steps 2 --batch 1 --threads 1"
    )
    stages = [told, told["started_from"], told["started_from"]["started_from"]]
    assert [stage["seed"] for stage in stages] == [2, 1, 0]
    assert stages[-1]["started_from"] is None
    assert sorted(path.name for path in trained.iterdir()) == ["model", "stage-1", "stage-2"]


def test_a_stage_that_is_there_is_not_trained_again(trained: Path) -> None:
    before = (trained / "stage-1" / "weights.safetensors").stat().st_mtime_ns
    for name in ("model.json", "weights.safetensors"):
        (trained / "model" / name).unlink()
    assert train(trained) == 0
    assert (trained / "stage-1" / "weights.safetensors").stat().st_mtime_ns == before
    assert load_model(trained / "model").description.training["seed"] == 2


def test_a_folder_of_another_training_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(trained, "--learning-rate", "0.5") == 2
    assert "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--phantoms", ("--phantoms", "0.5")),
        ("--seed", ("--seed", "0")),
        ("--tensorboard", ("--tensorboard",)),
        ("--name", ("--name", "mine")),
        ("--device", ("--device", "cuda")),
    ],
)
def test_what_only_other_recipes_understand_is_refused_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, words: tuple[str, ...]
) -> None:
    assert train(tmp_path, *words) == 2
    assert option in capsys.readouterr().err
