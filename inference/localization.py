"""Both ears in a slab of the head, by two witnesses that know nothing of each other.

A network knows an ear's shape and surroundings on MRC alone (`ear_proposals`); perilymph with contrast agent shines
through without any training (`perilymph_search`). What the network is sure of is an ear, with contrast agent or
without: where it is wrong, no perilymph turns up and the gates refuse. Where it is in doubt, perilymph decides, but
only for two places that lie as a patient's ears do. Sides come from the patient's coordinates; a lone ear's side is not
believed unless the brain is seen medial of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import exp
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.anatomy import INTER_EAR_DISTANCE_MM, EarSide
from inference.ear_proposals import EarProposal, propose_ears
from inference.findings import EarROI, QualityCode, QualityFlag, Severity
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.perilymph_search import (
    MISALIGNED_BY_MM,
    PerilymphPlace,
    SearchMaps,
    ear_box,
    fluid_map,
    labyrinth_at,
    perilymph_places,
    with_hydrops,
)

FOUND: Final = 0.5
"""Probability from which the network's ear is believed."""

HINT: Final = 0.1
"""Probability from which a place may be an ear; less, and there is none to speak of."""

SURE: Final = 0.9
"""Probability from which it is believed without perilymph, and a lone ear's side is."""

SUPPORT: Final = 0.03
"""Probability that the network must leave to a place where perilymph speaks for an ear: 0.05 and more at most real ears
pasted into another kind of head, below 0.02 at sulci that outshone them."""

SAME_PLACE_MM: Final = 10.0
"""Two proposals this near mean the same ear."""

MIRROR_DOUBT: Final = 0.1
"""The same place taken for the other side's ear, with this probability: the side is not sure."""

CERTAIN_EVIDENCE_MM3: Final = 5.0
"""Lonely perilymph that no sulcus on phantoms reached; at least one ear of a study must, unless the network is sure of
one. The other may have less (3.6 and 4.4 mm3 in severe hydrops) where the network sees an ear, from `HINT` on."""

MAX_TILT_DEG: Final = 25.0
"""The line between the ears leaves the patient's left-right axis by less than this, however the head lies."""

POSITIVE_SHARE: Final = 0.05
"""Of the bright voxels in an ear's box, CSF included; fewer positive ones are noise. It only chooses the words:
there is no box either way."""

MIN_MEDIAL_MM: Final = 15.0
"""A lone ear gets a side only if the head's midline is at least this far away; labyrinths lie 30 to 50 mm off it."""

MIN_CSF_MM3: Final = 300.0
"""Less CSF than this says nothing about where the brain is."""

CISTERN_MM: Final = 2.5
"""Smoothing that a cistern (10 mm wide) survives and a sulcus (1 to 2 mm) does not."""

MEDIAL_SHARE: Final = 0.75
"""Of the CSF that must lie on one side of a lone ear for that side to be medial."""

AROUND_MM: Final = MISALIGNED_BY_MM + 2.0
"""Around an ear's box: what displacement brings into it, and what smoothing mixes in."""

CUT_STOP_MM: Final = 5.0
"""A border this near to the labyrinth's centroid cuts cochlea or vestibule, not just the tip of a canal."""

CUT_WARN_MM: Final = 7.0
"""Half of the labyrinth's height (14 mm): a border this near begins to cut canals or the basal turn."""

NORMAL_EVIDENCE_MM3: Final = 20.0
"""Lonely perilymph of a typical phantom ear."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarSearch:
    """A box per ear found, all remarks, and the same remarks by side; a side without a box has a STOP remark."""

    rois: Mapping[EarSide, EarROI]
    quality: tuple[QualityFlag, ...] = ()
    by_side: Mapping[EarSide, tuple[QualityFlag, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ear:
    """An ear's centroid in LPS mm and how sure it is, 0..1."""

    lps_mm: FloatArray
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstLook:
    """What the MRC alone shows: its fluid, and where the network sees each ear, sure or not."""

    maps: SearchMaps
    proposals: Mapping[EarSide, EarProposal]


def first_look(mrc: Volume) -> FirstLook | None:
    """The MRC on the search grid with the likely ears, to look at HYDROPS closely there; None without fluid."""
    maps = fluid_map(mrc)
    return None if maps is None else FirstLook(maps=maps, proposals=propose_ears(maps.volume(maps.mrc)))


