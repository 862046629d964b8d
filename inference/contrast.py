"""What scanners deliver as HYDROPS, read as SIGNED values: perilymph > 0, bone 0, endolymph and CSF < 0.

Three encodings are in use (signed, unsigned with a constant offset, clipped at zero), and consoles subtract in
either order. No header tells them apart, so the pixels must: bone and air show where zero is, and the MRC shows
where fluid is. Cisterns hold no gadolinium, so they must be dark; labyrinths hold perilymph, so part of them must be
bright. Whatever contradicts this is refused: a ratio computed from an inverted image would look normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.findings import EarROI
from inference.geometry import FloatArray, GeometryError, Volume, VolumeGeometry
from inference.resampling import coarsen, invert_rigid, resample

FLUID_PERCENTILE: Final = 99.5
"""Of 2 mm blocks of an MRC: within its fluid; cisterns, ventricles and eyes are 1 to 6 % of a slab."""

FLUID_FRACTION: Final = 0.5
"""Of the fluid level: above brain (0.2), below CSF (0.8) and the weaker side of a coil (1 / 1.3)."""

EDGE_FRACTION: Final = 0.25
"""Of the fluid level: still fluid at a partial-volume edge, just above brain (0.2)."""

DARK_FRACTION: Final = 0.1
"""Of the fluid level: bone and air."""

READABLE_FRACTION: Final = 0.003
"""Of the fluid level: darker voxels of an MRC are rounded too coarsely to divide by; under 2 % of bone at SNR 60."""

NOISE_FRACTION: Final = 0.05
"""Of the fluid level: bone and air alone; above lie their mixtures with brain."""

SAME_NOISE: Final = 1.5
"""How much larger a quotient may be in bone where its divisor is in the lowest tenth than where in the highest. At SNR
25 and 60: 1.0 if divided by what was multiplied; 2.3 to 3.0 if that was the mean of two scans, 3.0 to 3.5 if it was the
scan smoothed, 4.6 to 5.1 if it was another scan of the same patient."""

MIN_DARK_VOXELS: Final = 1000
"""Fewer voxels of bone and air do not tell whose noise was multiplied."""

COARSE_MM: Final = 2.0
"""Blocks in which CSF is read: they average noise, and hide what a few millimeters of motion displace."""

CSF_DISTANCE_MM: Final = (14.0, 60.0)
"""From the nearest ear: outside the labyrinth and its canal, nearer than the eyes and the frontal sinuses."""

MIN_CSF_MM3: Final = 300.0
"""Less deep CSF than this (a small part of one cistern) is no evidence."""

LABYRINTH_RADIUS_MM: Final = 8.0
"""Around the ear's center: the labyrinth, little of the internal auditory canal."""

FLOOR_SHARE: Final = 0.2
"""Of bone and air at exactly the lowest value: clipping noise around zero leaves half of it there, nothing else any."""

PADDING_GAP: Final = 0.2
"""Of the range of values: padding outside the field of view lies this far below everything measured."""

OFFSET_NOISE_SD: Final = 6.0
"""A background level nearer to zero than this many noise SDs is zero; Rayleigh noise alone reaches 2."""

CLEAR_SHARE: Final = 0.8
"""Of CSF on one side of zero: fluid that differs from bone at all lies there almost entirely."""

PERILYMPH_SHARE: Final = 0.6
"""Of labyrinthine fluid above zero: enough to believe the sign without CSF; the rest is endolymph and edges."""


class ContrastCoding(StrEnum):
    """How the signed subtraction was stored, or why it cannot be read."""

    SIGNED = "signed"
    OFFSET = "offset"
    CLIPPED = "clipped"
    INVERTED = "inverted"
    UNSURE = "unsure"

    @property
    def usable(self) -> bool:
        """True if the signed values can be had."""
        return self in (ContrastCoding.SIGNED, ContrastCoding.OFFSET)


@dataclass(frozen=True, kw_only=True, eq=False)
class SignedContrast:
    """A HYDROPS-like series as signed values, or the reason why not.

    `volume` is float32 on the series' own grid, zero at zero; None unless `coding.usable`. `offset` and `noise_sd`
    are the level and the spread of bone and air in scanner units. `dark_csf_share` and `perilymph_share` are 0..1:
    deep CSF below zero, labyrinthine fluid above zero; None where nothing of it was seen.
    """

    volume: Volume | None
    coding: ContrastCoding
    offset: float
    noise_sd: float
    dark_csf_share: float | None
    perilymph_share: float | None
    reason: str


