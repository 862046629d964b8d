"""Judge a model against known truth and write a report: evaluation.json and report.html.

  hydrops-node evaluate --phantoms 100 --out /tmp/judged             the shipped model on 100 synthetic patients
  hydrops-node evaluate --phantoms 20 --model threshold --out DIR    the method that needs no training
  hydrops-node evaluate --cases LABELED --model MODEL --out DIR      your model on your labeled ears
  hydrops-node evaluate --from DIR/evaluation.json --out DIR         report (without pictures of ears) and card again
  hydrops-node evaluate --real-crop EAR.nii.gz --out DIR             phantom and a real ear side by side

--phantoms sends whole studies through the node's pipeline: ear search, registration, segmentation, gates. Patients are
drawn from a fixed distribution (seeds 900000 to 999999 are kept for evaluation) and measured once per input set.

--cases takes ears that are already aligned, one folder per examination, and judges segmentation and numbers:
  CASE/mrc.nii.gz            MR cisternography, and at least one of ...
  CASE/ppi.nii.gz + pei.nii.gz | hydrops.nii.gz | hydrops_mi2.nii.gz | real_ir.nii.gz      (the last three SIGNED)
  CASE/total_fluid.nii.gz    mask, or part of each voxel 0..1, on the grid of the MRC; one ear or both
  CASE/endolymph.nii.gz      the same, inside total_fluid
  CASE/compartments.nii.gz   optional: 1 cochlea, 2 vestibule, 3 canals
  CASE/case.json             optional: {"side": "left", "severity": "mild", "domain": "scanner A"}

--real-crop takes one ear of a heavily T2-weighted image with scanner coordinates. It stays where it is; the page that
shows it (side-by-side.html) holds its pixels, so treat the page as patient data.

A patient takes about 40 s of one core and 1.5 GB of memory. Research use only.

Exit status: 0 written, 2 the input cannot be used.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from dicom_node.cli.evaluation_runs import Job
    from inference.evaluation.record import Evaluation, Source
    from inference.evaluation.scores import EarScore
    from inference.geometry import Volume
    from inference.model_description import ModelDescription

FIRST_SEED: Final = 900_000
INPUT_SETS: Final = ("PPI_PEI", "HYDROPS", "HYDROPS_MI2", "REAL_IR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node evaluate`."""
    source = parser.add_argument_group("what is judged (choose one)").add_mutually_exclusive_group(required=True)
    source.add_argument("--phantoms", type=_count, metavar="N", help="N synthetic patients")
    source.add_argument("--cases", type=Path, metavar="FOLDER", help="a folder of labeled cases (NIfTI)")
    source.add_argument("--from", type=Path, dest="record", metavar="JSON", help="an evaluation.json made before")
    source.add_argument("--real-crop", type=Path, metavar="NIFTI", help="one real ear, heavily T2-weighted")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results are written")
    parser.add_argument(
        "--model",
        default="shipped",
        metavar="MODEL",
        help="a model folder, `shipped`, or `threshold` (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=FIRST_SEED, metavar="S", help="first patient's seed (default: %(default)s)"
    )
    parser.add_argument(
        "--input-sets",
        nargs="+",
        choices=INPUT_SETS,
        default=list(INPUT_SETS),
        metavar="SET",
        help=f"series that go with the MRC, of {', '.join(INPUT_SETS)} (default: all)",
    )
    parser.add_argument(
        "--workers", type=_count, default=1, metavar="W", help="studies at a time (default: %(default)s)"
    )
    parser.add_argument("--model-card", type=Path, metavar="FILE", help="also write the model card (Markdown) here")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> int:
    """Measure, or read what was measured, and write what was asked for."""
    _require_extra()
    _require_places(arguments)
    if arguments.real_crop is not None:
        return _show_real_crop(arguments)
    evaluation = read_evaluation(arguments.record) if arguments.record else _measure(arguments)
    pictures = {} if arguments.record else _pictures(arguments, evaluation)
    _write(arguments, evaluation, pictures)
    return 0


def _require_extra() -> None:
    """Say which packages to install where the evaluation's are missing."""
    try:
        import jinja2  # noqa: F401
        import monai  # noqa: F401
        import nibabel  # noqa: F401
        import pingouin  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        raise UnusableInput(f"{error.name} is missing; install the extra: pip install 'hydrops-node[train]'") from error


