"""Pictures of a result, drawn from the DICOM files: what the PACS got back is what you see.

Contours come from the returned SEG, read by highdicom and laid over the MR images by their positions in the patient.
The contrast series are moved by the alignment that the node found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import highdicom
import matplotlib

matplotlib.use("Agg")
import numpy as np
import pydicom
import SimpleITK as sitk
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

Bool = NDArray[np.bool_]

HALF_WIDTH_MM: Final = 14.0
"""Each panel shows 28 x 28 mm: one labyrinth and a margin."""

TOTAL_FLUID_COLOR: Final = "#35b6ff"
ENDOLYMPH_COLOR: Final = "#ffb000"
"""Blue and amber differ in hue and lightness, also for color-blind readers and on a printout."""

CONTRAST: Final = "PPI minus PEI, aligned"
"""The contrast image that is drawn: perilymph white, endolymph and cerebrospinal fluid black, bone gray."""
CAPTION: Final = "Research use only. Not for diagnostic use. Synthetic patient."


def show_summary(capture: Path, out: Path) -> Path:
    """The pixels of the returned Secondary Capture as PNG."""
    Image.fromarray(pydicom.dcmread(capture).pixel_array).save(out)
    return out


def draw_overview(study: Path, segmentation: Path, findings: Mapping[str, Any], out: Path) -> Path:
    """Both ears on MRC and on the aligned contrast image, with and without contours, in the slice with most fluid."""
    mrc = read_series(study / "MRC")
    ppi, pei = (
        sitk.Resample(read_series(study / role), mrc, _alignment(findings, role), sitk.sitkLinear, 0.0)
        for role in ("PPI", "PEI")
    )
    images = {"MRC": mrc, CONTRAST: ppi - pei}
    fluid, endolymph = read_segments(segmentation, mrc)
    figure, axes = plt.subplots(2, 2 * len(images), figsize=(3.4 * 2 * len(images), 7.6), facecolor="black")
    for row, side in enumerate(("right", "left")):
        for column, (name, image) in enumerate(images.items()):
            for plain, axis in enumerate(axes[row, 2 * column : 2 * column + 2]):
                _draw_panel(axis, image, fluid.get(side), endolymph.get(side), contours=bool(plain))
                axis.set_title(f"{side} ear, {name}", color="white", fontsize=10)
        axes[row, 0].set_ylabel(_caption(findings, side), color="white", fontsize=10)
    handles = [plt.Line2D([], [], color=TOTAL_FLUID_COLOR), plt.Line2D([], [], color=ENDOLYMPH_COLOR)]
    figure.legend(handles, ["total fluid space", "endolymph"], loc="lower left", labelcolor="white", facecolor="black")
    figure.text(0.99, 0.015, CAPTION, color="white", ha="right", fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(out, dpi=110, facecolor="black")
    plt.close(figure)
    return out


def draw_ratios(findings: Mapping[str, Any], truth: Mapping[str, Any], out: Path) -> Path:
    """Measured EH ratio with its interval beside the true one, per ear."""
    figure, axis = plt.subplots(figsize=(6, 3))
    for row, side in enumerate(("left", "right")):
        ratio = findings["ears"][side]["eh_ratio"]
        low, value, high = (100 * ratio[name] for name in ("low", "value", "high"))
        axis.errorbar([value], [row], xerr=[[value - low], [high - value]], fmt="o", color="black", capsize=4)
        axis.plot([100 * truth["ears"][side]["eh_ratio"]], [row], "D", color=ENDOLYMPH_COLOR, markersize=9, zorder=0)
    axis.set_yticks([0, 1], ["left ear", "right ear"])
    axis.set_ylim(-0.6, 1.6)
    axis.set_xlim(left=0)
    axis.set_xlabel("EH ratio = endolymph volume / total fluid volume (%)")
    handles = [
        plt.Line2D([], [], marker="o", color="black"),
        plt.Line2D([], [], marker="D", ls="", color=ENDOLYMPH_COLOR),
    ]
    axis.legend(handles, ["measured, 95 % interval", "truth"], loc="best", frameon=False)
    figure.text(0.99, 0.02, CAPTION, ha="right", fontsize=7)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def read_series(folder: Path) -> sitk.Image:
    """One MR series as an image in patient space, read by SimpleITK's own DICOM reader (GDCM)."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.Cast(reader.Execute(), sitk.sitkFloat32)