def read_signed(
    volume: Volume,
    mrc: Volume,
    *,
    ears: Sequence[EarROI] = (),
    moving_to_fixed: FloatArray | None = None,
) -> SignedContrast:
    """`volume` as signed values, if bone, CSF and labyrinth agree about zero and sign.

    Parameters
    ----------
    volume
        HYDROPS, HYDROPS-Mi2 or real IR in physical units, as delivered and not resampled: interpolation would hide
        the pile of equal values that gives clipping away.
    mrc
        Any grid; shows where fluid is.
    ears
        On the MRC. Without them only CSF is judged.
    moving_to_fixed
        (4, 4) from `volume` to `mrc` if already aligned; None takes the headers, which is good enough for CSF.
    """
    to_mrc = np.eye(4) if moving_to_fixed is None else moving_to_fixed
    coarse_mrc = coarsen(mrc, COARSE_MM)
    level = fluid_level(mrc)
    background = _background(volume, coarse_mrc, level, invert_rigid(to_mrc))
    if background.clipped:
        return SignedContrast(
            volume=None,
            coding=ContrastCoding.CLIPPED,
            offset=background.level,
            noise_sd=background.noise_sd,
            dark_csf_share=None,
            perilymph_share=None,
            reason=f"{background.floor_share:.0%} of bone and air lie exactly at the lowest value "
            f"{background.floor:g}: negative values were cut off",
        )
    offset = background.level if abs(background.level) > OFFSET_NOISE_SD * background.noise_sd else 0.0
    signed = Volume(array=np.asarray(volume.array, dtype=np.float32) - np.float32(offset), geometry=volume.geometry)
    csf = _dark_csf_share(signed, coarse_mrc, level, ears, to_mrc)
    perilymph = _perilymph_share(signed, mrc, ears, to_mrc)
    coding, verdict = _decide(offset, csf, perilymph)
    measured = f"bone and air at {background.level:.4g} (noise SD {background.noise_sd:.2g})"
    measured += "" if csf is None else f", {csf:.0%} of deep CSF below zero"
    measured += "" if perilymph is None else f", {perilymph:.0%} of labyrinthine fluid above zero"
    return SignedContrast(
        volume=signed if coding.usable else None,
        coding=coding,
        offset=offset,
        noise_sd=background.noise_sd,
        dark_csf_share=csf,
        perilymph_share=perilymph,
        reason=f"{verdict}: {measured}",
    )


def fluid_level(mrc: Volume) -> float:
    """Typical MRC intensity of fluid, in scanner units."""
    return float(np.percentile(_float32(coarsen(mrc, COARSE_MM)), FLUID_PERCENTILE))


def hydrops_from_ppi_pei(ppi: Volume, pei: Volume) -> Volume:
    """PPI - PEI (float32, signed): perilymph > 0, endolymph < 0.

    Both in physical units (rescale slope and intercept applied; vendors scale each series differently) and on one
    grid.

    Raises
    ------
    GeometryError
        If the grids differ; align and resample first.
    """
    return Volume(array=_float32(ppi) - _float32(_on_grid_of(ppi, pei)), geometry=ppi.geometry)


def hydrops_mi2(hydrops: Volume, mrc: Volume) -> Volume:
    """HYDROPS x MRC (float32, signed): noise of bone and air multiplied away.

    Raises
    ------
    GeometryError
        If the grids differ.
    """
    return Volume(array=_float32(hydrops) * _float32(_on_grid_of(hydrops, mrc)), geometry=hydrops.geometry)


def hydrops_from_mi2(mi2: Volume, mrc: Volume) -> Volume:
    """HYDROPS (float32, signed) on the grid of the product HYDROPS x MRC that it is divided out of.

    The console multiplies voxel by voxel, wherever the patient lay in either series. Divided in the same place, before
    anything is moved, every voxel gives back the HYDROPS that was acquired, noise of bone included, and it can be
    aligned like any other. That takes the very MRC that was multiplied (`made_with`). By another one only what both
    show as fluid can be divided; elsewhere is 0, which says "bone".

    Parameters
    ----------
    mi2
        The product as delivered, never moved; zero at zero (`read_signed`).
    mrc
        On any grid; where it does not reach, the answer is 0.
    """
    level = fluid_level(mrc)
    cisternogram = _float32(resample(mrc, mi2.geometry))
    lowest = READABLE_FRACTION if made_with(mi2, mrc) else EDGE_FRACTION
    quotient = np.zeros_like(cisternogram)
    np.divide(_float32(mi2), cisternogram, out=quotient, where=cisternogram > lowest * level)
    return Volume(array=quotient, geometry=mi2.geometry)


