"""Whether a series was mirrored on its way here: its pixels flipped, and its header as it was.

The header's geometry then says right where the pixels show left. A head is so nearly the same on both sides that such
a series may still align, and each ear would get the other one's contrast. But the two sides are not quite the same:
with right and left exchanged, a series that was flipped fits the MRC better than it does as it came, any other worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from inference.findings import Alignment, EarROI
from inference.geometry import FloatArray, Volume
from inference.refinement import Comparison, Level, NoOverlap
from inference.resampling import invert_rigid

LEVEL: Final = Level(spacing_mm=1.0, smoothing_mm=1.0, radius_mm=17.0, points=3_000, longest_step_mm=1.0)
"""Coarse: half a millimeter more or less decides nothing here."""

MIN_GAIN: Final = 0.02
"""Nats of mutual information by which the mirrored series must fit better to be taken for the true one. Series of
phantoms (plain, noisy, thick slices, an ear ossified or without contrast agent) lose 0.05 to 0.27 by being mirrored,
and those that were flipped before gain as much."""

PATIENTS_LEFT: Final = np.array([1.0, 0.0, 0.0])


@dataclass(frozen=True, kw_only=True)
class MirrorComparison:
    """How well a series fits the MRC as it is, and with right and left exchanged; mutual information, nats."""

    as_it_is: float
    mirrored: float

    @property
    def is_mirrored(self) -> bool:
        """Whether one of the two series must have been flipped against the other."""
        return self.mirrored > self.as_it_is + MIN_GAIN


def compare_with_mirror(
    moving: Volume, fixed: Volume, ears: Sequence[EarROI], alignment: Alignment
) -> MirrorComparison | None:
    """A series beside its own mirror image, both where they fit the MRC best; None where they cannot be compared.

    Parameters
    ----------
    moving, fixed
        A contrast series and the MRC, as for `registration.align`.
    ears
        One or both ears. Between both lies the mirror; through a lone one it goes, which shows the flip of a slab that
        has this ear only.
    alignment
        What `registration.align` found for the series, believed or not.
    """
    if not ears:
        return None
    centers = np.array([ear.center_lps_mm for ear in ears])
    near = invert_rigid(alignment.moving_to_fixed)
    try:
        as_it_is = Comparison(moving, fixed, centers, near, LEVEL)
        exchanged = Comparison(_mirrored(moving, near, centers), fixed, centers, near, LEVEL)
    except NoOverlap:
        return None
    seen = MirrorComparison(as_it_is=as_it_is.similarity(near), mirrored=exchanged.similarity(exchanged.climb(near)))
    if not seen.is_mirrored:
        return seen
    # The mirrored one was moved to where it fits best; where the alignment failed, the true one was not.
    return replace(seen, as_it_is=as_it_is.similarity(as_it_is.climb(near)))


def _mirrored(moving: Volume, fixed_to_moving: FloatArray, centers: FloatArray) -> Volume:
    """The same pixels where a mirror in the fixed frame shows them; no pixel is copied."""
    across = centers[0] - centers[-1] if len(centers) > 1 else PATIENTS_LEFT
    across = across / np.linalg.norm(across)
    mirror = np.eye(4)
    mirror[:3, :3] -= 2.0 * np.outer(across, across)
    mirror[:3, 3] = 2.0 * across * (across @ centers.mean(axis=0))
    in_moving = fixed_to_moving @ mirror @ invert_rigid(fixed_to_moving)
    geometry = replace(moving.geometry, index_to_lps=in_moving @ moving.geometry.index_to_lps)
    return Volume(array=moving.array, geometry=geometry)
