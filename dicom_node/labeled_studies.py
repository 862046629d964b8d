"""DICOM studies with their truth as a DICOM Segmentation: what a site trains on.

A folder holds one study or many, in any order and below any folders. Each study needs what the node needs of it (MRC
and a contrast set) and one SEG on the grid of the MRC with the segments that the node itself writes: (TFS, 99EHNODE)
and (61112, FMA) Endolymph of the inner ear, right or left by Anatomic Region Modifier. So the node's own result,
corrected by a reader, is a label. Series are read, signed and aligned as in serving.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription, segread
from pydicom.uid import SegmentationStorage

from dicom_node.assembly.headers import SeriesHeader, SeriesRole
from dicom_node.case import Case, CaseOptions, open_case
from dicom_node.encoding import codes
from dicom_node.errors import RejectedStudy, UnusableInput
from dicom_node.instance_files import UNREADABLE, InstanceFile, read_folder
from dicom_node.pipeline import align_series, check_images, ear_images, read_contrast
from dicom_node.volumes import load_volume
from inference.anatomy import EarSide, FluidSpace
from inference.cases import CaseError, EarCase
from inference.findings import EarROI
from inference.geometry import GeometryError, Volume, VolumeGeometry
from inference.learned import input_set
from inference.localization import EarSearch

BOX_MM: Final = (26.0, 32.0, 32.0)
"""Edges of an ear's box along k, j, i: the size that the localizer cuts out."""

ON_GRID_VOXELS: Final = 0.1
"""Between a labeled voxel and the nearest one of the MRC; more, and the SEG was drawn on another grid."""

MAX_OUTSIDE_SHARE: Final = 0.02
"""Of the endolymph, outside total fluid: rounding of a brush. It is taken back inside; more is an error."""

LabelKey = tuple[EarSide, FluidSpace]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Labels:
    """The truth of one study on the grid of its MRC: float32 parts of each voxel, 0..1."""

    by_key: Mapping[LabelKey, Volume]

    def sides(self) -> list[EarSide]:
        return [side for side in (EarSide.RIGHT, EarSide.LEFT) if (side, FluidSpace.TOTAL_FLUID_SPACE) in self.by_key]


def labeled_ears(folder: Path, options: CaseOptions) -> list[EarCase]:
    """Every labeled ear of every study below `folder`, right ear first.

    Tags: `case` is the Study Instance UID; `patient` a digest of the Patient ID, so that the studies of one person can
    be kept together; `side` and `input_set`.

    Raises
    ------
    UnusableInput
        If there is no DICOM file, or a study cannot be used; the message names study or SEG, expected and found.
    """
    studies = read_folder(folder)
    if not studies:
        raise UnusableInput(
            f"{folder}: expected DICOM studies with a segmentation each, found no DICOM file; "
            "a NIfTI case would be a folder with mrc.nii.gz in it"
        )
    return [ear for uid, files in sorted(studies.items()) for ear in _study(uid, files, options)]


def refuse_studies_beside(folder: Path, cases: Iterable[Path]) -> None:
    """Of a folder of NIfTI `cases`: studies in folders of their own would be left out of the training without a word.

    What lies with a case goes with it. So does what `hydrops-node process` wrote: no images, but a report about a study
    that it refused.

    Raises
    ------
    UnusableInput
        If there is an MR image of such a study.
    """
    cases = tuple(cases)
    beside = {place for case in cases for place in (case, case.parent) if place != folder or place == case}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.parent == folder or beside & set(path.parents):
            continue
        try:
            modality = str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality"))
        except UNREADABLE:
            continue
        if modality == "MR":
            raise UnusableInput(
                f"--cases {folder}: expected NIfTI cases or DICOM studies, found both ({path.relative_to(folder)}); "
                "train on one kind first and go on from that model with the other (--start-from)"
            )


def _study(uid: str, files: Iterable[InstanceFile], options: CaseOptions) -> list[EarCase]:
    """The labeled ears of one study."""
    segmentations = [file for file in files if str(file.header.get("SOPClassUID")) == SegmentationStorage]
    images = [file for file in files if str(file.header.get("SOPClassUID")) != SegmentationStorage]
    if len(segmentations) != 1:
        found = ", ".join(file.path.name for file in segmentations) or "none"
        raise UnusableInput(f"study {uid}: expected one DICOM segmentation with the truth, found {found}")
    case = open_case(uid, images, options)
    try:
        return _ears(case, segmentations[0], options)
    except RejectedStudy as rejection:
        raise UnusableInput(f"study {uid}: expected a study that the node can compute: {rejection}") from rejection
    except (CaseError, GeometryError) as error:
        raise UnusableInput(f"study {uid}: {error}") from error


