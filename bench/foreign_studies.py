"""Whole studies that no generator of ours drew: a real ear and its mirror image in a plain head, through the pipeline.

    python bench/foreign_studies.py EAR.nii.gz [--input-set PPI_PEI] [--studies 12] [--model shipped]

EAR.nii.gz, endolymph and contrast are those of `real_anatomy.py`: endolymph in patches or along the middle of the
lumen, no relaxation times. The head is an ellipsoid of brain with dark temporal bones and a basal cistern; the slab
(80 x 160 x 160 mm, 1.0 x 0.5 x 0.5 mm) is turned by up to 20 degrees, and the patient moves by up to 2 mm and 2
degrees between the MRC and PPI, and in half of the studies again before PEI. SNR 3 to 12 on PPI, 25 to 60 on MRC.
MRC and contrast series go through ear search, alignment, segmentation and gates, as in `hydrops-node process`. There
is one anatomy in the file, so means tell of the node, not of people.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from real_anatomy import (
    BLUR_VOXELS,
    BONE,
    BRAIN,
    RATIOS,
    TISSUE,
    Anatomy,
    Contrast,
    anatomy_of,
    drawn_snr,
    endolymph_in,
    noisy,
    on_grid,
    side_of,
    signals,
    turned_grid,
)
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dicom_node.assembly.headers import SeriesRole
from dicom_node.cli.evaluation_runs import measure, segmenter
from inference.anatomy import EarSide
from inference.cases import InputSet
from inference.findings import EarFindings
from inference.geometry import FloatArray, Volume, VolumeGeometry

Image = NDArray[np.float32]

SHAPE: Final = (80, 320, 320)
TURN_DEG: Final = 20.0
SHIFT_MM: Final = 5.0
MOTION: Final = 2.0
"""Millimeters and degrees, at most."""

WAYS: Final = ("patches", "middle")
SETS: Final = (InputSet.PPI_PEI, InputSet.HYDROPS, InputSet.REAL_IR)
CSF_ON_MRC: Final = 0.85
EDGE_VOXELS: Final = 0.6
"""SD by which the head's own borders are softened."""

HEAD_MM: Final = (76.0, 96.0, 110.0)
"""Half axes along x, y and z."""

EARS_MM: Final = np.array([0.0, 4.0, -3.0])
"""The ears' midpoint in the head's own frame, whose origin lies in the cistern."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ear:
    """One ear's fine signals by series, and its true ratio; `mirrored`: the crop's mirror image across the midplane."""

    mirrored: bool
    signals: Mapping[str, Image]
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Read:
    """One ear of one study: what is true and what the node said; `value` is None where it gave no number."""

    study: int
    side: str
    true_ratio: float
    value: float | None
    low: float | None
    high: float | None
    codes: tuple[str, ...]


def make_study(
    anatomy: Anatomy, number: int, chosen: InputSet = InputSet.PPI_PEI
) -> tuple[dict[SeriesRole, Volume], dict[EarSide, float]]:
    """One examination's series, and both ears' true ratios; the same patient for every input set."""
    rng = np.random.default_rng([7, number])
    contrast = Contrast.drawn(rng)
    of_crop = side_of(anatomy)
    sides = sorted(EarSide, key=lambda side: side is not of_crop)
    ears = {side: _ear(anatomy, contrast, rng, mirrored=side is not of_crop) for side in sides}
    midpoint = _midpoint(anatomy)
    center = midpoint + rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
    grid = turned_grid(center, SHAPE, TURN_DEG, rng, anatomy.bright.geometry.frame_of_reference_uid)
    ppi_snr, mrc_snr = drawn_snr(rng)
    blur = float(rng.uniform(*BLUR_VOXELS))
    moved = _motion(midpoint, rng)
    again = _motion(midpoint, rng) if rng.uniform() < 0.5 and chosen is InputSet.PPI_PEI else moved

    def acquired(role: str, motion: FloatArray, snr: float) -> Volume:
        signed = _scanned(role, _placed(grid, motion), anatomy, ears.values(), contrast)
        clean = ndimage.gaussian_filter(signed, blur)
        return Volume(array=noisy(clean, snr, rng, signed=role == "REAL_IR"), geometry=grid)

    series = {SeriesRole.MRC: acquired("MRC", np.eye(4), mrc_snr)}
    if chosen is InputSet.REAL_IR:
        series[SeriesRole.REAL_IR] = acquired("REAL_IR", moved, ppi_snr)
    else:
        ppi, pei = acquired("PPI", moved, ppi_snr), acquired("PEI", again, ppi_snr)
        if chosen is InputSet.PPI_PEI:
            series |= {SeriesRole.PPI: ppi, SeriesRole.PEI: pei}
        else:  # what the console subtracts
            series[SeriesRole.HYDROPS] = Volume(array=np.asarray(ppi.array) - np.asarray(pei.array), geometry=grid)
    return series, {side: ear.ratio for side, ear in ears.items()}


def _midpoint(anatomy: Anatomy) -> FloatArray:
    """Between the crop's ear and its mirror image, LPS mm."""
    midpoint: FloatArray = anatomy.bright.geometry.center_lps_mm * np.array([0.0, 1.0, 1.0])
    return midpoint


