"""A phantom ear beside a real one: pictures and statistics, both found and measured by the same code on the same grid.

    python bench/phantom_beside_crop.py EAR.nii.gz --out /tmp/beside.png --json /tmp/beside.json

EAR.nii.gz is a heavily T2-weighted MR image (MR cisternography, T2-SPACE, CISS) around one ear, some 40 x 30 x 20 mm,
positions in the header. The picture shows the real ear: keep it out of the repository.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage, signal
from scipy.spatial.transform import Rotation

from inference.anatomy import EarSide
from inference.geometry import Volume, VolumeGeometry
from inference.phantom import imaging, motion
from inference.phantom.head import EAR_LPS_MM, Head
from inference.phantom.hydrops import HydropsPattern
from inference.phantom.labyrinth import BOX_HIGH_MM, BOX_LOW_MM, Labyrinth, evaluate, fill, individual, place
from inference.phantom.physics import MRC, ContrastState, Tissue, signals
from inference.phantom.scene import Scene, mixture, view
from inference.resampling import Interpolation, from_sitk, resample

mpl.use("Agg")
from matplotlib import pyplot as plt

Image = NDArray[np.float32]
Matrix = NDArray[np.float64]

ACQUIRED_MM = 0.5
"""Voxel edge at which the phantom is scanned before it is brought onto the crop's grid, as T2-SPACE of ears is."""

RESOLUTION = 1.3
"""Acquired points are this many voxels wide; makes the phantom's edges about as wide as the crop's."""

ALIGN_MM = 0.6
"""Distance of the points at which an ear is aligned."""

EDGE_MM = 0.16
"""Blur of the average labyrinth while it is aligned, as scale of a logistic edge."""


@dataclass(frozen=True, kw_only=True)
class EarStatistics:
    """What one ear's image measures; signals are parts of the fluid's level.

    `edge_mm` is the distance over which signal would rise from 0 to 1 at the slope found at half maximum;
    `thickness_mm` the diameters of the largest balls that fit, exceeded by 90, 50 and 10 % of the volume.
    """

    fluid_level: float
    fluid_p95: float
    csf: float
    brain: float
    bone: float
    noise: float
    edge_mm: float
    volume_mm3: dict[str, float]
    thickness_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundEar:
    """An ear in an image: `pose` (4, 4) from the average labyrinth's place to where it is, and its voxels (K, J, I)."""

    side: EarSide
    pose: Matrix
    level: float
    labyrinth: NDArray[np.bool_]
    csf: NDArray[np.bool_]
    distance_mm: Image


def nominal(side: EarSide) -> Matrix:
    """Where the average labyrinth lies before it is aligned."""
    origin = np.array(EAR_LPS_MM) * [side.lps_sign, 1, 1]
    return place(side, origin_lps_mm=origin, rotation=np.eye(3), scale=1.0)


def find_ear(volume: Volume) -> FoundEar:
    """The average labyrinth, aligned by 6 parameters, and what floods from it at half maximum."""
    side = EarSide.LEFT if volume.geometry.center_lps_mm[0] > 0 else EarSide.RIGHT
    pose = _aligned(volume, side, _start(volume, side))
    back = np.linalg.inv(pose @ nominal(side))
    lps = volume.geometry.to_lps(np.moveaxis(np.indices(volume.geometry.shape), 0, -1).reshape(-1, 3))
    local = torch.from_numpy((lps @ back[:3, :3].T + back[:3, 3]).T.astype(np.float32))
    parts = [evaluate(Labyrinth(), some).distance for some in torch.split(local, 200_000, dim=1)]
    distance: Image = torch.cat(parts).reshape(volume.geometry.shape).numpy()
    image = volume.array
    level = float(np.median(image[(distance < -0.2) & (image > 0.5 * np.percentile(image, 99.0))]))
    markers = np.zeros(image.shape, np.uint8)
    markers[image < 0.15 * level] = 1
    markers[(distance < -0.1) & (image > 0.5 * level)] = 2
    markers[(distance > 2.0) & (image > 0.4 * level)] = 3
    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray((level - image).astype(np.float32)), sitk.GetImageFromArray(markers), False
    )
    territory = sitk.GetArrayFromImage(flooded)
    return FoundEar(
        side=side,
        pose=pose,
        level=level,
        labyrinth=(territory == 2) & (distance < 2.0),
        csf=(territory == 3) & (image > 0.5 * level),
        distance_mm=distance,
    )


