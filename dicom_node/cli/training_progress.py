"""What a training shows on the terminal and writes for TensorBoard while it runs."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dicom_node.errors import UnusableInput

if TYPE_CHECKING:
    from inference.training.trainer import OnStep, Validation

SMOOTHING = 0.98
"""Of the loss on the terminal, from step to step: single batches differ by half."""

GIB_IN_KIB: Final = 1024**2
"""Linux counts resident memory in KiB."""


def memory_told() -> str:
    """The most memory that this process has held since it began, and the largest of those it waited for."""
    here, drawing = (
        resource.getrusage(whose).ru_maxrss / GIB_IN_KIB for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return f"memory at most {here:.1f} GiB here, {drawing:.1f} GiB in the largest process beside it"


class StepBar:
    """A progress bar with the smoothed loss and the time left; one line per validation above it."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps = progress, steps
        self._task = progress.add_task("training", total=steps, loss="")
        self._smooth: float | None = None
        self._best: Validation | None = None

    def __call__(self, step: int, loss: float, figures: Validation | None) -> None:
        """One step is done."""
        if self._smooth is None:
            self._progress.reset(self._task, total=self._steps, completed=step - 1)  # a resumed one is no faster
        before = loss if self._smooth is None else self._smooth
        self._smooth = SMOOTHING * before + (1.0 - SMOOTHING) * loss
        self._progress.update(self._task, completed=step, loss=f"loss {self._smooth:.3f}")
        if figures is not None:
            if self._best is None or figures.score > self._best.score:
                self._best = figures
            self._progress.console.print(_line(figures, best=self._best is figures), highlight=False, soft_wrap=True)


def _line(figures: Validation, *, best: bool) -> str:
    return (
        f"step {figures.step}: loss {figures.loss:.3f}, Dice total fluid {figures.fluid_dice:.3f}, endolymph "
        f"{figures.endolymph_dice:.3f}, ratio error {figures.ratio_mae:.4f} (bias {figures.ratio_bias:+.4f})"
        f"{', best so far' if best else ''}"
    )


@contextmanager
def shown(steps: int) -> Iterator[OnStep]:
    """The bar on standard error while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120.0) as progress:
        yield StepBar(progress, steps)


@contextmanager
def for_tensorboard(folder: Path) -> Iterator[OnStep]:
    """Loss and figures as TensorBoard's event files while the block runs.

    Raises
    ------
    UnusableInput
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UnusableInput("--tensorboard needs the extra `train`: pip install '.[train]'") from error
    with SummaryWriter(folder) as writer:

        def write(step: int, loss: float, figures: Validation | None) -> None:
            writer.add_scalar("loss/training", loss, step)
            if figures is None:
                return
            writer.add_scalar("loss/validation", figures.loss, step)
            for name in ("fluid_dice", "endolymph_dice", "ratio_mae", "ratio_bias"):
                writer.add_scalar(f"validation/{name}", getattr(figures, name), step)

        yield write


def together(*listeners: Callable[[int, float, Validation | None], None]) -> OnStep:
    """All of them, one after the other."""

    def tell(step: int, loss: float, figures: Validation | None) -> None:
        for listener in listeners:
            listener(step, loss, figures)

    return tell
