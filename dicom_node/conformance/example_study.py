"""A made-up study with findings, small and without pixels: what the example objects are encoded from.

Nothing here is a patient or looks like an ear; only what ends up in attributes matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from dicom_node.encoding.patient_module import EQUIPMENT_ATTRIBUTES, OPTIONAL_ATTRIBUTES, TYPE_2_ATTRIBUTES
from inference.anatomy import EarSide
from inference.findings import (
    Alignment,
    EarFindings,
    EarFluid,
    EarROI,
    EHRatio,
    ModelIdentity,
    QualityCode,
    QualityFlag,
    Severity,
    StudyFindings,
)
from inference.geometry import Volume, VolumeGeometry

MODEL: Final = ModelIdentity(name="model-1", version="1.0", sha256="1" * 64, learned=True)
BOX: Final = (8, 8, 8)
BOX_START: Final = {EarSide.RIGHT: (8, 12, 2), EarSide.LEFT: (8, 12, 22)}


def talkative_source(number: int) -> dict[str, str]:
    """A value for everything that a result may copy from its source; two numbers share no value where VR allows."""
    carried = (*TYPE_2_ATTRIBUTES, *OPTIONAL_ATTRIBUTES, *EQUIPMENT_ATTRIBUTES)
    return {keyword: _value(keyword, number) for keyword in carried} | {
        "StudyInstanceUID": f"2.25.{number}1",
        "FrameOfReferenceUID": f"2.25.{number}2",
        "PositionReferenceIndicator": f"MARK {number}",
    }


def _value(keyword: str, number: int) -> str:
    """A legal value of the attribute's VR (PS3.5 6.2)."""
    enumerated = {"PatientSex": "MF"[number % 2], "PatientIdentityRemoved": "YES"}
    by_vr = {
        "DA": f"200{number}0101",
        "TM": f"0{number}0000",
        "AS": f"05{number}Y",
        "DS": f"1.{number}",
        "PN": f"Source^{number}",
    }
    return enumerated.get(keyword) or by_vr.get(dictionary_VR(keyword), f"Source {number}")


SPARSE_SOURCE: Final = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
"""What the least talkative source that the node takes says of itself."""


def sparse_source(number: int) -> dict[str, str]:
    """The least that a source may say."""
    return {keyword: value for keyword, value in talkative_source(number).items() if keyword in SPARSE_SOURCE}


