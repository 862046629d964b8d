"""Ears made of two balls, on any grid: fluid of known volume and place, for tests that need no anatomy.

The ear's larger ball is fluid; a smaller one inside it, off center, is endolymph. Fractions fall linearly over one
voxel's width at a ball's rim, so volumes are right to a per cent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.cases import EarCase
from inference.findings import EarImages, EarROI
from inference.geometry import Volume, VolumeGeometry

FLUID_MM, ENDOLYMPH_MM = 4.0, 2.4
"""Radii."""

FLUID_MM3, ENDOLYMPH_MM3 = 4.0 / 3.0 * np.pi * np.array([FLUID_MM, ENDOLYMPH_MM]) ** 3

LEFT_EAR_MM = np.array([40.0, 6.0, -10.0])
ENDOLYMPH_AT_MM = np.array([0.9, -0.6, 0.4])
"""From the center of a left ear; x is mirrored for a right one."""

SUPERIOR, POSTERIOR, LEFT = np.eye(3)[2], np.eye(3)[1], np.eye(3)[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class BallEar:
    """One ear's truth and images on one grid; gray values as a scanner might give them."""

    images: EarImages
    total_fluid: Volume
    endolymph: Volume

    def case(self, **tags: str | float) -> EarCase:
        side = {"case": "one", "side": self.images.roi.side.value, "input_set": "HYDROPS", **tags}
        return EarCase(images=self.images, total_fluid=self.total_fluid, endolymph=self.endolymph, tags=side)


def center_mm(side: EarSide) -> NDArray[np.float64]:
    return LEFT_EAR_MM * [side.lps_sign, 1.0, 1.0]


def grid_around(
    center: NDArray[np.float64],
    *,
    axes: tuple[NDArray[np.float64], ...] = (SUPERIOR, POSTERIOR, LEFT),
    spacing: tuple[float, float, float] = (1.0, 0.5, 0.5),
    extent_mm: float = 32.0,
) -> VolumeGeometry:
    """A cube of `extent_mm` whose middle voxel lies at `center`; `axes` are where k, j and i grow."""
    shape = tuple(round(extent_mm / mm) for mm in spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack(axes, axis=1) * spacing
    affine[:3, 3] = center - affine[:3, :3] @ (np.array(shape) // 2)
    return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid="2.25.7")


def ball(grid: VolumeGeometry, center: NDArray[np.float64], radius_mm: float) -> NDArray[np.float32]:
    """Part of each voxel inside a ball, 0..1."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    distance = np.linalg.norm(grid.to_lps(index) - center, axis=-1)
    width = float(grid.voxel_volume_mm3 ** (1.0 / 3.0))
    return np.clip(0.5 + (radius_mm - distance) / width, 0.0, 1.0).astype(np.float32)


def ball_ear(
    side: EarSide = EarSide.LEFT,
    grid: VolumeGeometry | None = None,
    *,
    endolymph_mm: float = ENDOLYMPH_MM,
    stray_mm: float | None = None,
    believed_off_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> BallEar:
    """An ear at `center_mm(side)`.

    `stray_mm` puts another ball of fluid, radius 1.5 mm, that far behind the rim; `believed_off_mm` is how wrong the
    localizer was.
    """
    center = center_mm(side)
    grid = grid or grid_around(center)
    total = ball(grid, center, FLUID_MM)
    endolymph = np.minimum(ball(grid, center + ENDOLYMPH_AT_MM * [side.lps_sign, 1.0, 1.0], endolymph_mm), total)
    bright = total
    if stray_mm is not None:
        bright = np.maximum(total, ball(grid, center + np.array([0.0, FLUID_MM + stray_mm + 1.5, 0.0]), 1.5))
    x, y, z = (float(value) for value in center + believed_off_mm)
    perilymph = total - endolymph
    images = EarImages(
        roi=EarROI(side=side, center_lps_mm=(x, y, z), geometry=grid, score=1.0),
        mrc=Volume(array=700.0 * bright, geometry=grid),
        hydrops=Volume(array=(80.0 * perilymph - 50.0 * endolymph).astype(np.float32), geometry=grid),
    )
    return BallEar(
        images=images,
        total_fluid=Volume(array=total, geometry=grid),
        endolymph=Volume(array=endolymph, geometry=grid),
    )


def write_case(folder: Path, *, seed: int = 0, side: EarSide = EarSide.LEFT, **tags: str | float) -> Path:
    """A NIfTI case of one ear, with a little noise and its own amount of endolymph; returns its folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ear = ball_ear(side, endolymph_mm=float(rng.uniform(1.6, 3.0)))
    volumes = {
        "mrc": ear.images.mrc,
        "hydrops": ear.images.hydrops,
        "total_fluid": ear.total_fluid,
        "endolymph": ear.endolymph,
    }
    for name, volume in volumes.items():
        noise = rng.normal(0.0, 4.0, volume.array.shape) if name in ("mrc", "hydrops") else 0.0
        write_nifti(folder / f"{name}.nii.gz", Volume(array=volume.array + noise, geometry=volume.geometry))
    if tags:
        (folder / "case.json").write_text(json.dumps(tags))
    return folder


def write_nifti(path: Path, volume: Volume) -> None:
    """NIfTI is (i, j, k) in RAS."""
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.index_to_lps[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(np.asarray(volume.array, dtype=np.float32).transpose(2, 1, 0), to_ras)
    image.header.set_qform(to_ras, code=1)
    nibabel.save(image, path)
