"""Everything the dashboard shows of one computed study, as named files in memory: images, fractions, surfaces, stills.

Ears lie on their crop of the MRC grid, so no voxel is resampled for a picture. The files say nothing about whose ears
they are: no name, no date, no UID.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dicom_node.encoding.codes import RESEARCH_USE_TEXT
from dicom_node.encoding.measurements import study_measurements
from dicom_node.encoding.segmentation import segment_masks
from dicom_node.views.images import fraction_file, image_file, label_file
from dicom_node.views.orientation import Plane, display, edge_letters
from dicom_node.views.shelf import MANIFEST
from dicom_node.views.stills import Window, magnitude_window, signed_window, slices_png, surfaces_png
from dicom_node.views.surfaces import ply_file, surface_of
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, StudyFindings
from inference.geometry import Volume, VolumeGeometry

Json = dict[str, Any]

MANIFEST_VERSION: Final = 1

LABELS: Final = {
    (EarSide.RIGHT, FluidSpace.TOTAL_FLUID_SPACE): 1,
    (EarSide.RIGHT, FluidSpace.ENDOLYMPH): 2,
    (EarSide.LEFT, FluidSpace.TOTAL_FLUID_SPACE): 3,
    (EarSide.LEFT, FluidSpace.ENDOLYMPH): 4,
}
"""A label map gives a voxel one label, so endolymph is written over total fluid; odd labels alone are perilymph."""

LABEL_NAMES: Final = {1: "right perilymph", 2: "right endolymph", 3: "left perilymph", 4: "left endolymph"}

WHOLE_GRID: Final = "labels.nii.gz"

MEDIA_TYPES: Final = {".gz": "application/gzip", ".ply": "application/octet-stream", ".png": "image/png"}


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPack:
    """Files by name, the manifest among them."""

    files: Mapping[str, bytes]


def build_view_pack(findings: StudyFindings, mrc_grid: VolumeGeometry) -> ViewPack:
    """The pack of one computed study; ears without a number are left out.

    Parameters
    ----------
    mrc_grid
        The whole grid of the MRC series, for the label map that goes with the original images.

    Raises
    ------
    OutputMismatch
        If an ear does not lie on `mrc_grid`.
    ValueError
        If a measured ear kept no images.
    """
    files: dict[str, bytes] = {WHOLE_GRID: label_file(label_map(findings, mrc_grid))}
    measured = study_measurements(findings)
    ears: Json = {}
    for side in (EarSide.RIGHT, EarSide.LEFT):
        ear = findings.ears.get(side)
        if ear is not None and ear.evaluated:
            own, described = _ear(ear, measured.ear(side).sentence)
            files |= own
            ears[side.value] = described
    manifest = {
        "version": MANIFEST_VERSION,
        "research_use_only": RESEARCH_USE_TEXT,
        "ears": ears,
        "whole_grid": {"file": WHOLE_GRID, "labels": {str(label): name for label, name in LABEL_NAMES.items()}},
        "files": {name: _listed(name, data) for name, data in files.items()},
    }
    return ViewPack(files={**files, MANIFEST: json.dumps(manifest, indent=1, sort_keys=True).encode()})


def label_map(findings: StudyFindings, grid: VolumeGeometry) -> Volume:
    """`LABELS` (uint8) on `grid`, from the same masks as the SEG."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for segment in segment_masks(findings, grid):  # total fluid comes before endolymph
        k, j, i = segment.start
        depth, height, width = segment.mask.shape
        labels[k : k + depth, j : j + height, i : i + width][segment.mask] = LABELS[segment.side, segment.space]
    return Volume(array=labels, geometry=grid)


