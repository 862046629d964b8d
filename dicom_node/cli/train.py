"""Train the network that segments the fluid: on synthetic ears, on your own labeled ears, or on both.

  hydrops-node train --out FOLDER
      on synthetic ears, by the recipe of the shipped weights: 106,500 steps in nine stages, which take hours
  hydrops-node train --out FOLDER --preset quick
      a first useful network in half an hour on two cores
  hydrops-node train --out FOLDER --cases CASES --start-from shipped --phantoms 0.5
      the shipped weights, fine-tuned on your ears and as many synthetic ones
  hydrops-node train --out FOLDER --cases CASES --preset paper
      HydropsOTO's network by its published recipe
  hydrops-node train --out FOLDER --preset ear-finder
      the network that finds the ears, by the recipe of the shipped one

CASES is a folder of NIfTI cases or of DICOM studies with a segmentation each; docs/training.md describes both. The
patients in it are divided at random into those trained on and those by whom the best weights are chosen.

Written into FOLDER:
  model/          model.json and weights.safetensors: the best weights and how they were made
  log.csv         figures of every validation
  checkpoint.pt   where the same command goes on after an interruption
  crops/          synthetic ears
  split.json      which case was used for what (with --cases)
  tensorboard/    curves (with --tensorboard)
  stage-N/        stages before the last one (of ear-finder, which writes model/ besides and nothing else)

Needs the extra `train`: pip install '.[train]'. A GPU is used if torch sees one.

Exit status: 0 trained, 2 something that was given cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node import __version__
from dicom_node.cli.finder_training import EAR_FINDER, train_ear_finder
from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from inference.model_store import LoadedModel
    from inference.training.own_ears import LabeledEar, Split
    from inference.training.presets import Preset
    from inference.training.session import Session
    from inference.training.trainer import Trained

PRESET_NAMES: Final = ("shipped", "wider", "quick", "base", "paper", EAR_FINDER)
SHIPPED_MODEL: Final = "shipped"
MODEL_FOLDER: Final = "model"
MODEL_NAME: Final = "hydrops-ear"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hydrops-node train`."""
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="what is written; a training goes on")
    parser.add_argument("--preset", choices=PRESET_NAMES, default="shipped", help="recipe (default %(default)s)")
    data = parser.add_argument_group("what to train on")
    data.add_argument("--cases", type=Path, metavar="CASES", help="labeled ears: NIfTI cases, or DICOM with SEG")
    data.add_argument(
        "--phantoms",
        type=_share,
        metavar="SHARE",
        help="share of synthetic ears, 0..1 (default: 1 without --cases, 0 with it)",
    )
    data.add_argument("--crops", type=_positive, metavar="N", help="how many synthetic ears, or heads")
    data.add_argument("--crop-folder", type=Path, metavar="DIR", help="synthetic ears (default: FOLDER/crops)")
    data.add_argument("--start-from", metavar="MODEL", help="model folder to fine-tune, or `shipped`")
    data.add_argument("--config", type=Path, metavar="NODE_TOML", help="the site's rules for series, for DICOM cases")
    recipe = parser.add_argument_group("instead of the recipe's own")
    recipe.add_argument(
        "--seed", type=_seed, metavar="N", help="of everything drawn at random; the same gives the same weights"
    )
    recipe.add_argument("--steps", type=_positive, metavar="N", help="how often the weights are changed")
    recipe.add_argument("--batch", type=_positive, metavar="N", help="ears per step")
    recipe.add_argument("--learning-rate", type=_rate, metavar="RATE", help="of AdamW, at its highest")
    recipe.add_argument("--validate-every", type=_positive, metavar="N", help="steps; each also writes a checkpoint")
    recipe.add_argument("--full-precision", action="store_true", help="no bfloat16: faster on a CPU that lacks it")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one"
    )
    machine.add_argument(
        "--workers", type=_positive, metavar="N", help="processes that draw synthetic ears (default: half of the cores)"
    )
    machine.add_argument(
        "--threads", type=_positive, metavar="N", help="of the training itself (default: the cores left by workers)"
    )
    result = parser.add_argument_group("result")
    result.add_argument("--tensorboard", action="store_true", help="also write curves for TensorBoard")
    result.add_argument("--name", help=f"of the model, as results will show it (default {MODEL_NAME})")
    result.add_argument("--model-version", metavar="VERSION", help=f"of the model, likewise (default {__version__})")


