"""Real anatomy with endolymph of our making: how a method reads ears that no generator of ours drew.

    python bench/real_anatomy.py EAR.nii.gz [--draws 24] [--model shipped] [--json FILE]

EAR.nii.gz is a heavily T2-weighted MR image around one ear (MR cisternography, T2-SPACE, CISS), finer than clinical.
Its labyrinth is its fluid at half maximum; its surroundings are as bright on the MRC as they are in the file.
Endolymph is put into the labyrinth in four ways that anatomy does not know: in patches, along the middle of the
lumen, along the walls, in specks finer than the voxels. Contrast is of the plainest kind, without relaxation times: PPI
shows perilymph; PEI shows endolymph, and with the other sign some perilymph; CSF is like endolymph. Every draw turns
and shifts the clinical grid (1.0 x 0.5 x 0.5 mm) over the ear, averages each voxel, blurs, shifts the contrast series
by what registration may leave, and adds noise: SNR 3 to 12 on PPI, 25 to 60 on MRC. There is one anatomy in the file:
means over draws tell of a method, not of people.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dicom_node.cli.evaluation_runs import segmenter
from inference.anatomy import EarSide
from inference.cases import CERTAIN_SIDE_MM, InputSet
from inference.evaluation.real_crop import CLINICAL_MM, averaged, half_maximum
from inference.findings import EarFluid, EarImages, EarROI
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import from_sitk
from inference.segmentation import FluidSegmenter

Image = NDArray[np.float32]

SHAPE: Final = (26, 56, 56)
"""Clinical voxels around one ear."""

BEYOND_MM: Final = 12.0
"""So far the crop's outermost voxels go on outward, where a turned box reaches out of it."""

TURN_DEG: Final = 15.0
OFF_CENTER_MM: Final = 0.5
LEFT_BY_REGISTRATION_MM: Final = 0.1
RATIOS: Final = (0.06, 0.5)
PPI_SNR: Final = (3.0, 12.0)
MRC_SNR: Final = (25.0, 60.0)
BLUR_VOXELS: Final = (0.0, 0.35)
"""SD of the scanner's point spread beyond the voxel itself; a resolution of 1.3 widens about as much."""

CSF_FROM: Final = 0.6
"""Of the fluid's level on the crop: brighter surroundings are CSF, darker ones tissue."""

RIM_MM: Final = 1.0
"""So far beyond the labyrinth the crop's own blur may shine on its MRC (0.09 of the fluid at half a millimeter); left
there, it would be a little fluid without perilymph."""

BONE: Final = 0.02
BRAIN: Final = 0.2
"""On MRC, of the fluid's level, as in the real crop that this was written beside."""

TISSUE: Final = 0.12
"""Signal of brain on PPI and PEI over that of perilymph on PPI; it cancels in their difference."""

PATCHES_MM: Final = (0.6, 1.4)
SPECKS_MM: Final = (0.1, 0.25)
"""SD of the smoothing of the noise whose highest values are endolymph."""

SCANNER_UNITS: Final = 1000.0
"""Of fluid on MRC and of perilymph on PPI."""