def _require_places(arguments: argparse.Namespace) -> None:
    """Say before anything is measured that it could not be written."""
    card: Path | None = arguments.model_card
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=arguments.out):
            pass
    except OSError as error:
        message = f"--out {arguments.out}: expected a folder to write into, found: {error.strerror}"
        raise UnusableInput(message) from error
    if card is not None and (card.is_dir() or not card.absolute().parent.is_dir()):
        found = "a folder" if card.is_dir() else f"no folder {card.parent}"
        raise UnusableInput(f"--model-card {card}: expected a file to write in a folder that is there, found {found}")


def read_evaluation(path: Path) -> Evaluation:
    """The record in an evaluation.json.

    Raises
    ------
    UnusableInput
        If it cannot be read, or is no evaluation.
    """
    from inference.evaluation.record import EvaluationError, from_json

    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnusableInput(f"{path}: {error.strerror}; pass an evaluation.json") from error
    except EvaluationError as error:
        raise UnusableInput(f"{path}: {error}") from error


def _measure(arguments: argparse.Namespace) -> Evaluation:
    from dicom_node import __version__
    from dicom_node.cli.evaluation_runs import run_jobs, segmenter
    from inference.evaluation.record import evaluate

    jobs, source = _jobs(arguments)
    model = segmenter(arguments.model).identity
    with _progress(f"measuring with {model.name} {model.version}", len(jobs), arguments.quiet) as on_done:
        scores = run_jobs(jobs, workers=arguments.workers, on_done=on_done)
    if not scores:
        raise UnusableInput(f"{arguments.cases}: no case has one of {', '.join(arguments.input_sets)}")
    return evaluate(
        scores,
        model=model,
        source=source,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=_command(arguments),
        node_version=__version__,
    )


def _jobs(arguments: argparse.Namespace) -> tuple[list[Job], Source]:
    from dicom_node.cli.evaluation_runs import FolderJob, PhantomJob
    from dicom_node.labeled_cases import case_folders, has_cisternogram, input_sets
    from inference.cases import InputSet
    from inference.evaluation import cohort
    from inference.evaluation.record import Source

    sets = tuple(one for one in InputSet if one in arguments.input_sets)
    if arguments.phantoms is not None:
        seeds = range(arguments.seed, arguments.seed + arguments.phantoms)
        source = Source(
            kind="phantoms",
            name=cohort.VERSION,
            description=cohort.DESCRIPTION,
            studies=len(seeds),
            first_seed=arguments.seed,
        )
        return [PhantomJob(seed=seed, input_sets=sets, method=arguments.model) for seed in seeds], source
    if not arguments.cases.is_dir():
        raise UnusableInput(f"{arguments.cases}: no such folder; pass the folder that holds the case folders")
    found = case_folders(arguments.cases)
    folders = [
        one for one in found if not has_cisternogram(one) or (there := input_sets(one)) == () or set(there) & set(sets)
    ]
    if len(folders) < len(found):
        _say(f"{len(found) - len(folders)} of {len(found)} cases have none of {', '.join(sets)} and are left out")
    source = Source(
        kind="cases",
        name=arguments.cases.name,
        description="a folder of labeled ears, already aligned",
        studies=len(folders),
    )
    return [
        FolderJob(root=arguments.cases, folder=folder, input_sets=sets, method=arguments.model) for folder in folders
    ], source


def _command(arguments: argparse.Namespace) -> str:
    """The command line that makes these figures again, wherever it writes them."""
    words = ["hydrops-node", "evaluate"]
    if arguments.phantoms is not None:
        words += ["--phantoms", str(arguments.phantoms), "--seed", str(arguments.seed)]
    else:
        words += ["--cases", arguments.cases.name]
    words += ["--model", Path(arguments.model).name, "--input-sets", *arguments.input_sets, "--out", "DIR"]
    return shlex.join(words)


