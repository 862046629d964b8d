from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dicom_node.cli import main
from inference.model_store import load_model
from inference.networks.ie_vnet import ie_vnet


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(ie_vnet().state_dict(), tmp_path / "best_metric_model.pth")
    return tmp_path / "best_metric_model.pth"


def test_a_published_checkpoint_becomes_a_model_folder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "ie_vnet"
    assert main(["import-weights", str(checkpoint), "--into", str(folder)]) == 0
    model = load_model(folder)
    assert model.identity.name == "IE-Vnet"
    told = capsys.readouterr().out
    assert str(model.description.weights_sha256) in told
    assert "Research use only" in told


def test_a_folder_that_holds_something_is_replaced_only_when_asked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    assert main(["import-weights", str(checkpoint), "--into", str(folder)]) == 2
    assert f"{folder} is not an empty folder; choose another one, or add --force" in capsys.readouterr().err
    assert (folder / "model.json").read_text() == "{}"
    assert main(["import-weights", str(checkpoint), "--into", str(folder), "--force"]) == 0
    assert load_model(folder).identity.name == "IE-Vnet"


def test_a_file_that_is_no_checkpoint_is_explained_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.pth").write_text("not weights")
    assert main(["import-weights", str(tmp_path / "notes.pth"), "--into", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hydrops-node import-weights: {tmp_path}/notes.pth: expected ")
    assert error.count("\n") == 1
    assert not (tmp_path / "model").exists()