WAYS: Final = ("patches", "middle", "walls", "specks")


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """The crop's fine grid: its gray values with fluid as 1, its labyrinth (bool), and how deep in it a voxel lies."""

    bright: Volume
    labyrinth: NDArray[np.bool_]
    depth_mm: Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Scanned:
    """One draw: what each input set has of the ear, and the true parts (0..1) of total fluid and endolymph."""

    way: str
    snr: float
    ears: Mapping[InputSet, EarImages]
    total: Image
    endolymph: Image


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One ear as it was read; Dice by the half-voxel rule."""

    way: str
    input_set: str
    snr: float
    true_ratio: float
    ratio: float
    fluid_dice: float
    endolymph_dice: float


def anatomy_of(path: Path) -> Anatomy:
    """The ear of a file.

    Raises
    ------
    SystemExit
        If there is no labyrinth in the middle of the crop, or its place does not tell the side.
    """
    fine = from_sitk(sitk.ReadImage(str(path), sitk.sitkFloat32), frame_of_reference_uid="crop")
    inside = np.asarray(half_maximum(fine).array) > 0.5
    if not inside.any():
        raise SystemExit(f"{path}: expected a bright labyrinth around the middle of the crop, found none")
    from_middle_mm = float(abs(fine.geometry.center_lps_mm[0]))
    if from_middle_mm < CERTAIN_SIDE_MM:
        raise SystemExit(
            f"{path}: expected scanner coordinates, found the ear {from_middle_mm:.0f} mm from their middle"
        )
    array = np.asarray(fine.array, dtype=np.float32)
    depth = ndimage.distance_transform_edt(inside, sampling=fine.geometry.spacing_mm).astype(np.float32)
    level = float(np.median(array[depth > 0.4]))
    return Anatomy(
        bright=Volume(array=np.clip(array / level, 0.0, 1.5), geometry=fine.geometry), labyrinth=inside, depth_mm=depth
    )


def with_surroundings(anatomy: Anatomy) -> Anatomy:
    """The same ear on a larger grid: what the crop shows at its border goes on beyond it, fluid does not."""
    fine = anatomy.bright.geometry
    margin = np.ceil(BEYOND_MM / np.array(fine.spacing_mm)).astype(int)
    affine = fine.index_to_lps.copy()
    affine[:3, 3] = fine.to_lps(-margin.astype(np.float64))
    k, j, i = (int(n + 2 * m) for n, m in zip(fine.shape, margin, strict=True))
    geometry = VolumeGeometry(shape=(k, j, i), index_to_lps=affine, frame_of_reference_uid=fine.frame_of_reference_uid)
    around = [(int(m), int(m)) for m in margin]
    return Anatomy(
        bright=Volume(array=np.pad(np.asarray(anatomy.bright.array), around, mode="edge"), geometry=geometry),
        labyrinth=np.pad(anatomy.labyrinth, around),
        depth_mm=np.pad(anatomy.depth_mm, around),
    )


def endolymph_in(anatomy: Anatomy, way: str, ratio: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """That part of the labyrinth, on the fine grid, put there in one of `WAYS`."""
    spacing = np.array(anatomy.bright.geometry.spacing_mm)
    rough = rng.normal(size=anatomy.labyrinth.shape).astype(np.float32)
    width_mm = rng.uniform(*(SPECKS_MM if way == "specks" else PATCHES_MM))
    patches = ndimage.gaussian_filter(rough, width_mm / spacing)
    score = patches / patches[anatomy.labyrinth].std()
    if way in ("middle", "walls"):
        deep = ndimage.gaussian_filter(anatomy.depth_mm, 0.2 / spacing)
        score = 0.5 * score + (2.0 if way == "middle" else -2.0) * deep / deep[anatomy.labyrinth].std()
    there: NDArray[np.bool_] = anatomy.labyrinth & (score > np.quantile(score[anatomy.labyrinth], 1.0 - ratio))
    return there


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Signed signal of the fluids over that of perilymph on PPI, before any magnitude is taken; CSF is as endolymph.

    The shorter perilymph's T1, the farther it is past zero on PEI, and the weaker endolymph is beside it.
    """

    perilymph_pei: float
    endolymph_ppi: float
    endolymph_pei: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Contrast:
        """Of some patient."""
        past_zero = float(rng.uniform(0.1, 0.6))
        rest = float(rng.uniform(0.0, 0.1))
        return cls(perilymph_pei=past_zero, endolymph_ppi=rest, endolymph_pei=past_zero - float(rng.uniform(0.9, 1.0)))