def made_with(mi2: Volume, mrc: Volume) -> bool:
    """Whether a product HYDROPS x MRC, of any coding, was multiplied with this very MRC.

    Noise tells: bone and air are as noisy in the quotient where the MRC's own noise was low as where it was high, if
    it is the noise that was multiplied. Of any other cisternogram the quotient is largest where the divisor is small.
    A product on voxels of its own was interpolated since, and gives nothing back.
    """
    frame = mrc.geometry.frame_of_reference_uid  # a program that multiplies may invent one; the noise decides
    if not replace(mi2.geometry, frame_of_reference_uid=frame).same_grid(mrc.geometry):
        return False
    sample, shown = _every_nth(mi2, COARSE_MM), _float32(_every_nth(mrc, COARSE_MM))
    level = fluid_level(mrc)
    dark = (shown > READABLE_FRACTION * level) & (shown < NOISE_FRACTION * level)
    if np.count_nonzero(dark) < MIN_DARK_VOXELS:
        return False
    divisor, product = shown[dark], _float32(sample)[dark]
    quotient = np.abs(product - np.median(product)) / divisor
    low, high = np.quantile(divisor, (0.1, 0.9))
    where_low, where_high = np.median(quotient[divisor <= low]), np.median(quotient[divisor >= high])
    return bool(0.0 < where_low < SAME_NOISE * where_high)


@dataclass(frozen=True, kw_only=True)
class _Background:
    """Bone and air of a series: its level, its noise, and the pile of equal values at the bottom, if any."""

    level: float
    noise_sd: float
    floor: float
    floor_share: float
    clipped: bool


def _background(volume: Volume, coarse_mrc: Volume, level: float, mrc_to_volume: FloatArray) -> _Background:
    """Where zero is, read from single voxels (never means) that are dark on the MRC."""
    sample = _every_nth(volume, COARSE_MM)
    shown = resample(coarse_mrc, sample.geometry, moving_to_fixed=mrc_to_volume, fill=np.nan).array
    dark = _float32(sample)[np.nan_to_num(shown, nan=np.inf) < DARK_FRACTION * level]
    if dark.size == 0:
        dark = _float32(sample).ravel()
    floor = float(np.min(volume.array))
    above = dark[dark > floor]
    if above.size == 0:
        return _Background(level=floor, noise_sd=0.0, floor=floor, floor_share=1.0, clipped=floor >= 0)
    gap = float(np.percentile(above, 5)) - floor
    padded = gap > PADDING_GAP * (float(np.percentile(_float32(sample), 99.9)) - floor - gap)
    measured = above if padded else dark
    share = 0.0 if padded else 1.0 - above.size / dark.size
    middle = float(np.median(measured))
    noise_sd = 1.4826 * float(np.median(np.abs(measured - middle)))
    return _Background(level=middle, noise_sd=noise_sd, floor=floor, floor_share=share, clipped=share >= FLOOR_SHARE)


def _dark_csf_share(
    signed: Volume, coarse_mrc: Volume, level: float, ears: Sequence[EarROI], to_mrc: FloatArray
) -> float | None:
    """Part of the deep CSF blocks that lie below zero; None if too little CSF is in view."""
    deep = ndimage.binary_erosion(_float32(coarse_mrc) > FLUID_FRACTION * level, structure=np.ones((3, 3, 3)))
    places = coarse_mrc.geometry.to_lps(np.argwhere(deep))
    values = resample(coarsen(signed, COARSE_MM), coarse_mrc.geometry, moving_to_fixed=to_mrc, fill=np.nan).array[deep]
    seen = ~np.isnan(values)
    if ears:
        centers = np.array([ear.center_lps_mm for ear in ears])
        nearest_mm = np.linalg.norm(places[:, None] - centers[None], axis=-1).min(axis=1)
        seen &= (nearest_mm >= CSF_DISTANCE_MM[0]) & (nearest_mm <= CSF_DISTANCE_MM[1])
    if np.count_nonzero(seen) * coarse_mrc.geometry.voxel_volume_mm3 < MIN_CSF_MM3:
        return None
    return float(np.mean(values[seen] < 0))


