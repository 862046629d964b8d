"""Both ears in a slab of the head, found without training.

Perilymph with contrast agent is the only thing in the head that is bright on MRC and positive on HYDROPS: CSF is
bright but negative, brain and bone are dark on MRC. A place is an ear if a labyrinth's worth of fluid belongs together
there, and two places are a patient's ears if they lie as ears do. Shape alone does not do: sulci, air cells and the
roots of nerves make too many labyrinth-sized specks of fluid. So without contrast agent no ear is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from inference.anatomy import INTER_EAR_DISTANCE_MM, EarSide
from inference.findings import EarROI, QualityCode, QualityFlag, Severity
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.labyrinth import LabyrinthOptions, total_fluid
from inference.resampling import coarsen

FloatImage = NDArray[np.float32]

ROI_SIZE_MM: Final = (26.0, 32.0, 32.0)
"""Size of an ear's box along k, j, i: the labyrinth (14 x 16 x 14 mm) with slack for obliquity and displacement."""

COARSE_MM: Final = 1.0
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

CERTAIN_EVIDENCE_MM3: Final = 5.0
"""Lonely perilymph that no sulcus on phantoms reached; at least one ear of a study must."""

MIN_OVER_SURROUNDINGS: Final = 3.0
"""Perilymph over its surroundings on HYDROPS: above 4.6 in phantom and half-real ears, 1 to 2.2 in sulci."""

MAX_TILT_DEG: Final = 25.0
"""The line between the ears leaves the patient's left-right axis by less than this, however the head lies."""

MIN_MEDIAL_MM: Final = 15.0
"""A lone ear gets a side only if the head's midline is at least this far away; labyrinths lie 30 to 50 mm off it."""

FLUID_PERCENTILE: Final = 99.8
"""Of the coarse MRC: fluid, even in a slab that shows little CSF."""

STRUCTURE_SHARE: Final = 0.6
"""Of the contrast that survives averaging eight voxels: 0.35 for noise, above 0.8 for anatomy."""

MAX_CANDIDATES: Final = 40
"""Peaks looked at; with contrast both ears are among the first ten."""

MIN_PAIR_BALANCE: Final = 0.04
"""Weaker over stronger ear of a pair: coil gain and severe hydrops together leave more."""

MIN_CSF_MM3: Final = 300.0
"""Less CSF than this says nothing about where the brain is."""

CISTERN_MM: Final = 2.5
"""Smoothing that a cistern (10 mm wide) survives and a sulcus (1 to 2 mm) does not."""

MEDIAL_SHARE: Final = 0.75
"""Of the CSF that must lie on one side of a lone ear for that side to be medial."""

DARK_CSF_SHARE: Final = 0.8
"""Of bright voxels that are negative on HYDROPS: CSF without contrast agent, as it should be."""

CUT_STOP_MM: Final = 5.0
"""A border this near to the labyrinth's centroid cuts cochlea or vestibule, not just the tip of a canal."""

NORMAL_EVIDENCE_MM3: Final = 20.0
"""Lonely perilymph of a typical phantom ear, where `score` reaches 1."""

