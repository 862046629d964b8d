"""One ear judged: what was found next to what is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.anatomy import INTER_EAR_DISTANCE_MM, EarSide
from inference.cases import COMPARTMENTS, CaseError, EarCase, cut
from inference.evaluation.overlap import Overlap, overlap
from inference.findings import EarFindings, EarFluid, Severity
from inference.geometry import Volume, VolumeGeometry
from inference.quantification import measure_ear
from inference.segmentation import MASK_FRACTION, FluidSegmenter

WRONG_EAR_MM: Final = INTER_EAR_DISTANCE_MM[0] / 2.0
"""An ear found farther than this from where it truly is lies nearer to the other ear."""

NOT_FOUND: Final = "EAR_NOT_FOUND"


@dataclass(frozen=True, kw_only=True)
class CompartmentScore:
    """One compartment of an ear: overlaps and ratios of the fluid that lies in it; a ratio without fluid is None."""

    total_fluid: Overlap
    endolymph: Overlap
    true_ratio: float | None
    ratio: float | None


@dataclass(frozen=True, kw_only=True)
class EarScore:
    """One ear, found and true; None where nothing was found.

    Parameters
    ----------
    case, side
        Which ear.
    tags
        What is known about it (`input_set`, `severity`, `snr`, `contrast`, `domain`, ...), for grouping.
    true_ratio
        Endolymph / total fluid, 0..1; None if the truth holds no fluid.
    ratio, low, high
        What was found, with its 95 % interval if there is one.
    total_fluid, endolymph
        How they overlap with the truth.
    compartments
        By name, where the truth tells compartments apart.
    center_error_mm
        From the found box's center to the true fluid's centroid.
    side_error
        True if the ear found is the other one.
    refusals, remarks
        Codes of the reasons why there is no number, and of warnings about the number.
    seconds
        Time that the measurement of the whole study took, if it was taken.
    """

    case: str
    side: EarSide
    tags: Mapping[str, str | float] = field(default_factory=dict)
    true_ratio: float | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    total_fluid: Overlap | None = None
    endolymph: Overlap | None = None
    compartments: Mapping[str, CompartmentScore] = field(default_factory=dict)
    center_error_mm: float | None = None
    side_error: bool = False
    refusals: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def measured(self) -> bool:
        """True if the ear got a number."""
        return self.ratio is not None

    @property
    def ratio_error(self) -> float | None:
        """Found less true ratio; None unless both exist."""
        return None if self.ratio is None or self.true_ratio is None else self.ratio - self.true_ratio

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the truth; None without interval or truth."""
        if self.low is None or self.high is None or self.true_ratio is None:
            return None
        return self.low <= self.true_ratio <= self.high