def _ears(case: Case, segmentation: InstanceFile, options: CaseOptions) -> list[EarCase]:
    if case.assembly.chosen is None:
        raise RejectedStudy(*([case.assembly.refusal] if case.assembly.refusal else []))
    series = case.assembly.chosen.series
    volumes = _volumes(series, case.files, options)
    check_images(volumes)
    mrc = volumes[SeriesRole.MRC]
    labels = _read_labels(segmentation, case.assembly.chosen.mrc, mrc.geometry)
    rois = {side: _box(side, labels.by_key[side, FluidSpace.TOTAL_FLUID_SPACE]) for side in labels.sides()}
    contrast = read_contrast(volumes, rois.values())
    alignments = align_series(contrast, mrc, EarSearch(rois=rois), options.pipeline)
    for role, alignment in alignments.items():
        if not alignment.accepted:
            raise UnusableInput(f"study {case.study_instance_uid}: {role} could not be aligned: {alignment.reason}")
    ears = []
    for side, roi in rois.items():
        seen = ear_images(roi, mrc, contrast, alignments)
        total, endolymph = (_cut(labels.by_key[side, space], roi.geometry) for space in FluidSpace)
        tags = {
            "case": case.study_instance_uid,
            "patient": _patient(segmentation),
            "side": side.value,
            "input_set": input_set(seen),
        }
        ears.append(EarCase(images=seen, total_fluid=total, endolymph=endolymph, tags=tags))
    return ears


def _volumes(
    series: Mapping[SeriesRole, SeriesHeader], files: Mapping[str, InstanceFile], options: CaseOptions
) -> dict[SeriesRole, Volume]:
    paths = {uid: file.path for uid, file in files.items()}
    return {role: load_volume(header, paths, threads=options.threads) for role, header in series.items()}


def _patient(file: InstanceFile) -> str:
    """A name that says who is the same person and nothing else."""
    identity = f"{file.header.get('IssuerOfPatientID', '')}|{file.header.get('PatientID', '')}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _read_labels(file: InstanceFile, mrc: SeriesHeader, grid: VolumeGeometry) -> _Labels:
    """The segments of the SEG, placed on the MRC by their positions in the patient.

    Raises
    ------
    UnusableInput
        If the file is no readable SEG of this MRC, or a segment is missing, unknown, doubled or empty.
    """
    where = f"segmentation {file.sop_instance_uid} ({file.path.name})"
    try:
        segmentation = segread(file.path)
        referenced = {str(item.SeriesInstanceUID) for item in segmentation.get("ReferencedSeriesSequence", [])}
        keys = {number: _key(segmentation, number, where) for number in segmentation.segment_numbers}
        if mrc.series_instance_uid not in referenced:
            raise UnusableInput(
                f"{where}: expected labels on the MRC, series {mrc.series_instance_uid}, found "
                f"{', '.join(sorted(referenced)) or 'no referenced series'}"
            )
        _check_keys(list(keys.values()), where)
        placed = {key: _placed(segmentation, number, grid, f"{where}, {_named(key)}") for number, key in keys.items()}
    except UNREADABLE as error:
        raise UnusableInput(f"{where}: expected a readable DICOM segmentation: {error}") from error
    return _Labels(by_key=_nested(placed, where))


def _key(segmentation: Segmentation, number: int, where: str) -> LabelKey:
    """Which ear and which fluid a segment says it is, by its codes."""
    description: SegmentDescription = segmentation.get_segment_description(number)
    kind = description.segmented_property_type
    space = next(
        (space for space, code in codes.FLUID.items() if (kind.value, kind.scheme_designator) == _pair(code)), None
    )
    regions = description.get("AnatomicRegionSequence", [])
    sides = [
        side
        for region in regions
        for modifier in region.get("AnatomicRegionModifierSequence", [])
        for side, code in codes.LATERALITY.items()
        if (str(modifier.CodeValue), str(modifier.CodingSchemeDesignator)) == _pair(code)
    ]
    if space is None or len(sides) != 1:
        raise UnusableInput(
            f"{where}: segment {number} ({description.segment_label}) is ({kind.value}, {kind.scheme_designator}) with "
            f"{len(sides)} side(s); expected (TFS, 99EHNODE) or (61112, FMA) with one Anatomic Region Modifier, "
            "(24028007, SCT) right or (7771000, SCT) left"
        )
    return sides[0], space


def _pair(code: object) -> tuple[str, str]:
    return str(getattr(code, "value", "")), str(getattr(code, "scheme_designator", ""))


def _named(key: LabelKey) -> str:
    return f"{key[0].value} {key[1].value.replace('_', ' ')}"


