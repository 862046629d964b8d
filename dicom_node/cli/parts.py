"""List the parts of this installation, as a software bill of materials (CycloneDX 1.6, JSON).

hydrops-node parts --out parts.cdx.json     the packages that the node needs, as installed; its model; its viewer

For the site's own vulnerability scanner, and for the file of a release. What is listed is what runs here: versions are
read from the installation, not from a requirement. Tools for developing are not part of it.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

NODE: Final = "hydrops-node"
_SCHEMA: Final = "http://cyclonedx.org/schema/bom-1.6.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `parts`."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here instead of to the terminal")


def run(arguments: argparse.Namespace) -> int:
    """Write the list."""
    text = json.dumps(parts_list(made_at=datetime.now(UTC)), indent=1) + "\n"
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


def parts_list(*, made_at: datetime) -> dict[str, Any]:
    """The document. Its serial number is derived from what is listed, so the same installation has the same one."""
    needed = dict(sorted(required_packages().items()))
    packages = [_package(one) for one in needed.values()]
    components = [*packages, _python(), *_model(), *_viewer()]
    node = {"type": "application", "bom-ref": NODE, "name": NODE, "version": distribution(NODE).version}
    content = json.dumps([node, components], sort_keys=True)
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "version": 1,
        "metadata": {"timestamp": made_at.isoformat(timespec="seconds"), "component": node},
        "components": components,
        "dependencies": [
            {"ref": NODE, "dependsOn": [_ref(needed[name]) for name in _direct(distribution(NODE)) if name in needed]},
            *(
                {"ref": _ref(one), "dependsOn": [_ref(needed[name]) for name in _direct(one) if name in needed]}
                for one in needed.values()
            ),
        ],
    }


def required_packages() -> Mapping[str, Distribution]:
    """What the node needs directly and through others, as installed, by normalized name; optional extras left out."""
    found: dict[str, Distribution] = {}
    open_names = _direct(distribution(NODE))
    while open_names:
        name = open_names.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # required under a condition of another kind of machine
            continue
        open_names += _direct(found[name])
    return found


def _direct(of: Distribution) -> list[str]:
    """Normalized names of what a package requires on this machine, without extras; those with extras asked for too."""
    requirements = [Requirement(text) for text in of.requires or ()]
    wanted = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return sorted({_normalized(one.name) for one in wanted})


def _normalized(name: str) -> str:
    """A package's one spelling (the packaging guide's rule)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _ref(of: Distribution) -> str:
    return f"pkg:pypi/{_normalized(of.name)}@{of.version}"


def _package(of: Distribution) -> dict[str, Any]:
    component = {"type": "library", "bom-ref": _ref(of), "name": of.name, "version": of.version, "purl": _ref(of)}
    if "License-Expression" not in of.metadata:
        return component
    return component | {"licenses": [{"expression": of.metadata["License-Expression"]}]}


def _python() -> dict[str, Any]:
    version = platform.python_version()
    return {"type": "platform", "bom-ref": f"python@{version}", "name": "Python", "version": version}


def _model() -> Iterator[dict[str, Any]]:
    """The weights that the node ships, by the digest that it checks before it uses them."""
    from inference.model_store import SHIPPED

    description = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))
    yield {
        "type": "machine-learning-model",
        "bom-ref": f"model@{description['weights_sha256']}",
        "name": description["name"],
        "version": description["version"],
        "hashes": [{"alg": "SHA-256", "content": description["weights_sha256"]}],
    }


def _viewer() -> Iterator[dict[str, Any]]:
    """OHIF, where it is installed."""
    from dicom_node.web.viewer.installation import PINNED, is_installed, viewer_folder

    if is_installed(viewer_folder()):
        purl = f"pkg:npm/{PINNED.package.replace('@', '%40')}@{PINNED.version}"
        yield {
            "type": "application",
            "bom-ref": purl,
            "name": PINNED.package,
            "version": PINNED.version,
            "purl": purl,
        }
