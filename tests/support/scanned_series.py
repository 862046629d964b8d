"""Small MR series as scanners write them, for tests of assembly and volumes: every attribute can be bent.

The scanned object is a value for every point of the patient (`object_value`), so a series of any orientation can be
compared with it in millimeters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from dicom_node.assembly.headers import SeriesHeader, read_series_header

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
AXIAL_FROM_ABOVE = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Columns run to the patient's right and the normal to the feet: the picture is mirrored, the patient is not."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One series to be written: acquisition, grid and identity. `extra` overrides any attribute; None removes it."""

    name: str
    repetition_time_ms: float | None = 9000.0
    echo_time_ms: float | None = 544.0
    inversion_time_ms: float | None = None
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")
    dimension: str | None = "3D"
    orientation: tuple[float, ...] = AXIAL
    center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shape: tuple[int, int, int] = (8, 6, 5)
    spacing_mm: tuple[float, float, float] = (1.0, 0.5, 0.6)
    study_uid: str = "2.25.100"
    frame_of_reference_uid: str | None = "2.25.400"
    time: str = "101500"
    number: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def series_uid(self) -> str:
        """Made from the name: two scans with one name are one series."""
        return uid_of(self.name)

    def but(self, **changes: Any) -> Scan:
        """This scan with some fields changed."""
        return replace(self, **changes)

    def with_attributes(self, **attributes: Any) -> Scan:
        """This scan with attributes overridden by keyword."""
        return replace(self, extra={**self.extra, **attributes})

    @property
    def directions(self) -> NDArray[np.float64]:
        """(3, 3) columns: where k, j, i grow."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        return np.stack([np.cross(row, column), column, row], axis=1)

    def positions_mm(self) -> NDArray[np.float64]:
        """(K, 3) center of the first voxel of each slice, along the normal."""
        steps = self.directions * np.array(self.spacing_mm)
        corner = np.array(self.center_mm) - steps @ ((np.array(self.shape) - 1) / 2)
        return corner + np.arange(self.shape[0])[:, None] * steps[:, 0]


MRC = Scan(name="MRC", repetition_time_ms=4400.0, time="100000", number=2)
PPI = Scan(name="PPI", inversion_time_ms=2250.0, time="101500", number=3)
PEI = Scan(name="PEI", inversion_time_ms=2050.0, time="103000", number=4)
REAL_IR = Scan(
    name="3D real IR", repetition_time_ms=15130.0, echo_time_ms=549.0, inversion_time_ms=2700.0, number=7,
    image_type=("ORIGINAL", "PRIMARY", "R", "ND"), time="104500",
)  # fmt: skip
HYDROPS = Scan(
    name="HYDROPS", inversion_time_ms=2250.0, image_type=("DERIVED", "PRIMARY", "M", "SUBTRACTION"), number=5
)
HYDROPS_MI2 = Scan(name="HYDROPS-Mi2", inversion_time_ms=2250.0, image_type=("DERIVED", "SECONDARY", "OTHER"), number=6)


def uid_of(text: str) -> str:
    """A legal UID made from a text."""
    return f"2.25.{int(hashlib.sha256(text.encode()).hexdigest()[:24], 16)}"


def object_value(lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scanned object: (..., 3) LPS mm to (...) values of 100..2000, unlike under every mirror and turn."""
    x, y, z = np.moveaxis(np.asarray(lps_mm, dtype=np.float64), -1, 0)
    return np.round(1000.0 + 31.0 * x + 17.0 * y + 7.0 * z + 3.0 * x * y)


def data_sets(scan: Scan) -> list[Dataset]:
    """Classic MR data sets of the scan, one per slice, along the normal, with 16-bit unsigned pixels."""
    return [_slice(scan, k, position) for k, position in enumerate(scan.positions_mm())]


def header_of(scan: Scan) -> SeriesHeader:
    """The header of the scan, as the node reads it."""
    return read_series_header(data_sets(scan))


def enhanced_data_set(scan: Scan) -> Dataset:
    """The scan as one Enhanced MR data set: everything geometric and physical in functional groups."""
    slices = data_sets(scan)
    top = Dataset()
    for element in slices[0]:
        if element.keyword not in _IN_FUNCTIONAL_GROUPS:
            top[element.tag] = element
    top.SOPClassUID = EnhancedMRImageStorage
    top.file_meta = _meta(EnhancedMRImageStorage, top.SOPInstanceUID)
    top.NumberOfFrames = len(slices)
    top.PixelData = b"".join(dataset.PixelData for dataset in slices)
    top.SharedFunctionalGroupsSequence = [_shared_groups(slices[0])]
    top.PerFrameFunctionalGroupsSequence = [_frame_groups(dataset) for dataset in slices]
    return top