def _check_keys(keys: list[LabelKey], where: str) -> None:
    """Each ear has total fluid and endolymph, once."""
    doubled = sorted({_named(key) for key in keys if keys.count(key) > 1})
    missing = sorted(
        _named((side, space))
        for side in {side for side, _ in keys}
        for space in FluidSpace
        if (side, space) not in keys
    )
    if doubled or missing or not keys:
        raise UnusableInput(
            f"{where}: expected total fluid and endolymph of each labeled ear, found "
            f"{', '.join(map(_named, keys)) or 'no segment'}; missing: {', '.join(missing) or 'none'}, "
            f"more than once: {', '.join(doubled) or 'none'}"
        )


def _placed(segmentation: Segmentation, number: int, grid: VolumeGeometry, where: str) -> Volume:
    """One segment on `grid`: every voxel goes where the SEG's own geometry puts it."""
    written = segmentation.get_volume(segment_numbers=[number], dtype=np.float32)
    amount = np.asarray(written.array, dtype=np.float32)[..., 0]
    if written.frame_of_reference_uid != grid.frame_of_reference_uid:
        raise UnusableInput(
            f"{where}: expected the MRC's frame of reference {grid.frame_of_reference_uid}, found "
            f"{written.frame_of_reference_uid}"
        )
    labeled = np.argwhere(amount > 0.0)
    if not len(labeled):
        raise UnusableInput(f"{where}: expected labeled voxels, found none")
    lps = labeled @ np.asarray(written.affine)[:3, :3].T + np.asarray(written.affine)[:3, 3]
    index = grid.to_index(lps)
    nearest = np.rint(index).astype(int)
    off = float(np.abs(index - nearest).max())
    if off > ON_GRID_VOXELS or (nearest < 0).any() or (nearest >= grid.shape).any():
        raise UnusableInput(
            f"{where}: expected voxels of the MRC's grid, {grid.shape} of {grid.spacing_mm.round(3).tolist()} mm, "
            f"found some outside it or up to {off:.2f} voxels beside one"
        )
    array = np.zeros(grid.shape, dtype=np.float32)
    array[tuple(nearest.T)] = amount[tuple(labeled.T)]
    return Volume(array=array, geometry=grid)


def _nested(labels: Mapping[LabelKey, Volume], where: str) -> dict[LabelKey, Volume]:
    """Endolymph inside total fluid, if next to nothing lies outside; the right ear to the right of the left one."""
    nested = dict(labels)
    for (side, space), volume in labels.items():
        if space is not FluidSpace.ENDOLYMPH:
            continue
        inside = np.minimum(volume.array, labels[side, FluidSpace.TOTAL_FLUID_SPACE].array)
        outside = 1.0 - float(inside.sum(dtype=np.float64)) / float(np.sum(volume.array, dtype=np.float64))
        if outside > MAX_OUTSIDE_SHARE:
            raise UnusableInput(
                f"{where}: expected endolymph inside total fluid, found {outside:.0%} of the {side} outside"
            )
        nested[side, space] = Volume(array=inside, geometry=volume.geometry)
    x_mm = {
        side: _centroid(volume)[0] for (side, space), volume in labels.items() if space is FluidSpace.TOTAL_FLUID_SPACE
    }
    if len(x_mm) == 2 and x_mm[EarSide.RIGHT] >= x_mm[EarSide.LEFT]:
        raise UnusableInput(
            f"{where}: expected the right ear at smaller x (LPS) than the left, found right at "
            f"{x_mm[EarSide.RIGHT]:.0f} and left at {x_mm[EarSide.LEFT]:.0f} mm: are the sides exchanged?"
        )
    return nested


def _centroid(volume: Volume) -> tuple[float, float, float]:
    """LPS mm."""
    places = np.argwhere(np.asarray(volume.array) > 0)
    weights = np.asarray(volume.array, dtype=np.float64)[tuple(places.T)]
    x, y, z = (float(c) for c in volume.geometry.to_lps(np.average(places, axis=0, weights=weights)))
    return x, y, z


def _box(side: EarSide, total: Volume) -> EarROI:
    """The box around the labeled fluid's centroid, on whole voxels and inside the MRC."""
    grid, center = total.geometry, _centroid(total)
    half = np.array(BOX_MM) / grid.spacing_mm / 2.0
    low = np.maximum(np.rint(grid.to_index(center) - half + 0.5).astype(int), 0)
    high = np.minimum(np.rint(grid.to_index(center) + half + 0.5).astype(int), grid.shape)
    k, j, i = (int(n) for n in low)
    depth, height, width = (int(n) for n in high - low)
    return EarROI(side=side, center_lps_mm=center, geometry=grid.crop((k, j, i), (depth, height, width)), score=1.0)


def _cut(volume: Volume, box: VolumeGeometry) -> Volume:
    """The part of `volume` that `box`, a crop of its grid, covers."""
    k, j, i = np.rint(volume.geometry.to_index(box.to_lps((0, 0, 0)))).astype(int).tolist()
    return Volume(array=volume.crop((k, j, i), box.shape).array, geometry=box)
