"""Studies of one image each, refused in a moment, a configuration that spends nothing on them, and small ears."""

from __future__ import annotations

from pathlib import Path

from mr_images import STUDY, as_file, make_mr

from inference.phantom import PhantomOptions

SMALL_EARS = PhantomOptions(seed=11, matrix=(160, 96, 32), spacing_mm=(0.8, 0.8, 1.5))
"""Both ears in a twentieth of the voxels of a clinical study: measured and encoded in about a second."""


def study_uid(number: int) -> str:
    return f"{STUDY}.{number}"


def write_small_study(folder: Path, number: int) -> Path:
    """One image; the path of its file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"IM{number}"
    path.write_bytes(as_file(make_mr(StudyInstanceUID=study_uid(number))))
    return path


def quick_config(folder: Path) -> Path:
    """No summary page and no network to load."""
    (folder / "rules.toml").write_text("")
    path = folder / "node.toml"
    path.write_text('assembly.rules_file = "rules.toml"\nprocessing.model = "threshold"\nresults.summary = false\n')
    return path
