"""Ears with truth, read from a folder of NIfTI files: images, fluid fractions and what is known about them.

Training and evaluation share this reader. One folder holds one patient's examination, with one ear or both:

    CASE/mrc.nii.gz              MR cisternography
    CASE/hydrops.nii.gz          SIGNED: perilymph > 0, endolymph < 0; and/or ...
    CASE/ppi.nii.gz, pei.nii.gz  magnitudes, always as a pair (PPI may also accompany HYDROPS), and/or ...
    CASE/hydrops_mi2.nii.gz      signed, HYDROPS x MRC, and/or ...
    CASE/real_ir.nii.gz          signed
    CASE/total_fluid.nii.gz      the whole labyrinth's fluid, part of each voxel 0..1 or a mask, on the grid of the MRC
    CASE/endolymph.nii.gz        the same for endolymph, inside it
    CASE/compartments.nii.gz     optional: 1 cochlea, 2 vestibule, 3 canals, 0 elsewhere, on the grid of the MRC
    CASE/case.json               optional tags: {"side": "left", "severity": "mild", "domain": "scanner A", ...}

The images of a case must be aligned; grids may differ. `.nii` does as well as `.nii.gz`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicom_node.encoding.nifti import read_nifti
from dicom_node.errors import UnusableInput
from inference.anatomy import LABYRINTH_EXTENT_MM, EarSide
from inference.cases import CERTAIN_SIDE_MM, COMPARTMENTS, EarCase, InputSet, cut
from inference.contrast import hydrops_from_mi2, hydrops_from_ppi_pei
from inference.findings import EarImages, EarROI
from inference.geometry import FloatArray, Volume, VolumeGeometry
from inference.resampling import part_covering, resample

EAR_BOX_MM: Final = (26.0, 32.0, 32.0)
"""Edges of an ear's box along k, j, i: the size that the localizer cuts out."""

MAX_LABYRINTH_MM: Final = 1.5 * max(LABYRINTH_EXTENT_MM)
"""A label that reaches farther is no labyrinth; generous contours widen the largest one by a few millimeters."""

MIN_BETWEEN_EARS_MM: Final = 30.0
"""Empty space between two labeled ears; labyrinths are 60 to 100 mm apart and at most 18 mm wide."""

MAX_OUTSIDE_SHARE: Final = 0.02
"""Of the endolymph, outside total fluid: rounding of a resampled label. It is taken back inside; more is an error."""

SIGNED: Final = ("hydrops", "hydrops_mi2", "real_ir")
LABELS: Final = ("total_fluid", "endolymph")
PARTS: Final = "compartments"
KNOWN_FILES: Final = ("mrc", "ppi", "pei", *SIGNED, *LABELS, PARTS, "labels")
"""`labels` is what `hydrops-node process` adds for viewers: the same masks in one file. It is not read."""
SUFFIXES: Final = (".nii.gz", ".nii")
CASE_FILES: Final = frozenset(f"{name}{suffix}" for name in KNOWN_FILES if name != "labels" for suffix in SUFFIXES)
"""Whose presence makes a folder a case; a site may have exported `labels` of its own anywhere."""


def case_folders(folder: Path) -> list[Path]:
    """Folders below `folder` (or `folder` itself) that hold files of a case, in the order of their names.

    A folder without an MRC is one, too, if anything else of a case lies in it: reading it says what is missing.

    Raises
    ------
    UnusableInput
        If there is none.
    """
    found = sorted({path.parent for path in folder.rglob("*.nii*") if path.name in CASE_FILES})
    if not found:
        raise UnusableInput(f"{folder}: expected one folder per case with mrc.nii.gz in it, found none")
    return found


def input_sets(folder: Path) -> tuple[InputSet, ...]:
    """The input sets that a case can be read as, the one with most information first."""
    return tuple(one for one in InputSet if all(_path(folder, name) is not None for name in one.file_names))


def has_cisternogram(folder: Path) -> bool:
    """Whether the case has an MRC; reading one that has none says so."""
    return _path(folder, "mrc") is not None


