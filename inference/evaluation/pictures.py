"""Pictures of single ears: contours on slices, and the labyrinth with its endolymph in three dimensions. As PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LightSource, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import ndimage

from inference.cases import EarCase, cut
from inference.evaluation.scores import fluid_center_mm, truth_masks
from inference.findings import EarFluid
from inference.geometry import Volume

FLUID_COLOR: Final = "#35b6ff"
ENDOLYMPH_COLOR: Final = "#ffb000"
TRUTH_COLOR: Final = "#ff4dd2"
"""Blue and amber differ in hue and lightness, also for color-blind readers; the truth is dashed, and pink because it
must be seen on black bone and on white fluid."""

WINDOW_MM: Final = 20.0
"""Edge of what a slice shows: a labyrinth (16 mm) and what it borders on."""

SURFACE_FRACTION: Final = 0.35
"""Filling at which a surface is drawn: canals are thinner than two voxels and seldom fill half of one."""

SEEN_MM: Final = 19.0
"""Edge of the cube around a labyrinth that is drawn; a larger one gets a larger cube."""

CLEAR_MM: Final = 1.2
"""Between the labyrinth and the bar."""

SCALE_MM: Final = 5.0
SCALE_COLOR: Final = "#7a8694"
"""Length of the bar beside a surface, and a gray that shows on white and on dark pages."""

SLICE_SHARES: Final = (0.15, 0.5, 0.85)
"""Of the true fluid along the slices: canals, vestibule and cochlea, whichever way the slab runs."""

FINE_MM: Final = 0.25
"""Grid on which a surface is drawn; coarser ones show the voxels' steps instead of the ear."""

DPI: Final = 110


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One ear with what was found in it, and a caption."""

    case: EarCase
    fluid: EarFluid
    caption: str


def overlays(ears: Sequence[Shown]) -> bytes:
    """PNG: one row per ear, three slices on MRC (total fluid) and HYDROPS (endolymph), found and true contours."""
    columns = 2 * len(SLICE_SHARES)
    figure = Figure(figsize=(2.1 * columns, 2.35 * len(ears) + 0.5), facecolor="black", layout="constrained")
    panels = figure.subplots(len(ears), columns, squeeze=False)
    for ear, line in zip(ears, panels, strict=True):
        found, true = _masks(ear)
        slices = _slices(ear.case)
        for number, (name, image) in enumerate((("MRC", ear.case.images.mrc), ("HYDROPS", ear.case.images.hydrops))):
            color = (FLUID_COLOR, ENDOLYMPH_COLOR)[number]
            for place, k in enumerate(slices):
                axes = line[number * len(slices) + place]
                _slice(axes, image, k)
                _contour(axes, found[number][k], color, "solid")
                _contour(axes, true[number][k], TRUTH_COLOR, "dashed")
                _zoom(axes, ear.case)
                axes.set_title(f"{name}, slice {k}", color="white", fontsize=8)
        line[0].set_ylabel(ear.caption, color="white", fontsize=7)
    handles = [
        Line2D([], [], color=FLUID_COLOR, label="total fluid, found"),
        Line2D([], [], color=ENDOLYMPH_COLOR, label="endolymph, found"),
        Line2D([], [], color=TRUTH_COLOR, linestyle="dashed", label="truth"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, labelcolor="white", facecolor="black", frameon=False
    )
    return _png(figure)


def side_by_side(ears: Sequence[Shown]) -> bytes:
    """PNG: one block per ear, a row per slice of the MRC, plain on the left, with total fluid contours on the right."""
    rows = len(SLICE_SHARES)
    figure = Figure(figsize=(4.2 * len(ears), 2.1 * rows + 0.4), facecolor="black", layout="constrained")
    blocks = figure.subfigures(1, len(ears), squeeze=False)[0]
    for ear, block in zip(ears, blocks, strict=True):
        block.set_facecolor("black")
        block.suptitle(ear.caption, color="white", fontsize=11)
        found, true = _masks(ear)
        for line, k in zip(block.subplots(rows, 2), _slices(ear.case), strict=True):
            for axes in line:
                _slice(axes, ear.case.images.mrc, k)
                _zoom(axes, ear.case)
            _contour(line[1], found[0][k], FLUID_COLOR, "solid")
            _contour(line[1], true[0][k], TRUTH_COLOR, "dashed")
    return _png(figure)


def labyrinth_in_space(fluid: EarFluid, title: str, *, endolymph: bool = True) -> bytes:
    """PNG: the total fluid as a glass shell with the endolymph inside, from the side and from below, with a scale.

    `endolymph` False leaves it out, where no contrast series could have shown it.
    """
    figure = Figure(figsize=(9.0, 4.6))
    figure.subplots_adjust(left=0.0, right=1.0, bottom=0.0, top=0.9, wspace=0.0)
    for number, (name, elevation, azimuth) in enumerate((("from the side", 8.0, -10.0), ("from below", -82.0, -90.0))):
        axes: Any = figure.add_subplot(1, 2, number + 1, projection="3d")
        shell = _surface(fluid.total_fluid_fraction)
        inner = _surface(fluid.endolymph_fraction) if endolymph else None
        # One collection for both: matplotlib sorts triangles by depth within a collection only.
        triangles, colors = [], []
        for surface, color, alpha in ((shell, FLUID_COLOR, 0.16), (inner, ENDOLYMPH_COLOR, 1.0)):
            if surface is not None:
                triangles.append(surface)
                colors.append(_shaded(surface, color, alpha))
        if triangles:
            _draw_surface(axes, np.concatenate(triangles), np.concatenate(colors), along_y=number == 0)
        axes.view_init(elev=elevation, azim=azimuth)
        axes.set_title(f"{title}, {name}" if number == 0 else name, fontsize=10)
    return _png(figure)


def _masks(ear: Shown) -> tuple[tuple[NDArray[np.bool_], ...], tuple[NDArray[np.bool_], ...]]:
    """(found, true) masks of total fluid and endolymph on the grid of the images."""
    box = ear.case.images.mrc.geometry
    found = tuple(
        np.asarray(cut(mask, box).array, dtype=bool) for mask in (ear.fluid.total_fluid_mask, ear.fluid.endolymph_mask)
    )
    total, endolymph = (
        np.asarray(cut(truth, box).array, dtype=np.float32) for truth in (ear.case.total_fluid, ear.case.endolymph)
    )
    return found, truth_masks(total, endolymph)


def _slices(case: EarCase) -> list[int]:
    """Indices of the slices below which the given shares of the true fluid lie."""
    per_slice = np.asarray(cut(case.total_fluid, case.images.mrc.geometry).array, dtype=np.float64).sum(axis=(1, 2))
    share = np.cumsum(per_slice) / max(per_slice.sum(), 1e-9)
    return [int(np.searchsorted(share, wanted)) for wanted in SLICE_SHARES]


def _slice(axes: Axes, image: Volume, k: int) -> None:
    """One slice as radiologists look at it: front up, the patient's left on the right."""
    array = np.asarray(image.array, dtype=np.float32)
    low, high = np.percentile(array, (1.0, 99.7))
    spacing, directions = image.geometry.spacing_mm, image.geometry.directions
    axes.imshow(array[k], cmap="gray", vmin=low, vmax=high, aspect=float(spacing[1] / spacing[2]))
    axes.set(xticks=[], yticks=[], facecolor="black")
    if directions[1, 1] < 0:
        axes.invert_yaxis()
    if directions[0, 2] < 0:
        axes.invert_xaxis()