def with_raw(dataset: Dataset, keyword: str, vr: str, value: bytes) -> Dataset:
    """The data set with one element exactly as it would stand in a file, legal or not."""
    tag = Tag(tag_for_keyword(keyword))
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return dataset


def write_files(datasets: Sequence[Dataset], folder: Path) -> dict[str, Path]:
    """Part 10 files of the data sets by SOP Instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, dataset in enumerate(datasets):
        path = folder / f"{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths[str(dataset.SOPInstanceUID)] = path
    return paths


def _slice(scan: Scan, k: int, position_mm: NDArray[np.float64]) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = uid_of(f"{scan.name} {scan.study_uid} {k}")
    dataset.StudyInstanceUID = scan.study_uid
    dataset.SeriesInstanceUID = scan.series_uid
    dataset.file_meta = _meta(MRImageStorage, dataset.SOPInstanceUID)
    _describe(dataset, scan)
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in position_mm]
    dataset.ImageOrientationPatient = [f"{value:.9f}" for value in scan.orientation]
    dataset.PixelSpacing = [f"{scan.spacing_mm[1]:.6f}", f"{scan.spacing_mm[2]:.6f}"]
    dataset.SliceThickness = f"{scan.spacing_mm[0]:.6f}"
    if scan.frame_of_reference_uid is not None:
        dataset.FrameOfReferenceUID = scan.frame_of_reference_uid
    _put_pixels(dataset, scan, position_mm)
    for keyword, value in scan.extra.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def _describe(dataset: Dataset, scan: Scan) -> None:
    dataset.Modality = "MR"
    dataset.PatientID = "PHANTOM-1"
    dataset.PatientName = "Phantom^One"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.Manufacturer = "Hydrops Node"
    dataset.BodyPartExamined = "HEAD"
    dataset.SeriesDescription = scan.name
    dataset.SeriesNumber = scan.number
    dataset.AcquisitionDate = "20260102"
    dataset.AcquisitionTime = scan.time
    dataset.ImageType = list(scan.image_type)
    dataset.ScanningSequence = ["SE", "IR"] if scan.inversion_time_ms is not None else ["SE"]
    for keyword, value in (
        ("RepetitionTime", scan.repetition_time_ms),
        ("EchoTime", scan.echo_time_ms),
        ("InversionTime", scan.inversion_time_ms),
        ("MRAcquisitionType", scan.dimension),
    ):
        if value is not None:
            setattr(dataset, keyword, value)


def _put_pixels(dataset: Dataset, scan: Scan, position_mm: NDArray[np.float64]) -> None:
    _, rows, columns = scan.shape
    j, i = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    steps = scan.directions * np.array(scan.spacing_mm)
    points = position_mm + j[..., None] * steps[:, 1] + i[..., None] * steps[:, 2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = object_value(points).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _meta(sop_class_uid: str, sop_instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


_IN_FUNCTIONAL_GROUPS = {
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RepetitionTime", "EchoTime",
    "InversionTime", "ImageType", "RescaleSlope", "RescaleIntercept", "PixelData", "ScanningSequence",
}  # fmt: skip


def _shared_groups(dataset: Dataset) -> Dataset:
    shared = Dataset()
    timing, echo, modifier, frame_type = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime = dataset.RepetitionTime
    echo.EffectiveEchoTime = float(dataset.EchoTime)
    frame_type.FrameType = dataset.ImageType
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.MREchoSequence = [echo]
    shared.MRImageFrameTypeSequence = [frame_type]
    if "InversionTime" in dataset:
        modifier.InversionRecovery = "YES"
        modifier.InversionTimes = float(dataset.InversionTime)
        shared.MRModifierSequence = [modifier]
    orientation = Dataset()
    orientation.ImageOrientationPatient = dataset.ImageOrientationPatient
    shared.PlaneOrientationSequence = [orientation]
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = dataset.PixelSpacing, dataset.SliceThickness
    shared.PixelMeasuresSequence = [measures]
    return shared


def _frame_groups(dataset: Dataset) -> Dataset:
    groups, position, values = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = dataset.ImagePositionPatient
    groups.PlanePositionSequence = [position]
    values.RescaleSlope = dataset.get("RescaleSlope", 1)
    values.RescaleIntercept = dataset.get("RescaleIntercept", 0)
    values.RescaleType = "US"
    groups.PixelValueTransformationSequence = [values]
    return groups