def _start(volume: Volume, side: EarSide) -> Matrix:
    """A shift that lays the average labyrinth on bright voxels with a dark shell around them (1 mm template)."""
    axes = [np.arange(low, high, 1.0) for low, high in zip(BOX_LOW_MM, BOX_HIGH_MM, strict=True)]
    local = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    place_ = nominal(side)
    distance = evaluate(Labyrinth(), torch.from_numpy(local.reshape(-1, 3).T.astype(np.float32))).distance.numpy()
    inside, shell = distance < 0.0, (distance > 0.8) & (distance < 2.2)
    template = (inside / inside.sum() - shell / shell.sum()).reshape(local.shape[:3])
    if side is EarSide.RIGHT:
        template = template[::-1]
    geometry = volume.geometry
    corner = geometry.to_lps(np.array([[0, 0, 0], np.array(geometry.shape) - 1]))
    grids = [np.arange(low, high, 1.0) for low, high in zip(corner.min(axis=0), corner.max(axis=0), strict=True)]
    index = geometry.to_index(np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1))
    smooth = ndimage.gaussian_filter(volume.array, 0.5 / geometry.spacing_mm)
    coarse = ndimage.map_coordinates(smooth, np.moveaxis(index, -1, 0), order=1)
    coarse = np.minimum(coarse, np.percentile(coarse, 95.0))
    score = signal.fftconvolve(coarse, template[::-1, ::-1, ::-1], mode="same")
    best = np.array(np.unravel_index(int(np.argmax(score)), score.shape))
    middle = local.reshape(-1, 3).mean(axis=0) * [side.lps_sign, 1, 1]
    found = np.array([grid[at] for grid, at in zip(grids, best, strict=True)])
    pose = np.eye(4)
    pose[:3, 3] = found - middle - place_[:3, 3]
    return pose