def signals(anatomy: Anatomy, endolymph: NDArray[np.bool_], contrast: Contrast) -> dict[str, Image]:
    """Signed signal of MRC, PPI, PEI and 3D-real IR on the fine grid, fluid on MRC and perilymph on PPI being 1."""
    perilymph = anatomy.labyrinth & ~endolymph
    # The file's own blur of the rim is left out: a fine voxel is fluid or it is not, and averaging blurs anew.
    around = np.where(anatomy.labyrinth, 0.0, np.asarray(anatomy.bright.array))
    rim = ndimage.distance_transform_edt(~anatomy.labyrinth, sampling=anatomy.bright.geometry.spacing_mm) <= RIM_MM
    around = np.where(rim & (around < CSF_FROM), BONE, around)
    csf = around > CSF_FROM
    tissue = np.where(csf, 0.0, np.clip(around / BRAIN, 0.0, 1.0)) * TISSUE
    dark_fluid = endolymph | csf
    found = {
        "MRC": around + anatomy.labyrinth,
        "PPI": perilymph + contrast.endolymph_ppi * dark_fluid + tissue,
        "PEI": contrast.perilymph_pei * perilymph + contrast.endolymph_pei * dark_fluid + tissue,
        "REAL_IR": perilymph + contrast.endolymph_pei * dark_fluid + 2.0 * tissue,
    }
    return {name: signal.astype(np.float32) for name, signal in found.items()}


def noisy(clean: Image, snr: float, rng: np.random.Generator, *, signed: bool = False) -> Image:
    """What the scanner makes of a signal: its magnitude with noise, or its real part."""
    along = clean + rng.normal(0.0, 1.0 / snr, clean.shape)
    seen = along if signed else np.hypot(along, rng.normal(0.0, 1.0 / snr, clean.shape))
    return (SCANNER_UNITS * seen).astype(np.float32)


def drawn_snr(rng: np.random.Generator) -> tuple[float, float]:
    """Of the contrast series, evenly in the logarithm, and of the MRC."""
    return float(np.exp(rng.uniform(*np.log(PPI_SNR)))), float(rng.uniform(*MRC_SNR))


def draw(anatomy: Anatomy, way: str, rng: np.random.Generator) -> Scanned:
    """The ear with some endolymph, scanned once."""
    fine = anatomy.bright.geometry
    endolymph = endolymph_in(anatomy, way, float(rng.uniform(*RATIOS)), rng)
    grid = _around_the_ear(anatomy, rng)
    blur = float(rng.uniform(*BLUR_VOXELS))
    ppi_snr, mrc_snr = drawn_snr(rng)
    seen = {}
    for name, signal in signals(anatomy, endolymph, Contrast.drawn(rng)).items():
        moved = grid if name == "MRC" else _moved(grid, rng)
        clean = ndimage.gaussian_filter(on_grid(signal, fine, moved), blur)
        seen[name] = noisy(clean, mrc_snr if name == "MRC" else ppi_snr, rng, signed=name == "REAL_IR")
    x, y, z = (float(v) for v in grid.center_lps_mm)
    roi = EarROI(side=side_of(anatomy), center_lps_mm=(x, y, z), geometry=grid, score=1.0)
    mrc, ppi, real = (Volume(array=seen[name], geometry=grid) for name in ("MRC", "PPI", "REAL_IR"))
    hydrops = Volume(array=seen["PPI"] - seen["PEI"], geometry=grid)
    return Scanned(
        way=way,
        snr=ppi_snr,
        ears={
            InputSet.PPI_PEI: EarImages(roi=roi, mrc=mrc, hydrops=hydrops, ppi=ppi),
            InputSet.HYDROPS: EarImages(roi=roi, mrc=mrc, hydrops=hydrops),
            InputSet.REAL_IR: EarImages(roi=roi, mrc=mrc, hydrops=real, phase_sensitive=True),
        },
        total=on_grid(anatomy.labyrinth, fine, grid),
        endolymph=on_grid(endolymph, fine, grid),
    )


def turned_grid(
    center_mm: FloatArray, shape: tuple[int, int, int], turn_deg: float, rng: np.random.Generator, frame_uid: str
) -> VolumeGeometry:
    """Clinical voxels around a place, turned by up to so much about each axis; k, j, i run near z, y, x."""
    axes = Rotation.from_euler("xyz", rng.uniform(-turn_deg, turn_deg, 3), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = axes[:, [2, 1, 0]] * np.array(CLINICAL_MM)
    affine[:3, 3] = center_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2.0)
    return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid=frame_uid)


