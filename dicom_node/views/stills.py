"""Still pictures of one ear as PNG: what the page shows without JavaScript, and what a screen reader's text describes.

Slices are shown the radiological way (`orientation`), in the slice with the most fluid; surfaces from in front and
from the ear's own side.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from dicom_node.views.orientation import Plane, display, edge_letters
from dicom_node.views.surfaces import Surface
from inference.anatomy import EarSide
from inference.findings import EarFindings
from inference.geometry import FloatArray, Volume

Color = tuple[int, int, int]

TOTAL_FLUID_COLOR: Final[Color] = (86, 180, 233)
ENDOLYMPH_COLOR: Final[Color] = (230, 159, 0)
"""The right ear's colors in the SEG (Okabe-Ito); both ears' pictures use them, each ear has a picture of its own."""

BACKGROUND: Final[Color] = (0, 0, 0)
TEXT: Final[Color] = (235, 235, 235)
RESEARCH_USE: Final = "Research use only"

PIXELS_PER_MM: Final = 10.0
GAP: Final = 8
FONT: Final = ImageFont.load_default(size=16)

SURFACE_PIXELS: Final = 400
OVERSAMPLING: Final = 2
LIGHT: Final = np.array([0.3, -0.4, 0.87])
"""Where the light comes from, in the picture's own axes: a little from the right and above, mostly from the viewer."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Gray values: `low` is black, `high` is white."""

    low: float
    high: float

    def gray(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Values as 0..255."""
        scaled = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return np.asarray(np.clip(scaled * 255.0, 0.0, 255.0), dtype=np.uint8)


def magnitude_window(volume: Volume) -> Window:
    """From nothing to nearly the brightest: the window of an MRC."""
    return Window(low=0.0, high=float(np.percentile(np.asarray(volume.array, dtype=np.float32), 99.7)) or 1.0)


def signed_window(volume: Volume) -> Window:
    """The same width on both sides of zero, so that bone is middle gray, endolymph black and perilymph white."""
    reach = float(np.percentile(np.abs(np.asarray(volume.array, dtype=np.float32)), 99.0)) or 1.0
    return Window(low=-reach, high=reach)


def slices_png(ear: EarFindings) -> bytes:
    """Three panels of the slice with the most fluid: MRC, HYDROPS aligned, HYDROPS before; contours on all of them.

    Raises
    ------
    ValueError
        If the ear was not measured, or kept no images.
    """
    if ear.images is None or ear.fluid is None or ear.hydrops_before_alignment is None:
        raise ValueError(f"the {ear.side} ear has no images to draw")
    shown = display(ear.images.mrc.geometry, Plane.AXIAL)
    mask = np.moveaxis(ear.fluid.total_fluid_mask.array, shown.through, 0)
    index = int(mask.sum(axis=(1, 2)).argmax())
    gray = signed_window(ear.images.hydrops)
    panels = [
        _panel(ear, ear.images.mrc, magnitude_window(ear.images.mrc), index, f"MRC, {ear.side} ear"),
        _panel(ear, ear.images.hydrops, gray, index, "HYDROPS, aligned"),
        _panel(ear, ear.hydrops_before_alignment, gray, index, "HYDROPS, before alignment"),
    ]
    return _png(_side_by_side(panels))


def surfaces_png(side: EarSide, total_fluid: Surface, endolymph: Surface) -> bytes:
    """Total fluid translucent, endolymph solid: seen from in front, and from the side of the ear."""
    from_front = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # right, up, toward the viewer
    outward = float(side.lps_sign)
    # From the right ear's side the patient looks to the viewer's right, from the left ear's side to the left.
    from_side = np.array([[0.0, outward, 0.0], [0.0, 0.0, 1.0], [outward, 0.0, 0.0]])
    panels = [
        _scene(total_fluid, endolymph, from_front, f"{side} ear from in front", ("R", "L")),
        _scene(total_fluid, endolymph, from_side, f"from the {side}", ("A", "P") if outward > 0 else ("P", "A")),
    ]
    return _png(_side_by_side(panels))


def _panel(ear: EarFindings, volume: Volume, window: Window, index: int, title: str) -> Image.Image:
    """One slice in gray with both contours, letters and title."""
    assert ear.fluid is not None
    shown = display(volume.geometry, Plane.AXIAL)
    spacing = volume.geometry.spacing_mm
    plane = shown.slice_of(volume.array, index)
    size = (
        round(plane.shape[1] * spacing[shown.right] * PIXELS_PER_MM),
        round(plane.shape[0] * spacing[shown.down] * PIXELS_PER_MM),
    )
    gray = Image.fromarray(np.ascontiguousarray(window.gray(plane))).resize(size, Image.Resampling.BILINEAR)
    picture = np.repeat(np.asarray(gray)[..., None], 3, axis=2).copy()
    for mask, color in (
        (ear.fluid.total_fluid_mask, TOTAL_FLUID_COLOR),
        (ear.fluid.endolymph_mask, ENDOLYMPH_COLOR),
    ):
        picture[_rim(shown.slice_of(mask.array, index), size)] = color
    image = Image.fromarray(picture)
    _write(image, title, edge_letters(volume.geometry, shown))
    return image


def _rim(mask: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Picture pixels along the inner rim of a mask, two pixels wide."""
    shape = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8) * 255)
    large = np.asarray(shape.resize(size, Image.Resampling.NEAREST)) > 0
    rim: NDArray[np.bool_] = large & ~ndimage.binary_erosion(large, iterations=2)
    return rim