CUT_WARN_MM: Final = 7.0
"""Half of the labyrinth's height (14 mm): a border this near begins to cut canals or the basal turn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarSearch:
    """A box per ear found, all remarks, and the same remarks by side; a side without a box has a STOP remark."""

    rois: Mapping[EarSide, EarROI]
    quality: tuple[QualityFlag, ...] = ()
    by_side: Mapping[EarSide, tuple[QualityFlag, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Maps:
    """The search grid. `fluid` is 0..1 from MRC.

    `signed` is HYDROPS moved onto it (-1..1), `perilymph` 0..1 what is bright on both; None without HYDROPS.
    """

    geometry: VolumeGeometry
    fluid: FloatImage
    signed: FloatImage | None
    perilymph: FloatImage | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """A place that may be an ear: its LPS position and the mm3 of lonely fluid there."""

    lps_mm: FloatArray
    evidence_mm3: float


def locate_ears(mrc: Volume, hydrops: Volume | None = None) -> EarSearch:
    """Return a box around each labyrinth, with the patient's side computed from LPS.

    Parameters
    ----------
    mrc
        (K, J, I), >= 0, fluid bright; any orientation, a full or a partial slab.
    hydrops
        Signed, on the grid of `mrc` by header geometry; it may be off by 5 mm and 5 degrees (not registered yet).

    Returns
    -------
    EarSearch
        Boxes are crops of the MRC grid. Strange content (noise, a constant image, another body part) gives no box
        and says so.

    Raises
    ------
    ValueError
        If `hydrops` has another shape than `mrc`.
    """
    if hydrops is not None and hydrops.array.shape != mrc.array.shape:
        raise ValueError(f"HYDROPS must lie on the MRC grid {mrc.array.shape}, found {hydrops.array.shape}")
    maps = _search_maps(mrc, hydrops)
    if maps is None:
        return _nothing(QualityCode.CONTENT, "The MRC shows no bright fluid: constant, empty or noise")
    if maps.perilymph is None or maps.signed is None:
        return _nothing(
            QualityCode.EAR_NOT_FOUND, "Ears are found by their perilymph, and there is no HYDROPS to show it"
        )
    candidates = _candidates(maps, maps.perilymph, maps.signed)
    if not any(place.evidence_mm3 >= CERTAIN_EVIDENCE_MM3 for place in candidates):
        return _without_perilymph(maps.fluid, maps.signed)
    pair = _pair(candidates)
    return _found(pair, mrc) if pair else _lone(candidates[0], mrc, maps)


def _search_maps(mrc: Volume, hydrops: Volume | None) -> _Maps | None:
    """Fluid and perilymph on the coarse grid; None if the MRC has nothing that stands out of its noise."""
    coarse = coarsen(mrc, COARSE_MM)
    bright = np.nan_to_num(coarse.array).astype(np.float32)
    dark, level = (float(p) for p in np.percentile(bright[::2, ::2, ::2], (50.0, FLUID_PERCENTILE)))
    spread = float(bright.std())
    averaged = coarsen(Volume(array=bright, geometry=coarse.geometry), 2.0 * COARSE_MM).array
    if level <= dark or float(averaged.std()) < STRUCTURE_SHARE * spread:
        return None
    fluid = np.clip(((bright - dark) / (level - dark) - 0.25) / 0.45, 0.0, 1.0).astype(np.float32)
    signed = _signed(fluid, hydrops, coarse.geometry)
    perilymph = None if signed is None else np.clip((fluid * signed - POSITIVE_FROM) / POSITIVE_RANGE, 0.0, 1.0)
    return _Maps(geometry=coarse.geometry, fluid=fluid, signed=signed, perilymph=perilymph)


def _signed(fluid: FloatImage, hydrops: Volume | None, geometry: VolumeGeometry) -> FloatImage | None:
    """HYDROPS on the search grid, -1..1 of fluid's magnitude, moved onto the MRC's fluid; None without HYDROPS."""
    if hydrops is None:
        return None
    signed = np.nan_to_num(coarsen(hydrops, COARSE_MM).array).astype(np.float32)
    signed = ndimage.gaussian_filter(signed, SMOOTHED_MM / geometry.spacing_mm, truncate=2.0)
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


def _window_mm3(amount: NDArray[np.generic], sigma_mm: float, geometry: VolumeGeometry) -> FloatImage:
    """mm3 of `amount` in a Gaussian window of height 1 around every voxel."""
    sigma = sigma_mm / geometry.spacing_mm
    peak_to_sum = float((2.0 * np.pi) ** 1.5 * np.prod(sigma)) * geometry.voxel_volume_mm3
    smooth: FloatImage = ndimage.gaussian_filter(amount, sigma, mode="constant", truncate=2.5) * np.float32(peak_to_sum)
    return smooth


def _candidates(maps: _Maps, evidence: FloatImage, signed: FloatImage) -> list[_Candidate]:
    """Places with a labyrinth's worth of fluid, by the evidence that stands alone there, strongest first."""
    half = coarsen(Volume(array=evidence, geometry=maps.geometry), 2.0 * COARSE_MM)
    own = _window_mm3(half.array, 0.4 * WINDOW_MM, half.geometry)
    lonely = own - 0.25 * _window_mm3(half.array, 0.8 * WINDOW_MM, half.geometry)
    size = [1 + 2 * max(1, round(0.6 * WINDOW_MM / s)) for s in half.geometry.spacing_mm]
    places = np.argwhere((lonely >= ndimage.maximum_filter(lonely, size=size)) & (lonely > MIN_EVIDENCE_MM3))
    places = places[np.argsort(-lonely[tuple(places.T)])][:MAX_CANDIDATES]
    found = []
    for place in places:
        start_mm = _centroid(half.geometry.to_lps(place), evidence, maps.geometry)
        center_mm = _labyrinth(start_mm, maps, signed)
        if center_mm is not None:
            found.append(_Candidate(lps_mm=center_mm, evidence_mm3=float(lonely[tuple(place)])))
    return found