def _aligned(volume: Volume, side: EarSide, pose: Matrix) -> Matrix:
    """`pose` refined by Gauss-Newton: occupancy of the average labyrinth against the image, near its surface."""
    geometry, reach = volume.geometry, np.arange(-13.0, 13.0, ALIGN_MM)
    center = (pose @ nominal(side))[:3, 3]
    lps = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3) + center
    smooth = ndimage.gaussian_filter(volume.array, 0.25 / geometry.spacing_mm)
    bright = ndimage.map_coordinates(smooth, geometry.to_index(lps).T, order=1)

    def occupied(parameters: Matrix, chosen: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        turn = Rotation.from_rotvec(parameters[3:]).as_matrix()
        back = np.linalg.inv(motion.about(center, turn, parameters[:3]) @ pose @ nominal(side))
        local = torch.from_numpy((lps[chosen] @ back[:3, :3].T + back[:3, 3]).T.astype(np.float32))
        distance = evaluate(Labyrinth(), local).distance.numpy().astype(np.float64)
        return distance, 1.0 / (1.0 + np.exp(np.clip(distance / EDGE_MM, -30, 30)))

    parameters = np.zeros(6)
    for _ in range(12):
        distance, _share = occupied(parameters, np.ones(len(lps), bool))
        near = distance < 1.2
        level = np.median(bright[distance < -0.2])
        wanted = np.clip(bright[near] / level, 0.0, 1.0)
        residual = occupied(parameters, near)[1] - wanted
        steps = np.diag([0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
        slopes = np.stack(
            [(occupied(parameters + step, near)[1] - wanted - residual) / step.sum() for step in steps], axis=1
        )
        change = -np.linalg.lstsq(slopes, residual, rcond=None)[0]
        parameters += np.clip(change, -0.5, 0.5) * [1, 1, 1, 0.2, 0.2, 0.2]
    refined: Matrix = motion.about(center, Rotation.from_rotvec(parameters[3:]).as_matrix(), parameters[:3]) @ pose
    return refined


def measure(volume: Volume, ear: FoundEar) -> EarStatistics:
    """Statistics of one ear's image."""
    image, spacing = volume.array / ear.level, volume.geometry.spacing_mm
    mask = ear.labyrinth & (image > 0.5)
    shell = (ear.distance_mm > 1.0) & (ear.distance_mm < 2.5) & ~ear.csf & (image < 0.3)
    away = (ear.distance_mm > 8.0) & (image > 0.1) & (image < 0.45)
    counts, edges = np.histogram(image[away], bins=70, range=(0.1, 0.45))
    slope = np.sqrt(sum(part**2 for part in np.gradient(ndimage.gaussian_filter(image, 0.5), *spacing)))
    rim = mask & ~ndimage.binary_erosion(mask) & (ear.distance_mm < 0.8)
    where = np.argwhere(mask)
    bone = float(np.median(image[shell]))
    return EarStatistics(
        fluid_level=ear.level,
        fluid_p95=float(np.percentile(image[mask], 95.0)),
        csf=float(np.median(image[ear.csf])),
        brain=float(edges[np.argmax(counts)] + np.diff(edges)[0] / 2),
        bone=bone,
        noise=float(1.4826 * np.median(np.abs(image[shell] - bone))),
        edge_mm=float(1.0 / np.median(slope[rim])),
        volume_mm3={
            str(part): float(np.count_nonzero(ear.labyrinth & (image > part))) * volume.geometry.voxel_volume_mm3
            for part in (0.6, 0.5, 0.42)
        },
        thickness_mm=thickness_mm(mask, float(spacing.mean())),
        extent_mm=tuple(float(x) for x in (np.ptp(where, axis=0) + 1) * spacing),
    )


def thickness_mm(mask: NDArray[np.bool_], spacing_mm: float) -> tuple[float, float, float]:
    """Diameters of fitting balls that 90, 50 and 10 % of the volume exceed; granulometry by distance transforms."""
    low, high = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0) + 1
    padded = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], 2)
    depth = ndimage.distance_transform_edt(padded)
    radii = np.arange(1.0, depth.max() + 0.5, 0.5)
    left = []
    for radius in radii:
        core = depth >= radius
        opened = ndimage.distance_transform_edt(~core) < radius if core.any() else core
        left.append(np.count_nonzero(opened & padded) / np.count_nonzero(padded))
    remaining = np.minimum.accumulate(np.array(left))
    found = [float(radii[np.count_nonzero(remaining >= part) - 1]) * 2 * spacing_mm for part in (0.9, 0.5, 0.1)]
    return found[0], found[1], found[2]


def phantom_like(crop: Volume, ear: FoundEar, *, seed: int, snr: float) -> Volume:
    """The ear of a random person, lying as the crop's ear does, scanned with `ACQUIRED_MM` and put on its grid."""
    rng = np.random.default_rng([seed, 77])
    to_lps = nominal(ear.side)
    fluid = fill(individual(rng), to_lps, eh_ratio=None, step_mm=0.12, pattern=HydropsPattern.draw(rng))
    x, y, z = EAR_LPS_MM
    head = Head.individual(rng, right_ear_mm=(-x, y, z), left_ear_mm=(x, y, z))
    scene = Scene(head=head, fluids={ear.side: fluid}, ear_origins_mm={ear.side: to_lps[:3, 3]})
    grid = _acquired_grid(crop.geometry)
    tissue = signals(MRC, ContrastState.NORMAL)
    signed = mixture(view(scene, grid, ear.pose), tissue, resolution=RESOLUTION)
    noisy = imaging.magnitude_image(signed, tissue[Tissue.PERILYMPH] / snr, seed)
    scanned = Volume(array=noisy, geometry=grid)
    return resample(scanned, crop.geometry, interpolation=Interpolation.BSPLINE)


