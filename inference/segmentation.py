"""Who segments the fluid: the protocol that every method keeps, and the method that needs no training.

Everything the threshold method knows comes from physics and anatomy: fluid is bright on MRC, CSF is fluid without
contrast agent that reaches out of the temporal bone, and endolymph is the fluid inside the labyrinth that stays
negative on HYDROPS.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np

from inference.endolymph import EndolymphOptions, endolymph_share
from inference.findings import EarFluid, EarImages, ModelIdentity
from inference.geometry import Volume
from inference.labyrinth import FloatImage, LabyrinthOptions, total_fluid

VERSION = "2"

MASK_FRACTION = 0.5
"""A voxel belongs to a mask if at least half of it is that fluid; volumes are summed from fractions instead."""


class FluidSegmenter(Protocol):
    """Any method that turns an ear's images into fluid."""

    @property
    def identity(self) -> ModelIdentity:
        """Which method this is; written into every result."""
        ...

    def segment(self, ears: Sequence[EarImages]) -> list[EarFluid]:
        """Fluid of each ear, in the order given, on each ear's own grid.

        An ear without recognizable fluid gets empty fractions and masks; it is the gates' part to refuse it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ThresholdSegmenter:
    """The no-training method: fluid level and watershed on MRC, sign and level of HYDROPS inside it.

    Its constants are its "weights": their digest is the identity's `sha256`.
    """

    labyrinth: LabyrinthOptions = field(default_factory=LabyrinthOptions)
    endolymph: EndolymphOptions = field(default_factory=EndolymphOptions)

    @property
    def identity(self) -> ModelIdentity:
        """Name, version and the SHA-256 of the constants."""
        constants = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(f"{VERSION}:{constants}".encode()).hexdigest()
        return ModelIdentity(name="threshold", version=VERSION, sha256=digest, learned=False)

    def segment(self, ears: Sequence[EarImages]) -> list[EarFluid]:
        """Fluid of each ear, in the order given, on each ear's own grid."""
        return [self._segment_one(ear) for ear in ears]

    def _segment_one(self, ear: EarImages) -> EarFluid:
        fluid = total_fluid(ear.mrc, ear.hydrops, self.labyrinth)
        endolymph = fluid.fraction * endolymph_share(ear, fluid, self.endolymph)
        return fluid_from_fractions(ear, fluid.fraction, endolymph)


def fluid_from_fractions(
    ear: EarImages, total: FloatImage, endolymph: FloatImage, *, ratio_half_width: float | None = None
) -> EarFluid:
    """Fractions inside the MRC's slab, endolymph inside total fluid, and the masks that the half-voxel rule makes.

    An ear's box may reach beyond the slab; what a method finds there lies on no image and counts nowhere. A voxel is
    ENDOLYMPH in the mask if it is total fluid and at least half of its fluid is endolymph.
    `ratio_half_width` is what the segmenter knows of its own error (`EarFluid`).
    """
    geometry = ear.roi.geometry
    total = total * _slab(np.asarray(ear.mrc.array))
    endolymph = np.minimum(endolymph, total)
    total_mask = total >= MASK_FRACTION
    endolymph_mask = total_mask & (endolymph >= MASK_FRACTION * total)
    return EarFluid(
        roi=ear.roi,
        total_fluid_fraction=Volume(array=total, geometry=geometry),
        endolymph_fraction=Volume(array=endolymph, geometry=geometry),
        total_fluid_mask=Volume(array=total_mask, geometry=geometry),
        endolymph_mask=Volume(array=endolymph_mask, geometry=geometry),
        ratio_half_width=ratio_half_width,
    )


def _slab(mrc: FloatImage) -> FloatImage:
    """1 in the planes that hold any value of the MRC, 0 in those beyond them, which a crop is filled up with."""
    inside = np.zeros(mrc.shape, dtype=np.float32)
    held = [np.flatnonzero((mrc != 0.0).any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    if all(planes.size for planes in held):
        inside[tuple(slice(int(planes[0]), int(planes[-1]) + 1) for planes in held)] = 1.0
    return inside