def _ear(ear: EarFindings, numbers: str) -> tuple[dict[str, bytes], Json]:
    """One measured ear's files, and what the manifest says about them; `numbers` in words, for whoever cannot see."""
    if ear.images is None or ear.fluid is None or ear.hydrops_before_alignment is None:
        raise ValueError(f"the {ear.side} ear has a ratio, but kept no images to look at")
    side = ear.side
    total, endolymph = surface_of(ear.fluid.total_fluid_fraction), surface_of(ear.fluid.endolymph_fraction)
    files = {
        f"{side}_mrc.nii.gz": image_file(ear.images.mrc),
        f"{side}_hydrops.nii.gz": image_file(ear.images.hydrops),
        f"{side}_hydrops_before_alignment.nii.gz": image_file(ear.hydrops_before_alignment),
        f"{side}_total_fluid.nii.gz": fraction_file(ear.fluid.total_fluid_fraction),
        f"{side}_endolymph.nii.gz": fraction_file(ear.fluid.endolymph_fraction),
        f"{side}_labels.nii.gz": label_file(_ear_labels(ear)),
        f"{side}_total_fluid.ply": ply_file(total),
        f"{side}_endolymph.ply": ply_file(endolymph),
        f"{side}_slices.png": slices_png(ear),
        f"{side}_surfaces.png": surfaces_png(side, total, endolymph),
    }
    gray = signed_window(ear.images.hydrops)
    described = {
        "geometry": _geometry(ear.images.mrc.geometry),
        "numbers": numbers,
        "images": {
            "mrc": _image(f"{side}_mrc.nii.gz", magnitude_window(ear.images.mrc)),
            "hydrops": _image(f"{side}_hydrops.nii.gz", gray),
            "before": _image(f"{side}_hydrops_before_alignment.nii.gz", gray),
        },
        "labels": f"{side}_labels.nii.gz",
        "label_of": {space.value: LABELS[side, space] for space in FluidSpace},
        "fractions": {space.value: f"{side}_{_short(space)}.nii.gz" for space in FluidSpace},
        "surfaces": {space.value: f"{side}_{_short(space)}.ply" for space in FluidSpace},
        "stills": {"slices": f"{side}_slices.png", "surfaces": f"{side}_surfaces.png"},
    }
    return files, described


def _short(space: FluidSpace) -> str:
    return {FluidSpace.TOTAL_FLUID_SPACE: "total_fluid", FluidSpace.ENDOLYMPH: "endolymph"}[space]


def _ear_labels(ear: EarFindings) -> Volume:
    """The ear's labels on its crop."""
    assert ear.fluid is not None
    labels = np.zeros(ear.fluid.total_fluid_mask.array.shape, dtype=np.uint8)
    labels[ear.fluid.total_fluid_mask.array.astype(bool)] = LABELS[ear.side, FluidSpace.TOTAL_FLUID_SPACE]
    labels[ear.fluid.endolymph_mask.array.astype(bool)] = LABELS[ear.side, FluidSpace.ENDOLYMPH]
    return Volume(array=labels, geometry=ear.fluid.total_fluid_mask.geometry)


def _geometry(geometry: VolumeGeometry) -> Json:
    """What the viewer needs to put a plane the right way round: the same decision as for the still pictures."""
    planes = {}
    for plane in Plane:
        shown = display(geometry, plane)
        left, right, top, bottom = edge_letters(geometry, shown)
        planes[plane.value] = {
            "through": shown.through,
            "down": shown.down,
            "right": shown.right,
            "flip_down": shown.flip_down,
            "flip_right": shown.flip_right,
            "letters": {"left": left, "right": right, "top": top, "bottom": bottom},
        }
    return {
        "shape": list(geometry.shape),
        "spacing_mm": [round(float(mm), 6) for mm in geometry.spacing_mm],
        "index_to_lps": [[round(float(value), 6) for value in row] for row in geometry.index_to_lps],
        "planes": planes,
    }


def _image(name: str, window: Window) -> Json:
    return {"file": name, "window": [round(window.low, 3), round(window.high, 3)]}


def _listed(name: str, data: bytes) -> Json:
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "media_type": MEDIA_TYPES[name[name.rindex(".") :]],
    }
