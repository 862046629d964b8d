"""The list of parts: valid CycloneDX, and what is in it is what is installed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from dicom_node.cli import main
from dicom_node.cli.parts import parts_list
from inference.model_store import SHIPPED

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def document() -> dict:
    return parts_list(made_at=NOON)


def test_s26_the_list_is_valid_by_the_schema_of_its_form(document: dict) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(document)) is None
    assert validator.validate_str(json.dumps(document | {"components": [{"name": "nameless kind"}]})) is not None


def test_s26_every_package_that_the_node_needs_is_listed_as_installed(document: dict) -> None:
    listed = {one["name"].lower(): one["version"] for one in document["components"] if one["type"] == "library"}
    for name in ("pydicom", "pynetdicom", "torch", "sqlalchemy", "urllib3", "starlette", "h11"):
        assert listed[name] == version(name)
    assert not {"pytest", "mypy", "ruff"} & set(listed)


def test_s26_the_weights_are_listed_by_their_digest(document: dict) -> None:
    (model,) = [one for one in document["components"] if one["type"] == "machine-learning-model"]
    expected = json.loads((SHIPPED / "model.json").read_text())["weights_sha256"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": expected}]


def test_s26_every_dependency_leads_to_a_listed_part(document: dict) -> None:
    known = {one["bom-ref"] for one in document["components"]}
    for one in document["dependencies"]:
        assert one["ref"] in known | {"hydrops-node"}
        assert set(one["dependsOn"]) <= known


def test_s26_the_same_installation_gives_the_same_list(document: dict, tmp_path: Path) -> None:
    out = tmp_path / "parts.cdx.json"
    assert main(["parts", "--out", str(out)]) == 0
    again = json.loads(out.read_text())
    assert again["serialNumber"] == document["serialNumber"]
    assert again["components"] == document["components"]