def _ear(anatomy: Anatomy, contrast: Contrast, rng: np.random.Generator, *, mirrored: bool) -> Ear:
    endolymph = endolymph_in(anatomy, str(rng.choice(WAYS)), float(rng.uniform(*RATIOS)), rng)
    return Ear(
        mirrored=mirrored,
        signals=signals(anatomy, endolymph, contrast),
        ratio=float(endolymph.sum() / anatomy.labyrinth.sum()),
    )


def _motion(center_mm: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(4, 4) rigid, LPS mm, about `center_mm`."""
    axis, way = (one / np.linalg.norm(one) for one in rng.normal(size=(2, 3)))
    turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(0.0, MOTION)) * axis).as_matrix()
    moved = np.eye(4)
    moved[:3, :3] = turn
    moved[:3, 3] = center_mm - turn @ center_mm + rng.uniform(0.0, MOTION) * way
    return moved


def _placed(grid: VolumeGeometry, motion: FloatArray) -> VolumeGeometry:
    return VolumeGeometry(
        shape=grid.shape, index_to_lps=motion @ grid.index_to_lps, frame_of_reference_uid=grid.frame_of_reference_uid
    )


def _scanned(role: str, grid: VolumeGeometry, anatomy: Anatomy, ears: Iterable[Ear], contrast: Contrast) -> Image:
    """Signed signal on a grid: the plain head, and the ears where the crop reaches."""
    image = _head(role, grid, _midpoint(anatomy), contrast)
    for ear in ears:
        signal = _volume(ear.signals[role], anatomy.bright.geometry, mirrored=ear.mirrored)
        there = _reach(signal.geometry, grid)
        part = VolumeGeometry(
            shape=tuple(one.stop - one.start for one in there),
            index_to_lps=_shifted(grid.index_to_lps, [one.start for one in there]),
            frame_of_reference_uid=grid.frame_of_reference_uid,
        )
        covered = on_grid(np.ones(signal.geometry.shape), signal.geometry, part)
        inside = on_grid(signal.array, signal.geometry, part)
        image[there] = inside + (1.0 - covered) * image[there]
    return image


def _volume(array: Image, grid: VolumeGeometry, *, mirrored: bool) -> Volume:
    """The crop, or its mirror image across x = 0 with its columns turned round, so that the grid stays right-handed."""
    if not mirrored:
        return Volume(array=array, geometry=grid)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ grid.index_to_lps
    affine[:3, 3] += affine[:3, 2] * (grid.shape[2] - 1)
    affine[:3, 2] *= -1.0
    turned = VolumeGeometry(shape=grid.shape, index_to_lps=affine, frame_of_reference_uid=grid.frame_of_reference_uid)
    return Volume(array=np.ascontiguousarray(array[:, :, ::-1]), geometry=turned)


def _reach(crop: VolumeGeometry, grid: VolumeGeometry) -> tuple[slice, slice, slice]:
    """Which voxels of `grid` may see the crop."""
    ends = np.stack(np.meshgrid(*([0.0, n - 1.0] for n in crop.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    index = (crop.to_lps(ends) - grid.index_to_lps[:3, 3]) @ np.linalg.inv(grid.index_to_lps[:3, :3]).T
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, np.array(grid.shape) - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, low + 1, grid.shape)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return k, j, i


def _shifted(affine: FloatArray, start: list[int]) -> FloatArray:
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array(start, dtype=np.float64)
    return moved


def _head(role: str, grid: VolumeGeometry, midpoint_mm: FloatArray, contrast: Contrast) -> Image:
    """Brain, temporal bones, and a cistern around the brainstem; air outside."""
    origin = midpoint_mm - EARS_MM
    index = np.indices(grid.shape, dtype=np.float32)
    x, y, z = (
        sum((np.float32(grid.index_to_lps[row, axis]) * index[axis] for axis in range(3)), start=np.float32(0.0))
        + np.float32(grid.index_to_lps[row, 3] - origin[row])
        for row in range(3)
    )
    a, b, c = HEAD_MM
    head = (x / a) ** 2 + ((y - 10.0) / b) ** 2 + (z / c) ** 2 < 1.0
    cistern = ((x / 9.0) ** 2 + ((y - 2.0) / 11.0) ** 2 + (z / 30.0) ** 2 < 1.0) | (
        (np.abs(x) < 22.0) & (((y - 3.0) / 7.0) ** 2 + (z / 12.0) ** 2 < 1.0)
    )
    cistern &= (x / 12.0) ** 2 + ((y - 14.0) / 12.0) ** 2 >= 1.0  # the brainstem
    bone = ((np.abs(x) - 45.0) / 28.0) ** 2 + ((y - 4.0) / 20.0) ** 2 + (z / 15.0) ** 2 < 1.0
    csf, brain, bones = {
        "MRC": (CSF_ON_MRC, BRAIN, BONE),
        "PPI": (contrast.endolymph_ppi, TISSUE, BONE / 2.0),
        "PEI": (contrast.endolymph_pei, TISSUE, BONE / 2.0),
        "REAL_IR": (contrast.endolymph_pei, 2.0 * TISSUE, BONE),
    }[role]
    signal = np.where(cistern, csf, np.where(bone & head, bones, np.where(head, brain, 0.0)))
    softened: Image = ndimage.gaussian_filter(signal.astype(np.float32), EDGE_VOXELS)
    return softened


def read_study(
    number: int, series: Mapping[SeriesRole, Volume], truth: Mapping[EarSide, float], model: str
) -> list[Read]:
    """What the node says of both ears."""
    findings, refusals, _ = measure(series, segmenter(model))
    ears: Mapping[EarSide, EarFindings] = {} if findings is None else findings.ears
    found = []
    for side, true_ratio in truth.items():
        ear = ears.get(side)
        ratio = None if ear is None else ear.ratio
        codes = refusals if ear is None else tuple(flag.code.value for flag in ear.quality)
        value, low, high = (None, None, None) if ratio is None else (ratio.value, ratio.low, ratio.high)
        found.append(
            Read(study=number, side=side.value, true_ratio=true_ratio, value=value, low=low, high=high, codes=codes)
        )
    return found


def _print_sum(readings: list[Read]) -> None:
    off = np.array([one.value - one.true_ratio for one in readings if one.value is not None])
    inside = sum(
        one.low <= one.true_ratio <= one.high for one in readings if one.low is not None and one.high is not None
    )
    print(f"{len(readings)} ears, {len(off)} with a number, {inside} of these inside their interval", end="")
    if len(off) > 1:
        low, high = off.mean() - 1.96 * off.std(ddof=1), off.mean() + 1.96 * off.std(ddof=1)
        print(f": error {np.abs(off).mean():.4f}, bias {off.mean():+.4f}, limits {low:+.3f} {high:+.3f}", end="")
    print()


def main() -> None:
    """Print a line for each ear, and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ear", type=Path, metavar="EAR.nii.gz")
    parser.add_argument(
        "--input-set", choices=[one.value for one in SETS], default=InputSet.PPI_PEI.value, help="(%(default)s)"
    )
    parser.add_argument("--studies", type=int, default=12, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--model", default="shipped", help="`shipped`, `threshold`, or a model folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every reading")
    asked = parser.parse_args()
    anatomy = anatomy_of(asked.ear)
    readings: list[Read] = []
    for number in range(asked.studies):
        for one in read_study(number, *make_study(anatomy, number, InputSet(asked.input_set)), asked.model):
            said = "no number" if one.value is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
            print(
                f"study {number:2} {one.side:5} true {one.true_ratio:.3f}  read {said}  {' '.join(one.codes)}",
                flush=True,
            )
            readings.append(one)
    _print_sum(readings)
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(one) for one in readings], indent=1))


if __name__ == "__main__":
    main()