def _zoom(axes: Axes, case: EarCase) -> None:
    """Show `WINDOW_MM` around the true fluid, whichever way the axes run."""
    grid = case.images.mrc.geometry
    _, j, i = grid.to_index(fluid_center_mm(case.total_fluid))
    half_j, half_i = WINDOW_MM / 2.0 / grid.spacing_mm[1:]
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    axes.set_ylim(j - half_j * np.sign(top - bottom), j + half_j * np.sign(top - bottom))
    axes.set_xlim(i - half_i * np.sign(right - left), i + half_i * np.sign(right - left))


def _contour(axes: Axes, mask: NDArray[np.bool_], color: str, style: str) -> None:
    if mask.any():
        axes.contour(mask, levels=[0.5], colors=color, linewidths=0.9, linestyles=style)


def _surface(fraction: Volume) -> NDArray[np.float64] | None:
    """(T, 3, 3) triangles in LPS mm where a voxel is filled to `SURFACE_FRACTION`; None if none is."""
    from skimage import measure

    marching_cubes: Any = measure.marching_cubes
    zoom = fraction.geometry.spacing_mm / FINE_MM
    fine = ndimage.zoom(
        np.asarray(fraction.array, dtype=np.float32), zoom, order=1, grid_mode=True, mode="grid-constant"
    )
    fine = ndimage.gaussian_filter(fine, 0.8)
    if fine.max() <= SURFACE_FRACTION:
        return None
    vertices, faces, _, _ = marching_cubes(fine, SURFACE_FRACTION)
    index = (vertices + 0.5) / zoom - 0.5
    triangles: NDArray[np.float64] = fraction.geometry.to_lps(index)[faces]
    return triangles


def _shaded(triangles: NDArray[np.float64], color: str, alpha: float) -> NDArray[np.float64]:
    """(T, 4) colors lit from the upper left."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    light = np.abs(normals @ LightSource(azdeg=225.0, altdeg=45.0).direction)
    rgb = np.array(to_rgb(color)) * (0.45 + 0.55 * light)[:, None]
    return np.concatenate([rgb, np.full((len(rgb), 1), alpha)], axis=1)


def _draw_surface(axes: Any, triangles: NDArray[np.float64], colors: NDArray[np.float64], *, along_y: bool) -> None:
    """Lit triangles without axes; the scale bar runs along y (seen from the side) or x."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    axes.add_collection3d(Poly3DCollection(triangles, facecolors=colors, linewidths=0))
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    middle = (low + high) / 2.0
    # One scale for every ear, so that their sizes can be compared by eye.
    half = max(SEEN_MM / 2.0, float((high - low).max()) / 2.0)
    limits = np.stack([middle - half, middle + half], axis=1)
    axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
    axes.set_box_aspect((1.0, 1.0, 1.0), zoom=1.5)
    axes.set_axis_off()
    along = np.array([0.0, SCALE_MM, 0.0] if along_y else [SCALE_MM, 0.0, 0.0])
    beyond = middle.copy()
    beyond[2 if along_y else 1] = low[2 if along_y else 1] - CLEAR_MM
    bar = np.stack([beyond - along / 2.0, beyond + along / 2.0])
    axes.plot(*bar.T, color=SCALE_COLOR, linewidth=2.0)
    axes.text(*beyond, f"\n{SCALE_MM:g} mm", color=SCALE_COLOR, fontsize=8, ha="center", va="top")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return stream.getvalue()