def _alignment(findings: Mapping[str, Any], role: str) -> sitk.AffineTransform:
    """Where each point of the MRC lies in the series of `role`: the inverse of the node's own alignment."""
    (found,) = (one for one in findings["alignments"] if one["role"] == role)
    mrc_to_series = np.linalg.inv(np.asarray(found["moving_to_fixed"], dtype=np.float64))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(mrc_to_series[:3, :3].ravel().tolist())
    transform.SetTranslation(mrc_to_series[:3, 3].tolist())
    return transform


def read_segments(path: Path, grid: sitk.Image) -> tuple[dict[str, Bool], dict[str, Bool]]:
    """(total fluid, endolymph) masks by side on `grid`, shape (K, J, I)."""
    dataset = highdicom.seg.segread(path)
    fluid: dict[str, Bool] = {}
    endolymph: dict[str, Bool] = {}
    for number in dataset.segment_numbers:
        description = dataset.get_segment_description(number)
        region = description.AnatomicRegionSequence[0]
        side = region.AnatomicRegionModifierSequence[0].CodeMeaning.lower()
        target = endolymph if "endolymph" in str(description.SegmentLabel).lower() else fluid
        target[side] = _on_grid(dataset.get_volume(segment_numbers=[number], combine_segments=True), grid)
    return fluid, endolymph


def _on_grid(volume: highdicom.Volume, grid: sitk.Image) -> Bool:
    """A highdicom volume (array index to LPS) as a mask on `grid`, by position and nothing else."""
    affine = volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.astype(np.uint8)))
    image.SetSpacing([float(one) for one in spacing[::-1]])
    image.SetDirection([float(one) for one in (affine[:3, :3] / spacing)[:, ::-1].ravel()])
    image.SetOrigin([float(one) for one in affine[:3, 3]])
    placed = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    mask: Bool = sitk.GetArrayFromImage(placed) > 0
    return mask


def _draw_panel(axis: Axes, image: sitk.Image, fluid: Bool | None, endolymph: Bool | None, *, contours: bool) -> None:
    """One ear in the slice where it has most fluid, shown as a radiologist looks at it: patient's right on the left."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_facecolor("black")
    if fluid is None or not fluid.any():
        axis.text(0.5, 0.5, "not evaluated", color="white", ha="center", transform=axis.transAxes)
        return
    array = sitk.GetArrayFromImage(image)
    k = int(fluid.sum(axis=(1, 2)).argmax())
    rows, columns = np.nonzero(fluid.any(axis=0))
    spacing = image.GetSpacing()
    middle = rows.mean(), columns.mean()
    half = HALF_WIDTH_MM / spacing[1], HALF_WIDTH_MM / spacing[0]
    window = array[fluid]
    low = min(0.0, float(np.percentile(array[k], 1)))
    axis.imshow(array[k], cmap="gray", vmin=low, vmax=float(np.percentile(window, 99)), aspect=spacing[1] / spacing[0])
    axis.set_ylim(middle[0] + half[0], middle[0] - half[0])
    to_the_left_of_the_screen = image.GetDirection()[0] > 0  # columns grow to the patient's left
    low_x, high_x = middle[1] - half[1], middle[1] + half[1]
    axis.set_xlim((low_x, high_x) if to_the_left_of_the_screen else (high_x, low_x))
    axis.text(0.03, 0.5, "R", color="white", transform=axis.transAxes, fontsize=11, weight="bold")
    axis.text(0.92, 0.5, "L", color="white", transform=axis.transAxes, fontsize=11, weight="bold")
    if contours:
        axis.contour(fluid[k], levels=[0.5], colors=[TOTAL_FLUID_COLOR], linewidths=1.2)
        if endolymph is not None and endolymph[k].any():
            axis.contour(endolymph[k], levels=[0.5], colors=[ENDOLYMPH_COLOR], linewidths=1.2)


def _caption(findings: Mapping[str, Any], side: str) -> str:
    ear = findings.get("ears", {}).get(side, {})
    ratio = ear.get("eh_ratio")
    if not ratio or ratio["value"] is None:
        return f"{side} ear: not evaluated"
    return (
        f"EH ratio {100 * ratio['value']:.1f} %  ({100 * ratio['low']:.1f} to {100 * ratio['high']:.1f})\n"
        f"fluid {ear['total_fluid_mm3']:.0f}, endolymph {ear['endolymph_mm3']:.0f} mm3"
    )