def _perilymph_share(signed: Volume, mrc: Volume, ears: Sequence[EarROI], to_mrc: FloatArray) -> float | None:
    """Part of the labyrinthine fluid above zero, of the better ear: the other one may be diseased or not injected."""
    shares = []
    for ear in ears:
        geometry = _cube_on_grid(mrc.geometry, ear.center_lps_mm, LABYRINTH_RADIUS_MM)
        shown = resample(mrc, geometry).array
        values = resample(signed, geometry, moving_to_fixed=to_mrc, fill=np.nan).array
        index = np.moveaxis(np.indices(geometry.shape), 0, -1)
        distance_mm = np.linalg.norm(geometry.to_lps(index) - ear.center_lps_mm, axis=-1)
        ball = distance_mm <= LABYRINTH_RADIUS_MM
        fluid = ball & (shown > FLUID_FRACTION * np.percentile(shown[ball], 98)) & ~np.isnan(values)
        if fluid.any():
            shares.append(float(np.mean(values[fluid] > 0)))
    return max(shares, default=None)


def _decide(offset: float, dark_csf: float | None, perilymph: float | None) -> tuple[ContrastCoding, str]:
    """The coding that the evidence leaves, with the sentence that explains it."""
    usable = ContrastCoding.OFFSET if offset else ContrastCoding.SIGNED
    stored = f"stored with an offset of {offset:.4g}" if offset else "signed"
    if dark_csf is None:
        if perilymph is not None and perilymph >= PERILYMPH_SHARE:
            return usable, f"{stored}, judged by the labyrinth alone as no CSF is in view"
        return ContrastCoding.UNSURE, "neither CSF nor labyrinth shows which sign perilymph has"
    if dark_csf >= CLEAR_SHARE:
        return usable, stored
    if dark_csf > 1 - CLEAR_SHARE:
        return ContrastCoding.UNSURE, "CSF is neither dark nor bright"
    if perilymph is not None and perilymph >= 0.5:
        return ContrastCoding.UNSURE, "CSF and labyrinth are both bright: no subtraction, or CSF took up contrast agent"
    return (
        ContrastCoding.INVERTED,
        "CSF is bright where it must be dark: subtracted the other way round, or no subtraction",
    )


def _float32(volume: Volume) -> NDArray[np.float32]:
    return np.asarray(volume.array, dtype=np.float32)


def _on_grid_of(reference: Volume, other: Volume) -> Volume:
    if not reference.geometry.same_grid(other.geometry):
        raise GeometryError(
            f"images must lie on one grid: shapes {reference.geometry.shape} and {other.geometry.shape}, origins "
            f"{reference.geometry.to_lps((0, 0, 0)).round(2).tolist()} and "
            f"{other.geometry.to_lps((0, 0, 0)).round(2).tolist()} mm"
        )
    return other


def _every_nth(volume: Volume, spacing_mm: float) -> Volume:
    """Single voxels about `spacing_mm` apart."""
    steps = np.maximum(1, np.rint(spacing_mm / volume.geometry.spacing_mm).astype(int))
    array = volume.array[:: steps[0], :: steps[1], :: steps[2]]
    index_to_lps = volume.geometry.index_to_lps.copy()
    index_to_lps[:3, :3] *= steps
    k, j, i = array.shape
    geometry = VolumeGeometry(
        shape=(k, j, i), index_to_lps=index_to_lps, frame_of_reference_uid=volume.geometry.frame_of_reference_uid
    )
    return Volume(array=array, geometry=geometry)


def _cube_on_grid(grid: VolumeGeometry, center_mm: tuple[float, float, float], radius_mm: float) -> VolumeGeometry:
    """The part of `grid`, possibly reaching outside it, that holds a ball."""
    half = np.ceil(radius_mm / grid.spacing_mm).astype(int)
    middle = np.rint(grid.to_index(center_mm)).astype(int)
    k, j, i = (int(n) for n in middle - half)
    depth, height, width = (int(n) for n in 2 * half + 1)
    return grid.crop((k, j, i), (depth, height, width))
