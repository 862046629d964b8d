"""The patient as a continuous object, and what part of each tissue every voxel of a series holds.

The head is drawn on a coarse grid; a box around each ear is drawn on the series' own grid, where the labyrinth's
points are counted per voxel. A series in which the patient lay differently is drawn from the object again, never
resampled from another series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.anatomy import EarSide
from inference.geometry import FloatArray, VolumeGeometry
from inference.phantom import motion
from inference.phantom.head import TISSUES, Head
from inference.phantom.labyrinth import FluidPoints
from inference.phantom.physics import Tissue
from inference.phantom.voxelization import filled_fractions

COARSE_MM: Final = 2.0
"""Cells of the head away from the ears; nothing there is measured, it only has to look and register like a head."""

BOX_HALF_MM: Final = 21.0
"""Half edge of the box around an ear that is drawn on the series' own grid: labyrinth, canal and cistern."""

RAMP_VOXELS: Final = 4
"""The box fades into the coarse head over this many voxels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """The patient: head and the fluid of the ears that are there. `ear_origins_mm` also names missing ears' places."""

    head: Head
    fluids: Mapping[EarSide, FluidPoints]
    ear_origins_mm: Mapping[EarSide, FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Box:
    """A part of a grid around one ear, from index `start` (k, j, i).

    `parts` (tissue, k, j, i) are the tissues of each voxel, `far_perilymph` (k, j, i) how much of the perilymph part
    counts as lying farthest from the round window (half of it, halfway there).
    """

    side: EarSide
    start: tuple[int, int, int]
    parts: Tensor
    far_perilymph: Tensor

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the grid."""
        k, j, i = (slice(begin, begin + size) for begin, size in zip(self.start, self.parts.shape[1:], strict=True))
        return k, j, i


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """The scene as one series sees it: coarse tissue parts that span the grid, and sharp boxes at the ears."""

    geometry: VolumeGeometry
    coarse: Tensor
    boxes: tuple[Box, ...]


def view(scene: Scene, geometry: VolumeGeometry, patient_pose: FloatArray) -> View:
    """Tissue parts on `geometry` with the patient moved by `patient_pose` (4, 4; identity: as in the MRC)."""
    to_object = motion.inverse(patient_pose)
    return View(
        geometry=geometry,
        coarse=_coarse_head(scene.head, geometry, to_object),
        boxes=tuple(
            box
            for side, origin in scene.ear_origins_mm.items()
            if (box := _ear_box(scene, side, origin, geometry, patient_pose)) is not None
        ),
    )


def mixture(
    view_: View,
    signal: Mapping[Tissue, float],
    *,
    resolution: float,
    perilymph: Mapping[EarSide, tuple[float, float]] | None = None,
) -> NDArray[np.float32]:
    """(K, J, I) float32 signed signal: tissues mixed by volume.

    `perilymph` gives a side's perilymph signals at the round window and farthest from it; a side that is not named has
    `signal`'s everywhere. `resolution` >= 1 is how many voxels one acquired point spans; above 1 the boxes lose the
    outer k-space as in a zero-filled acquisition, with its ringing.
    """
    weights = torch.tensor([signal[tissue] for tissue in TISSUES])
    coarse = torch.tensordot(weights, view_.coarse, dims=1)[None, None]
    full = torch.nn.functional.interpolate(coarse, size=view_.geometry.shape, mode="trilinear", align_corners=True)
    image: NDArray[np.float32] = full[0, 0].numpy()
    for box in view_.boxes:
        usual = signal[Tissue.PERILYMPH]
        near, far = (perilymph or {}).get(box.side, (usual, usual))
        mixed = torch.tensordot(weights, box.parts, dims=1)
        mixed += (near - usual) * box.parts[TISSUES.index(Tissue.PERILYMPH)] + (far - near) * box.far_perilymph
        sharp = _truncate_k_space(mixed.numpy(), resolution)
        ramp = _ramp(sharp.shape)
        image[box.slices] += ramp * (sharp - image[box.slices])
    return image


def _coarse_head(head: Head, geometry: VolumeGeometry, to_object: FloatArray) -> Tensor:
    counts = [
        max(2, int(np.ceil((n - 1) * spacing / COARSE_MM)) + 1)
        for n, spacing in zip(geometry.shape, geometry.spacing_mm, strict=True)
    ]
    axes = [np.linspace(0.0, n - 1.0, count) for n, count in zip(geometry.shape, counts, strict=True)]
    points = _object_points(axes, geometry, to_object)
    return head.fractions(points, edge_mm=COARSE_MM).reshape(len(TISSUES), *counts)


def _ear_box(
    scene: Scene, side: EarSide, origin: FloatArray, geometry: VolumeGeometry, patient_pose: FloatArray
) -> Box | None:
    """The box around one ear, or None where the slab does not reach it."""
    middle = geometry.to_index(patient_pose[:3, :3] @ origin + patient_pose[:3, 3])
    half = BOX_HALF_MM / geometry.spacing_mm
    low = np.maximum(np.floor(middle - half), 0).astype(int)
    high = np.minimum(np.ceil(middle + half) + 1, geometry.shape).astype(int)
    if (high <= low).any():
        return None
    start = (int(low[0]), int(low[1]), int(low[2]))
    size = (int(high[0] - low[0]), int(high[1] - low[1]), int(high[2] - low[2]))
    grid = geometry.crop(start, size)
    to_object = motion.inverse(patient_pose)
    points = _object_points([np.arange(n, dtype=float) for n in size], grid, to_object)
    parts = scene.head.fractions(points, edge_mm=float(grid.spacing_mm.mean())).reshape(len(TISSUES), *size)
    far = torch.zeros(size)
    if side in scene.fluids:
        far = _pour(parts, scene.fluids[side], grid, patient_pose)
    return Box(side=side, start=start, parts=parts, far_perilymph=far)


def _pour(parts: Tensor, fluid: FluidPoints, grid: VolumeGeometry, patient_pose: FloatArray) -> Tensor:
    """Put the labyrinth's fluid into `parts`, displacing what the head had there; returns the far perilymph."""
    total, endolymph, far = (torch.from_numpy(part) for part in _fluid_maps(fluid, grid, patient_pose))
    parts *= 1.0 - total
    parts[TISSUES.index(Tissue.ENDOLYMPH)] += endolymph
    parts[TISSUES.index(Tissue.PERILYMPH)] += total - endolymph
    return far


def fluid_fractions(
    fluid: FluidPoints, grid: VolumeGeometry, patient_pose: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(total fluid, endolymph) parts 0..1 of each voxel of `grid`, float32 (K, J, I)."""
    total, endolymph, _ = _fluid_maps(fluid, grid, patient_pose)
    return total, endolymph


def _fluid_maps(fluid: FluidPoints, grid: VolumeGeometry, patient_pose: FloatArray) -> NDArray[np.float32]:
    """(3, K, J, I) total fluid, endolymph (at most the total), and perilymph weighted by its remoteness."""
    turn, shift = patient_pose[:3, :3].astype(np.float32), patient_pose[:3, 3].astype(np.float32)
    weights = np.ones((3, len(fluid.lps_mm)), dtype=np.float32)
    weights[1] = fluid.is_endolymph
    weights[2] = fluid.remoteness * ~fluid.is_endolymph
    maps = filled_fractions(fluid.lps_mm @ turn.T + shift, weights, fluid.volume_mm3, grid)
    maps[1] = np.minimum(maps[1], maps[0])
    maps[2] = np.minimum(maps[2], maps[0] - maps[1])
    return maps


def _object_points(axes: list[NDArray[np.float64]], grid: VolumeGeometry, to_object: FloatArray) -> Tensor:
    """(3, N) float32 object points of a grid's indices given per axis."""
    index_to_object = (to_object @ grid.index_to_lps).astype(np.float32)
    k, j, i = (torch.from_numpy(axis.astype(np.float32)) for axis in axes)
    rows = [
        a * k[:, None, None] + b * j[None, :, None] + (c * i + d)[None, None, :] for a, b, c, d in index_to_object[:3]
    ]
    return torch.stack(rows).reshape(3, -1)


def _ramp(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """1 inside, falling to 0 over RAMP_VOXELS at every face."""
    ramp = np.ones(shape, dtype=np.float32)
    for axis, n in enumerate(shape):
        edge = np.minimum(np.arange(n), np.arange(n)[::-1]) / RAMP_VOXELS
        ramp *= np.clip(edge, 0.0, 1.0).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return ramp


def _truncate_k_space(image: NDArray[np.float32], resolution: float) -> NDArray[np.float32]:
    """`image` without the spatial frequencies that an acquisition `resolution` times coarser does not measure."""
    if resolution <= 1.0:
        return image
    keep = np.ones(image.shape, dtype=np.float32)
    for axis, n in enumerate(image.shape):
        frequency = np.abs(np.fft.fftfreq(n)) * 2.0 * resolution
        # Half a Hann edge over the last third: scanners apodize, and full ringing would look too sharp.
        window = np.where(frequency < 2 / 3, 1.0, 0.5 + 0.5 * np.cos(np.pi * np.clip(3 * frequency - 2, 0, 1)))
        keep *= window.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    filtered: NDArray[np.float32] = np.fft.ifftn(np.fft.fftn(image) * keep).real.astype(np.float32)
    return filtered