def compare(fluid: EarFluid, case: EarCase) -> EarScore:
    """Judge a segmentation.

    `fluid` and the truth may cover different parts of one lattice; what lies outside a box counts as empty there.
    The interval is the segmenter's own, if it states one.

    Raises
    ------
    CaseError
        If the voxels of fluid and truth do not coincide.
    """
    grid = _common_grid(fluid.roi.geometry, case.total_fluid.geometry)
    total, endolymph, total_mask, endolymph_mask = (
        _on(grid, volume)
        for volume in (
            fluid.total_fluid_fraction,
            fluid.endolymph_fraction,
            fluid.total_fluid_mask,
            fluid.endolymph_mask,
        )
    )
    found = _Fluids(total=total, endolymph=endolymph, masks=(total_mask > 0, endolymph_mask > 0))
    true_total, true_endolymph = _on(grid, case.total_fluid), _on(grid, case.endolymph)
    true = _Fluids(total=true_total, endolymph=true_endolymph, masks=truth_masks(true_total, true_endolymph))
    k, j, i = grid.spacing_mm.tolist()
    whole = _compare_fluids(found, true, (k, j, i))
    ratio = _ratio(endolymph, total)
    half = fluid.ratio_half_width
    center_error = float(np.linalg.norm(np.array(fluid.roi.center_lps_mm) - fluid_center_mm(case.total_fluid)))
    return replace(
        blank(case),
        ratio=ratio,
        low=None if ratio is None or half is None else max(0.0, ratio - half),
        high=None if ratio is None or half is None else min(1.0, ratio + half),
        total_fluid=whole.total_fluid,
        endolymph=whole.endolymph,
        compartments={
            name: _compare_fluids(found.inside(territory), true.inside(territory), (k, j, i))
            for name, territory in _territories(case, grid).items()
        },
        center_error_mm=center_error,
        side_error=fluid.roi.side is not case.images.roi.side or center_error > WRONG_EAR_MM,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fluids:
    """Fractions and masks (total fluid, endolymph) of one ear, or of a part of it."""

    total: NDArray[np.float32]
    endolymph: NDArray[np.float32]
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    def inside(self, territory: NDArray[np.bool_]) -> _Fluids:
        """What of it lies in `territory`."""
        return _Fluids(
            total=self.total * territory,
            endolymph=self.endolymph * territory,
            masks=(self.masks[0] & territory, self.masks[1] & territory),
        )


def _compare_fluids(found: _Fluids, true: _Fluids, spacing_mm: tuple[float, float, float]) -> CompartmentScore:
    return CompartmentScore(
        total_fluid=overlap(found.total, found.masks[0], true.total, true.masks[0], spacing_mm),
        endolymph=overlap(found.endolymph, found.masks[1], true.endolymph, true.masks[1], spacing_mm),
        true_ratio=_ratio(true.endolymph, true.total),
        ratio=_ratio(found.endolymph, found.total),
    )


def _territories(case: EarCase, grid: VolumeGeometry) -> dict[str, NDArray[np.bool_]]:
    """Each compartment's part of the grid; a voxel belongs to the nearest labeled one, so all that is found counts."""
    if case.compartments is None or not case.compartments.array.any():
        return {}
    labels = _on(grid, case.compartments).astype(np.uint8)
    nearest = ndimage.distance_transform_edt(
        labels == 0, sampling=grid.spacing_mm, return_distances=False, return_indices=True
    )
    everywhere = labels[tuple(nearest)]
    return {name: everywhere == number for number, name in enumerate(COMPARTMENTS, start=1)}


def judge(found: EarFindings, case: EarCase, *, seconds: float | None = None) -> EarScore:
    """Judge an ear's findings: its number with the interval that is reported, or the reasons why there is none."""
    refusals = tuple(dict.fromkeys(flag.code.value for flag in found.quality if flag.severity is Severity.STOP))
    remarks = tuple(dict.fromkeys(flag.code.value for flag in found.quality if flag.severity is Severity.WARN))
    if found.fluid is None or found.ratio is None:
        return replace(blank(case, refusals=refusals or (NOT_FOUND,), seconds=seconds), remarks=remarks)
    return replace(
        compare(found.fluid, case),
        ratio=found.ratio.value,
        low=found.ratio.low,
        high=found.ratio.high,
        remarks=remarks,
        seconds=seconds,
    )


def score_case(case: EarCase, segmenter: FluidSegmenter) -> EarScore:
    """Segment and measure one ear that is already found and aligned, with the gates that every study passes."""
    (fluid,) = segmenter.segment([case.images])
    return judge(measure_ear(case.images, fluid), case)


def blank(case: EarCase, *, refusals: tuple[str, ...] = (), seconds: float | None = None) -> EarScore:
    """The truth alone: an ear of which nothing was found, for these reasons."""
    return EarScore(
        case=str(case.tags.get("case", "")),
        side=case.images.roi.side,
        tags={key: value if isinstance(value, str) else float(value) for key, value in case.tags.items()},
        true_ratio=_ratio(np.asarray(case.endolymph.array), np.asarray(case.total_fluid.array)),
        refusals=refusals,
        seconds=seconds,
    )


def truth_masks(
    total: NDArray[np.float32], endolymph: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(total fluid, endolymph) masks of true fractions, by the rule that makes the node's own masks."""
    inside = total >= MASK_FRACTION
    return inside, inside & (endolymph >= MASK_FRACTION * total)


def _ratio(endolymph: NDArray[np.generic], total: NDArray[np.generic]) -> float | None:
    amount = float(np.asarray(total, dtype=np.float64).sum())
    return float(np.asarray(endolymph, dtype=np.float64).sum()) / amount if amount > 0.0 else None


def fluid_center_mm(fraction: Volume) -> NDArray[np.float64]:
    """LPS mm of the fluid's centroid.

    Raises
    ------
    CaseError
        If there is no fluid.
    """
    fluid = np.asarray(fraction.array, dtype=np.float64)
    places = np.argwhere(fluid > 0.0)
    if len(places) == 0:
        raise CaseError("the truth holds no fluid; an ear without labyrinth cannot be judged")
    middle: NDArray[np.float64] = fraction.geometry.to_lps(np.average(places, axis=0, weights=fluid[fluid > 0.0]))
    return middle


def _common_grid(one: VolumeGeometry, other: VolumeGeometry) -> VolumeGeometry:
    """The smallest box of `one`'s lattice that holds both grids."""
    first = np.rint(one.to_index(other.to_lps((0, 0, 0)))).astype(int)
    low = np.minimum(first, 0)
    high = np.maximum(first + other.shape, one.shape)
    k, j, i = (int(n) for n in low)
    depth, height, width = (int(n) for n in high - low)
    return one.crop((k, j, i), (depth, height, width))


def _on(grid: VolumeGeometry, volume: Volume) -> NDArray[np.float32]:
    """`volume` on a grid that contains its own; float32, zero around it."""
    return np.asarray(cut(volume, grid).array, dtype=np.float32)