def run(arguments: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    from inference.cases import CaseError
    from inference.model_store import ModelError
    from inference.training.calibration import CalibrationError
    from inference.training.crop_pool import CropPoolError
    from inference.training.trainer import TrainingError

    folder = _writable(arguments.out)
    try:
        if arguments.preset == EAR_FINDER:
            finder = train_ear_finder(arguments, folder=folder, commit=_commit())
            _say(f"on heads never trained on: {finder.description.training['validation']}")
            _say(f"written: {folder / MODEL_FOLDER}. Research use only.")
            return 0
        session = _after_first_stages(_session(arguments, folder), arguments)
        _train(session, arguments, name=arguments.name or MODEL_NAME)
    except (CaseError, ModelError, CropPoolError, TrainingError, CalibrationError) as error:
        raise UnusableInput(str(error)) from error
    except ModuleNotFoundError as error:
        raise UnusableInput(f"{error.name} is not installed; pip install '.[train]'") from error
    except KeyboardInterrupt:
        _say(f"interrupted; the same command goes on from the last checkpoint in {folder}")
        raise
    return 0


def _after_first_stages(session: Session, arguments: argparse.Namespace) -> Session:
    """The session with a model to start from: what its recipe begins with is trained first, in a folder of its name."""
    from inference.training.presets import PRESETS

    if session.start is not None or session.preset.begins_with is None:
        return session
    preset = _chosen(PRESETS[session.preset.begins_with], arguments, session.preset.options.device)
    earlier = replace(session, preset=preset, folder=_writable(session.folder / preset.name))
    earlier = _after_first_stages(earlier, arguments)
    return replace(session, start=_train(earlier, arguments, name=f"{arguments.name or MODEL_NAME}-{preset.name}"))


def _train(session: Session, arguments: argparse.Namespace, *, name: str) -> LoadedModel:
    """Train one recipe, write its model folder, and say what it reached."""
    from dicom_node.cli.training_progress import memory_told
    from inference.model_store import load_model
    from inference.training.session import save

    options, folder = session.preset.options, session.folder / MODEL_FOLDER
    _say(f"recipe {session.preset.name}: {session.preset.summary}")
    if session.widens:
        _say(f"the model it starts from is widened: {session.network[1]}")
    _say(f"{options.steps} steps of {options.batch} ears on {options.device}")
    trained = _with_progress(session, tensorboard=arguments.tensorboard)
    _say("calibrating intervals and writing the model")
    command = command_line(arguments, preset=session.preset.name, device=options.device)
    version = arguments.model_version or __version__
    save(session, trained, folder, name=name, version=version, command=command, commit=_commit())
    best = trained.best
    _say(
        f"best at step {best.step}: Dice total fluid {best.fluid_dice:.3f}, endolymph {best.endolymph_dice:.3f}, ratio "
        f"error {best.ratio_mae:.4f}"
    )
    _say(memory_told())
    _say(f"written: {folder}; try it: processing.model in node.toml. Research use only.")
    return load_model(folder)


def _writable(folder: Path) -> Path:
    """`folder`, made and tried.

    Raises
    ------
    UnusableInput
        If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UnusableInput(f"--out {folder}: expected a folder to write into, found: {error.strerror}") from error


def _session(arguments: argparse.Namespace, folder: Path) -> Session:
    """The training that was asked for."""
    from inference.training.session import Session

    share = arguments.phantoms if arguments.phantoms is not None else (0.0 if arguments.cases else 1.0)
    workers = arguments.workers or max(1, (os.cpu_count() or 1) // 2)
    _set_threads(arguments.threads, workers if share > 0.0 else 0)
    preset = _preset(arguments)
    own = None if arguments.cases is None else _split(arguments, preset, folder)
    return Session(
        preset=preset,
        folder=folder,
        crops=arguments.crop_folder or folder / "crops",
        own=own,
        phantom_share=share,
        start=None if arguments.start_from is None else _start(arguments.start_from),
        workers=workers,
    )


def _set_threads(wanted: int | None, workers: int) -> None:
    """Threads of the training: as wanted, or the cores that the drawing of crops leaves.

    On two cores, two threads beside a process that draws are four times slower than one.
    """
    import torch

    torch.set_num_threads(wanted or max(1, (os.cpu_count() or 1) - workers))
    _say(f"{torch.get_num_threads()} thread(s) for the training")


def _preset(arguments: argparse.Namespace) -> Preset:
    """The recipe that was asked for, on the device that there is."""
    import torch

    from inference.training.presets import PRESETS

    seen = torch.cuda.is_available()
    if arguments.device == "cuda" and not seen:
        raise UnusableInput("--device cuda: expected a GPU, torch sees none; leave --device out to train on the CPU")
    return _chosen(PRESETS[arguments.preset], arguments, "cuda" if arguments.device != "cpu" and seen else "cpu")


def _chosen(preset: Preset, arguments: argparse.Namespace, device: str) -> Preset:
    """A recipe with what was given instead of its own."""
    given = {
        name: value
        for name in ("seed", "steps", "batch", "learning_rate", "validate_every")
        if (value := getattr(arguments, name)) is not None
    }
    precision = {"half_precision": False} if arguments.full_precision else {}
    options = replace(preset.options, device=device, **given, **precision)
    return replace(preset, options=options, crops=arguments.crops or preset.crops)


def _split(arguments: argparse.Namespace, preset: Preset, folder: Path) -> Split:
    """The site's ears by what they are used for; also written to split.json."""
    from inference.training.own_ears import split_by_patient
    from inference.training.trainer import CHECKPOINT

    if not arguments.cases.is_dir():
        raise UnusableInput(f"--cases {arguments.cases}: expected a folder, found none")
    ears = _labeled_ears(arguments)
    split = split_by_patient(
        ears,
        seed=preset.options.seed,
        validation_share=preset.validation_share,
        held_out_share=preset.held_out_share,
    )
    record = folder / "split.json"
    if not (record.exists() and any(folder.rglob(CHECKPOINT))):
        # With a checkpoint there, the training goes on with the ears of that record, or is refused and leaves it.
        record.write_text(json.dumps(split.cases(), indent=2) + "\n", encoding="utf-8")
    counts = ", ".join(f"{len(cases)} {part.replace('_', ' ')}" for part, cases in split.cases().items())
    _say(f"{len(ears)} labeled ears (each input set counts); cases: {counts}")
    return split


def _labeled_ears(arguments: argparse.Namespace) -> list[LabeledEar]:
    """Every ear of --cases with every input set that its files allow."""
    from dicom_node.labeled_cases import CASE_FILES, case_folders, input_sets, read_case
    from dicom_node.labeled_studies import labeled_ears, refuse_studies_beside
    from inference.training.own_ears import labeled_ear

    folder: Path = arguments.cases
    if not any(path.is_file() for path in folder.rglob("*")):
        raise UnusableInput(f"--cases {folder}: expected NIfTI cases or DICOM studies, found an empty folder")
    if not any(path.name in CASE_FILES for path in folder.rglob("*.nii*")):
        from dicom_node.cli.wiring import case_options, load_settings

        _say(f"reading DICOM studies in {folder}")
        options = case_options(load_settings(arguments.config), from_file=arguments.config is not None)
        return [labeled_ear(case) for case in labeled_ears(folder, options)]
    _say(f"reading NIfTI cases in {folder}")
    cases = case_folders(folder)
    refuse_studies_beside(folder, cases)
    # Named by their place below the folder: two sites may both have a patient 01.
    names = {case: case.relative_to(folder).as_posix() if case != folder else folder.name for case in cases}
    if len({case.name for case in cases}) < len(cases):
        _say(
            "cases of the same name in different folders are taken for different people; where they are one, put a "
            '"patient" into their case.json'
        )
    return [
        labeled_ear(ear)
        for case in cases
        for inputs in input_sets(case) or (None,)
        for ear in read_case(case, inputs=inputs, name=names[case])
    ]


def _start(wanted: str) -> LoadedModel:
    from inference.model_store import SHIPPED, load_model

    return load_model(SHIPPED if wanted == SHIPPED_MODEL else Path(wanted))


def _with_progress(session: Session, *, tensorboard: bool) -> Trained:
    """Train with a bar on the terminal."""
    from dicom_node.cli.training_progress import for_tensorboard, shown, together
    from inference.training.session import train

    with ExitStack() as stack:
        listeners = [stack.enter_context(for_tensorboard(session.folder / "tensorboard"))] if tensorboard else []
        listeners.append(stack.enter_context(shown(session.preset.options.steps)))
        return train(session, together(*listeners))


def command_line(arguments: argparse.Namespace, *, preset: str, device: str) -> str:
    """The command that trains the same weights again; folders of this machine by their placeholders."""
    import torch

    words = ["hydrops-node", "train", "--out", "FOLDER", "--preset", preset, "--device", device]
    for name in ("phantoms", "crops", "seed", "steps", "batch", "learning_rate", "validate_every"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--full-precision"] if arguments.full_precision else []
    words += ["--cases", "CASES"] if arguments.cases is not None else []
    if arguments.start_from is not None:
        words += ["--start-from", SHIPPED_MODEL if arguments.start_from == SHIPPED_MODEL else "MODEL"]
    return shlex.join([*words, "--threads", str(torch.get_num_threads())])


def _commit() -> str | None:
    """The commit that this source is, if it lies in a git checkout; says so if files were changed since."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(  # noqa: S603
                ["git", "-C", str(root), *words],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head} and changes" if changes else head


def _share(text: str) -> float:
    return _number(text, lambda value: 0.0 <= value <= 1.0, "a share between 0 and 1")


def _rate(text: str) -> float:
    return _number(text, lambda value: 0.0 < value <= 1.0, "a learning rate above 0 and up to 1")


def _number(text: str, fits: Callable[[float], bool], wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not fits(value):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
