"""The house keeps its shape: import contracts hold and catch faults, the wheel holds two packages, starts are light."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import STUDY_S

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
HEAVY = ("torch", "SimpleITK", "scipy", "dbos", "matplotlib", "highdicom")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = [LINT_IMPORTS, "--no-logo", "--no-cache"]
    wide = {**os.environ, "COLUMNS": "200"}  # it wraps long names of contracts
    return subprocess.run(command, cwd=root, env=wide, capture_output=True, text=True, check=False, timeout=STUDY_S)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and their build description, where a test may spoil them."""
    for package in ("dicom_node", "inference"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_import_contracts_hold() -> None:
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "6 kept, 0 broken" in checked.stdout


FAULTS = [
    ("1 Floors", "dicom_node/assembly/completeness.py", "import dicom_node.delivery.outbox"),
    ("1 Floors", "dicom_node/delivery/outcome.py", "import dicom_node.web.health"),
    ("2 The core", "inference/anatomy.py", "import pydicom"),
    ("2 The core", "inference/geometry.py", "import dicom_node.errors"),
    ("3 Serving", "dicom_node/volumes.py", "import inference.phantom"),
    ("4 Listener", "dicom_node/web/health.py", "import torch"),
    ("4 Listener", "dicom_node/delivery/outcome.py", "import inference.resampling"),  # which imports SimpleITK
    ("5 Decisions", "dicom_node/assembly/completeness.py", "import pathlib"),
    ("6 Settings", "dicom_node/delivery/outcome.py", "import dicom_node.settings"),
    ("6 Settings", "dicom_node/ledger.py", "import dbos"),
]


@pytest.mark.parametrize(("contract", "module", "line"), FAULTS)
def test_a_planted_import_breaks_its_contract(copy: Path, contract: str, module: str, line: str) -> None:
    with (copy / module).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    checked = lint_imports(copy)
    assert checked.returncode == 1
    assert re.search(rf"(?m)^{contract}.* BROKEN\b", checked.stdout), checked.stdout


def test_a_module_that_nobody_placed_breaks_the_build(copy: Path) -> None:
    (copy / "dicom_node" / "stray.py").write_text("", encoding="utf-8")
    checked = lint_imports(copy)
    assert checked.returncode == 1
    assert "stray" in checked.stdout


def test_the_wheel_holds_exactly_the_two_packages(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", out, copy]
    subprocess.run(command, check=True, capture_output=True, timeout=STUDY_S)
    (wheel,) = out.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        typed = [name for name in archive.namelist() if name.endswith(".py")]
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dicom_node", "inference"}
    in_tree = {
        str(path.relative_to(copy))
        for package in ("dicom_node", "inference")
        for path in (copy / package).rglob("*.py")
    }
    assert set(typed) == in_tree


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a hook is one file"
            yield (node.module or "").split(".")[0]


def test_what_runs_inside_orthanc_needs_nothing_but_python() -> None:
    hooks = sorted((ROOT / "orthanc_plugin").glob("*.py"))
    assert hooks
    for hook in hooks:
        assert set(imported_modules(hook)) <= set(sys.stdlib_module_names) | {"orthanc"}, hook


@pytest.mark.parametrize(
    "module",
    [
        "dicom_node.cli",
        "dicom_node.intake.listener",
        "dicom_node.intake.orthanc_feed",
        "dicom_node.web.health",
        "dicom_node.delivery.pump",
        "dicom_node.delivery.store_scu",
        "dicom_node.delivery.orthanc_rest",
        "dicom_node.ledger",
        "dicom_node.settings",
    ],
)
def test_it_starts_without_the_heavy_libraries(module: str) -> None:
    script = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=STUDY_S)
    assert run.stdout.split() == []


# Silencing one of these in the product would hide a swallowed error, a print, a shell, pickle or eval.
GUARDED = re.compile(r"#\s*noqa(?!:)|#\s*noqa:[^#]*\b(BLE|T20|E722|S1|S30[17]|S60[245])")


def test_nothing_in_the_product_silences_the_guards() -> None:
    silenced = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in ("dicom_node", "inference", "orthanc_plugin")
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if GUARDED.search(line)
    ]
    assert silenced == []


def test_s13_nothing_reads_a_dicomdir() -> None:
    """CVE-2026-32711: file sets name files elsewhere; nothing here needs them."""
    product = [
        path for package in ("dicom_node", "inference", "orthanc_plugin") for path in (ROOT / package).rglob("*.py")
    ]
    reading = [path for path in product if re.search(r"fileset|FileSet|dicomdir", path.read_text(encoding="utf-8"))]
    assert reading == []
