"""Nothing with a known hole is installed, and no version with one could be (S26)."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dicom_node.cli.parts import required_packages

ROOT = Path(__file__).parents[2]
HOLES = tomllib.loads((ROOT / "setup" / "known_holes.toml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
REQUIREMENTS = {canonicalize_name(one.name): one for one in map(Requirement, ASKED)}


@pytest.mark.parametrize("part", HOLES["parts"], ids=lambda part: part["name"])
def test_s26_no_version_with_a_known_hole_is_installed_or_asked_for(part: dict) -> None:
    floor = Version(part["floor"])
    assert Version(version(part["name"])) >= floor, f"{part['name']} {version(part['name'])}: {part['hole']}"
    (specifier,) = REQUIREMENTS[canonicalize_name(part["name"])].specifier
    assert specifier.operator in (">=", "==")
    assert Version(specifier.version) >= floor, f"pyproject.toml allows {part['name']} with {part['hole']}"


@pytest.mark.parametrize("part", [*HOLES["parts"], *HOLES["beside"]], ids=lambda part: part["name"])
def test_s26_every_floor_says_which_hole_and_what_it_means(part: dict) -> None:
    assert part["hole"].startswith(("CVE-", "GHSA-"))
    assert len(part["what"].split()) > 5
    assert part.keys() - {"optional"} == {"name", "floor", "hole", "what"}


@pytest.mark.parametrize("part", HOLES["beside"], ids=lambda part: part["name"])
def test_s26_programs_beside_the_node_are_named_where_one_installs(part: dict) -> None:
    assert f"{part['name']} {part['floor']}" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_s26_what_must_not_be_optional_is_among_the_parts_of_the_node() -> None:
    needed = required_packages()
    for part in HOLES["parts"]:
        assert (canonicalize_name(part["name"]) in needed) != part.get("optional", False), part["name"]
