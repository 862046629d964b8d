"""`hydrops-node calibrate`: the scales in a model folder, read again on evaluations of that model."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.cli import main
from inference.anatomy import EarSide
from inference.evaluation.record import Source, evaluate, to_json
from inference.evaluation.scores import EarScore
from inference.model_store import SHIPPED, load_model, read_description, save_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shipped = load_model(SHIPPED)
    save_model(tmp_path / "model", shipped.network, shipped.description)
    return tmp_path / "model"


def write_evaluation(path: Path, model: Path, *, error: float) -> None:
    ears = [
        EarScore(
            case=f"phantom {n}",
            side=EarSide.RIGHT,
            tags={"input_set": "REAL_IR"},
            true_ratio=0.3,
            ratio=0.3 + error,
            low=0.2 + error,
            high=0.4 + error,
        )
        for n in range(40)
    ]
    source = Source(kind="phantoms", name="made", description="made", studies=40)
    record = evaluate(
        ears,
        model=read_description(model).identity,
        source=source,
        created="2026-11-22",
        command="hydrops-node evaluate --phantoms 40",
        node_version="1",
    )
    path.write_text(to_json(record))


def test_the_scale_of_the_evaluated_series_is_replaced(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_description(model)
    write_evaluation(tmp_path / "evaluation.json", model, error=0.05)
    assert main(["calibrate", str(model), "--from", str(tmp_path / "evaluation.json")]) == 0
    after = load_model(model).description
    assert after.interval_scales["REAL_IR"] == pytest.approx(before.interval_scales["REAL_IR"] / 2, abs=1e-3)
    assert after.interval_scales["PPI_PEI"] == before.interval_scales["PPI_PEI"]
    assert after.training["intervals_from"] == ["hydrops-node evaluate --phantoms 40"]
    assert after.identity.sha256[:12] in capsys.readouterr().out


def test_a_second_time_needs_a_new_evaluation(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation(tmp_path / "evaluation.json", model, error=0.05)
    assert main(["calibrate", str(model), "--from", str(tmp_path / "evaluation.json")]) == 0
    once = (model / "model.json").read_bytes()
    assert main(["calibrate", str(model), "--from", str(tmp_path / "evaluation.json")]) == 2
    assert "evaluate this model first" in capsys.readouterr().err
    assert (model / "model.json").read_bytes() == once


def test_a_file_that_is_no_evaluation_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(model), "--from", str(tmp_path / "absent.json")]) == 2
    assert f"{tmp_path}/absent.json: No such file or directory" in capsys.readouterr().err
