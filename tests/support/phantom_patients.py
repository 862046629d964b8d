"""Synthetic patients on disk, what a scanner or a console may do to them, and the node's answer read back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.cli import main
from dicom_node.encoding.phantom_study import phantom_datasets
from inference.anatomy import EarSide, FluidSpace
from inference.geometry import Volume
from inference.phantom import PhantomStudy

Edit = Callable[[list[Dataset]], list[Dataset]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What `hydrops-node process` left behind."""

    exit_status: int
    findings: Mapping[str, Any]
    folder: Path

    @property
    def reasons(self) -> list[str]:
        return [reason["code"] for reason in self.findings["reasons"]]

    def ear(self, side: EarSide) -> Mapping[str, Any]:
        ear: Mapping[str, Any] = self.findings["ears"][side.value]
        return ear

    def role_of(self, series_instance_uid: str) -> str:
        return next(s["role"] for s in self.findings["series"] if s["series_instance_uid"] == series_instance_uid)


def process(datasets: Iterable[Dataset], folder: Path) -> Answer:
    """Write the data sets under names that tell nothing, and have the node process the folder."""
    study, out = folder / "study", folder / "result"
    study.mkdir(parents=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(study / f"{number * 7919 % 100003:06d}", enforce_file_format=True)
    status = main(["process", str(study), "--out", str(out), "--quiet"])
    return Answer(exit_status=status, findings=json.loads((out / "findings.json").read_text()), folder=out)


def images_of(study: PhantomStudy, *roles: str) -> list[Dataset]:
    """The patient's images of these roles, free to be edited."""
    return phantom_datasets(study, series=roles)


def of_role(datasets: Sequence[Dataset], description: str) -> list[Dataset]:
    """The images of one series, by its description."""
    return [one for one in datasets if one.SeriesDescription == description]


def scanned_from_the_other_end(datasets: list[Dataset]) -> list[Dataset]:
    """The same voxels at the same places, written in another order: columns and slices run the other way."""
    for one in datasets:
        row = np.array(one.ImageOrientationPatient[:3], dtype=float)
        width = float(one.PixelSpacing[1]) * (one.Columns - 1)
        one.ImagePositionPatient = [f"{x:.9g}" for x in np.array(one.ImagePositionPatient, dtype=float) + width * row]
        one.ImageOrientationPatient = [*(f"{-x:.9g}" for x in row), *one.ImageOrientationPatient[3:]]
        one.PixelData = np.ascontiguousarray(one.pixel_array[:, ::-1]).tobytes()
    return datasets[::-1]


def numbered_at_random(datasets: list[Dataset], seed: int = 3) -> list[Dataset]:
    """Instance numbers that tell nothing about the order."""
    for one, number in zip(datasets, np.random.default_rng(seed).permutation(len(datasets)), strict=True):
        one.InstanceNumber = int(number) + 1
    return datasets


def mirrored_patient(datasets: list[Dataset]) -> list[Dataset]:
    """Another patient: the mirror image in the patient's midplane, x -> -x in LPS."""
    for one in datasets:
        one.ImagePositionPatient = [-float(one.ImagePositionPatient[0]), *one.ImagePositionPatient[1:]]
        cosines = [float(x) for x in one.ImageOrientationPatient]
        one.ImageOrientationPatient = [-cosines[0], *cosines[1:3], -cosines[3], *cosines[4:]]
    return datasets


def copies(datasets: Iterable[Dataset]) -> list[Dataset]:
    """Data sets that can be edited without changing the originals."""
    return [copy.deepcopy(one) for one in datasets]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """One segment of a written SEG, by position in the patient."""

    side: EarSide
    space: FluidSpace
    points_lps_mm: NDArray[np.float64]
    voxel_volume_mm3: float

    @property
    def volume_mm3(self) -> float:
        return len(self.points_lps_mm) * self.voxel_volume_mm3

    @property
    def centroid_lps_mm(self) -> NDArray[np.float64]:
        centroid: NDArray[np.float64] = self.points_lps_mm.mean(axis=0)
        return centroid

    def dice_with(self, truth: Volume, *, side: EarSide) -> float:
        """Overlap with a truth fraction volume (>= half counts), compared in patient space on the truth's grid."""
        mask = truth.array >= 0.5
        lps = truth.geometry.to_lps(np.argwhere(mask))
        of_side = int((np.sign(lps[:, 0]) == side.lps_sign).sum())
        index = np.rint(truth.geometry.to_index(self.points_lps_mm)).astype(int)
        inside = ((index >= 0) & (index < truth.geometry.shape)).all(axis=1)
        hits = int(mask[tuple(index[inside].T)].sum())
        return 2 * hits / (len(self.points_lps_mm) + of_side)


def read_segments(path: Path) -> dict[tuple[EarSide, FluidSpace], Segment]:
    """Every segment of a SEG, read by highdicom, in millimeters."""
    written = highdicom.seg.segread(path)
    segments: dict[tuple[EarSide, FluidSpace], Segment] = {}
    for number in written.segment_numbers:
        description = written.get_segment_description(number)
        side = EarSide(description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeMeaning.lower())
        code = description.SegmentedPropertyTypeCodeSequence[0]
        space = FluidSpace.ENDOLYMPH if code.CodeMeaning.lower() == "endolymph" else FluidSpace.TOTAL_FLUID_SPACE
        volume = written.get_volume(segment_numbers=[number], combine_segments=True)
        index = np.argwhere(volume.array > 0)
        segments[side, space] = Segment(
            side=side,
            space=space,
            points_lps_mm=index @ volume.affine[:3, :3].T + volume.affine[:3, 3],
            voxel_volume_mm3=float(abs(np.linalg.det(volume.affine[:3, :3]))),
        )
    return segments


def report_text(report: Path | Dataset) -> str:
    """All text of a structured report, one item per line."""
    return "\n".join(_texts(report if isinstance(report, Dataset) else pydicom.dcmread(report)))


def _texts(item: Dataset) -> Iterable[str]:
    for name in ("TextValue",):
        if name in item:
            yield str(item[name].value)
    for sequence in ("ConceptCodeSequence", "ConceptNameCodeSequence"):
        for code in item.get(sequence, []):
            yield f"{code.get('CodeValue', '')} {code.CodeMeaning}"
    for child in item.get("ContentSequence", []):
        yield from _texts(child)