def side_of(anatomy: Anatomy) -> EarSide:
    """Of the crop's ear; `anatomy_of` has refused a crop that does not tell."""
    return EarSide.LEFT if anatomy.bright.geometry.center_lps_mm[0] > 0 else EarSide.RIGHT


def _around_the_ear(anatomy: Anatomy, rng: np.random.Generator) -> VolumeGeometry:
    fine = anatomy.bright.geometry
    center = fine.to_lps(ndimage.center_of_mass(anatomy.labyrinth)) + rng.uniform(-OFF_CENTER_MM, OFF_CENTER_MM, 3)
    return turned_grid(center, SHAPE, TURN_DEG, rng, fine.frame_of_reference_uid)


def _moved(grid: VolumeGeometry, rng: np.random.Generator) -> VolumeGeometry:
    affine = grid.index_to_lps.copy()
    affine[:3, 3] += rng.normal(0.0, LEFT_BY_REGISTRATION_MM, 3)
    return VolumeGeometry(shape=grid.shape, index_to_lps=affine, frame_of_reference_uid=grid.frame_of_reference_uid)


def on_grid(signal: NDArray[np.generic], fine: VolumeGeometry, grid: VolumeGeometry) -> Image:
    """Means of a fine picture over clinical voxels."""
    return np.asarray(averaged(Volume(array=np.asarray(signal, dtype=np.float32), geometry=fine), grid).array)


def read(method: FluidSegmenter, scanned: Scanned) -> list[Reading]:
    """What a method makes of each input set, beside the truth."""
    total = scanned.total >= 0.5
    endolymph = total & (scanned.endolymph >= 0.5 * scanned.total)
    return [
        Reading(
            way=scanned.way,
            input_set=chosen.value,
            snr=round(scanned.snr, 2),
            true_ratio=float(scanned.endolymph.sum() / scanned.total.sum()),
            ratio=_ratio(found),
            fluid_dice=_dice(np.asarray(found.total_fluid_mask.array), total),
            endolymph_dice=_dice(np.asarray(found.endolymph_mask.array), endolymph),
        )
        for chosen, found in zip(scanned.ears, method.segment(list(scanned.ears.values())), strict=True)
    ]


def _ratio(found: EarFluid) -> float:
    total = float(np.asarray(found.total_fluid_fraction.array).sum())
    return float(np.asarray(found.endolymph_fraction.array).sum()) / total if total else float("nan")


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2.0 * (one & other).sum() / max(1, one.sum() + other.sum()))


def main() -> None:
    """Print one line for each input set and way of endolymph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ear", type=Path, metavar="EAR.nii.gz")
    parser.add_argument("--draws", type=int, default=24, metavar="N", help="ears per way of endolymph (%(default)s)")
    parser.add_argument("--model", default="shipped", help="`shipped`, `threshold`, or a model folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every reading")
    asked = parser.parse_args()
    method, anatomy = segmenter(asked.model), with_surroundings(anatomy_of(asked.ear))
    readings = [
        reading
        for n, way in enumerate(WAYS)
        for k in range(asked.draws)
        for reading in read(method, draw(anatomy, way, np.random.default_rng([n, k])))
    ]
    print(f"{method.identity.name} {method.identity.version}, {asked.draws} draws each")
    for chosen in dict.fromkeys(one.input_set for one in readings):
        for way in ("all", *WAYS):
            some = [one for one in readings if one.input_set == chosen and way in ("all", one.way)]
            off = np.array([one.ratio - one.true_ratio for one in some])
            print(
                f"{chosen:10} {way:8} fluid {np.mean([one.fluid_dice for one in some]):.3f}"
                f"  endolymph {np.mean([one.endolymph_dice for one in some]):.3f}"
                f"  ratio error {np.abs(off).mean():.4f}  bias {off.mean():+.4f}"
                f"  limits {off.mean() - 1.96 * off.std(ddof=1):+.3f} {off.mean() + 1.96 * off.std(ddof=1):+.3f}"
            )
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(one) for one in readings], indent=1))


if __name__ == "__main__":
    main()