def _labyrinth(start_mm: FloatArray, maps: _Maps, signed: FloatImage) -> FloatArray | None:
    """Centroid (LPS mm) of the labyrinth's fluid there, or None if it is no labyrinth.

    All its fluid, because perilymph alone lies off-center in hydrops.
    """
    start, shape = _box(start_mm, maps.geometry)
    bright = Volume(array=maps.fluid, geometry=maps.geometry).crop(start, shape)
    sign = Volume(array=signed, geometry=maps.geometry).crop(start, shape)
    fraction = total_fluid(bright, sign, LabyrinthOptions()).fraction
    if not (fraction > 0.5).any():
        return None
    center_mm = bright.geometry.to_lps(ndimage.center_of_mass(fraction))
    volume_mm3 = float(fraction.sum()) * maps.geometry.voxel_volume_mm3
    if not COARSE_LABYRINTH_MM3[0] <= volume_mm3 <= COARSE_LABYRINTH_MM3[1]:
        return None
    if np.linalg.norm(center_mm - start_mm) > WINDOW_MM:
        return None
    return center_mm if _lies_in_bone(fraction, bright.array, sign.array) else None


def _lies_in_bone(fraction: FloatImage, fluid: NDArray[np.generic], signed: NDArray[np.generic]) -> bool:
    """True if perilymph stands out of what surrounds it: bone is zero on HYDROPS, brain around a sulcus is not.

    Half of an ear's surroundings must be bone; on real inversion recovery the brain beside it is brighter than fluid.
    """
    around = np.asarray(signed)[np.asarray(fluid) < 0.02]
    if around.size == 0:
        return False
    perilymph = float(np.percentile(np.asarray(signed)[fraction > 0.5], 90.0))
    return perilymph > MIN_OVER_SURROUNDINGS * max(float(np.median(around)), 0.0)


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


def _pair(candidates: list[_Candidate]) -> dict[EarSide, _Candidate] | None:
    """The two candidates that lie as two ears do: 60 to 100 mm apart, across the head, similarly strong."""
    best, best_score = None, 0.0
    for one, other in combinations(candidates, 2):
        right, left = sorted((one, other), key=lambda ear: float(ear.lps_mm[0]))
        across = left.lps_mm - right.lps_mm
        distance = float(np.linalg.norm(across))
        if not INTER_EAR_DISTANCE_MM[0] <= distance <= INTER_EAR_DISTANCE_MM[1]:
            continue
        if across[0] < distance * np.cos(np.radians(MAX_TILT_DEG)):
            continue
        weaker, stronger = sorted((right.evidence_mm3, left.evidence_mm3))
        score = weaker * stronger**0.5
        if stronger < CERTAIN_EVIDENCE_MM3:
            continue
        if score > best_score and weaker > MIN_PAIR_BALANCE * stronger:
            best, best_score = {EarSide.RIGHT: right, EarSide.LEFT: left}, score
    return best


def _lone_side(ear: _Candidate, maps: _Maps) -> EarSide | None:
    """The side of a lone ear: the cisterns around the brain stem lie medially of it. None if that is not clear-cut."""
    # Smoothed, so that wide cisterns count and the thin sulci lateral of the ear do not.
    wide = ndimage.gaussian_filter(maps.fluid, CISTERN_MM / maps.geometry.spacing_mm, truncate=2.0) > 0.6
    points = maps.geometry.to_lps(np.argwhere(wide))
    if len(points) * maps.geometry.voxel_volume_mm3 < MIN_CSF_MM3:
        return None
    to_ear_mm = float(ear.lps_mm[0]) - points[:, 0]
    share_right_of_ear = float((to_ear_mm > 0.0).mean())
    if abs(float(np.median(to_ear_mm))) < MIN_MEDIAL_MM or 1 - MEDIAL_SHARE < share_right_of_ear < MEDIAL_SHARE:
        return None
    return EarSide.LEFT if share_right_of_ear > 0.5 else EarSide.RIGHT