def _acquired_grid(crop: VolumeGeometry) -> VolumeGeometry:
    """The crop's box in voxels of `ACQUIRED_MM`, a few more on each side."""
    zoom = ACQUIRED_MM / crop.spacing_mm
    k, j, i = (int(np.ceil(n / z)) + 8 for n, z in zip(crop.shape, zoom, strict=True))
    affine = crop.index_to_lps.copy()
    affine[:3, :3] = crop.index_to_lps[:3, :3] * zoom
    affine[:3, 3] = crop.to_lps(-4.0 * zoom)
    return VolumeGeometry(shape=(k, j, i), index_to_lps=affine, frame_of_reference_uid=crop.frame_of_reference_uid)


def picture(crop: Volume, phantom: Volume, ears: tuple[FoundEar, FoundEar], out: Path) -> None:
    """Slices 1.6 mm apart through both ears, real above and phantom below, half-maximum outlines in red."""
    index = np.argwhere(ears[0].labyrinth)
    low, high = index[:, 0].min(), index[:, 0].max()
    shown = np.linspace(low, high, 9).round().astype(int)
    figure, panels = plt.subplots(4, len(shown), figsize=(24, 10), constrained_layout=True)
    for row, (volume, ear) in enumerate(zip((crop, phantom), ears, strict=True)):
        image = volume.array / ear.level
        for column, k in enumerate(shown):
            for offset, outlined in ((0, False), (2, True)):
                axes = panels[row + offset, column]
                axes.imshow(image[k], cmap="gray", vmin=0.0, vmax=1.3)
                if outlined and (ear.labyrinth[k] & (image[k] > 0.5)).any():
                    axes.contour(ear.labyrinth[k] & (image[k] > 0.5), [0.5], colors="red", linewidths=0.7)
                axes.set_axis_off()
                axes.set_title(f"{'real' if row == 0 else 'phantom'} {k}", fontsize=9)
    figure.suptitle("Real ear and phantom, same grid. Research use only.")
    figure.savefig(out, dpi=60)
    plt.close(figure)


def main() -> None:
    """Find the ear, scan phantoms like it, print both columns, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crop", type=Path, help="NIfTI file of one real ear")
    parser.add_argument("--out", type=Path, required=True, help="where the picture goes; not into the repository")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--phantoms", type=int, default=3, help="persons to compare with; the first is drawn")
    parser.add_argument("--snr", type=float, default=27.0, help="fluid over noise SD of the phantom's scan")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    read = from_sitk(sitk.ReadImage(str(asked.crop), sitk.sitkFloat32), "2.25.1")
    crop_ear = find_ear(read)
    columns = {"real": measure(read, crop_ear)}
    for seed in range(asked.phantoms):
        phantom = phantom_like(read, crop_ear, seed=seed, snr=asked.snr)
        ear = find_ear(phantom)
        columns[f"phantom {seed}"] = measure(phantom, ear)
        if seed == 0:
            picture(read, phantom, (crop_ear, ear), asked.out)
    print(table(columns))
    if asked.json:
        asked.json.write_text(json.dumps({name: asdict(found) for name, found in columns.items()}, indent=1))


def table(columns: dict[str, EarStatistics]) -> str:
    """One row per number, one column per ear."""
    rows: dict[str, list[str]] = {}
    for found in columns.values():
        for name, value in asdict(found).items():
            numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
            label = f"{name} at {', '.join(value)}" if isinstance(value, dict) else name
            rows.setdefault(label, []).append(" ".join(f"{number:.3g}" for number in numbers))
    lines = [f"{'':34s}" + "".join(f"{name:>22s}" for name in columns)]
    return "\n".join(
        lines + [f"{name:34s}" + "".join(f"{cell:>22s}" for cell in cells) for name, cells in rows.items()]
    )


if __name__ == "__main__":
    main()