def around_ears(proposals: Mapping[EarSide, EarProposal], grid: VolumeGeometry) -> NDArray[np.bool_]:
    """(K, J, I) where on `grid` the ears' boxes lie, and as far around them as HYDROPS may be displaced."""
    near = np.zeros(grid.shape, dtype=bool)
    rim = np.ceil(AROUND_MM / grid.spacing_mm).astype(int)
    for proposal in proposals.values():
        start, shape = ear_box(proposal.lps_mm, grid)
        low = np.clip(np.array(start) - rim, 0, grid.shape)
        high = np.clip(np.array(start) + shape + rim, 0, grid.shape)
        near[tuple(slice(first, last) for first, last in zip(low, high, strict=True))] = True
    return near


def locate_ears(mrc: Volume, hydrops: Volume | None = None, *, seen: FirstLook | None = None) -> EarSearch:
    """Return a box around each labyrinth, with the patient's side computed from LPS.

    Parameters
    ----------
    mrc
        (K, J, I), >= 0, fluid bright; any orientation, a full or a partial slab.
    hydrops
        Signed, on any grid; it may be off by 5 mm and 5 degrees (not registered yet).
    seen
        What `first_look` said of the same MRC, so that it is not asked again.

    Returns
    -------
    EarSearch
        Boxes are crops of the MRC grid. Strange content (noise, a constant image, another body part) gives no box
        and says so. An ear without contrast agent has a box; the gates say what is wrong with it.
    """
    seen = seen or first_look(mrc)
    if seen is None:
        return _nothing(QualityCode.CONTENT, "The MRC shows no bright fluid: constant, empty or noise")
    maps = seen.maps if hydrops is None else with_hydrops(seen.maps, hydrops)
    proposals = seen.proposals
    ears = _by_shape(proposals, maps)
    places = [] if len(ears) == len(EarSide) else _as_ears(perilymph_places(maps))
    ears = _with_perilymph(ears, places, proposals)
    if not ears:
        return _none_found(proposals, [place for place in places if _certain(place)], maps)
    if len(ears) == 1:
        return _lone(ears, proposals, mrc, maps)
    if not _lie_as_ears(ears[EarSide.RIGHT].lps_mm, ears[EarSide.LEFT].lps_mm):
        return _nothing(QualityCode.SIDE_UNSURE, _strange_pair(ears))
    return _found(ears, mrc)


def _by_shape(proposals: Mapping[EarSide, EarProposal], maps: SearchMaps) -> dict[EarSide, _Ear]:
    """The ears that the network is sure of, or sees and perilymph confirms; at their fluid's centroid if possible."""
    ears = {}
    for side, proposal in proposals.items():
        if proposal.probability < FOUND:
            continue
        labyrinth = labyrinth_at(proposal.lps_mm, maps)
        confirmed = labyrinth is not None and labyrinth.stands_out
        if confirmed or proposal.probability >= SURE or maps.signed is None:
            place = proposal if labyrinth is None else labyrinth
            ears[side] = _Ear(lps_mm=place.lps_mm, score=proposal.probability)
    return ears


def _as_ears(places: Sequence[PerilymphPlace]) -> list[_Ear]:
    """Places whose perilymph may be an ear's; never as sure as the network can be."""
    return [_Ear(lps_mm=place.lps_mm, score=_score(place.evidence_mm3)) for place in places]


def _score(evidence_mm3: float) -> float:
    """How sure an ear is of which only its perilymph is known."""
    return FOUND * (1.0 - exp(-evidence_mm3 / NORMAL_EVIDENCE_MM3))


def _certain(ear: _Ear) -> bool:
    """True of ears that the network found, and of places with enough perilymph."""
    return ear.score >= _score(CERTAIN_EVIDENCE_MM3)


def _with_perilymph(
    ears: Mapping[EarSide, _Ear], places: Sequence[_Ear], proposals: Mapping[EarSide, EarProposal]
) -> dict[EarSide, _Ear]:
    """`ears`, completed by the most certain of `places` that the network allows and that lie to each other as ears."""
    right, left = (
        [ears[side]]
        if side in ears
        else [ear for ear in places if proposals[side].support(ear.lps_mm) >= (SUPPORT if _certain(ear) else HINT)]
        for side in (EarSide.RIGHT, EarSide.LEFT)
    )
    pairs = [
        pair
        for pair in product(right, left)
        if any(map(_certain, pair)) and _lie_as_ears(pair[0].lps_mm, pair[1].lps_mm)
    ]
    if len(ears) == len(EarSide) or not pairs:
        return dict(ears)
    one, other = max(pairs, key=lambda pair: pair[0].score * pair[1].score)
    return {EarSide.RIGHT: one, EarSide.LEFT: other}


