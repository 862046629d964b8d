"""Weights that others published, made into model folders: so far IE-Vnet's.

A torch checkpoint is a pickle, and a pickle can run code. Here only torch's restricted reader touches it, which knows
tensors and plain containers and refuses everything else; from then on the model is safetensors like every other.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from inference.model_description import ModelDescription
from inference.model_store import (
    MAX_WEIGHTS_BYTES,
    ModelError,
    described_network,
    fill_network,
    save_model,
)
from inference.networks.ie_vnet import SHAPE, SPACING_MM

CONTAINERS: Final = ("state_dict", "model_state_dict", "model", "network", "net")
"""Keys under which training scripts keep the network's tensors beside optimizer and epoch."""

FORMER_PRELU: Final = ".act."
"""How MONAI before 0.4 names the activation after a convolution; IE-Vnet was trained with 0.3.0rc4."""

PRELU: Final = ".adn.A."
"""How MONAI names it since."""

DAMAGED: Final = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch's restricted reader raised on checkpoints that were cut short or had single bytes changed."""

IE_VNET_AXES: Final = "k superior, j anterior, i right"
"""Directions that the published network saw along its axes, in our order."""


def import_ie_vnet(checkpoint: Path, folder: Path) -> ModelDescription:
    """Make a model folder of IE-Vnet's published weights, in the precision they have.

    Parameters
    ----------
    checkpoint
        The published `best_metric_model.pth`, or any checkpoint of the same network: a plain state dict, one inside a
        training script's dictionary, one of a network in a wrapper such as DataParallel.
    folder
        Model folder to write.

    Returns
    -------
    ModelDescription
        As written. The network takes arrays of axes (k, j, i): the published one was trained on (x, y, z), so its
        kernels are transposed, which gives the transposed answer exactly.

    Raises
    ------
    ModelError
        If the file is unreadable, is more than tensors in containers, or does not hold this network.
    """
    content = _content(checkpoint)
    state = _state(_unpickled(content, checkpoint), checkpoint)
    description = _ie_vnet_description(checkpoint.name, hashlib.sha256(content).hexdigest())
    network = described_network(description, where=checkpoint)
    tensors = _renamed(state, network.state_dict())
    fill_network(network, {name: _transposed(tensor) for name, tensor in tensors.items()}, where=checkpoint)
    return save_model(folder, network, description, dtype=torch.float32)


def _ie_vnet_description(file_name: str, file_sha256: str) -> ModelDescription:
    return ModelDescription(
        name="IE-Vnet",
        version="2022",
        network="ie_vnet",
        network_options={},
        inputs=("MRC",),
        spacing_mm=SPACING_MM,
        shape=SHAPE,
        interval_scales={},
        training={
            "source": "Ahmadi et al., Frontiers in Neurology 2022; weights of github.com/pydsgz/IEVNet",
            "file": file_name,
            "file_sha256": file_sha256,
            "axes": IE_VNET_AXES,
            "intensity": "zero padded to the shape, then scaled to 0..1 by minimum and maximum",
        },
        intended_use="Research use only. Total fluid on T2-SPACE crops at 0.2 mm; trained and published by others.",
    )


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_WEIGHTS_BYTES:
            raise ModelError(f"{path}: expected a checkpoint of at most {MAX_WEIGHTS_BYTES} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: expected a torch checkpoint, found: {error.strerror}") from error


def _unpickled(content: bytes, path: Path) -> object:
    """What a checkpoint holds, tensors on the CPU."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: expected tensors in plain containers, found something that is no torch checkpoint or would have "
            f"to run code to be read; save the network's state_dict() alone with the torch it was trained with"
        ) from error
    except DAMAGED as error:
        raise ModelError(f"{path}: expected a torch checkpoint, found a damaged file: {_line(error)}") from error


def _state(held: object, path: Path) -> dict[str, Tensor]:
    """The network's tensors by name, taken out of the dictionary of a training script if they are in one."""
    for key in CONTAINERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping):
        raise ModelError(f"{path}: expected tensors by name, found {type(held).__name__}")
    others = [f"{key} ({type(value).__name__})" for key, value in held.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(
            f"{path}: expected tensors by name, alone or under one of the keys {', '.join(CONTAINERS)}; found "
            f"{', '.join(others[:3])}"
        )
    return {str(key): value for key, value in held.items()}


def _renamed(tensors: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Tensors under today's names, without the prefix of a wrapper around the network (`module.`, `net.` ...)."""
    current = {key.replace(FORMER_PRELU, PRELU): value for key, value in tensors.items()}
    prefixes = [key.removesuffix(name) for name in expected for key in current if key.endswith(name)]
    prefix = min(prefixes, key=len, default="")
    return {key.removeprefix(prefix): value for key, value in current.items()}


def _transposed(tensor: Tensor) -> Tensor:
    """A kernel (out, in, x, y, z) as (out, in, z, y, x); anything else as it is."""
    return tensor.permute(0, 1, 4, 3, 2) if tensor.ndim == 5 else tensor


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
