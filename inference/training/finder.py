"""How the shipped ear finder is made: one command draws heads, trains, and reports on heads never trained on.

    python -m inference.training.finder --folder inference/models/ear_finder

On one free core, drawing 120 heads takes some 2 minutes and 1,600 steps some 10.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
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

log = logging.getLogger(__name__)

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
    """What decides the weights."""

    seed: int = 1
    heads: int = 120
    held_out: int = 16
    steps: int = 1600
    batch: int = 4
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class FinderValidation:
    """Slabs of heads never trained on; errors in mm of the ears found, None if there were none."""

    ears: int
    missed: int
    absent: int
    false: int
    median_mm: float | None
    largest_mm: float | None


def train(heads: Sequence[HeadImages], options: FinderTraining, *, start: nn.Module | None = None) -> EarFinder:
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
    began = time.monotonic()
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
        if step % 100 == 99:
            log.info("step %d loss %.3f %.0f s", step + 1, loss.item(), time.monotonic() - began)
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
    options: FinderTraining, figures: FinderValidation, seconds: float, earlier: LoadedModel | None = None
) -> ModelDescription:
    """What the model folder says about the weights; `earlier` is the model they were started from."""
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
            "command": "python -m inference.training.finder",
            **asdict(options),
            "seconds": round(seconds),
            "torch": torch.__version__,
            "validation": asdict(figures),
            "data": "synthetic heads only (inference.phantom)",
            "started_from": None if earlier is None else dict(earlier.description.training),
        },
        intended_use="Research use only. Proposes where the inner ears are on an MR cisternogram; has seen no patient.",
    )


def main() -> None:
    """Draw, train, validate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the model is kept")
    parser.add_argument("--seed", type=int, default=FinderTraining.seed)
    parser.add_argument("--heads", type=int, default=FinderTraining.heads)
    parser.add_argument("--steps", type=int, default=FinderTraining.steps)
    parser.add_argument("--learning-rate", type=float, default=FinderTraining.learning_rate, help="its highest value")
    parser.add_argument("--start", type=Path, help="folder of an ear finder to go on from")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw heads")
    parser.add_argument("--threads", type=int, default=1, help="threads that train")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = FinderTraining(seed=asked.seed, heads=asked.heads, steps=asked.steps, learning_rate=asked.learning_rate)
    earlier = None if asked.start is None else load_model(asked.start)
    began = time.monotonic()
    heads = draw_heads(range(FIRST_HEAD, FIRST_HEAD + options.heads), workers=asked.workers)
    log.info("%d heads drawn in %.0f s", len(heads), time.monotonic() - began)
    torch.set_num_threads(asked.threads)
    network = train(heads[options.held_out :], options, start=None if earlier is None else earlier.network)
    figures = validate(network, heads[: options.held_out], slabs=4 * options.held_out, seed=options.seed)
    log.info("held-out heads: %s", figures)
    save_model(asked.folder, network, describe(options, figures, time.monotonic() - began, earlier))


if __name__ == "__main__":
    main()
