"""Small MR sources and findings with known places, for the tests of our DICOM objects. No phantom, no pixels.

The grid is oblique and anisotropic on purpose, the ears are lopsided on purpose: whatever is mirrored, shifted or
swapped no longer fits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from dicom_node.encoding.identity import InputKey, input_key
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
    SliceRatio,
    StudyFindings,
)
from inference.geometry import Volume, VolumeGeometry

STUDY_UID = "2.25.1000"
MRC_UID = "2.25.2000"
HYDROPS_UID = "2.25.3000"
FRAME_UID = "2.25.4000"
ENCODED_AT = datetime(2026, 11, 22, 4, 5, 6, 789)  # noqa: DTZ001 - DICOM times are local
MODEL = ModelIdentity(name="threshold", version="1.0.0", sha256="ab" * 32, learned=False)
EAR_CENTER_MM = {EarSide.RIGHT: (-36.0, -8.0, -5.0), EarSide.LEFT: (38.0, -6.0, -3.0)}


def oblique_grid(
    shape: tuple[int, int, int] = (40, 64, 64),
    spacing_mm: tuple[float, float, float] = (1.0, 1.6, 1.5),
    angles_deg: tuple[float, float, float] = (12.0, -8.0, 5.0),
) -> VolumeGeometry:
    """A double-oblique axial slab around the origin; spacing is (k, j, i)."""
    a, b, c = np.radians(angles_deg)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    axes = (about_x @ about_y @ about_z)[:, ::-1]  # columns k, j, i = z, y, x turned
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2.0)
    return VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid=FRAME_UID)


def classic_series(
    grid: VolumeGeometry,
    *,
    series_uid: str = MRC_UID,
    reverse: bool = False,
    drop: Sequence[str] = (),
    **values: object,
) -> list[pydicom.Dataset]:
    """Headers of a classic MR series, read back from bytes as the node gets them.

    `reverse` lists them (and numbers them) from the last slice to the first; `drop` and `values` change attributes.
    A value given as bytes is written as these bytes, whatever the character set says.
    """
    order = range(grid.shape[0] - 1, -1, -1) if reverse else range(grid.shape[0])
    headers = []
    for number, k in enumerate(order, start=1):
        header = _common(grid, MRImageStorage, series_uid, f"{series_uid}.{k + 1}")
        header.InstanceNumber = number
        header.ImagePositionPatient = _ds(grid.to_lps((k, 0, 0)))
        header.ImageOrientationPatient = _orientation(grid)
        header.PixelSpacing = _ds(grid.spacing_mm[1:])
        header.SliceThickness = _ds(grid.spacing_mm[:1])[0]
        headers.append(_through_bytes(header, drop, values))
    return headers


def enhanced_image(
    grid: VolumeGeometry, *, frame_order: Sequence[int] | None = None, drop: Sequence[str] = (), **values: object
) -> pydicom.Dataset:
    """One Enhanced MR instance (header only); `frame_order` lists the slices k as the frames are stored."""
    header = _common(grid, EnhancedMRImageStorage, MRC_UID, f"{MRC_UID}.1")
    header.InstanceNumber = 1
    shared, measures, orientation = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = _ds(grid.spacing_mm[1:])
    measures.SliceThickness = _ds(grid.spacing_mm[:1])[0]
    orientation.ImageOrientationPatient = _orientation(grid)
    shared.PixelMeasuresSequence = [measures]
    frames = []
    for k in range(grid.shape[0]) if frame_order is None else frame_order:
        position, frame = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = _ds(grid.to_lps((k, 0, 0)))
        frame.PlanePositionSequence = [position]
        frame.PlaneOrientationSequence = [orientation]  # per frame, as some scanners write it
        frames.append(frame)
    header.NumberOfFrames = len(frames)
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = frames
    return _through_bytes(header, drop, values)


def _common(grid: VolumeGeometry, sop_class: str, series_uid: str, instance_uid: str) -> pydicom.Dataset:
    header = pydicom.Dataset()
    header.SOPClassUID = sop_class
    header.SOPInstanceUID = instance_uid
    header.StudyInstanceUID = STUDY_UID
    header.SeriesInstanceUID = series_uid
    header.FrameOfReferenceUID = grid.frame_of_reference_uid
    header.PositionReferenceIndicator = ""
    header.Modality = "MR"
    header.Rows, header.Columns = grid.shape[1:]
    header.PatientID, header.PatientName = "P-0001", "Phantom^Test"
    header.PatientBirthDate, header.PatientSex = "19700101", "O"
    header.StudyDate, header.StudyTime = "20261122", "080000"
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "1", "A1", ""
    header.StudyDescription = "Inner ear"
    header.Manufacturer, header.ManufacturerModelName = "ACME", "MR 3T"
    return header


def _through_bytes(header: pydicom.Dataset, drop: Sequence[str], values: dict[str, object]) -> pydicom.Dataset:
    with warnings.catch_warnings():  # illegal values are written on purpose
        warnings.simplefilter("ignore")
        for keyword in drop:
            delattr(header, keyword)
        for keyword, value in values.items():
            _set(header, keyword, value)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        raw = BytesIO()
        pydicom.dcmwrite(raw, header, enforce_file_format=True)
        return pydicom.dcmread(BytesIO(raw.getvalue()), stop_before_pixels=True)


def _set(header: pydicom.Dataset, keyword: str, value: object) -> None:
    """Set an attribute; bytes go into the file as they are, under the attribute's own VR."""
    if not isinstance(value, bytes):
        setattr(header, keyword, value)
        return
    tag = pydicom.datadict.tag_for_keyword(keyword)
    header[tag] = pydicom.DataElement(tag, "UN", value)
    header[tag].VR = pydicom.datadict.dictionary_VR(keyword)