def _lie_as_ears(right_mm: FloatArray, left_mm: FloatArray) -> bool:
    """True if two places are 60 to 100 mm apart, across the head, the left one on the patient's left."""
    across = left_mm - right_mm
    distance = float(np.linalg.norm(across))
    apart = INTER_EAR_DISTANCE_MM[0] <= distance <= INTER_EAR_DISTANCE_MM[1]
    return apart and bool(across[0] >= distance * np.cos(np.radians(MAX_TILT_DEG)))


def _none_found(proposals: Mapping[EarSide, EarProposal], places: Sequence[_Ear], maps: SearchMaps) -> EarSearch:
    """Why there is no ear: no contrast agent where one may be, or nothing like an ear."""
    likeliest = max(proposals.values(), key=lambda proposal: proposal.probability)
    if maps.perilymph is not None and likeliest.probability >= HINT and not places:
        start, shape = ear_box(likeliest.lps_mm, maps.geometry)
        bright = np.asarray(maps.volume(maps.fluid).crop(start, shape).array) > 0.5
        positive = np.asarray(maps.volume(maps.perilymph).crop(start, shape).array)[bright] > 0.0
        share = float(positive.mean()) if positive.size else 0.0
        if share < POSITIVE_SHARE:
            message = f"Where an inner ear may be, {share:.0%} of the fluid is positive on HYDROPS: no contrast agent"
            flag = _stop(QualityCode.NO_CONTRAST, message, measured=share, limit=POSITIVE_SHARE)
            return EarSearch(rois={}, quality=(flag,), by_side=dict.fromkeys(EarSide, (flag,)))
    return _nothing(
        QualityCode.EAR_NOT_FOUND,
        "No inner ear was recognized: nothing has its shape on the MRC, and no pair of places its perilymph",
    )


def _strange_pair(ears: Mapping[EarSide, _Ear]) -> str:
    right, left = ears[EarSide.RIGHT].lps_mm, ears[EarSide.LEFT].lps_mm
    x, y, z = left - right
    return (
        f"Two places look like inner ears but do not lie as a patient's ears do: the left lies {x:.0f} mm to the left,"
        f" {y:.0f} mm behind and {z:.0f} mm above the right; check how the patient lay and was registered"
    )


def _lone(
    ears: Mapping[EarSide, _Ear], proposals: Mapping[EarSide, EarProposal], mrc: Volume, maps: SearchMaps
) -> EarSearch:
    """One ear in the slab: measured if its side is certain, refused otherwise."""
    ((side, ear),) = ears.items()
    (other,) = (proposal for name, proposal in proposals.items() if name is not side)
    same_place = float(np.linalg.norm(other.lps_mm - ear.lps_mm)) <= SAME_PLACE_MM
    mistakable = same_place and other.probability > MIRROR_DOUBT
    medial = _brain_side(ear, maps)
    if mistakable or ear.score < SURE or medial in (None, side):
        message = "One inner ear was found, but not where the head's midline is; side unknown"
        return _nothing(QualityCode.SIDE_UNSURE, message)
    return _found(ears, mrc)


def _brain_side(ear: _Ear, maps: SearchMaps) -> EarSide | None:
    """The side on which the cisterns around the brain stem lie, seen from an ear. None if that is not clear-cut."""
    # Smoothed, so that wide cisterns count and the thin sulci lateral of the ear do not.
    wide = ndimage.gaussian_filter(maps.fluid, CISTERN_MM / maps.geometry.spacing_mm, truncate=2.0) > 0.6
    points = maps.geometry.to_lps(np.argwhere(wide))
    if len(points) * maps.geometry.voxel_volume_mm3 < MIN_CSF_MM3:
        return None
    to_ear_mm = float(ear.lps_mm[0]) - points[:, 0]
    share_right_of_ear = float((to_ear_mm > 0.0).mean())
    if abs(float(np.median(to_ear_mm))) < MIN_MEDIAL_MM or 1 - MEDIAL_SHARE < share_right_of_ear < MEDIAL_SHARE:
        return None
    return EarSide.RIGHT if share_right_of_ear > 0.5 else EarSide.LEFT


def _found(ears: Mapping[EarSide, _Ear], mrc: Volume) -> EarSearch:
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


def _roi(side: EarSide, ear: _Ear, grid: VolumeGeometry) -> EarROI:
    """The box of whole MRC voxels around the centroid."""
    start, shape = ear_box(ear.lps_mm, grid)
    x, y, z = (float(c) for c in ear.lps_mm)
    return EarROI(side=side, center_lps_mm=(x, y, z), geometry=grid.crop(start, shape), score=min(1.0, ear.score))


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
