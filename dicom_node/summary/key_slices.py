"""The slices a summary shows of one ear: MRC and HYDROPS-Mi2 where the vestibule and the cochlea are largest.

Each is a plane of the MRC's own grid, shown the radiological way; nothing is interpolated across slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.measurements import EarMeasurements
from dicom_node.views.orientation import Display, Plane, display, edge_letters
from inference.findings import EarFindings, EarImages
from inference.geometry import Volume

FloatImage = NDArray[np.float64]
BoolImage = NDArray[np.bool_]

WHITE_PERCENTILE: Final = 99.7
"""Of an ear's box: MRC is white there. A single bright voxel must not darken the ear."""


WINDOW_MM: Final = (18.5, 21.5)
"""Height and width of what is shown around the fluid's middle: a labyrinth, a head's tilt and a rim of bone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KeySlice:
    """One plane of an ear, all arrays (rows downward, columns to the right) as they are shown.

    `mrc` and `mi2` are gray values 0..1: MRC from nothing to its brightest fluid, HYDROPS-Mi2 with bone at 0.5,
    perilymph brighter and endolymph darker. `letters` are those of the left, right, top and bottom edge.
    `size_mm` is (height, width).
    """

    title: str
    mrc: FloatImage
    mi2: FloatImage
    total_fluid: BoolImage
    endolymph: BoolImage
    letters: tuple[str, str, str, str]
    size_mm: tuple[float, float]


def key_slices(ear: EarFindings, measured: EarMeasurements) -> tuple[KeySlice, ...]:
    """Two planes of a measured ear: its levels, and for a level that cannot be told the slice with most fluid left."""
    if ear.images is None or ear.fluid is None:
        return ()
    geometry = ear.images.mrc.geometry
    shown = display(geometry, Plane.AXIAL)
    titles = [f"{level.part.capitalize()} level, {level.where}" if level.ratio else "" for level in measured.levels]
    return tuple(
        _key_slice(ear, index, title or _OTHERWISE[place], shown)
        for place, (index, title) in enumerate(zip(_places(ear, shown), titles or ("", ""), strict=True))
    )


_OTHERWISE: Final = ("Slice with much fluid", "Another slice with much fluid")
"""What stands over a slice where a level cannot be told."""


def _places(ear: EarFindings, shown: Display) -> list[int]:
    """The plane to show for each level, counted within the ear's box; two planes if no levels were looked for."""
    assert ear.fluid is not None, "only a measured ear has key slices"
    mask = np.asarray(ear.fluid.total_fluid_mask.array, dtype=bool)
    area = np.moveaxis(mask, shown.through, 0).sum(axis=(1, 2)).astype(float)
    first = _first_slice(ear)
    told = [None if one.slice_index is None or shown.through != 0 else one.slice_index - first for one in ear.levels]
    places: list[int] = []
    for index in told or [None, None]:
        taken = [*(one for one in told if one is not None), *places]
        free = np.where(np.isin(np.arange(len(area)), taken), -1.0, area)
        places.append(int(np.argmax(free)) if index is None else index)
    return places


def _first_slice(ear: EarFindings) -> int:
    """Where the ear's box begins on the MRC: slices with fluid are counted there."""
    assert ear.fluid is not None, "only a measured ear has slices"
    areas = np.asarray(ear.fluid.total_fluid_fraction.array, dtype=np.float64).sum(axis=(1, 2))
    if not ear.slices:
        return 0
    largest = max(ear.slices, key=lambda one: one.total_fluid_mm2)
    return largest.slice_index - int(np.argmax(areas))


def _key_slice(ear: EarFindings, index: int, title: str, shown: Display) -> KeySlice:
    assert ear.images is not None, "only an ear with images has key slices"
    assert ear.fluid is not None, "only a measured ear has key slices"
    mrc = ear.images.mrc
    mi2 = hydrops_mi2(ear.images)
    reach = float(np.percentile(np.abs(mi2.array), WHITE_PERCENTILE)) or 1.0
    white = float(np.percentile(np.asarray(mrc.array, dtype=np.float64), WHITE_PERCENTILE)) or 1.0
    window = _window(ear, shown)
    planes = [
        np.asarray(shown.slice_of(volume.array, index)[window])
        for volume in (mrc, mi2, ear.fluid.total_fluid_mask, ear.fluid.endolymph_mask)
    ]
    rows, columns = planes[0].shape
    down, right = float(mrc.geometry.spacing_mm[shown.down]), float(mrc.geometry.spacing_mm[shown.right])
    return KeySlice(
        title=title,
        mrc=np.clip(planes[0].astype(np.float64) / white, 0.0, 1.0),
        mi2=np.clip(0.5 + 0.5 * planes[1].astype(np.float64) / reach, 0.0, 1.0),
        total_fluid=planes[2].astype(bool),
        endolymph=planes[3].astype(bool),
        letters=edge_letters(mrc.geometry, shown),
        size_mm=(rows * down, columns * right),
    )


def _window(ear: EarFindings, shown: Display) -> tuple[slice, slice]:
    """Rows and columns of the ear's shown planes within `WINDOW_MM` around its fluid, the same on every slice."""
    assert ear.fluid is not None, "only a measured ear has key slices"
    mask = ear.fluid.total_fluid_mask
    flat: BoolImage = np.any(np.asarray(mask.array, dtype=bool), axis=shown.through)
    if shown.down > shown.right:
        flat = flat.T
    flat = flat[:: -1 if shown.flip_down else 1, :: -1 if shown.flip_right else 1]
    spacing = (mask.geometry.spacing_mm[shown.down], mask.geometry.spacing_mm[shown.right])
    bounds = []
    for axis, (size_mm, step_mm) in enumerate(zip(WINDOW_MM, spacing, strict=True)):
        places = np.flatnonzero(flat.any(axis=1 - axis))
        middle = 0.5 * (places[0] + places[-1]) if len(places) else flat.shape[axis] / 2.0
        count = min(flat.shape[axis], round(size_mm / float(step_mm)))
        first = int(np.clip(round(middle - count / 2.0), 0, flat.shape[axis] - count))
        bounds.append(slice(first, first + count))
    return bounds[0], bounds[1]


def hydrops_mi2(images: EarImages) -> Volume:
    """HYDROPS multiplied by MRC, as readers know it: noise outside the fluid vanishes, the sign stays."""
    product = np.asarray(images.hydrops.array, dtype=np.float64) * np.asarray(images.mrc.array, dtype=np.float64)
    return Volume(array=product, geometry=images.mrc.geometry)
