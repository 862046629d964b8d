from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from inference.model_description import ModelDescription

DESCRIPTION = ModelDescription(
    name="ear",
    version="1.2",
    network="ear_unet",
    network_options={"channels": [16, 32], "inputs": 4},
    inputs=("MRC", "HYDROPS", "PPI", "REAL_IR"),
    spacing_mm=(1.0, 0.5, 0.5),
    shape=(24, 48, 48),
    interval_scales={"PPI_PEI": 1.1, "REAL_IR": 0},
    training={"command": "hydrops-node train", "seed": 7},
    intended_use="Research use only. Not for diagnostic use.",
    weights_sha256="0" * 64,
)


def as_json(**changes: object) -> str:
    """model.json with some values changed; a value of ... leaves its key out."""
    content = json.loads(DESCRIPTION.to_json()) | changes
    return json.dumps({key: value for key, value in content.items() if value is not ...})


def test_a_description_comes_back_from_json_as_it_was() -> None:
    assert ModelDescription.from_json(DESCRIPTION.to_json()) == DESCRIPTION


def test_json_says_everything_a_person_asks_first() -> None:
    content = json.loads(DESCRIPTION.to_json())
    assert content["inputs"] == ["MRC", "HYDROPS", "PPI", "REAL_IR"]
    assert content["spacing_mm"] == [1.0, 0.5, 0.5]
    assert content["training"]["seed"] == 7


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name: expected 1 to 64 printable characters without backslash, found ''"),
    ({"name": "a" * 65}, "name: expected 1 to 64 printable"),
    ({"version": "1\\2"}, "version: expected 1 to 64 printable characters without backslash, found '1\\\\2'"),
    ({"version": 1}, "version: expected 1 to 64 printable characters without backslash, found 1"),
    ({"network": 3}, "network: expected the name of a network, found 3"),
    ({"network_options": [1]}, "network_options: expected an object of named values, found [1]"),
    ({"inputs": []}, "inputs: expected different ones of MRC,"),
    ({"inputs": "MRC"}, "inputs: expected different ones of MRC,"),
    ({"inputs": ["MRC", "MRC"]}, "inputs: expected different ones of MRC,"),
    ({"inputs": ["MRC", "FLAIR"]}, "found ('MRC', 'FLAIR')"),
    ({"inputs": ["MRC", {}]}, "found ('MRC', {})"),
    ({"spacing_mm": [1.0, 0.5]}, "spacing_mm: expected three positive numbers, found (1.0, 0.5)"),
    ({"spacing_mm": [1.0, 0.5, 0]}, "spacing_mm: expected three positive numbers"),
    ({"spacing_mm": [True, 0.5, 0.5]}, "spacing_mm: expected three positive numbers, found (True, 0.5, 0.5)"),
    ({"shape": [24, 48, 48.0]}, "shape: expected three positive integers (K, J, I), found (24, 48, 48.0)"),
    ({"shape": [24, 48, -1]}, "shape: expected three positive integers"),
    ({"shape": 24}, "shape: expected three positive integers (K, J, I), found 24"),
    ({"interval_scales": {"PEI": 1.0}}, "interval_scales: expected an object with keys of PPI_PEI,"),
    ({"interval_scales": {"PPI_PEI": -0.1}}, "interval_scales.PPI_PEI: expected a number >= 0, found -0.1"),
    ({"interval_scales": {"PPI_PEI": "1"}}, "interval_scales.PPI_PEI: expected a number >= 0, found '1'"),
    ({"interval_scales": {"PPI_PEI": True}}, "interval_scales.PPI_PEI: expected a number >= 0, found True"),
    ({"training": "none"}, "training: expected an object of named values, found 'none'"),
    ({"intended_use": "Diagnosis"}, "intended_use: expected a text that begins with 'Research use only'"),
    ({"weights_sha256": "0" * 63}, "weights_sha256: expected 64 lower-case hexadecimal digits"),
    ({"weights_sha256": "G" * 64}, "weights_sha256: expected 64 lower-case hexadecimal digits"),
    ({"weights_sha256": None}, "weights_sha256: expected 64 hexadecimal digits, found null"),
    ({"licence": "MIT"}, "missing: [], unknown: ['licence']"),
    ({"shape": ...}, "missing: ['shape'], unknown: []"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_wrong_value_is_refused_by_key_expected_and_found(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelDescription.from_json(as_json(**changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected one JSON object, found list"),
        ("{", "Expecting property name"),
        (as_json().replace("1.1", "NaN"), "expected finite numbers, found NaN"),
        (as_json().replace("1.1", "1e999"), "interval_scales.PPI_PEI: expected a number >= 0, found inf"),
    ],
)
def test_what_is_no_description_at_all_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelDescription.from_json(text)


@pytest.mark.parametrize("value", [np.zeros(2), {1, 2}, float("nan")])
def test_a_training_record_that_json_cannot_hold_is_refused_at_once(value: object) -> None:
    with pytest.raises(ValueError, match="training: expected what JSON can hold"):
        replace(DESCRIPTION, training={"loss": value})


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_sha256": "1" * 64},
        {"interval_scales": {"PPI_PEI": 1.2, "REAL_IR": 0}},
        {"network_options": {"channels": [16, 48], "inputs": 4}},
        {"network": "oto_unet"},
        {"inputs": ("MRC", "HYDROPS_MI2", "PPI", "REAL_IR")},
        {"spacing_mm": (1.0, 0.5, 0.4)},
        {"shape": (24, 48, 64)},
    ],
)
def test_whatever_changes_a_number_changes_the_identity(changes: dict[str, Any]) -> None:
    assert replace(DESCRIPTION, **changes).identity.sha256 != DESCRIPTION.identity.sha256


@pytest.mark.parametrize("changes", [{"training": {}}, {"intended_use": "Research use only; teaching."}])
def test_what_only_explains_leaves_the_identity_as_it_is(changes: dict[str, Any]) -> None:
    assert replace(DESCRIPTION, **changes).identity == DESCRIPTION.identity


def test_the_identity_names_a_learned_model() -> None:
    identity = DESCRIPTION.identity
    assert (identity.name, identity.version, identity.learned) == ("ear", "1.2", True)
    assert re.fullmatch("[0-9a-f]{64}", identity.sha256)


def test_the_identity_survives_the_way_through_json() -> None:
    tuples = replace(DESCRIPTION, network_options={"inputs": 4, "channels": (16, 32)})
    assert ModelDescription.from_json(tuples.to_json()).identity == DESCRIPTION.identity


def test_without_saved_weights_there_is_no_identity() -> None:
    with pytest.raises(ValueError, match=r"ear 1\.2 has no identity before its weights are saved"):
        _ = replace(DESCRIPTION, weights_sha256=None).identity
