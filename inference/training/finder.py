"""How the shipped ear finder is made: draw heads, train stage by stage, and report on heads never trained on.

`hydrops-node train --preset ear-finder` does all of it. On one free core, 120 heads are drawn in some 2 minutes, and
1,600 steps take some 10.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference.ear_proposals import GRID_MM, SIDES, best_place, places_of
from inference.geometry import Volume
from inference.model_store import LoadedModel, ModelDescription, load_model, save_model
from inference.networks.ear_finder import STRIDE, EarFinder
from inference.training.heads import HeadImages, draw_heads, head_grid
from inference.training.slabs import WINDOW, Slab, draw_slab
from inference.training.trainer import TrainingError

OnFinderStep = Callable[[int, float], None]
"""Gets the number of the step that was done, from 1, and its loss."""

NAME, VERSION = "hydrops-ear-finder", "1.0"

FIRST_HEAD: Final = 1_000_000
"""Seed of the first head drawn; no test, bench or demo goes so far."""

PLACES: Final = tuple(n // STRIDE for n in WINDOW)

TARGET_MM: Final = 3.0
"""SD of the wanted probability around the centroid: a little less than the distance of places."""

FOUND: Final = 0.5
"""Probability from which a validation counts an ear as found."""

GRADIENT_NORM: Final = 1.0
AVERAGING: Final = 0.99
"""Exponential average of the weights: what is kept."""


@dataclass(frozen=True, kw_only=True)
class FinderTraining:
    """What decides the weights of one stage. Of `heads`, the first `held_out` are only validated on.

    Raises
    ------
    TrainingError
        If no head is left to train on.
    """

    seed: int = 1
    heads: int = 120
    held_out: int = 16
    steps: int = 1600
    batch: int = 4
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < self.heads:
            raise TrainingError(f"expected more heads than the {self.held_out} held out, found {self.heads}")


STAGES: Final = (
    FinderTraining(seed=0, heads=500, steps=1400, learning_rate=4e-3),
    FinderTraining(seed=1, steps=70, learning_rate=2e-3),
    FinderTraining(seed=2, steps=150, learning_rate=1.5e-3),
)
"""The recipe of the shipped weights; each stage goes on with the weights of the one before.

