"""Where perilymph with contrast agent is: the only thing in a head that is bright on MRC and positive on HYDROPS.

CSF is bright but negative, brain and bone are dark on MRC. A place may be an ear if a labyrinth's worth of fluid
belongs together there and stands out of bone. It needs no training, but contrast agent; sulci and chance fool it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.labyrinth import LabyrinthOptions, total_fluid
from inference.resampling import coarsen, resample

FloatImage = NDArray[np.float32]

ROI_SIZE_MM: Final = (26.0, 32.0, 32.0)
"""Size of an ear's box along k, j, i: the labyrinth (14 x 16 x 14 mm) with slack for obliquity and displacement."""

SEARCH_MM: Final = 1.0
"""Spacing of the search grid: a semicircular canal (1 mm wide) still leaves a trace on it."""

WINDOW_MM: Final = 8.0
"""Radius around a labyrinth's centroid that holds nearly all of it (bounding box 14 x 16 x 14 mm)."""

MISALIGNED_BY_MM: Final = 6.0
"""How far HYDROPS may lie from MRC, per axis, before registration."""

SMOOTHED_MM: Final = 0.7
"""Smoothing of HYDROPS on the search grid: noise halves, a cochlear turn stays visible."""

POSITIVE_FROM: Final = 0.08
"""Of fluid's magnitude on HYDROPS x MRC: the product leaves out brain, positive at times but dark on MRC."""

POSITIVE_RANGE: Final = 0.3
"""Of fluid's magnitude above `POSITIVE_FROM` where perilymph is certain; small compartments are blurred to a third."""

MIN_EVIDENCE_MM3: Final = 1.5
"""Lonely perilymph that is worth a look; severe hydrops with weak contrast leaves little more."""

COARSE_LABYRINTH_MM3: Final = (60.0, 350.0)
"""Fluid that belongs together at an ear, on the search grid; sulci and cisterns flood more, specks less."""

MIN_OVER_SURROUNDINGS: Final = 3.0
"""Perilymph over its surroundings on HYDROPS: above 4.6 in phantom and half-real ears, 1 to 2.2 in sulci."""

FLUID_PERCENTILE: Final = 99.8
"""Of the coarse MRC: fluid, even in a slab that shows little CSF."""

STRUCTURE_SHARE: Final = 0.6
"""Of the contrast that survives averaging eight voxels: 0.35 for noise, above 0.8 for anatomy."""

MAX_PLACES: Final = 40
"""Peaks looked at; with contrast both ears are among the first ten."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchMaps:
    """The search grid. `mrc` is the MRC's own values, `fluid` 0..1 what is bright on it.

    `signed` is HYDROPS moved onto it (-1..1), `perilymph` 0..1 what is bright on both; both None without HYDROPS.
    """

    geometry: VolumeGeometry
    mrc: FloatImage
    fluid: FloatImage
    signed: FloatImage | None
    perilymph: FloatImage | None

    def volume(self, array: FloatImage) -> Volume:
        """One of these arrays at its place."""
        return Volume(array=array, geometry=self.geometry)


@dataclass(frozen=True, kw_only=True, eq=False)
class PerilymphPlace:
    """A place that may be an ear: its LPS position and the mm3 of lonely perilymph there."""

    lps_mm: FloatArray
    evidence_mm3: float


@dataclass(frozen=True, kw_only=True, eq=False)
class LabyrinthPlace:
    """A labyrinth's worth of fluid: its centroid (LPS mm), and whether its perilymph stands out of bone."""

    lps_mm: FloatArray
    stands_out: bool


def fluid_map(mrc: Volume) -> SearchMaps | None:
    """Fluid on the search grid, without HYDROPS; None if the MRC has nothing that stands out of its noise.

    Parameters
    ----------
    mrc
        (K, J, I), >= 0, fluid bright; what is not a number counts as dark.
    """
    coarse = coarsen(mrc, SEARCH_MM)
    bright = np.nan_to_num(coarse.array).astype(np.float32)
    dark, level = (float(p) for p in np.percentile(bright[::2, ::2, ::2], (50.0, FLUID_PERCENTILE)))
    spread = float(bright.std())
    averaged = coarsen(Volume(array=bright, geometry=coarse.geometry), 2.0 * SEARCH_MM).array
    if level <= dark or float(averaged.std()) < STRUCTURE_SHARE * spread:
        return None
    fluid = np.clip(((bright - dark) / (level - dark) - 0.25) / 0.45, 0.0, 1.0).astype(np.float32)
    return SearchMaps(geometry=coarse.geometry, mrc=bright, fluid=fluid, signed=None, perilymph=None)


