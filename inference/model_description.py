"""What a model folder says about itself: the record in model.json, checked key by key, and the identity made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Final, Self

from inference.cases import InputSet
from inference.findings import ModelIdentity

IMAGES: Final = ("MRC", "HYDROPS", "HYDROPS_MI2", "PPI", "PEI", "REAL_IR")
"""What a network's input channel can be."""

RESEARCH_USE: Final = "Research use only"
"""How every statement of intended use begins."""

LONGEST_NAME: Final = 64
"""Characters of a name or version: they go into DICOM attributes of value representation LO (PS3.5 6.2)."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What stands in model.json.

    Attributes
    ----------
    name, version
        How results name the model.
    network, network_options
        Arguments of `inference.networks.build_network`.
    inputs
        Which image each input channel is, of `IMAGES`.
    spacing_mm, shape
        Voxel spacing along (k, j, i), and (K, J, I) of the grid that the network was trained on.
    interval_scales
        By input set (`inference.cases.InputSet`): factor >= 0 that calibrates the network's own standard error of the
        EH ratio. A set that is absent was not calibrated.
    training
        Free record of how the weights were made: command, seed, steps, commit ...
    intended_use
        Begins with "Research use only".
    weights_sha256
        SHA-256 of the weights file in hexadecimal; None until it is saved.

    Raises
    ------
    ValueError
        If a value is of another type or outside its range; names the key, the expected and the found.
    """

    name: str
    version: str
    network: str
    network_options: Mapping[str, object]
    inputs: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    interval_scales: Mapping[str, float]
    training: Mapping[str, object]
    intended_use: str
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_grid(self)
        _check_records(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The description in a model.json.

        Raises
        ------
        ValueError
            If `text` is not one JSON object with exactly these keys and fitting values.
        """
        content = json.loads(text, parse_constant=_no_constant)
        keys = [one.name for one in fields(cls)]
        if not isinstance(content, dict):
            raise ValueError(f"expected one JSON object, found {type(content).__name__}")
        missing, unknown = [key for key in keys if key not in content], sorted(set(content) - set(keys))
        if missing or unknown:
            raise ValueError(f"expected the keys {', '.join(keys)}; missing: {missing}, unknown: {unknown}")
        if content["weights_sha256"] is None:
            raise ValueError("weights_sha256: expected 64 hexadecimal digits, found null")
        for key in ("inputs", "spacing_mm", "shape"):
            if isinstance(content[key], list):
                content[key] = tuple(content[key])
        return cls(**content)

    def to_json(self) -> str:
        """The text of model.json."""
        return json.dumps(self._content(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def identity(self) -> ModelIdentity:
        """Name, version, and one digest over everything that changes a number.

        `sha256` covers the weights file's own SHA-256 and network, options, inputs, grid and interval scales: the same
        weights with another calibration give other intervals, and are another model. Training and intended use are left
        out; they explain and change nothing.

        Raises
        ------
        ValueError
            If the weights were not saved yet.
        """
        if self.weights_sha256 is None:
            raise ValueError(f"model {self.name} {self.version} has no identity before its weights are saved")
        decides = ("network", "network_options", "inputs", "spacing_mm", "shape", "interval_scales", "weights_sha256")
        content = {key: value for key, value in self._content().items() if key in decides}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return ModelIdentity(name=self.name, version=self.version, sha256=digest, learned=True)

    def _content(self) -> dict[str, object]:
        """Values by key, mappings as dictionaries."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _no_constant(text: str) -> None:
    raise ValueError(f"expected finite numbers, found {text}")


def _require(key: str, fits: bool, wanted: str, found: object) -> None:
    if not fits:
        raise ValueError(f"{key}: expected {wanted}, found {found!r}")


def _check_texts(told: ModelDescription) -> None:
    for key, value in (("name", told.name), ("version", told.version)):
        short = isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable() and "\\" not in value
        _require(key, short, f"1 to {LONGEST_NAME} printable characters without backslash", value)
    _require("network", isinstance(told.network, str), "the name of a network", told.network)
    begins = isinstance(told.intended_use, str) and told.intended_use.startswith(RESEARCH_USE)
    _require("intended_use", begins, f"a text that begins with {RESEARCH_USE!r}", told.intended_use)
    digest: Any = told.weights_sha256
    hexadecimal = isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    _require("weights_sha256", digest is None or hexadecimal, "64 lower-case hexadecimal digits", digest)


def _check_grid(told: ModelDescription) -> None:
    inputs: Any = told.inputs
    listed = isinstance(inputs, tuple) and bool(inputs) and all(one in IMAGES for one in inputs)
    _require("inputs", listed and len(set(inputs)) == len(inputs), f"different ones of {', '.join(IMAGES)}", inputs)
    shape: Any = told.shape
    whole = isinstance(shape, tuple) and len(shape) == 3 and all(type(one) is int and one > 0 for one in shape)
    _require("shape", whole, "three positive integers (K, J, I)", shape)
    spacing: Any = told.spacing_mm
    three = isinstance(spacing, tuple) and len(spacing) == 3
    _require(
        "spacing_mm", three and all(_number(one) and one > 0 for one in spacing), "three positive numbers", spacing
    )


def _check_records(told: ModelDescription) -> None:
    for key, value in (("network_options", told.network_options), ("training", told.training)):
        named = isinstance(value, Mapping) and all(isinstance(one, str) for one in value)
        _require(key, named, "an object of named values", value)
        try:
            json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: expected what JSON can hold, found {error}") from error
    scales: Any = told.interval_scales
    known = isinstance(scales, Mapping) and set(scales) <= set(InputSet)
    _require("interval_scales", known, f"an object with keys of {', '.join(InputSet)}", scales)
    for key, scale in scales.items():
        _require(f"interval_scales.{key}", _number(scale) and scale >= 0, "a number >= 0", scale)


def _number(value: object) -> bool:
    """True for a finite int or float; JSON's true and false are none, though Python counts them as integers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
