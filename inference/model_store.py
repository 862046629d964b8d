"""Model folders: weights that say themselves what they are, from which images, and how they were made.

    FOLDER/model.json            which network, its inputs, its calibration, its training, what it may be used for
    FOLDER/weights.safetensors   its tensors, half precision, and nothing that could run

Nothing of a weights file is used before its SHA-256 is found to be the one in model.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from inference.findings import ModelIdentity
from inference.model_description import ModelDescription
from inference.networks import build_network, input_channels

__all__ = [
    "SHIPPED",
    "LoadedModel",
    "ModelDescription",
    "ModelError",
    "load_model",
    "read_description",
    "replace_description",
    "save_model",
]

DESCRIPTION_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "weights.safetensors"

MAX_WEIGHTS_BYTES: Final = 256 * 2**20
"""Fifty times the shipped weights; a larger file is not one of ours, and is not read into memory."""


class ModelError(ValueError):
    """A model folder or a weights file cannot be used; names the file, what was expected and what was found."""


SHIPPED: Final = Path(__file__).parent / "models" / "ear"
"""The model folder that comes with the node."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A network ready to be asked (float32, evaluation mode, no gradients), and what it is."""

    network: nn.Module
    description: ModelDescription
    identity: ModelIdentity


def load_model(folder: Path) -> LoadedModel:
    """The model in `folder`, on the CPU; its files are read and checked, nothing in them runs.

    Raises
    ------
    ModelError
        If a file is missing or unreadable, model.json does not describe a model, the weights file is not the described
        one, or its tensors are not those of the described network (names, shapes, types, finite values).
    """
    description = read_description(folder)
    weights = folder / WEIGHTS_FILE
    content = _read(weights)
    found = hashlib.sha256(content).hexdigest()
    if found != description.weights_sha256:
        raise ModelError(
            f"{weights}: expected the SHA-256 {description.weights_sha256} that stands in {DESCRIPTION_FILE}, found "
            f"{found} ({len(content)} bytes); the file is damaged or belongs to another model, copy the folder again"
        )
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ModelError(f"{weights}: expected a safetensors file, found: {error}") from error
    network = described_network(description, where=folder / DESCRIPTION_FILE)
    fill_network(network, tensors, where=weights)
    return LoadedModel(network=network.eval(), description=description, identity=description.identity)


def read_description(folder: Path) -> ModelDescription:
    """What `folder` says it holds, without its weights.

    Raises
    ------
    ModelError
        If model.json is missing, unreadable or does not describe a model.
    """
    path = folder / DESCRIPTION_FILE
    try:
        return ModelDescription.from_json(_read(path).decode("utf-8"))
    except ModelError:
        raise
    except ValueError as error:  # also what is no UTF-8 or no JSON
        raise ModelError(f"{path}: {error}") from error


def save_model(
    folder: Path, network: nn.Module, description: ModelDescription, *, dtype: torch.dtype = torch.float16
) -> ModelDescription:
    """Write `network` into `folder` and return its description with the weights' SHA-256.

    Equal tensors give equal bytes. Files of an earlier model in `folder` are replaced one after the other; a folder
    that a crash left between the two does not load.

    Parameters
    ----------
    folder
        Made if it is missing.
    network
        The network that `description` names, with the weights to keep.
    description
        Its `weights_sha256` is replaced.
    dtype
        Precision in the file; half is enough for shipped weights and halves the file.

    Raises
    ------
    ModelError
        If `network` is not the described one, or a weight is not finite or too large for that precision.
    """
    where = folder / WEIGHTS_FILE
    tensors = {name: _stored(name, tensor, dtype, where) for name, tensor in network.state_dict().items()}
    fill_network(described_network(description, where=where), tensors, where=where)  # whatever is written can be loaded
    content = save(tensors)
    described = replace(description, weights_sha256=hashlib.sha256(content).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    _write(where, content)
    _write(folder / DESCRIPTION_FILE, described.to_json().encode("utf-8"))
    return described


def replace_description(folder: Path, description: ModelDescription) -> None:
    """Write another model.json beside the same weights.

    Raises
    ------
    ModelError
        If `description` is not of the weights in `folder`.
    """
    told = read_description(folder).weights_sha256
    if description.weights_sha256 != told:
        raise ModelError(
            f"{folder / DESCRIPTION_FILE}: expected weights_sha256 {told}, found {description.weights_sha256}"
        )
    _write(folder / DESCRIPTION_FILE, description.to_json().encode("utf-8"))


def described_network(description: ModelDescription, *, where: Path) -> nn.Module:
    """The described network without storage for its tensors; `fill_network` brings them.

    `where` names the source in errors. Without storage, nothing is drawn from torch's random generator, and a width of
    millions costs no memory before the shapes are compared.

    Raises
    ------
    ModelError
        If there is no such network, it refuses its options, or it takes another number of images.
    """
    try:
        with torch.device("meta"):
            network = build_network(description.network, **description.network_options)
    except (ValueError, TypeError, RuntimeError, ModuleNotFoundError) as error:
        options = dict(description.network_options)
        raise ModelError(f"{where}: network {description.network!r} with options {options}: {error}") from error
    takes = input_channels(network)
    if takes != len(description.inputs):
        raise ModelError(
            f"{where}: network {description.network!r} takes {takes} image(s), found the inputs "
            f"{', '.join(description.inputs)}"
        )
    return network


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Give `network` its tensors, floating point ones as float32; `where` names their source in errors.

    Raises
    ------
    ModelError
        If names, shapes or kinds (floating point or integer) are not those of the network, or a value is not finite.
    """
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise ModelError(
            f"{where}: expected the {len(expected)} tensors of {type(network).__name__}, found {len(tensors)}; "
            f"missing: {_some(missing)}; not of this network: {_some(extra)}"
        )
    for name, wanted in expected.items():
        found = tensors[name]
        if found.shape != wanted.shape or found.is_floating_point() != wanted.is_floating_point():
            raise ModelError(f"{where}: {name}: expected {_kind(wanted)}, found {_kind(found)}")
        if not torch.isfinite(found).all():
            bad = int((~torch.isfinite(found)).sum())
            raise ModelError(f"{where}: {name}: expected finite values, found {bad} of {found.numel()} that are not")
    ready = {
        name: tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    network.load_state_dict(ready, assign=True)
    network.requires_grad_(False)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype, where: Path) -> Tensor:
    """A tensor as the file holds it: on the CPU, plain memory order, shared with nothing."""
    if not tensor.is_floating_point():
        return tensor.detach().to("cpu", copy=True).contiguous()
    largest, limit = float(tensor.detach().abs().max()), torch.finfo(dtype).max
    if not largest <= limit:
        kind = str(dtype).removeprefix("torch.")
        raise ModelError(f"{where}: {name}: expected finite values up to {limit:g} ({kind}), found {largest:g}")
    return tensor.detach().to("cpu", dtype, copy=True).contiguous()


def _kind(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'a scalar'} of {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_WEIGHTS_BYTES:
            raise ModelError(f"{path}: expected at most {MAX_WEIGHTS_BYTES} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: expected a model folder with {DESCRIPTION_FILE} and {WEIGHTS_FILE}, found: {error.strerror}"
        ) from error


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