def with_hydrops(maps: SearchMaps, hydrops: Volume) -> SearchMaps:
    """`maps` with perilymph; `hydrops` is signed, on any grid, and where it does not reach it says nothing."""
    signed = _signed(maps.fluid, hydrops, maps.geometry)
    if signed is None:
        return maps
    perilymph = np.clip((maps.fluid * signed - POSITIVE_FROM) / POSITIVE_RANGE, 0.0, 1.0)
    return replace(maps, signed=signed, perilymph=perilymph)


def _signed(fluid: FloatImage, hydrops: Volume, geometry: VolumeGeometry) -> FloatImage | None:
    """HYDROPS on the search grid, -1..1 of fluid's magnitude, moved onto the MRC's fluid; None if it is dark there."""
    coarse = coarsen(hydrops, SEARCH_MM)
    coarse = Volume(array=np.nan_to_num(coarse.array).astype(np.float32), geometry=coarse.geometry)
    if not coarse.geometry.same_grid(geometry):
        coarse = resample(coarse, geometry)
    signed = ndimage.gaussian_filter(np.asarray(coarse.array), SMOOTHED_MM / geometry.spacing_mm, truncate=2.0)
    bright = np.abs(signed[fluid > 0.9])
    scale = float(np.percentile(bright, 90.0)) if bright.size else 0.0
    if scale <= 0.0:
        return None
    return _onto_fluid(np.clip(signed / scale, -1.0, 1.0), fluid, geometry)


def _onto_fluid(signed: FloatImage, fluid: FloatImage, geometry: VolumeGeometry) -> FloatImage:
    """HYDROPS moved by whole blocks, each half of the head on its own, so that dark CSF covers bright MRC fluid.

    Two shifts follow a rotation well enough to find ears; registration proper comes later.
    """
    across = int(np.argmax(np.abs(geometry.directions[0])))
    middle = geometry.shape[across] // 2
    moved = np.empty_like(signed)
    for half in (slice(0, middle), slice(middle, None)):
        part = tuple(half if axis == across else slice(None) for axis in range(3))
        if 0 in signed[part].shape:
            continue
        shift = _csf_shift(signed[part], fluid[part], geometry)
        moved[part] = ndimage.shift(signed[part], shift, order=0, mode="nearest") if any(shift) else signed[part]
    return moved


def _csf_shift(signed: FloatImage, fluid: FloatImage, geometry: VolumeGeometry) -> tuple[int, int, int]:
    """Whole-block shift (k, j, i) of HYDROPS that covers most MRC fluid with dark CSF, within the allowed reach.

    The middle counts most: ears lie near the middle of each half of a head, and far parts move more in a rotation.
    """
    window = _hann(fluid.shape)
    dark, fluid = window * np.clip(-signed, 0.0, 1.0), window * fluid
    size = [fft.next_fast_len(n + 2 * r, real=True) for n, r in zip(fluid.shape, _reach(geometry), strict=True)]
    spectrum = fft.rfftn(fluid, size, workers=2) * np.conj(fft.rfftn(dark, size, workers=2))
    match = fft.irfftn(spectrum, size, workers=2)
    shifts = [np.arange(-r, r + 1) for r in _reach(geometry)]
    near = match[np.ix_(*shifts)]
    best = np.unravel_index(int(np.argmax(near)), near.shape)
    k, j, i = (int(axis[n]) for axis, n in zip(shifts, best, strict=True))
    return k, j, i


def _hann(shape: tuple[int, ...]) -> FloatImage:
    """Weights that fall from 1 in the middle to almost 0 at the border."""
    k, j, i = (np.hanning(n + 2)[1:-1].astype(np.float32) for n in shape)
    weights: FloatImage = k[:, None, None] * j[None, :, None] * i[None, None, :]
    return weights


def _reach(geometry: VolumeGeometry) -> list[int]:
    return [max(1, round(MISALIGNED_BY_MM / s)) for s in geometry.spacing_mm]