The shipped weights themselves are no output of today's command: their first stage saw heads that `inference.phantom`
drew at commit c465467, and exchanged surroundings in its last 200 steps only. The command gives another network of the
same recipe.
"""


@dataclass(frozen=True, kw_only=True)
class FinderValidation:
    """Slabs of heads never trained on; errors in mm of the ears found, None if there were none."""

    ears: int
    missed: int
    absent: int
    false: int
    median_mm: float | None
    largest_mm: float | None


def train(
    heads: Sequence[HeadImages],
    options: FinderTraining,
    *,
    start: nn.Module | None = None,
    on_step: OnFinderStep = lambda _step, _loss: None,
) -> EarFinder:
    """The averaged network (evaluation mode) after `options.steps`, from `start` or from nothing.

    Reproducible on one machine and thread count.
    """
    torch.manual_seed(options.seed)
    network = EarFinder()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if start is not None:
        network.load_state_dict(start.state_dict())
    average = deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    for step in range(options.steps):
        rng = np.random.default_rng([options.seed, step])
        slabs = [draw_slab(rng, heads) for _ in range(options.batch)]
        images = torch.from_numpy(np.stack([slab.image for slab in slabs]))[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        loss = choice_loss(logits, slabs)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        _follow(average, network, min(AVERAGING, (step + 1) / (step + 10)))
        on_step(step + 1, loss.item())
    return average


def choice_loss(logits: Tensor, slabs: Sequence[Slab]) -> Tensor:
    """Cross-entropy between the network's choice of a place and where the ear is, over ears that no border cuts.

    Parameters
    ----------
    logits
        (B, 2, places + 1) as `EarFinder` gives them.
    """
    wanted = torch.from_numpy(np.stack([wanted_choice(slab) for slab in slabs]))
    counts = torch.from_numpy(np.stack([slab.present >= 0 for slab in slabs]).astype(np.float32))
    each = -(wanted * torch.log_softmax(logits.float(), dim=-1)).sum(dim=-1)
    return (each * counts).sum() / counts.sum().clamp(min=1.0)


def wanted_choice(slab: Slab) -> NDArray[np.float32]:
    """(2, places + 1) float32 probabilities that sum to 1: a ball around each ear, or "not in these images"."""
    wanted = np.zeros((len(SIDES), int(np.prod(PLACES)) + 1), np.float32)
    for number, (ear, present) in enumerate(zip(slab.ears, slab.present, strict=True)):
        if present != 1:
            wanted[number, -1] = 1.0
            continue
        k, j, i = (
            np.exp(-0.5 * ((STRIDE * np.arange(n) + (STRIDE - 1) / 2 - at) * GRID_MM / TARGET_MM) ** 2)
            for n, at in zip(PLACES, ear, strict=True)
        )
        ball = (k[:, None, None] * j[None, :, None] * i[None, None, :]).ravel()
        wanted[number, :-1] = ball / ball.sum()
    return wanted


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for kept, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(now, 1.0 - keep)
            else:
                kept.copy_(now)


def validate(network: EarFinder, heads: Sequence[HeadImages], *, slabs: int, seed: int) -> FinderValidation:
    """Figures over `slabs` plain slabs of `heads`."""
    rng, window = np.random.default_rng([seed, 5]), head_grid().crop((0, 0, 0), WINDOW)
    grid = places_of(window)
    errors, counts = [], dict.fromkeys(("ears", "missed", "absent", "false"), 0)
    for _ in range(slabs):
        slab = draw_slab(rng, heads, plain=True)
        with torch.inference_mode():
            choice = torch.softmax(network(torch.from_numpy(slab.image)[None, None])[0].double(), dim=-1).numpy()
        for ear, present, row in zip(slab.ears, slab.present, choice, strict=True):
            found = best_place(Volume(array=row[:-1].reshape(PLACES), geometry=grid))
            counts["ears"] += present == 1
            counts["absent"] += present == 0
            counts["missed"] += present == 1 and found.probability < FOUND
            counts["false"] += present == 0 and found.probability >= FOUND
            if present == 1 and found.probability >= FOUND:
                errors.append(float(np.linalg.norm(found.lps_mm - window.to_lps(ear))))
    return FinderValidation(
        **{name: int(count) for name, count in counts.items()},
        median_mm=float(np.median(errors)) if errors else None,
        largest_mm=max(errors, default=None),
    )


def describe(
    options: FinderTraining,
    figures: FinderValidation,
    seconds: float,
    earlier: LoadedModel | None = None,
    *,
    command: str,
    commit: str | None = None,
) -> ModelDescription:
    """What the model folder says about the weights.

    Parameters
    ----------
    earlier
        The model they were started from.
    command, commit
        The command line that makes them again, and the source it ran; None if that is not under git.
    """
    return ModelDescription(
        name=NAME,
        version=VERSION,
        network="ear_finder",
        network_options={},
        inputs=("MRC",),
        spacing_mm=(GRID_MM, GRID_MM, GRID_MM),
        shape=WINDOW,
        interval_scales={},
        training={
            "command": command,
            "commit": commit,
            **asdict(options),
            "first_head": FIRST_HEAD,
            "seconds": round(seconds),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "validation": asdict(figures),
            "data": "synthetic heads only (inference.phantom)",
            "started_from": None if earlier is None else dict(earlier.description.training),
        },
        intended_use="Research use only. Proposes where the inner ears are on an MR cisternogram; has seen no patient.",
    )


@dataclass(frozen=True, kw_only=True)
class FinderSession:
    """A whole training: its stages, where they are kept, and how many processes draw heads.

    Each stage has a model folder of its own, `stage-1` and on, the last one `model`; a stage that is there is not
    trained again.
    """

    stages: tuple[FinderTraining, ...]
    folder: Path
    workers: int
    command: str
    commit: str | None

    def run(self, on_stage: Callable[[int, FinderTraining], OnFinderStep]) -> LoadedModel:
        """The model of the last stage. `on_stage` is told each stage that is trained, and gives who hears its steps.

        Raises
        ------
        TrainingError
            If a folder holds a stage of another training.
        """
        earlier: LoadedModel | None = None
        heads: list[HeadImages] = []
        for number, options in enumerate(self.stages, start=1):
            kept = self.folder / ("model" if number == len(self.stages) else f"stage-{number}")
            if not (kept / "model.json").exists():
                if len(heads) < options.heads:
                    heads = draw_heads(range(FIRST_HEAD, FIRST_HEAD + options.heads), workers=self.workers)
                self._train(heads[: options.heads], options, kept, earlier, on_stage(number, options))
            earlier = _finished(kept, options)
        if earlier is None:
            raise TrainingError("expected at least one stage, found none")
        return earlier

    def _train(
        self,
        heads: Sequence[HeadImages],
        options: FinderTraining,
        kept: Path,
        earlier: LoadedModel | None,
        on_step: OnFinderStep,
    ) -> None:
        began = time.monotonic()
        start = None if earlier is None else earlier.network
        network = train(heads[options.held_out :], options, start=start, on_step=on_step)
        figures = validate(network, heads[: options.held_out], slabs=4 * options.held_out, seed=options.seed)
        description = describe(
            options, figures, time.monotonic() - began, earlier, command=self.command, commit=self.commit
        )
        save_model(kept, network, description)


def _finished(kept: Path, options: FinderTraining) -> LoadedModel:
    """The model of a stage, if these options made it."""
    model = load_model(kept)
    told = {name: model.description.training.get(name) for name in asdict(options)}
    if told != asdict(options):
        raise TrainingError(f"{kept}: expected a model made with {asdict(options)}, found {told}; name another folder")
    return model
