"""`hydrops-node train`, as a person calls it: a few steps on tiny cases, and every way to call it wrongly."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from ball_ears import write_case
from pydicom.uid import MRImageStorage

from dicom_node.cli import main
from dicom_node.cli.train import command_line
from inference.anatomy import EarSide
from inference.model_store import load_model

SHORT = ("--preset", "quick", "--steps", "2", "--batch", "1", "--validate-every", "1", "--threads", "1")


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Three patients, one ear each."""
    folder = tmp_path / "cases"
    for number, side in enumerate((EarSide.LEFT, EarSide.RIGHT, EarSide.LEFT)):
        write_case(folder / f"patient-{number}", seed=number, side=side)
    return folder


def train(out: Path, *more: str | Path) -> int:
    return main(["train", "--out", str(out), *SHORT, *map(str, more)])


def test_a_folder_of_cases_becomes_a_model_folder_with_its_record(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert train(out, "--cases", cases, "--tensorboard", "--name", "site-ear", "--model-version", "7") == 0
    model = load_model(out / "model")
    assert (model.description.name, model.description.version) == ("site-ear", "7")
    told = model.description.training
    assert told["own_cases"] == 2
    assert told["command"] == (
        "hydrops-node train --out FOLDER --preset quick --device cpu --steps 2 --batch 1 --validate-every 1 "
        "--cases CASES --threads 1"
    )
    split = json.loads((out / "split.json").read_text())
    assert sorted(split["training"] + split["validation"]) == ["patient-0", "patient-1", "patient-2"]
    assert len((out / "log.csv").read_text().splitlines()) == 3
    assert list((out / "tensorboard").iterdir())
    shown = capsys.readouterr().err
    assert "Dice total fluid" in shown
    told_memory = re.search(r"memory at most (\d+\.\d) GiB here, \d+\.\d GiB in the largest process beside it", shown)
    assert told_memory is not None
    assert 0.1 < float(told_memory[1]) < 64.0  # torch alone is more than the one, and KiB are not bytes
    assert "Research use only" in shown


def test_the_same_command_again_goes_on_and_comes_to_the_same_weights(cases: Path, tmp_path: Path) -> None:
    train(tmp_path / "one", "--cases", cases)
    train(tmp_path / "one", "--cases", cases)
    train(tmp_path / "two", "--cases", cases)
    weights = [(tmp_path / name / "model" / "weights.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_fine_tuning_starts_from_a_model_folder(cases: Path, tmp_path: Path) -> None:
    train(tmp_path / "first", "--cases", cases)
    first = load_model(tmp_path / "first" / "model")
    assert train(tmp_path / "second", "--cases", cases, "--start-from", tmp_path / "first" / "model") == 0
    told = load_model(tmp_path / "second" / "model").description.training
    assert told["started_from"] == first.identity.sha256
    assert "--start-from MODEL" in str(told["command"])


def test_a_recipe_of_nine_stages_is_one_command(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(out, "--cases", cases, "--preset", "shipped") == 0
    lumina = out / "dark" / "lumina"
    elsewhere = lumina / "elsewhere"
    alike = elsewhere / "even" / "alike"
    rearranged = alike / "longer" / "rearranged"
    folders = (
        rearranged / "base",
        rearranged,
        alike / "longer",
        alike,
        elsewhere / "even",
        elsewhere,
        lumina,
        out / "dark",
        out,
    )
    stages = [load_model(folder / "model") for folder in folders]
    told = [(one.description.training["preset"], one.description.training["started_from"]) for one in stages]
    names = ("base", "rearranged", "longer", "alike", "even", "elsewhere", "lumina", "dark", "shipped")
    begun_with = (None, *(one.identity.sha256 for one in stages[:-1]))
    assert told == list(zip(names, begun_with, strict=True))


def test_a_wider_recipe_says_that_it_widens_the_model_it_starts_from(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert train(out, "--cases", cases, "--preset", "wider", "--start-from", "shipped", "--steps", "1") == 0
    assert "the model it starts from is widened: {'channels': [32, 64, 96, 160]}" in capsys.readouterr().err
    assert load_model(out / "model").description.network_options == {"channels": [32, 64, 96, 160]}


def remove_endolymph(cases: Path) -> None:
    (cases / "patient-1" / "endolymph.nii.gz").unlink()


def write_another_label(cases: Path) -> None:
    label = cases / "patient-1" / "endolymph.nii.gz"
    (cases / "patient-1" / "cochlea.nii.gz").write_bytes(label.read_bytes())


def spoil(cases: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = cases / "patient-1" / f"{name}.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine, image.header), path)


def put_elsewhere(path: Path) -> None:
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[2, 3] += 300.0
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)


def put_dicom_beside(cases: Path) -> None:
    write_dicom(cases / "study" / "one.dcm", modality="MR")


def write_dicom(path: Path, *, modality: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, pydicom.uid.generate_uid()
    header.Modality = modality
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)


BAD_CASES = {
    "a missing label": (remove_endolymph, "patient-1: expected endolymph.nii.gz, found"),
    "an extra label": (write_another_label, "cannot tell what cochlea.nii.gz is"),
    "not a number": (
        lambda cases: spoil(cases, "mrc", lambda a: np.where(a > 600, np.nan, a)),
        "expected finite values",
    ),
    "a constant image": (lambda cases: spoil(cases, "hydrops", np.zeros_like), "expected an image, found 0 in every"),
    "a label of another shape": (
        lambda cases: spoil(cases, "endolymph", lambda a: a[:-2]),
        "expected the grid of the MRC",
    ),
    "no cisternogram": (
        lambda cases: (cases / "patient-1" / "mrc.nii.gz").unlink(),
        "patient-1: expected mrc.nii.gz, found",
    ),
    "an image of another place": (
        lambda cases: put_elsewhere(cases / "patient-1" / "hydrops.nii.gz"),
        "hydrops.nii.gz: expected images of one place in the patient, found no image of the labeled",
    ),
    "DICOM beside it": (put_dicom_beside, "found both (study/one.dcm)"),
    "label values": (lambda cases: spoil(cases, "total_fluid", lambda a: 3.0 * a), "parts of a voxel 0..1"),
}


@pytest.mark.parametrize(("spoiled", "message"), BAD_CASES.values(), ids=BAD_CASES.keys())
def test_a_case_that_cannot_be_used_is_named(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoiled: Callable[[Path], None], message: str
) -> None:
    spoiled(cases)
    assert train(tmp_path / "out", "--cases", cases) == 2
    assert message in capsys.readouterr().err


def test_too_few_cases_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path / "cases" / "only-one")
    assert train(tmp_path / "out", "--cases", tmp_path / "cases") == 2
    assert "expected at least 2 patients (to train on, to validate with), found 1" in capsys.readouterr().err


def test_two_cases_of_one_patient_are_one_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for visit in range(2):
        write_case(tmp_path / "cases" / f"visit-{visit}", seed=visit, patient="P7")
    assert train(tmp_path / "out", "--cases", tmp_path / "cases") == 2
    assert "found 1" in capsys.readouterr().err


def test_cases_of_one_name_at_two_sites_are_two_patients(tmp_path: Path) -> None:
    for number, site in enumerate(("bonn", "ulm")):
        (tmp_path / "cases" / site).mkdir(parents=True)
        write_case(tmp_path / "cases" / site / "patient-1", seed=number)
    assert train(tmp_path / "out", "--cases", tmp_path / "cases") == 0
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert sorted(split["training"] + split["validation"]) == ["bonn/patient-1", "ulm/patient-1"]


def test_what_belongs_to_a_case_or_is_no_image_lies_beside_it_unharmed(cases: Path, tmp_path: Path) -> None:
    """As `hydrops-node process --nifti` leaves results, and as sites keep a study beside its NIfTI files."""
    (cases / "patient-0").rename(tmp_path / "nifti")
    (cases / "patient-0").mkdir()
    (tmp_path / "nifti").rename(cases / "patient-0" / "nifti")
    write_dicom(cases / "patient-0" / "dicom" / "1.dcm", modality="MR")
    write_dicom(cases / "patient-1" / "seg.dcm", modality="SEG")
    write_dicom(cases / "refused" / "sr.dcm", modality="SR")
    assert train(tmp_path / "out", "--cases", cases) == 0


def test_dicom_studies_with_some_other_nifti_file_beside_them_are_read_as_dicom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "cases" / "study" / "dicom" / "1.dcm", modality="MR")
    (tmp_path / "cases" / "study" / "truth_endolymph.nii.gz").write_bytes(b"")
    assert train(tmp_path / "out", "--cases", tmp_path / "cases") == 2
    assert "reading DICOM studies in" in capsys.readouterr().err


def test_a_refused_training_of_several_stages_leaves_the_record_too(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "dark" / "lumina").mkdir(parents=True)
    (out / "dark" / "lumina" / "checkpoint.pt").write_bytes(b"begun")
    (out / "split.json").write_text("{}", encoding="utf-8")
    assert train(out, "--cases", cases, "--start-from", tmp_path / "none") == 2
    assert (out / "split.json").read_text(encoding="utf-8") == "{}"


def test_a_refused_training_leaves_the_record_of_who_was_trained_on(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert train(out, "--cases", cases) == 0
    before = (out / "split.json").read_bytes()
    for seed in range(2, 8):
        assert train(out, "--cases", cases, "--seed", str(seed)) == 2
    assert "belongs to a training with another seed" in capsys.readouterr().err
    assert (out / "split.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cases", "{tmp}/nothing"), "expected a folder, found none"),
        (("--cases", "{tmp}/empty"), "expected NIfTI cases or DICOM studies, found an empty folder"),
        (("--cases", "{tmp}/other"), "expected DICOM studies with a segmentation each, found no DICOM file"),
        (("--cases", "{cases}", "--start-from", "{tmp}/empty"), "expected a model folder with model.json"),
        (("--phantoms", "0.5"), "1 without own ears"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_was_expected(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("to do", encoding="utf-8")
    assert train(tmp_path / "out", *(word.format(tmp=tmp_path, cases=cases) for word in options)) == 2
    assert message in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file" / "out") == 2
    assert f"--out {tmp_path}/file/out: expected a folder to write into" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("--steps", "0"), ("--learning-rate", "fast"), ("--phantoms", "1.5"), ("--batch", "-1"), ("--seed", "-1")]
)
def test_numbers_without_sense_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["train", "--out", str(tmp_path), *words])
    assert refused.value.code == 2
    assert f"argument {words[0]}: expected" in capsys.readouterr().err


def test_the_recorded_command_holds_every_choice_and_no_folder_of_the_machine() -> None:
    chosen = Namespace(
        phantoms=0.5,
        crops=10,
        seed=3,
        steps=None,
        batch=None,
        learning_rate=1e-3,
        validate_every=None,
        full_precision=True,
        cases=Path("/secret/place"),
        start_from="shipped",
    )
    line = command_line(chosen, preset="paper", device="cuda")
    assert line.startswith(
        "hydrops-node train --out FOLDER --preset paper --device cuda --phantoms 0.5 --crops 10 --seed 3 "
        "--learning-rate 0.001 --full-precision --cases CASES --start-from shipped --threads"
    )
    assert "secret" not in line