@dataclass(frozen=True, kw_only=True)
class ExampleStudy:
    """One example: what the source images say, and what the node found in them."""

    patient: Mapping[str, str] = field(default_factory=lambda: talkative_source(1))
    shape: tuple[int, int, int] = (24, 32, 32)
    spacing_mm: tuple[float, float, float] = (1.0, 2.5, 2.5)
    origin_mm: tuple[float, float, float] = (-38.75, -38.75, -12.0)
    tilt_deg: float = 0.0
    enhanced: bool = False
    lossy: bool = False
    ears: tuple[EarSide, ...] = (EarSide.RIGHT, EarSide.LEFT)
    endolymph: bool = True
    depth: int = 4
    ratio: float = 0.25
    model: ModelIdentity = MODEL

    @property
    def grid(self) -> VolumeGeometry:
        """The grid of every series, tilted about the left-right axis; index (k, j, i)."""
        cos, sin = np.cos(np.radians(self.tilt_deg)), np.sin(np.radians(self.tilt_deg))
        turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        affine = np.eye(4)
        affine[:3, :3] = turned[:, ::-1] * np.array(self.spacing_mm)
        affine[:3, 3] = self.origin_mm
        return VolumeGeometry(
            shape=self.shape, index_to_lps=affine, frame_of_reference_uid=self.patient["FrameOfReferenceUID"]
        )

    def series(self, number: int) -> list[pydicom.Dataset]:
        """Headers of one MR series on the grid: classic instances, or one Enhanced instance."""
        series_uid = f"{self.patient['StudyInstanceUID']}.{number}"
        if self.enhanced:
            return [self._enhanced(series_uid)]
        return [self._classic(series_uid, k) for k in range(self.shape[0])]

    def findings(self) -> StudyFindings:
        """Both ears; one that is not in `ears` was not found."""
        flag = QualityFlag(code=QualityCode.OUT_OF_DOMAIN, severity=Severity.WARN, message="Field strength is 1.5 T.")
        return StudyFindings(
            ears={side: self._ear(side) for side in EarSide},
            alignments={"HYDROPS": _ALIGNMENT},
            model=self.model,
            quality=(flag,),
            timings_s={},
        )

    def _common(self, series_uid: str, sop_class_uid: str, instance_uid: str) -> pydicom.Dataset:
        header = pydicom.Dataset()
        for keyword, value in self.patient.items():
            setattr(header, keyword, value)
        header.SOPClassUID, header.SOPInstanceUID = sop_class_uid, instance_uid
        header.SeriesInstanceUID, header.Modality = series_uid, "MR"
        header.Rows, header.Columns = self.shape[1:]
        if self.lossy:
            header.LossyImageCompression = "01"
            header.LossyImageCompressionRatio = "10"
            header.LossyImageCompressionMethod = "ISO_10918_1"
        return header

    def _classic(self, series_uid: str, k: int) -> pydicom.Dataset:
        header = self._common(series_uid, MRImageStorage, f"{series_uid}.{k + 1}")
        header.ImagePositionPatient = _numbers(self.grid.to_lps((k, 0, 0)))
        header.ImageOrientationPatient = _numbers([*self.grid.directions[:, 2], *self.grid.directions[:, 1]])
        header.PixelSpacing, header.SliceThickness = list(self.spacing_mm[1:]), self.spacing_mm[0]
        return header

    def _enhanced(self, series_uid: str) -> pydicom.Dataset:
        header = self._common(series_uid, EnhancedMRImageStorage, f"{series_uid}.1")
        shared, measures, orientation = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing, measures.SliceThickness = list(self.spacing_mm[1:]), self.spacing_mm[0]
        orientation.ImageOrientationPatient = _numbers([*self.grid.directions[:, 2], *self.grid.directions[:, 1]])
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        frames = []
        for k in range(self.shape[0]):
            position, frame = pydicom.Dataset(), pydicom.Dataset()
            position.ImagePositionPatient = _numbers(self.grid.to_lps((k, 0, 0)))
            frame.PlanePositionSequence = [position]
            frames.append(frame)
        header.NumberOfFrames = len(frames)
        header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], frames
        return header

    def _ear(self, side: EarSide) -> EarFindings:
        if side not in self.ears:
            flag = QualityFlag(code=QualityCode.EAR_NOT_FOUND, severity=Severity.STOP, message="Outside the images.")
            return EarFindings(side=side, ratio=None, fluid=None, quality=(flag,))
        box = self.grid.crop(BOX_START[side], BOX)
        total, endolymph = np.zeros(BOX, dtype=bool), np.zeros(BOX, dtype=bool)
        total[1 : 1 + self.depth, 2:6, 2:6] = True
        endolymph[2:4, 3:5, 3:5] = self.endolymph
        total_mm3 = float(total.sum()) * box.voxel_volume_mm3
        center = self.grid.to_lps(np.array(BOX_START[side]) + 3.5)
        return EarFindings(
            side=side,
            ratio=EHRatio(
                endolymph_mm3=self.ratio * total_mm3,
                total_fluid_mm3=total_mm3,
                value=self.ratio,
                low=self.ratio - 0.05,
                high=self.ratio + 0.05,
            ),
            fluid=EarFluid(
                roi=EarROI(
                    side=side,
                    center_lps_mm=(float(center[0]), float(center[1]), float(center[2])),
                    geometry=box,
                    score=1,
                ),
                total_fluid_fraction=Volume(array=total.astype(np.float32), geometry=box),
                endolymph_fraction=Volume(array=endolymph.astype(np.float32), geometry=box),
                total_fluid_mask=Volume(array=total, geometry=box),
                endolymph_mask=Volume(array=endolymph, geometry=box),
            ),
            quality=(QualityFlag(code=QualityCode.WEAK_CONTRAST, severity=Severity.WARN, message="Weak contrast."),),
        )


def _numbers(values: Iterable[float]) -> list[str]:
    """Numbers as a scanner writes DS: 16 characters at most."""
    return [f"{value:.8g}" for value in values]


_ALIGNMENT: Final = Alignment(
    moving_to_fixed=np.eye(4),
    metric_before=0.5,
    metric_after=0.9,
    translation_mm=1.0,
    rotation_deg=1.0,
    accepted=True,
    reason="",
)
