"""`hydrops-node train --preset ear-finder`: the network that finds the ears, stage by stage.

It sees synthetic heads only, on the processor; what is an option of the other recipes alone is refused by its name.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference.model_store import LoadedModel
    from inference.training.finder import FinderTraining, OnFinderStep

EAR_FINDER: Final = "ear-finder"

FOREIGN: Final = (
    "cases",
    "phantoms",
    "crop_folder",
    "start_from",
    "config",
    "seed",
    "validate_every",
    "full_precision",
    "tensorboard",
    "name",
    "model_version",
)
"""Options of `train` that mean nothing here: heads are always synthetic, and every stage has a seed of its own."""


def train_ear_finder(arguments: argparse.Namespace, *, folder: Path, commit: str | None) -> LoadedModel:
    """The finder that `folder/model` then holds; stages that are there already are not trained again.

    Raises
    ------
    UnusableInput
        If an option was given that this recipe has no use for.
    TrainingError
        If the folder belongs to another training.
    """
    import torch

    from inference.training.finder import FinderSession

    refuse_foreign(arguments)
    torch.set_num_threads(arguments.threads or 1)
    session = FinderSession(
        stages=chosen_stages(arguments),
        folder=folder,
        workers=arguments.workers or 1,
        command=command_line(arguments, threads=torch.get_num_threads()),
        commit=commit,
    )
    with _shown() as on_stage:
        return session.run(on_stage)


def refuse_foreign(arguments: argparse.Namespace) -> None:
    """Refuse what only the other recipes understand, rather than pass it over.

    Raises
    ------
    UnusableInput
        Naming the first such option.
    """
    for name in FOREIGN:
        value = getattr(arguments, name)
        if value is not None and value is not False:  # a seed of 0 is one
            option = f"--{name.replace('_', '-')}"
            raise UnusableInput(f"{option}: the recipe {EAR_FINDER} has no use for it; leave it out")
    if arguments.device == "cuda":
        raise UnusableInput(f"--device cuda: the recipe {EAR_FINDER} runs on the processor; leave it out")


def chosen_stages(arguments: argparse.Namespace) -> tuple[FinderTraining, ...]:
    """The recipe's stages, with what was given instead of their own in each of them; `--crops` counts heads."""
    from inference.training.finder import STAGES

    given = {
        name: value for name in ("steps", "batch", "learning_rate") if (value := getattr(arguments, name)) is not None
    }
    if arguments.crops is not None:
        given |= {"heads": arguments.crops, "held_out": min(STAGES[0].held_out, arguments.crops // 2)}
    return tuple(replace(stage, **given) for stage in STAGES)


def command_line(arguments: argparse.Namespace, *, threads: int) -> str:
    """The command that trains the same weights again."""
    words = ["hydrops-node", "train", "--out", "FOLDER", "--preset", EAR_FINDER]
    for name in ("crops", "steps", "batch", "learning_rate"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--threads", str(threads)])


@contextmanager
def _shown() -> Iterator[Callable[[int, FinderTraining], OnFinderStep]]:
    """A bar for each stage on standard error while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def begun(number: int, options: FinderTraining) -> OnFinderStep:
            title = f"stage {number}, {options.heads} heads"
            task = progress.add_task(title, total=options.steps, loss="")
            return lambda step, loss: progress.update(task, completed=step, loss=f"loss {loss:.3f}")

        yield begun
