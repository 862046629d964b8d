"""Training: the same few lines for synthetic ears, a site's own ears, and both.

A training can be stopped at any time and goes on from its last checkpoint with the same numbers: every step draws
from its own random generator, so nothing depends on what happened before but the weights.
"""

from __future__ import annotations

import csv
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from inference.training.losses import Prediction, fraction_loss, predicted
from inference.training.scans import Scans
from inference.training.sources import EarSource

CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.csv"
GRADIENT_NORM: Final = 1.0

DAMAGED: Final = (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError)
"""What torch raises on a checkpoint that is cut short or is something else."""

STATE: Final = frozenset({"options", "step", "seconds", "network", "average", "optimizer", "best", "history"})
"""What a checkpoint holds at least."""

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A batch's scalar loss of (logits, log_sd, total fluid, endolymph)."""

Answer = Callable[[Tensor, Tensor], Prediction]
"""What a network's (logits, log_sd) mean."""

OnStep = Callable[[int, float, "Validation | None"], None]
"""Told (step, loss, figures if it was a validation) after every step."""


class TrainingError(RuntimeError):
    """A training cannot start, go on, or has gone astray; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    steps, batch
        How many steps of how many ears.
    learning_rate
        Highest; it rises over `warm_up` steps and falls to zero as a half cosine.
    averaging
        Exponential average of the weights: what is validated and kept.
    validate_every
        Steps between validations; each also writes a checkpoint.
    device
        "cpu" or "cuda".
    half_precision
        bfloat16 where it is safe (convolutions); on a CPU without it, training is slower with than without.
    decay_every, decay_factor
        Steps after which the learning rate is multiplied by the factor, again and again; None: the half cosine.
    """

    seed: int = 1
    steps: int = 12_000
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: int = 200
    averaging: float = 0.998
    validate_every: int = 1000
    device: str = "cpu"
    half_precision: bool = True
    decay_every: int | None = None
    decay_factor: float = 0.1

    def rate(self, step: int) -> float:
        """Learning rate of one step."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        if self.decay_every is not None:
            return self.learning_rate * float(self.decay_factor ** (step // self.decay_every))
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * 0.5 * (1.0 + cos(pi * min(1.0, done)))


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Figures on ears never trained on, at `step`: Dice of the masks, error of the ratio; `score` is what is kept."""

    step: int
    loss: float
    fluid_dice: float
    endolymph_dice: float
    ratio_mae: float
    ratio_bias: float
    seconds: float

    @property
    def score(self) -> float:
        """Mean of both Dice values: the larger, the better."""
        return (self.fluid_dice + self.endolymph_dice) / 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The best network found (weights averaged, evaluation mode, CPU), its figures, and all figures on the way."""

    network: nn.Module
    best: Validation
    history: tuple[Validation, ...]


class Trainer:
    """One training in one folder.

    Parameters
    ----------
    network
        Answers (logits (B, 2, K, J, I), log_sd (B,)) to images (B, inputs, K, J, I).
    source
        Ears to train on.
    validation
        Ears to choose the best weights by; none of them may be in `source`.
    folder
        Keeps checkpoint and log; a checkpoint found there is continued.
    loss, answer
        What is minimized, and what the network's answers mean when they are scored.
    identity
        Whatever else makes this training this one (network, data ...), as plain values. A checkpoint with another
        identity is not continued.

    Raises
    ------
    TrainingError
        If the folder holds the checkpoint of another training, or the loss stops being a number.
    """

    def __init__(
        self,
        network: nn.Module,
        source: EarSource,
        validation: Sequence[Scans],
        *,
        options: TrainingOptions,
        folder: Path,
        loss: Loss = fraction_loss,
        answer: Answer = predicted,
        identity: Mapping[str, object] | None = None,
    ) -> None:
        if not validation:
            raise TrainingError("there is nothing to validate on; give at least one ear that is not trained on")
        folder.mkdir(parents=True, exist_ok=True)
        self.options, self.folder, self._identity = options, folder, dict(identity or {})
        self._source, self._validation, self._loss, self._read = source, validation, loss, answer
        # torch's stubs do not know the memory format
        self._network = network.to(options.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._average = AveragedModel(self._network, avg_fn=self._averaged, use_buffers=True)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self._history: list[Validation] = []
        self._best: dict[str, Tensor] | None = None
        self._step = 0
        self._seconds = 0.0

    def run(self, on_step: OnStep = lambda *_: None) -> Trained:
        """Train until `options.steps`; `on_step(step, loss, validation or None)` is told after every step."""
        self._resume()
        options = self.options
        began = time.monotonic() - self._seconds
        with ThreadPoolExecutor(1) as ahead:
            upcoming = ahead.submit(self._draw, self._step)
            while self._step < options.steps:
                scans = upcoming.result()
                if self._step + 1 < options.steps:
                    upcoming = ahead.submit(self._draw, self._step + 1)
                loss = self._learn(scans)
                self._step += 1
                figures = None
                if self._step % options.validate_every == 0 or self._step == options.steps:
                    self._seconds = time.monotonic() - began
                    figures = self._validate()
                    self._save()
                on_step(self._step, loss, figures)
        return self._result()

    def _draw(self, step: int) -> Scans:
        return self._source.batch(
            self.options.batch, step=step, rng=np.random.default_rng([self.options.seed, 77, step])
        )

    def _learn(self, scans: Scans) -> float:
        """One step of AdamW."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.rate(self._step)
        self._network.train()
        device = self.options.device
        logits, log_sd = self._answer(self._network, scans.images)
        loss = self._loss(logits, log_sd, scans.total.to(device), scans.endolymph.to(device))
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {float(loss.detach())} at step {self._step}; lower the learning rate "
                f"(now {self.options.learning_rate:g}) or look for broken images in the training data"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        self._average.update_parameters(self._network)
        return float(loss.detach())

    def _answer(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        device = self.options.device
        images = images.to(device).contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device, torch.bfloat16, enabled=self.options.half_precision):
            logits, log_sd = network(images)
        return logits.float(), log_sd.float()

    def _averaged(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Exponential average that forgets the random start quickly."""
        seen = float(count)
        keep = min(self.options.averaging, (1.0 + seen) / (10.0 + seen))
        return average + (current - average) * (1.0 - keep)

    @torch.inference_mode()
    def _validate(self) -> Validation:
        self._average.eval()
        device = self.options.device
        scores, losses = [], []
        for scans in self._validation:
            total, endolymph = scans.total.to(device), scans.endolymph.to(device)
            logits, log_sd = self._answer(self._average, scans.images)
            losses.append(float(self._loss(logits, log_sd, total, endolymph)))
            scores.append(ear_scores(self._read(logits, log_sd), total, endolymph).cpu())
        fluid, endo, off = torch.cat(scores).unbind(dim=1)
        figures = Validation(
            step=self._step,
            loss=float(np.mean(losses)),
            fluid_dice=float(fluid.mean()),
            endolymph_dice=float(endo.mean()),
            ratio_mae=float(off.abs().mean()),
            ratio_bias=float(off.mean()),
            seconds=round(self._seconds, 1),
        )
        if not self._history or figures.score > max(past.score for past in self._history):
            self._best = {name: value.detach().clone() for name, value in self._average.module.state_dict().items()}
        self._history.append(figures)
        return figures

    def _save(self) -> None:
        """Checkpoint and log, both replaced only when complete."""
        state = {
            "options": asdict(self.options),
            "identity": self._identity,
            "step": self._step,
            "seconds": self._seconds,
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "history": [asdict(figures) for figures in self._history],
        }
        temporary = self.folder / f"{CHECKPOINT}.part"
        torch.save(state, temporary)
        temporary.rename(self.folder / CHECKPOINT)
        with (self.folder / LOG).open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(self._history[0])))
            writer.writeheader()
            writer.writerows(asdict(figures) for figures in self._history)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.options.device, weights_only=True)
        except DAMAGED as error:
            raise TrainingError(
                f"{path}: expected a checkpoint, found a file that cannot be read ({type(error).__name__}); "
                "delete it to start anew"
            ) from error
        if not isinstance(state, dict) or not state.keys() >= STATE:
            found_instead = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise TrainingError(
                f"{path}: expected a checkpoint with {', '.join(sorted(STATE))}, found {found_instead or 'nothing'}; "
                "delete it to start anew"
            )
        wanted = {**asdict(self.options), **self._identity}
        found = {**asdict(TrainingOptions()), **state["options"], **state.get("identity", {})}
        other = [
            f"{name} ({found.get(name)}, now {wanted.get(name)})"
            for name in dict.fromkeys((*wanted, *found))
            if found.get(name) != wanted.get(name)
        ]
        if other:
            raise TrainingError(
                f"{path} belongs to a training with another {', '.join(other)}; "
                "choose an empty folder or repeat its options"
            )
        try:
            self._network.load_state_dict(state["network"])
            self._average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{path}: expected the weights of this network, found others ({error}); delete it to start anew"
            ) from error
        self._step, self._seconds, self._best = state["step"], state["seconds"], state["best"]
        self._history = [Validation(**figures) for figures in state["history"]]

    def _result(self) -> Trained:
        network = deepcopy(self._average.module).cpu()
        assert self._best is not None
        network.load_state_dict(self._best)
        best = max(self._history, key=lambda figures: figures.score)
        return Trained(network=network.eval(), best=best, history=tuple(self._history))


def ear_scores(answer: Prediction, total: Tensor, endolymph: Tensor) -> Tensor:
    """(B, 3): Dice of both masks by the half-voxel rule, and the ratio's signed error."""
    axes = (1, 2, 3)
    found, true = answer.total >= 0.5, total >= 0.5
    found_endo = found & (answer.endolymph >= 0.5 * answer.total)
    true_endo = true & (endolymph >= 0.5 * total)
    ratio = endolymph.sum(dim=axes) / total.sum(dim=axes).clamp(min=1.0)
    return torch.stack([_dice(found, true), _dice(found_endo, true_endo), answer.ratio - ratio], dim=1)


def _dice(one: Tensor, other: Tensor) -> Tensor:
    axes = (1, 2, 3)
    both, size = (one & other).sum(dim=axes), one.sum(dim=axes) + other.sum(dim=axes)
    return torch.where(size > 0, 2.0 * both / size.clamp(min=1), torch.ones_like(size, dtype=torch.float32))