def read_case(folder: Path, *, inputs: InputSet | None = None, name: str | None = None) -> list[EarCase]:
    """The labeled ears of one case, right ear first, each cut out in a box of about `EAR_BOX_MM`.

    Parameters
    ----------
    folder
        As described at the top of this module.
    inputs
        Which images to use; None takes the first set that is there.
    name
        What the tag `case` says; None: the folder's name.

    Raises
    ------
    UnusableInput
        If a file is missing, unknown, unreadable, not three-dimensional, without orientation, constant or not finite;
        if labels are no fractions, not on the MRC's grid, empty or larger than a labyrinth; if the side is unsure.
    """
    _refuse_unknown_files(folder)
    tags = _read_tags(folder)
    frame = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, folder.resolve().as_uri()).int}"
    chosen = _choose(folder, inputs)
    mrc = _read_image(_required(folder, "mrc"), frame)
    total, endolymph = (_read_label(_required(folder, name), frame, mrc.geometry) for name in LABELS)
    endolymph = _nested(endolymph, total, folder)
    parts = _read_parts(folder, frame, mrc.geometry)
    series = {name: _read_image(_required(folder, name), frame) for name in chosen.file_names}
    if "ppi" not in series and chosen is InputSet.HYDROPS and (path := _path(folder, "ppi")) is not None:
        series["ppi"] = _read_image(path, frame)
    cases = []
    for side, inside in _ears(total, tags.get("side"), folder):
        own_total = np.where(inside, total.array, np.float32(0.0))
        own_endolymph = np.where(inside, endolymph.array, np.float32(0.0))
        if not own_endolymph.any():
            raise UnusableInput(
                f"{folder}: expected endolymph in the {side.value} ear, too, found total_fluid alone; label it, or "
                "take that ear out of total_fluid"
            )
        roi = _roi(side, Volume(array=own_total, geometry=mrc.geometry))
        named: dict[str, str | float] = {
            **tags,
            "case": name or folder.name,
            "side": side.value,
            "input_set": chosen.value,
        }
        cases.append(
            EarCase(
                images=_images(roi, mrc, series, chosen, folder),
                total_fluid=cut(Volume(array=own_total, geometry=mrc.geometry), roi.geometry),
                endolymph=cut(Volume(array=own_endolymph, geometry=mrc.geometry), roi.geometry),
                compartments=None if parts is None else cut(parts, roi.geometry),
                tags=named,
            )
        )
    return cases


def _path(folder: Path, name: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def _required(folder: Path, name: str) -> Path:
    path = _path(folder, name)
    if path is None:
        there = sorted(one.name for one in folder.iterdir())
        raise UnusableInput(f"{folder}: expected {name}.nii.gz, found {', '.join(there) or 'an empty folder'}")
    return path


def _refuse_unknown_files(folder: Path) -> None:
    known = {f"{name}{suffix}" for name in KNOWN_FILES for suffix in SUFFIXES}
    unknown = sorted(path.name for path in folder.glob("*.nii*") if path.name not in known)
    if unknown:
        raise UnusableInput(
            f"{folder}: cannot tell what {', '.join(unknown)} is; expected "
            + ", ".join(f"{name}.nii.gz" for name in KNOWN_FILES)
        )


def _choose(folder: Path, inputs: InputSet | None) -> InputSet:
    there = input_sets(folder)
    if inputs is None and not there:
        raise UnusableInput(
            f"{folder}: nothing shows endolymph; expected ppi and pei, hydrops, hydrops_mi2 or real_ir (.nii.gz)"
        )
    if inputs is not None and inputs not in there:
        wanted = " and ".join(f"{name}.nii.gz" for name in inputs.file_names)
        raise UnusableInput(f"{folder}: expected {wanted}, found {', '.join(there) or 'no complete input set'}")
    return inputs or there[0]


def _read_tags(folder: Path) -> dict[str, str | float]:
    path = folder / "case.json"
    if not path.is_file():
        return {}
    try:
        tags: Any = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except ValueError as error:  # also what is no JSON, or no UTF-8
        raise UnusableInput(f"{path}: expected JSON, found {error}") from None
    if not isinstance(tags, dict) or any(
        isinstance(value, bool) or not isinstance(value, str | int | float) for value in tags.values()
    ):
        raise UnusableInput(f'{path}: expected one object with texts and numbers, such as {{"side": "left"}}')
    if "side" in tags and tags["side"] not in set(EarSide):
        raise UnusableInput(f'{path}: side: expected "left" or "right", found {tags["side"]!r}')
    return tags


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant}, which is no number")


