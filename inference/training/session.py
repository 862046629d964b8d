"""One training from a recipe to a model folder, with the record by which it can be made again."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn

from inference.cases import InputSet
from inference.ear_grid import SHAPE, SPACING_MM
from inference.model_store import LoadedModel, ModelDescription, save_model
from inference.networks import build_network
from inference.networks.ear_unet import EarUNet
from inference.networks.pair import PairNetwork
from inference.training.calibration import interval_scales
from inference.training.crop_pool import CropPool
from inference.training.losses import fraction_loss, predicted
from inference.training.own_ears import MixedSource, OwnEarSource, Split, own_scans
from inference.training.presets import Preset
from inference.training.scans import REALISTIC, TRAINING, Scans
from inference.training.sources import EarSource, PhantomSource, phantom_scans
from inference.training.trainer import Answer, Loss, OnStep, Trained, Trainer, TrainingError
from inference.training.widening import can_widen, widen

SCAN_SEED: Final = 3
"""Noise and contrast of the validation scans, each crop with every input set."""
CALIBRATION_SCAN_SEED: Final = 4
SCAN_BATCH: Final = 4

WIDENED: Final = "ear_unet"
"""The network that can be given more feature maps."""

INTENDED_USE: Final = (
    "Research use only. Not for diagnostic use. Segments endolymph and total fluid of inner ears in hydrops MRI; "
    "accuracy on patients is unknown until it is evaluated on patients."
)
PACKAGES: Final = ("hydrops-node", "torch", "numpy", "scipy", "SimpleITK", "safetensors")
"""Whose versions decide the weights, as far as packages do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """What to train, on what, and where it is kept.

    Parameters
    ----------
    preset
        The recipe, with whatever options were chosen instead of its own.
    folder
        Checkpoint and log; a training found there goes on.
    crops
        Folder of the synthetic ears.
    own
        A site's own ears; None trains on synthetic ones alone.
    phantom_share
        Of the ears of a batch, 0..1, that are synthetic; 1 without own ears.
    start
        The model whose weights a fine-tuning begins with; None begins with random ones drawn from the seed. Where the
        recipe's network has more feature maps, it is widened.
    workers
        Processes that draw synthetic ears beside the training.

    Raises
    ------
    TrainingError
        If there is nothing to train on, nobody to draw it, or `start` sees other images than the recipe trains.
    """

    preset: Preset
    folder: Path
    crops: Path
    own: Split | None = None
    phantom_share: float = 1.0
    start: LoadedModel | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.phantom_share <= 1.0 or (self.own is None and self.phantom_share != 1.0):
            raise TrainingError(
                f"expected a share of synthetic ears between 0 and 1 (1 without own ears), found {self.phantom_share}"
            )
        if self.phantom_share > 0.0 and self.workers < 1:
            raise TrainingError(f"expected one or more processes to draw synthetic ears, found {self.workers}")
        if self.start is not None and tuple(self.start.description.inputs) != self.preset.inputs:
            found = self.start.description
            raise TrainingError(
                f"the recipe {self.preset.name} trains a network that sees {', '.join(self.preset.inputs)}; model "
                f"{found.name} {found.version} sees {', '.join(found.inputs)}; choose another recipe or another model"
            )

    @property
    def network(self) -> tuple[str, dict[str, Any]]:
        """Name and options of the network: those of the model it starts from, unless the recipe's is a wider one."""
        told = self.preset if self.start is None or self.widens else self.start.description
        return told.network, dict(told.network_options)

    @property
    def widens(self) -> bool:
        """Whether the recipe's network has all feature maps of the model that the training starts from, and more."""
        if self.start is None or {self.preset.network, self.start.description.network} != {WIDENED}:
            return False
        return can_widen(_maps(self.start.description.network_options), _maps(self.preset.network_options))


def train(session: Session, on_step: OnStep = lambda *_: None) -> Trained:
    """The best network of a training, in the form of `Session.network`.

    Raises
    ------
    TrainingError
        If the folder belongs to another training, or the loss stops being a number.
    CropPoolError
        If synthetic ears cannot be drawn or read.
    """
    validation = _validation(session)
    loss, answer = _task(session.preset)
    with _source(session) as source:
        trainer = Trainer(
            _network(session),
            source,
            validation,
            options=session.preset.options,
            folder=session.folder,
            loss=loss,
            answer=answer,
            identity=_identity(session),
        )
        trained = trainer.run(on_step)
    network = trained.network
    bare = network.network if isinstance(network, PairNetwork) else network
    return Trained(network=bare, best=trained.best, history=trained.history)


def calibrated(session: Session, trained: Trained) -> dict[str, float]:
    """Interval scales by input set, read on synthetic ears of their own; none where the network has no such answer.

    A network that only saw a site's own ears has none either: synthetic ears would say nothing about those.
    """
    preset = session.preset
    if preset.pairs or session.phantom_share == 0.0 or preset.calibration_crops == 0:
        return {}
    pool = CropPool(session.crops, first_seed=preset.first_calibration_seed, count=preset.calibration_crops)
    pool.check()
    with pool.drawn_by(session.workers + torch.get_num_threads()):
        scans = phantom_scans(pool, within=REALISTIC, seed=CALIBRATION_SCAN_SEED, batch=SCAN_BATCH)
    return {chosen.value: scale for chosen, scale in interval_scales(trained.network, scans).items()}


