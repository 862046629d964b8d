"""A patient who moved during the MR cisternography (MRC): it then shows the head twice, a little beside itself.

Everything that is measured lies where the MRC shows fluid. If it shows a labyrinth at two places, a part of the fluid
is none, and is as dark on HYDROPS as half a voxel of endolymph: ratios come out too high, with narrow intervals. Edges
tell it: those of one picture fit themselves in one place alone, those of two fit once more where the second one lies.
So the edges of the MRC around the ears (its Laplacian) are compared with themselves moved by every shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from inference.findings import EarImages, QualityCode, QualityFlag, Severity
from inference.geometry import Volume
from inference.shifted_sums import Array, sums_by_shift

NEAREST_MM: Final = 1.5
"""Shortest shift looked at: nearer by, both sides of one canal fit each other."""

REACH_MM: Final = 8.0
"""Farthest shift looked at, along each axis."""

SMOOTH_MM: Final = 0.3
"""SD of the smoothing against noise; at 0.5 pictures 2 mm apart are one."""

BRIGHTEST: Final = 1.2
"""Of the fluid level (99th percentile): brighter voxels, fat among them, count as this bright."""

EMPTY_SHARE: Final = 0.12
"""Of the fluid level, for the mean of a voxel and its neighbors: below it lies bone, whose edges are noise."""

MIN_EMPTY_VOXELS: Final = 200
"""Fewer do not tell the noise, which then counts as none: edges fit less well, and less is found."""

TWICE: Final = 0.3
"""How well the edges fit themselves elsewhere, over how well they fit in place. Two equal pictures reach 0.43 to 0.6,
one of 0.7 and one of 0.3 0.28 to 0.44. Phantoms that lay still reach 0.16, 0.17 in slices of 2 mm or interpolated
twofold, and 0.26 in images that end abruptly in frequency space, 1.7 times as coarse as their voxels; a real ear on a
T2-SPACE 0.08, and 0.34 to 0.59 as soon as it lies over itself 2 to 4 mm away. Two pictures 2 mm apart along slices of
1 mm reach 0.1 to 0.2 in phantoms and may go unseen."""


STANDS_OUT: Final = 0.15
"""By how much better than anywhere else as far away: a flat edge (the floor of a cistern, a plate of bone) fits itself
at every shift within its plane, a second picture at one shift and its opposite."""

DIP: Final = 0.03
"""By how much better than somewhere on the way there: a straight edge fits itself all along it, less and less. Two
pictures 2 mm apart, whose own widths meet halfway, dip by 0.04."""

AS_FAR: Final = 0.3
"""Of the distance: what counts as equally far."""

STEPS: Final = 16
"""Places looked at on the way."""


@dataclass(frozen=True, kw_only=True)
class Echo:
    """The shift (LPS mm) at which the edges fit best again, and how well: 1 is in place, 0 by chance."""

    shift_lps_mm: tuple[float, float, float]
    fit: float

    @property
    def distance_mm(self) -> float:
        """Length of the shift."""
        return float(np.linalg.norm(self.shift_lps_mm))


def check_cisternogram(ears: Sequence[EarImages]) -> tuple[QualityFlag, ...]:
    """A STOP if the MRC around the ears of one study shows everything a second time.

    Parameters
    ----------
    ears
        Of one study, on crops of one MRC.
    """
    echo = second_picture([ear.mrc for ear in ears])
    if echo is None:
        return ()
    message = (
        f"The MR cisternography shows the inner ears and what lies around them a second time, {echo.distance_mm:.1f} mm"
        " away: the patient moved during its acquisition"
    )
    flag = QualityFlag(code=QualityCode.MOTION, severity=Severity.STOP, message=message, measured=echo.fit, limit=TWICE)
    return (flag,)


def second_picture(crops: Sequence[Volume]) -> Echo | None:
    """Where crops of one grid, alike in shape or not, show themselves again; None if they do not."""
    if not crops:
        return None
    spacing = crops[0].geometry.spacing_mm
    reach = [
        min(int(REACH_MM / edge), min(crop.array.shape[axis] for crop in crops) // 2)
        for axis, edge in enumerate(spacing)
    ]
    fits: Array = np.sum([_fits(crop, reach) for crop in crops], axis=0)
    in_place = float(fits[tuple(reach)])
    if in_place <= 0.0:
        return None
    fits = fits / in_place
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
    places_mm = steps * spacing
    peaks = (fits >= TWICE) & (fits == ndimage.maximum_filter(fits, 3))
    peaks &= np.linalg.norm(places_mm, axis=-1) >= NEAREST_MM
    for peak in sorted(map(tuple, np.argwhere(peaks)), key=lambda one: -float(fits[one])):
        if _is_alone(fits, places_mm, peak):
            x, y, z = (float(mm) for mm in crops[0].geometry.index_to_lps[:3, :3] @ steps[peak])
            return Echo(shift_lps_mm=(x, y, z), fit=float(fits[peak]))
    return None


def _is_alone(fits: Array, places_mm: Array, peak: tuple[np.intp, ...]) -> bool:
    """Whether the fit at that shift (`places_mm` (..., 3) of each) is of a picture, not of one long edge."""
    here, there = float(fits[peak]), places_mm[peak]
    distance = float(np.linalg.norm(there))
    far = np.linalg.norm(places_mm, axis=-1)
    others = (np.abs(far - distance) <= AS_FAR * distance) & (far >= NEAREST_MM)
    for way in (there, -there):
        others &= np.linalg.norm(places_mm - way, axis=-1) >= NEAREST_MM
    if others.any() and float(fits[others].max()) > here - STANDS_OUT:
        return False
    middle = (np.array(fits.shape) - 1) / 2.0
    way_there = np.linspace(middle, np.array(peak, dtype=np.float64), STEPS)
    return float(ndimage.map_coordinates(fits, way_there.T, order=1).min()) <= here - DIP


def _fits(crop: Volume, reach: Sequence[int]) -> Array:
    """Sum of the edges times themselves, for every shift; what noise adds in place is taken away there."""
    image = np.asarray(crop.array, dtype=np.float64)
    level = float(np.percentile(image, 99.0))
    if level <= 0.0:
        return np.zeros([2 * n + 1 for n in reach])
    image = np.minimum(image / level, BRIGHTEST)
    edges = ndimage.laplace(ndimage.gaussian_filter(image, SMOOTH_MM / np.asarray(crop.geometry.spacing_mm)))
    empty = ndimage.binary_erosion(ndimage.uniform_filter(image, 3) < EMPTY_SHARE)
    noise = 0.0
    if np.count_nonzero(empty) >= MIN_EMPTY_VOXELS:
        noise = (1.4826 * float(np.median(np.abs(edges[empty] - np.median(edges[empty]))))) ** 2
    fits = sums_by_shift(edges, edges, reach)
    for axis, (size, far) in enumerate(zip(edges.shape, reach, strict=True)):
        seen = (size - np.abs(np.arange(-far, far + 1))) / size  # of the crop, at that shift
        fits = fits / np.expand_dims(seen, [other for other in range(3) if other != axis])
    fits[tuple(reach)] -= noise * edges.size
    return fits