def _read_image(path: Path, frame: str) -> Volume:
    """Finite, not constant, float32; signed series must have a negative half."""
    volume = _read_nifti(path, frame)
    array = np.asarray(volume.array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise UnusableInput(
            f"{path}: expected finite values, found {np.count_nonzero(~np.isfinite(array))} that are not"
        )
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise UnusableInput(f"{path}: expected an image, found {low:g} in every voxel")
    if path.name.split(".")[0] in SIGNED and low >= 0.0:
        raise UnusableInput(
            f"{path}: expected signed values (perilymph > 0, endolymph < 0), found none below {low:g}; subtract the "
            "console's offset, or pass PPI and PEI instead"
        )
    return Volume(array=array, geometry=volume.geometry)


def _read_label(path: Path, frame: str, grid: VolumeGeometry) -> Volume:
    """Float32 0..1 on `grid`."""
    volume = _read_nifti(path, frame)
    array = np.asarray(volume.array, dtype=np.float32)
    if not volume.geometry.same_grid(grid, tolerance_mm=0.01):
        raise UnusableInput(f"{path}: expected the grid of the MRC, {_place(grid)}; found {_place(volume.geometry)}")
    if not np.isfinite(array).all() or array.min() < 0.0 or array.max() > 1.0:
        found = np.unique(array)[:6].tolist()
        raise UnusableInput(
            f"{path}: expected a mask of 0 and 1 or parts of a voxel 0..1, found values such as {found}"
        )
    if not array.any():
        raise UnusableInput(f"{path}: expected a labeled ear, found no voxel above 0")
    return Volume(array=array, geometry=grid)


def _read_parts(folder: Path, frame: str, grid: VolumeGeometry) -> Volume | None:
    """Compartment labels as uint8 on `grid`, if the case has them."""
    path = _path(folder, PARTS)
    if path is None:
        return None
    volume = _read_nifti(path, frame)
    if not volume.geometry.same_grid(grid, tolerance_mm=0.01):
        raise UnusableInput(f"{path}: expected the grid of the MRC, {_place(grid)}; found {_place(volume.geometry)}")
    values = np.unique(np.asarray(volume.array))
    if not np.isin(values, range(len(COMPARTMENTS) + 1)).all():
        known = ", ".join(f"{number} {name}" for number, name in enumerate(COMPARTMENTS, start=1))
        raise UnusableInput(f"{path}: expected 0, {known}; found values such as {values[:6].tolist()}")
    return Volume(array=np.asarray(volume.array).astype(np.uint8), geometry=grid)


def _place(grid: VolumeGeometry) -> str:
    first, spacing = grid.to_lps((0, 0, 0)).round(2).tolist(), grid.spacing_mm.round(3).tolist()
    return f"(K, J, I) = {grid.shape} of {spacing} mm from {first} mm (LPS)"


def _read_nifti(path: Path, frame: str) -> Volume:
    """The file's values at its place in LPS, or UnusableInput with the path and the reason."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read: {error.strerror}") from None
    return read_nifti(content, name=str(path), frame_of_reference_uid=frame)


def _nested(endolymph: Volume, total: Volume, folder: Path) -> Volume:
    """`endolymph` without what lies outside `total`, if that is next to nothing."""
    inside = np.minimum(endolymph.array, total.array)
    amount = float(endolymph.array.sum(dtype=np.float64))
    outside = 1.0 - float(inside.sum(dtype=np.float64)) / amount
    if outside > MAX_OUTSIDE_SHARE:
        raise UnusableInput(f"{folder}: expected endolymph inside total_fluid, found {outside:.0%} of it outside")
    return Volume(array=inside, geometry=endolymph.geometry)


def _ears(total: Volume, side: str | float | None, folder: Path) -> Iterator[tuple[EarSide, NDArray[np.bool_]]]:
    """Each labeled ear's side and (K, J, I) territory, the patient's right first."""
    index = np.moveaxis(np.indices(total.geometry.shape), 0, -1)
    x_mm: FloatArray = total.geometry.to_lps(index)[..., 0]
    labeled = np.asarray(total.array) > 0.0
    ordered = np.sort(x_mm[labeled])
    gaps = np.diff(ordered, prepend=ordered[0])
    widest = int(np.argmax(gaps))
    if gaps[widest] >= MIN_BETWEEN_EARS_MM:
        if side is not None:
            raise UnusableInput(f"{folder}: case.json says one side ({side}), found two labeled ears; remove the key")
        middle = ordered[widest] - gaps[widest] / 2.0
        parts = [(EarSide.RIGHT, x_mm < middle), (EarSide.LEFT, x_mm >= middle)]
    else:
        parts = [(_lone_side(float(ordered.mean()), side, folder), np.ones(labeled.shape, dtype=bool))]
    for name, territory in parts:
        reach = np.ptp(total.geometry.to_lps(np.argwhere(labeled & territory)), axis=0).max()
        if reach > MAX_LABYRINTH_MM:
            raise UnusableInput(
                f"{folder}: the {name} ear's total_fluid reaches over {reach:.0f} mm, a labyrinth over at most "
                f"{max(LABYRINTH_EXTENT_MM):.0f} mm; remove what is not labyrinth"
            )
        yield name, territory


def _lone_side(x_mm: float, side: str | float | None, folder: Path) -> EarSide:
    """The side that the coordinates tell; case.json decides where they are silent, and may not contradict them."""
    by_place = None
    if abs(x_mm) >= CERTAIN_SIDE_MM:
        by_place = EarSide.LEFT if x_mm > 0 else EarSide.RIGHT
    if by_place is None and side is None:
        raise UnusableInput(
            f"{folder}: the labeled ear lies {x_mm:.0f} mm from the middle of the coordinates, which does not tell its "
            'side; add case.json with {"side": "left"} or {"side": "right"}'
        )
    if by_place is not None and side is not None and by_place != side:
        raise UnusableInput(
            f"{folder}: case.json says {side}, found the ear at x = {x_mm:.0f} mm (LPS), the patient's {by_place}"
        )
    return by_place or EarSide(str(side))


def _roi(side: EarSide, total: Volume) -> EarROI:
    """The box around the fluid's centroid, on whole voxels and inside the image."""
    grid = total.geometry
    fluid = np.asarray(total.array, dtype=np.float64)
    places = np.argwhere(fluid > 0.0)
    middle = np.average(places, axis=0, weights=fluid[fluid > 0.0])
    half = np.array(EAR_BOX_MM) / grid.spacing_mm / 2.0
    low = np.maximum(np.rint(middle - half + 0.5).astype(int), 0)
    high = np.minimum(np.rint(middle + half + 0.5).astype(int), grid.shape)
    k, j, i = (int(n) for n in low)
    depth, height, width = (int(n) for n in high - low)
    x, y, z = (float(c) for c in grid.to_lps(middle))
    return EarROI(side=side, center_lps_mm=(x, y, z), geometry=grid.crop((k, j, i), (depth, height, width)), score=1.0)


def _images(roi: EarROI, mrc: Volume, series: Mapping[str, Volume], inputs: InputSet, folder: Path) -> EarImages:
    """The ear's images on its box, HYDROPS computed from what the case has."""
    own = cut(mrc, roi.geometry)
    on_box = {name: _onto(roi, _required(folder, name), volume) for name, volume in series.items()}
    if inputs is InputSet.PPI_PEI:
        hydrops = hydrops_from_ppi_pei(on_box["ppi"], on_box["pei"])
    elif inputs is InputSet.HYDROPS_MI2:
        hydrops = hydrops_from_mi2(on_box["hydrops_mi2"], own)
    else:
        hydrops = on_box[inputs.file_names[0]]
    return EarImages(
        roi=roi,
        mrc=own,
        hydrops=hydrops,
        ppi=on_box.get("ppi"),
        phase_sensitive=inputs is InputSet.REAL_IR,
        from_product=inputs is InputSet.HYDROPS_MI2,
    )


def _onto(roi: EarROI, path: Path, volume: Volume) -> Volume:
    """`volume` on the ear's box: cut out if it lies on the same lattice, interpolated otherwise."""
    box = roi.geometry
    if part_covering(volume, box) is None:
        raise UnusableInput(
            f"{path}: expected images of one place in the patient, found no image of the labeled {roi.side.value} ear, "
            f"which lies at {np.round(roi.center_lps_mm).tolist()} mm (LPS), in {_place(volume.geometry)}"
        )
    first = volume.geometry.to_index(box.to_lps((0, 0, 0)))
    start = np.rint(first).astype(int)
    k, j, i = (int(n) for n in start)
    if volume.geometry.crop((k, j, i), box.shape).same_grid(box):
        return volume.crop((k, j, i), box.shape)
    return resample(volume, box)