def _ds(values: Sequence[float]) -> list[str]:
    """Sixteen characters at most, as scanners write DS."""
    return [f"{value:.10g}"[:16] for value in values]


def _orientation(grid: VolumeGeometry) -> list[str]:
    return _ds([*grid.directions[:, 2], *grid.directions[:, 1]])


def study_findings(
    grid: VolumeGeometry,
    *,
    ears: Sequence[EarSide] = (EarSide.RIGHT, EarSide.LEFT),
    ratio: float = 0.271,
    center_mm: dict[EarSide, tuple[float, float, float]] | None = None,
    model: ModelIdentity = MODEL,
) -> StudyFindings:
    """Both ears' findings; an ear not in `ears` is "not evaluated" because it was not found."""
    centers = center_mm or EAR_CENTER_MM
    return StudyFindings(
        ears={
            side: _measured(side, grid, centers[side], ratio) if side in ears else _not_evaluated(side)
            for side in EarSide
        },
        alignments={
            "HYDROPS": Alignment(
                moving_to_fixed=np.eye(4),
                metric_before=0.4,
                metric_after=0.9,
                translation_mm=1.2,
                rotation_deg=0.7,
                accepted=True,
                reason="similarity rose from 0.40 to 0.90",
            )
        },
        model=model,
        quality=(
            QualityFlag(code=QualityCode.OUT_OF_DOMAIN, severity=Severity.WARN, message="Field strength is 1.5 T."),
        ),
        timings_s={"segment": 0.5},
    )


def _measured(side: EarSide, grid: VolumeGeometry, center_mm: tuple[float, float, float], ratio: float) -> EarFindings:
    start = np.rint(grid.to_index(center_mm)).astype(int) - (8, 6, 6)
    box = grid.crop((int(start[0]), int(start[1]), int(start[2])), (16, 12, 12))
    fluid, endolymph = lopsided_ear(box, center_mm)
    total_mm3 = float(fluid.sum()) * grid.voxel_volume_mm3
    return EarFindings(
        side=side,
        ratio=EHRatio(
            endolymph_mm3=ratio * total_mm3, total_fluid_mm3=total_mm3, value=ratio, low=ratio * 0.9, high=ratio * 1.1
        ),
        fluid=EarFluid(
            roi=EarROI(side=side, center_lps_mm=center_mm, geometry=box, score=0.9),
            total_fluid_fraction=Volume(array=fluid.astype(np.float32), geometry=box),
            endolymph_fraction=Volume(array=endolymph.astype(np.float32), geometry=box),
            total_fluid_mask=Volume(array=fluid, geometry=box),
            endolymph_mask=Volume(array=endolymph, geometry=box),
        ),
        slices=(SliceRatio(slice_index=20, total_fluid_mm2=50.0, endolymph_mm2=13.5, ratio=0.27),),
        quality=(
            QualityFlag(
                code=QualityCode.WEAK_CONTRAST,
                severity=Severity.WARN,
                message="Perilymph is only weakly enhanced.",
                measured=1.2,
                limit=1.5,
            ),
        ),
    )


def _not_evaluated(side: EarSide) -> EarFindings:
    flag = QualityFlag(
        code=QualityCode.EAR_NOT_FOUND, severity=Severity.STOP, message="This ear is outside the field of view."
    )
    return EarFindings(side=side, ratio=None, fluid=None, quality=(flag,))


def lopsided_ear(box: VolumeGeometry, center_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(total fluid, endolymph) masks without any symmetry: a ball with an arm forward, outward and up."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in box.shape], indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(box.to_lps(index) - np.array(center_mm), -1, 0)
    ball = x**2 + y**2 + z**2 < 4.0**2
    arm = (np.abs(y + 4.0) < 1.8) & (np.abs(z - 2.0) < 1.2) & (x > 0) & (x < 7.0)
    endolymph = (x - 0.8) ** 2 + (y - 0.5) ** 2 + (z + 1.0) ** 2 < 2.4**2
    return ball | arm, endolymph


def key_of(*series: Sequence[pydicom.Dataset], model: ModelIdentity = MODEL) -> InputKey:
    """The input key of these headers, with made-up content digests."""
    return input_key(
        ((str(header.SOPInstanceUID), "cd" * 32) for headers in series for header in headers),
        model_sha256=model.sha256,
        settings_digest="ef" * 32,
    )