def _scene(
    total_fluid: Surface, endolymph: Surface, axes: FloatArray, title: str, letters: tuple[str, str]
) -> Image.Image:
    """Both surfaces in parallel projection; rows of `axes` are right, up and toward the viewer in LPS."""
    size = SURFACE_PIXELS * OVERSAMPLING
    image = Image.new("RGB", (size, size), BACKGROUND)
    corners = total_fluid.vertices_lps_mm @ axes.T
    if len(corners):
        middle = 0.5 * (corners.min(axis=0) + corners.max(axis=0))
        scale = 0.8 * size / float(np.ptp(corners, axis=0)[:2].max())
        pen = ImageDraw.Draw(image, "RGBA")
        _draw(pen, total_fluid, axes, middle, scale, TOTAL_FLUID_COLOR, opacity=60, facing=-1)
        _draw(pen, endolymph, axes, middle, scale, ENDOLYMPH_COLOR, opacity=255, facing=1)
        _draw(pen, total_fluid, axes, middle, scale, TOTAL_FLUID_COLOR, opacity=80, facing=1)
    image = image.resize((SURFACE_PIXELS, SURFACE_PIXELS), Image.Resampling.LANCZOS)
    _write(image, title, (*letters, "H", "F"))
    return image


def _draw(
    pen: ImageDraw.ImageDraw,
    surface: Surface,
    axes: FloatArray,
    middle: FloatArray,
    scale: float,
    color: Color,
    *,
    opacity: int,
    facing: int,
) -> None:
    """The triangles that face the viewer (1) or turn away (-1), the farthest first, lit by how they lie."""
    if not len(surface.triangles):
        return
    points = (surface.vertices_lps_mm @ axes.T - middle) * scale
    corners = points[surface.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = 0.35 + 0.65 * np.clip(np.abs(normals @ (LIGHT / np.linalg.norm(LIGHT))), 0.0, 1.0)
    seen = np.flatnonzero(normals[:, 2] * facing > 0)
    half = SURFACE_PIXELS * OVERSAMPLING / 2.0
    for one in seen[np.argsort(corners[seen, :, 2].mean(axis=1))]:
        outline = [(half + x, half - y) for x, y, _z in corners[one]]
        pen.polygon(outline, fill=(*(int(part * light[one]) for part in color), opacity))


def _write(image: Image.Image, title: str, letters: tuple[str, str, str, str]) -> None:
    """Title, the letters of the four edges, and what the picture may not be used for."""
    pen = ImageDraw.Draw(image)
    width, height = image.size
    left, right, top, bottom = letters
    pen.text((GAP, GAP), title, fill=TEXT, font=FONT)
    pen.text((GAP, height / 2), left, fill=TEXT, font=FONT, anchor="lm")
    pen.text((width - GAP, height / 2), right, fill=TEXT, font=FONT, anchor="rm")
    pen.text((width / 2, 4 * GAP), top, fill=TEXT, font=FONT, anchor="mt")
    pen.text((width / 2, height - GAP), bottom, fill=TEXT, font=FONT, anchor="mb")
    pen.text((width - GAP, height - GAP), RESEARCH_USE, fill=TEXT, font=FONT, anchor="rb")


def _side_by_side(panels: list[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    row = Image.new("RGB", (width, max(panel.height for panel in panels)), BACKGROUND)
    left = 0
    for panel in panels:
        row.paste(panel, (left, 0))
        left += panel.width + GAP
    return row


def _png(image: Image.Image) -> bytes:
    """PNG bytes without time or software name: same picture, same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