def _without_perilymph(fluid: FloatImage, signed: FloatImage) -> EarSearch:
    """Why nothing is bright on MRC and positive on HYDROPS: no contrast agent if CSF is dark as it must be."""
    dark_share = float((signed[fluid > 0.9] < 0.0).mean())
    if dark_share < DARK_CSF_SHARE:
        return _nothing(
            QualityCode.EAR_NOT_FOUND, "No inner ear was recognized: no fluid has a labyrinth's place and size"
        )
    message = (
        f"{dark_share:.0%} of all fluid is negative on HYDROPS and no labyrinth is positive:"
        " no contrast agent in the perilymph, or no ear in the images"
    )
    return _nothing(QualityCode.NO_CONTRAST, message)


def _lone(ear: _Candidate, mrc: Volume, maps: _Maps) -> EarSearch:
    """One ear in the slab: measured if its side is certain, refused otherwise."""
    side = _lone_side(ear, maps)
    if side is None:
        return _nothing(
            QualityCode.SIDE_UNSURE, "One inner ear was found, but not where the head's midline is; side unknown"
        )
    return _found({side: ear}, mrc)


def _found(ears: Mapping[EarSide, _Candidate], mrc: Volume) -> EarSearch:
    """Boxes and remarks for the ears found; the other side is "not found"."""
    rois, by_side = {}, {}
    for side in EarSide:
        if side in ears:
            roi = _roi(side, ears[side], mrc.geometry)
            by_side[side] = _cut_off(roi, mrc.geometry)
            if all(flag.severity is Severity.WARN for flag in by_side[side]):
                rois[side] = roi
        else:
            by_side[side] = (_stop(QualityCode.EAR_NOT_FOUND, f"{side.value.capitalize()} inner ear not found"),)
    return EarSearch(rois=rois, quality=tuple(flag for flags in by_side.values() for flag in flags), by_side=by_side)


def _box(center_mm: FloatArray, grid: VolumeGeometry) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First index and shape of an ear's box on a grid."""
    k, j, i = (2 * round(size / spacing / 2) for size, spacing in zip(ROI_SIZE_MM, grid.spacing_mm, strict=True))
    start = np.rint(grid.to_index(center_mm) - (np.array([k, j, i]) - 1) / 2.0).astype(int).tolist()
    return (start[0], start[1], start[2]), (k, j, i)


def _roi(side: EarSide, ear: _Candidate, grid: VolumeGeometry) -> EarROI:
    """The box of whole MRC voxels around the centroid; `score` saturates at a typical ear's evidence."""
    start, shape = _box(ear.lps_mm, grid)
    x, y, z = (float(c) for c in ear.lps_mm)
    return EarROI(
        side=side,
        center_lps_mm=(x, y, z),
        geometry=grid.crop(start, shape),
        score=min(1.0, ear.evidence_mm3 / NORMAL_EVIDENCE_MM3),
    )


def _cut_off(roi: EarROI, grid: VolumeGeometry) -> tuple[QualityFlag, ...]:
    """A remark if the slab's border runs through the labyrinth: STOP near its center, WARN at a canal's tip."""
    index = grid.to_index(roi.center_lps_mm)
    to_border_mm = np.minimum(index + 0.5, np.array(grid.shape) - 0.5 - index) * grid.spacing_mm
    nearest_mm = float(to_border_mm.min())
    name = roi.side.value.capitalize()
    if nearest_mm < CUT_STOP_MM:
        message = f"{name} inner ear is cut off: its center lies {nearest_mm:.1f} mm from the border of the images"
        return (_stop(QualityCode.EAR_CUT_OFF, message, measured=nearest_mm, limit=CUT_STOP_MM),)
    if nearest_mm < CUT_WARN_MM:
        message = f"{name} inner ear may be cut: its center lies only {nearest_mm:.1f} mm from the border of the images"
        flag = QualityFlag(
            code=QualityCode.EAR_CUT_OFF,
            severity=Severity.WARN,
            message=message,
            measured=nearest_mm,
            limit=CUT_WARN_MM,
        )
        return (flag,)
    return ()


def _nothing(code: QualityCode, message: str) -> EarSearch:
    """No box for either side, one STOP remark for both."""
    flags = (_stop(code, message),)
    return EarSearch(rois={}, quality=flags, by_side=dict.fromkeys(EarSide, flags))


def _stop(code: QualityCode, message: str, *, measured: float | None = None, limit: float | None = None) -> QualityFlag:
    return QualityFlag(code=code, severity=Severity.STOP, message=message, measured=measured, limit=limit)