def _pictures(arguments: argparse.Namespace, evaluation: Evaluation) -> dict[str, tuple[str, bytes]]:
    """Worst, median and best ear of the first input set on slices, and the median one in three dimensions."""
    from dicom_node.cli.evaluation_runs import look_again
    from inference.evaluation.pictures import Shown, labyrinth_in_space, overlays
    from inference.evaluation.tables import ear_caption

    chosen = _worst_median_best(evaluation)
    shown = []
    with _progress("drawing single ears", len(chosen), arguments.quiet) as on_done:
        for name, score in chosen.items():
            case, fluid = look_again(score, arguments.model, arguments.cases)
            shown.append(Shown(case=case, fluid=fluid, caption=f"{name}: {ear_caption(score)}"))
            on_done()
    if not shown:
        return {}
    middle = shown[len(shown) // 2]
    return {
        "Worst, median and best ear": (
            "By endolymph Dice, on the cisternogram (total fluid) and on HYDROPS (endolymph).",
            overlays(shown),
        ),
        "One labyrinth in space": (
            "The median ear as found: total fluid as a shell, endolymph inside.",
            labyrinth_in_space(middle.fluid, "The median ear"),
        ),
    }


def _worst_median_best(evaluation: Evaluation) -> dict[str, EarScore]:
    first = evaluation.sections[0].input_set
    ranked = sorted(
        (
            (score.endolymph.dice, number, score)
            for number, score in enumerate(evaluation.scores)
            if score.endolymph is not None and score.endolymph.dice is not None and score.tags.get("input_set") == first
        )
    )
    places = {"worst": 0, "median": len(ranked) // 2, "best": len(ranked) - 1}
    return {name: ranked[place][2] for name, place in places.items()} if ranked else {}


def _show_real_crop(arguments: argparse.Namespace) -> int:
    from dicom_node.cli.evaluation_runs import phantom_pair, segmenter
    from inference.cases import CaseError
    from inference.evaluation.real_crop import real_ear
    from inference.evaluation.side_by_side import compare_ears, page

    method = segmenter(arguments.model)
    with _progress("real ear, phantom, page", 3, arguments.quiet) as on_done:
        try:
            real = real_ear(_real_crop(arguments.real_crop), name=arguments.real_crop.name.split(".")[0])
        except CaseError as error:
            raise UnusableInput(f"--real-crop {arguments.real_crop}: {error}") from error
        on_done()
        whole, alone = phantom_pair(arguments.seed, real.images.roi.side)
        on_done()
        ears = compare_ears(
            [("phantom, with PPI and PEI", whole), ("phantom, MRC alone", alone), ("real ear, MRC alone", real)], method
        )
        path = arguments.out / "side-by-side.html"
        path.write_text(page(ears, method.identity), encoding="utf-8")
        on_done()
    _say(f"written to {path}; it holds the real ear's pixels")
    return 0


def _real_crop(path: Path) -> Volume:
    from dicom_node.encoding.nifti import read_nifti

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableInput(f"{path}: {error.strerror}; pass a NIfTI file") from None
    return read_nifti(content, name=str(path), frame_of_reference_uid="2.25.1")


def _write(arguments: argparse.Namespace, evaluation: Evaluation, pictures: dict[str, tuple[str, bytes]]) -> None:
    from inference.evaluation.model_card import model_card
    from inference.evaluation.record import EvaluationError, to_json
    from inference.evaluation.report import report

    (arguments.out / "evaluation.json").write_text(to_json(evaluation), encoding="utf-8")
    (arguments.out / "report.html").write_text(report(evaluation, pictures), encoding="utf-8")
    _say(f"written to {arguments.out}: evaluation.json, report.html")
    if arguments.model_card is not None:
        try:
            card = model_card(evaluation, _description(arguments.model))
        except EvaluationError as error:
            raise UnusableInput(f"--model-card: {error}") from error
        arguments.model_card.write_text(card, encoding="utf-8")
        _say(f"written to {arguments.model_card}")


def _description(model: str) -> ModelDescription | None:
    """What a model folder says about itself; None for the threshold method."""
    from dicom_node.cli.wiring import SHIPPED_MODEL, THRESHOLD
    from inference.model_store import SHIPPED, ModelError, read_description

    if model == THRESHOLD:
        return None
    try:
        return read_description(SHIPPED if model == SHIPPED_MODEL else Path(model))
    except ModelError as error:
        raise UnusableInput(f"--model {model}: {error}") from error


@contextmanager
def _progress(title: str, total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error with the time that is left; yields what moves it by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