def perilymph_places(maps: SearchMaps) -> list[PerilymphPlace]:
    """Places with a labyrinth's worth of fluid whose perilymph stands out, by what stands alone there, strongest first.

    Empty without HYDROPS.
    """
    if maps.perilymph is None:
        return []
    half = coarsen(maps.volume(maps.perilymph), 2.0 * SEARCH_MM)
    own = _window_mm3(half.array, 0.4 * WINDOW_MM, half.geometry)
    lonely = own - 0.25 * _window_mm3(half.array, 0.8 * WINDOW_MM, half.geometry)
    size = [1 + 2 * max(1, round(0.6 * WINDOW_MM / s)) for s in half.geometry.spacing_mm]
    peaks = np.argwhere((lonely >= ndimage.maximum_filter(lonely, size=size)) & (lonely > MIN_EVIDENCE_MM3))
    peaks = peaks[np.argsort(-lonely[tuple(peaks.T)])][:MAX_PLACES]
    found = []
    for peak in peaks:
        labyrinth = labyrinth_at(_centroid(half.geometry.to_lps(peak), maps.perilymph, maps.geometry), maps)
        if labyrinth is not None and labyrinth.stands_out:
            found.append(PerilymphPlace(lps_mm=labyrinth.lps_mm, evidence_mm3=float(lonely[tuple(peak)])))
    return found


def _window_mm3(amount: NDArray[np.generic], sigma_mm: float, geometry: VolumeGeometry) -> FloatImage:
    """mm3 of `amount` in a Gaussian window of height 1 around every voxel."""
    sigma = sigma_mm / geometry.spacing_mm
    peak_to_sum = float((2.0 * np.pi) ** 1.5 * np.prod(sigma)) * geometry.voxel_volume_mm3
    smooth: FloatImage = ndimage.gaussian_filter(amount, sigma, mode="constant", truncate=2.5) * np.float32(peak_to_sum)
    return smooth


def _centroid(start_mm: FloatArray, evidence: FloatImage, geometry: VolumeGeometry) -> FloatArray:
    """The centroid of the evidence in a ball that follows it (mean shift); LPS mm."""
    center = np.asarray(start_mm, dtype=np.float64)
    reach = np.ceil((WINDOW_MM + 1.0) / geometry.spacing_mm).astype(int)
    for _ in range(6):
        index = np.rint(geometry.to_index(center)).astype(int)
        low = np.clip(index - reach, 0, np.array(geometry.shape) - 1)
        high = np.minimum(index + reach + 1, geometry.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        points = geometry.to_lps(np.moveaxis(np.mgrid[box], 0, -1))
        weight = evidence[box] * (np.linalg.norm(points - center, axis=-1) <= WINDOW_MM)
        if weight.sum() <= 0.0:
            break
        center = np.tensordot(weight, points, axes=3) / weight.sum()
    return center


def labyrinth_at(start_mm: FloatArray, maps: SearchMaps) -> LabyrinthPlace | None:
    """The labyrinth around a place (LPS mm), or None if there is too much or too little fluid, or no HYDROPS.

    Its centroid is that of all its fluid, because perilymph alone lies off-center in hydrops.
    """
    if maps.signed is None:
        return None
    start, shape = ear_box(start_mm, maps.geometry)
    bright = maps.volume(maps.fluid).crop(start, shape)
    sign = maps.volume(maps.signed).crop(start, shape)
    fraction = total_fluid(bright, sign, LabyrinthOptions()).fraction
    if not (fraction > 0.5).any():
        return None
    center_mm = bright.geometry.to_lps(ndimage.center_of_mass(fraction))
    volume_mm3 = float(fraction.sum()) * maps.geometry.voxel_volume_mm3
    if not COARSE_LABYRINTH_MM3[0] <= volume_mm3 <= COARSE_LABYRINTH_MM3[1]:
        return None
    if np.linalg.norm(center_mm - start_mm) > WINDOW_MM:
        return None
    return LabyrinthPlace(lps_mm=center_mm, stands_out=_lies_in_bone(fraction, bright.array, sign.array))


def _lies_in_bone(fraction: FloatImage, fluid: NDArray[np.generic], signed: NDArray[np.generic]) -> bool:
    """True if perilymph stands out of what surrounds it: bone is zero on HYDROPS, brain around a sulcus is not.

    Half of an ear's surroundings must be bone; on real inversion recovery the brain beside it is brighter than fluid.
    """
    around = np.asarray(signed)[np.asarray(fluid) < 0.02]
    if around.size == 0:
        return False
    perilymph = float(np.percentile(np.asarray(signed)[fraction > 0.5], 90.0))
    return perilymph > MIN_OVER_SURROUNDINGS * max(float(np.median(around)), 0.0)


def ear_box(center_mm: FloatArray, grid: VolumeGeometry) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First index and shape of an ear's box on a grid."""
    k, j, i = (2 * round(size / spacing / 2) for size, spacing in zip(ROI_SIZE_MM, grid.spacing_mm, strict=True))
    start = np.rint(grid.to_index(center_mm) - (np.array([k, j, i]) - 1) / 2.0).astype(int).tolist()
    return (start[0], start[1], start[2]), (k, j, i)