def save(
    session: Session, trained: Trained, folder: Path, *, name: str, version: str, command: str, commit: str | None
) -> ModelDescription:
    """Write the model folder, its intervals calibrated.

    Parameters
    ----------
    name, version
        How results will name the model.
    command, commit
        The command line that makes these weights again, and the source it ran; None if that is not under git.
    """
    network, options = session.network
    description = ModelDescription(
        name=name,
        version=version,
        network=network,
        network_options=options,
        inputs=session.preset.inputs,
        spacing_mm=SPACING_MM,
        shape=SHAPE,
        interval_scales=calibrated(session, trained),
        training=record(session, trained, command=command, commit=commit),
        intended_use=INTENDED_USE,
    )
    return save_model(folder, trained.network, description)


def record(session: Session, trained: Trained, *, command: str, commit: str | None) -> dict[str, object]:
    """What a model folder tells about its training; plain values, no name of a patient or a folder."""
    preset = session.preset
    return {
        "command": command,
        "commit": commit,
        "preset": preset.name,
        **_identity(session),
        "options": asdict(preset.options),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": {"python": platform.python_version(), **_versions(preset)},
        "validation": asdict(trained.best),
        "validated_on": _validated_on(session),
        "seconds": trained.history[-1].seconds,
    }


def _validated_on(session: Session) -> str:
    preset, own = session.preset, session.own
    if own is not None:
        return f"{len(own.validation)} labeled ears of {len(own.cases()['validation'])} cases"
    return (
        f"{preset.validation_crops} synthetic ears, seeds from {preset.first_validation_seed}, each as "
        f"{', '.join(InputSet)}, realistic difficulty (PPI SNR 3 to 12)"
    )


def _versions(preset: Preset) -> dict[str, str]:
    wanted = (*PACKAGES, "monai") if preset.pairs else PACKAGES
    installed = {one.metadata["Name"].lower(): one.version for one in metadata.distributions() if one.metadata["Name"]}
    return {name: installed[name.lower()] for name in wanted if name.lower() in installed}


def _identity(session: Session) -> dict[str, object]:
    """What, beside the options, makes this training this one."""
    network, options = session.network
    own, start, synthetic = session.own, session.start, session.phantom_share > 0.0
    return {
        "network": network,
        "network_options": options,
        "synthetic_ears": session.preset.crops if synthetic else 0,
        "first_synthetic_seed": session.preset.first_seed if synthetic else None,
        "synthetic_share": session.phantom_share,
        "crops_at_first": session.preset.crops_at_first if synthetic else None,
        "rearranged": session.preset.rearranged if synthetic else None,
        "own_ears": 0 if own is None else len(own.training),
        "own_cases": 0 if own is None else len(own.cases()["training"]),
        "own_digest": None if own is None else own.digest(),
        "started_from": None if start is None else start.identity.sha256,
    }


def _network(session: Session) -> nn.Module:
    """The network in the state the training begins with, asked with the node's four channels."""
    name, options = session.network
    torch.manual_seed(session.preset.options.seed)  # nothing may draw between here and the network
    network = build_network(name, **options)
    if session.start is not None and session.widens:
        widen(cast(EarUNet, session.start.network), cast(EarUNet, network))
    elif session.start is not None:
        network.load_state_dict(session.start.network.state_dict())
    return PairNetwork(network) if session.preset.pairs else network


def _maps(options: Mapping[str, object]) -> tuple[int, ...]:
    """Feature maps per level of the network that `options` make."""
    return cast(EarUNet, build_network(WIDENED, **options)).channels


def _task(preset: Preset) -> tuple[Loss, Answer]:
    if not preset.pairs:
        return fraction_loss, predicted
    from inference.training.paper import focal_tversky_loss, nested_maps  # MONAI takes seconds to start

    return focal_tversky_loss, nested_maps


def _validation(session: Session) -> list[Scans]:
    if session.own is not None:
        return own_scans(session.own.validation, batch=SCAN_BATCH)
    preset = session.preset
    pool = CropPool(session.crops, first_seed=preset.first_validation_seed, count=preset.validation_crops)
    pool.check()
    with pool.drawn_by(session.workers + torch.get_num_threads()):
        return phantom_scans(pool, within=REALISTIC, seed=SCAN_SEED, batch=SCAN_BATCH)


@contextmanager
def _source(session: Session) -> Iterator[EarSource]:
    """Where the ears come from; synthetic ones are drawn while the block runs."""
    own = None if session.own is None else OwnEarSource(ears=session.own.training)
    if own is not None and session.phantom_share == 0.0:
        yield own
        return
    pool = CropPool(session.crops, first_seed=session.preset.first_seed, count=session.preset.crops)
    pool.check()
    with pool.drawn_by(session.workers):
        phantoms = PhantomSource(
            pool=pool,
            within=TRAINING,
            at_first=session.preset.crops_at_first,
            rearranged=session.preset.rearranged,
        )
        yield phantoms if own is None else MixedSource(first=own, second=phantoms, second_share=session.phantom_share)
