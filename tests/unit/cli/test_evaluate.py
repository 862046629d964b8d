"""`hydrops-node evaluate`: what it asks, what it refuses, and one run over labeled cases from files to report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dicom_node.cli import evaluate, main
from dicom_node.cli.evaluation_runs import FolderJob, PhantomJob, run_jobs
from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.evaluation.cohort import FIRST_SEED, ear_case, patient
from inference.evaluation.record import from_json
from inference.geometry import Volume
from inference.phantom import PhantomStudy, make_study

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    """One small patient who moved between the series."""
    options = patient(FIRST_SEED, (InputSet.PPI_PEI,))
    return make_study(replace(options, matrix=(280, 160, 64), step_mm=0.15, oblique_deg=(0.0, 0.0, 0.0)))


def save(volume: Volume, path: Path) -> None:
    affine = RAS @ volume.geometry.index_to_lps[:, [2, 1, 0, 3]]
    array = np.asarray(volume.array, dtype=np.float32).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture
def labeled(study: PhantomStudy, tmp_path: Path) -> Path:
    """A site's folder with both ears of the patient, images aligned, HYDROPS already subtracted."""
    for side in EarSide:
        case = ear_case(study, side, InputSet.PPI_PEI)
        folder = tmp_path / "site" / f"{side}-ear"
        folder.mkdir(parents=True)
        save(case.images.mrc, folder / "mrc.nii.gz")
        save(case.images.hydrops, folder / "hydrops.nii.gz")
        save(case.total_fluid, folder / "total_fluid.nii.gz")
        save(case.endolymph, folder / "endolymph.nii.gz")
        (folder / "case.json").write_text(json.dumps({"domain": "scanner A"}), encoding="utf-8")
    return tmp_path / "site"


def test_labeled_cases_become_a_record_a_report_and_a_card(labeled: Path, tmp_path: Path) -> None:
    out, card = tmp_path / "out", tmp_path / "card.md"
    command = ["evaluate", "--cases", str(labeled), "--model", "threshold", "--out", str(out), "--quiet"]
    assert main([*command, "--model-card", str(card)]) == 0
    record = from_json((out / "evaluation.json").read_text(encoding="utf-8"))
    assert {(one.case, one.side) for one in record.scores} == {("left-ear", EarSide.LEFT), ("right-ear", EarSide.RIGHT)}
    assert all(one.tags["domain"] == "scanner A" for one in record.scores)
    measured = [one for one in record.scores if one.total_fluid is not None]
    assert measured
    assert all((one.total_fluid.dice or 0.0) > 0.7 for one in measured if one.total_fluid)
    assert record.model.name == "threshold"
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "Worst, median and best ear" in report
    assert "measured on synthetic phantoms" not in report
    assert "# Model card: threshold" in card.read_text(encoding="utf-8")
    again = tmp_path / "again"
    assert main(["evaluate", "--from", str(out / "evaluation.json"), "--out", str(again)]) == 0
    assert (again / "evaluation.json").read_bytes() == (out / "evaluation.json").read_bytes()


def test_cases_without_the_wanted_series_are_counted_and_left_out(
    labeled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = labeled / "left-ear"
    (left / "hydrops.nii.gz").rename(left / "real_ir.nii.gz")
    command = ["evaluate", "--cases", str(labeled), "--model", "threshold", "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*command, "--input-sets", "HYDROPS"]) == 0
    assert "1 of 2 cases have none of HYDROPS and are left out" in capsys.readouterr().err
    record = from_json((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert record.source.studies == 1
    (left / "real_ir.nii.gz").unlink()
    assert main([*command, "--input-sets", "HYDROPS"]) == 2
    assert "left-ear: nothing shows endolymph" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "{tmp}/nowhere"], "nowhere: no such folder"),
        (["--cases", "{tmp}"], "expected one folder per case with mrc.nii.gz in it, found none"),
        (["--from", "{tmp}/missing.json"], "missing.json: No such file or directory; pass an evaluation.json"),
        (["--from", "{tmp}/other.json"], "other.json: command: Field required"),
        (["--phantoms", "1", "--model", "{tmp}/no-model"], "no-model"),
        (["--real-crop", "{tmp}/other.json", "--model", "threshold"], "other.json: expected a NIfTI image"),
        (["--real-crop", "{tmp}/dark.nii.gz"], "dark.nii.gz: dark: expected an image, found 0 in every voxel"),
        (["--phantoms", "1", "--model-card", "{tmp}/nowhere/card.md"], "expected a file to write in a folder that is"),
        (["--phantoms", "1", "--out", "{tmp}/other.json"], "other.json: expected a folder to write into"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_what_to_do(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text('{"created": "now"}', encoding="utf-8")
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 40, 40), dtype=np.float32), np.eye(4)), tmp_path / "dark.nii.gz")
    words = [word.replace("{tmp}", str(tmp_path)) for word in arguments]
    assert main(["evaluate", "--out", str(tmp_path / "out"), *words, "--quiet"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--phantoms", "0"],
        ["--phantoms", "1", "--seed", "-5"],
        ["--phantoms", "some"],
        [],
        ["--phantoms", "1", "--cases", "x"],
    ],
)
def test_one_source_and_a_real_count_are_needed(wrong: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *wrong, "--out", str(tmp_path)])
    assert stopped.value.code == 2


def test_results_come_in_the_order_of_the_jobs_however_many_work(labeled: Path) -> None:
    jobs = [
        FolderJob(root=labeled, folder=labeled / f"{side}-ear", input_sets=(InputSet.HYDROPS,), method="threshold")
        for side in (EarSide.RIGHT, EarSide.LEFT)
    ]
    done: list[None] = []
    two = run_jobs(jobs, workers=2, on_done=lambda: done.append(None))
    assert [one.side for one in two] == [EarSide.RIGHT, EarSide.LEFT]
    assert two == run_jobs(jobs, workers=1, on_done=lambda: None)
    assert len(done) == 2


def test_the_help_knows_the_same_seeds_and_sets_as_the_cohort() -> None:
    assert evaluate.FIRST_SEED == FIRST_SEED
    assert tuple(InputSet) == evaluate.INPUT_SETS


@pytest.mark.slow
def test_a_phantom_goes_through_the_whole_pipeline() -> None:
    """About 40 s: a full-size study is made, searched, aligned, segmented and judged."""
    scores = PhantomJob(seed=FIRST_SEED, input_sets=(InputSet.PPI_PEI,), method="threshold").run()
    assert [one.side for one in scores] == list(EarSide)
    for score in scores:
        assert score.refusals or (score.total_fluid is not None and (score.total_fluid.dice or 0.0) > 0.7)
        assert not score.side_error
