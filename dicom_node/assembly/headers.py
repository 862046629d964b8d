"""Frozen copies of the header attributes we decide on; no pixels, no I/O.

`read_series_header` turns data sets into these records; everything in `assembly` works on records alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar

from pydicom.dataset import Dataset

from dicom_node.assembly.attributes import AttributeReader
from dicom_node.errors import Reason

Value = TypeVar("Value")
Vector3 = tuple[float, float, float]

MR_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_CLASSES: Final = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})
"""Enhanced MR Image Storage, and its legacy-converted twin."""

LOSSY_TRANSFER_SYNTAXES: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG baseline
        "1.2.840.10008.1.2.4.51",  # JPEG extended
        "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000 that may be lossy
        "1.2.840.10008.1.2.4.203",  # High-throughput JPEG 2000 that may be lossy
    }
)
MAX_FRAMES_READ: Final = 100_000
"""More frames than this in one enhanced image are not even listed: a forged count must not fill the memory."""


class SeriesRole(StrEnum):
    """What a series is to this node."""

    MRC = "MRC"
    HYDROPS_MI2 = "HYDROPS_MI2"
    HYDROPS = "HYDROPS"
    PPI = "PPI"
    PEI = "PEI"
    REAL_IR = "REAL_IR"
    OTHER = "OTHER"


@dataclass(frozen=True, kw_only=True)
class PatientIdentity:
    """Who the images belong to, exactly as written (no normalization but trimming); never logged."""

    patient_id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """One image plane: a classic instance, or one frame of an Enhanced MR instance.

    Geometry in LPS mm as written (PS3.3 C.7.6.2); None where the attribute is missing.
    `frame_number` counts from 1. `orientation` is (row x, y, z, column x, y, z);
    `pixel_spacing_mm` is (between rows, between columns) as in (0028,0030).
    """

    sop_instance_uid: str
    frame_number: int
    instance_number: int | None
    position_mm: Vector3 | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None
    rows: int
    columns: int
    rescale_slope: float
    rescale_intercept: float
    frame_of_reference_uid: str | None
    echo_time_ms: float | None
    image_type: tuple[str, ...]
    acquisition_number: int | None
    """Part of what tells two images at one position apart, with `echo_time_ms` and `image_type`."""
    problem: tuple[str, str] | None = None
    """(Reason value, detail) when an attribute of this plane is illegal; the series is then refused, not dropped."""


@dataclass(frozen=True, kw_only=True)
class SeriesHeader:
    """One series: physics and identity once, and every plane. Times are naive local scanner times.

    `identities` holds every distinct patient identity found among the instances; one is the only good number.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uids: frozenset[str]
    modality: str
    identities: frozenset[PatientIdentity]
    frames: tuple[FrameHeader, ...]
    series_number: int | None
    series_description: str
    protocol_name: str
    sequence_name: str
    image_type: tuple[str, ...]
    scanning_sequence: tuple[str, ...]
    acquisition_3d: bool | None
    repetition_time_ms: float | None
    echo_time_ms: float | None
    inversion_time_ms: float | None
    magnetic_field_t: float | None
    manufacturer: str
    model_name: str
    body_part: str
    acquired_at: datetime | None
    images_in_acquisition: int | None
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str
    lossy: bool
    contributing_devices: tuple[str, ...] = ()
    source_series_uids: frozenset[str] = frozenset()
    """Series that a derived series says it was made from (Referenced Series Sequence)."""
    source_instance_uids: frozenset[str] = frozenset()
    """Instances that a derived series says it was made from (Source Image Sequence)."""
    complex_image_component: str = ""
    """MAGNITUDE, PHASE, REAL, IMAGINARY or MIXED (0008,9208); '' if not stated."""
    diffusion: bool = False
    """True if any plane carries a diffusion b-value above zero."""

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """Distinct instances in order of first appearance."""
        return tuple(dict.fromkeys(frame.sop_instance_uid for frame in self.frames))

    @property
    def enhanced(self) -> bool:
        """True for multi-frame objects with functional groups."""
        return self.sop_class_uid in ENHANCED_MR_CLASSES


def group_series(datasets: Iterable[Dataset]) -> dict[str, list[Dataset]]:
    """Data sets by Series Instance UID, in order of first appearance.

    What names no series is kept under the empty UID, so that it is refused with a reason rather than lost.
    """
    series: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        series.setdefault(AttributeReader([dataset]).text("SeriesInstanceUID"), []).append(dataset)
    return series


def read_series_header(datasets: Sequence[Dataset]) -> SeriesHeader:
    """The header of one series, from all its instances; pixel data are not needed.

    Illegal values never raise: they become `FrameHeader.problem`, and with it a refusal later.

    Parameters
    ----------
    datasets
        Classic or Enhanced MR data sets of one Series Instance UID, in any order, at least one.

    Raises
    ------
    ValueError
        If `datasets` is empty.
    """
    if not datasets:
        raise ValueError("a series needs at least one data set")
    planes = [plane for dataset in datasets for plane in _planes(dataset, study=datasets[0])]
    frames = tuple(plane.frame for plane in planes)
    first = planes[0].reader
    return SeriesHeader(
        study_instance_uid=first.text("StudyInstanceUID"),
        series_instance_uid=first.text("SeriesInstanceUID"),
        sop_class_uid=first.text("SOPClassUID"),
        transfer_syntax_uids=frozenset(uid for uid in map(_transfer_syntax, datasets) if uid),
        modality=first.text("Modality"),
        identities=frozenset(map(_identity, datasets)),
        frames=frames,
        series_number=AttributeReader([datasets[0]]).integer("SeriesNumber"),
        series_description=first.text("SeriesDescription"),
        protocol_name=first.text("ProtocolName"),
        sequence_name=first.text("SequenceName") or first.text("PulseSequenceName"),
        image_type=frames[0].image_type,
        scanning_sequence=first.texts("ScanningSequence") or first.texts("EchoPulseSequence"),
        acquisition_3d={"3D": True, "2D": False}.get(first.text("MRAcquisitionType")),
        repetition_time_ms=planes[0].repetition_time_ms,
        echo_time_ms=frames[0].echo_time_ms,
        inversion_time_ms=_common({plane.inversion_time_ms for plane in planes}),
        magnetic_field_t=first.number("MagneticFieldStrength"),
        manufacturer=first.text("Manufacturer"),
        model_name=first.text("ManufacturerModelName"),
        body_part=first.text("BodyPartExamined"),
        acquired_at=min(filter(None, (_acquired_at(plane.reader) for plane in planes)), default=None),
        images_in_acquisition=first.integer("ImagesInAcquisition"),
        bits_allocated=first.integer("BitsAllocated") or 0,
        bits_stored=first.integer("BitsStored") or 0,
        signed=first.integer("PixelRepresentation") == 1,
        photometric_interpretation=first.text("PhotometricInterpretation"),
        lossy=any(map(_is_lossy, datasets)),
        contributing_devices=_contributing_devices(datasets),
        source_series_uids=frozenset(uid for dataset in datasets for uid in _source_series(dataset)),
        source_instance_uids=frozenset(uid for plane in planes for uid in _source_instances(plane.reader)),
        complex_image_component=first.text("ComplexImageComponent"),
        diffusion=any(plane.diffusion for plane in planes),
    )


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """A frame, and what is read with it but kept once per series."""

    frame: FrameHeader
    reader: AttributeReader
    repetition_time_ms: float | None
    inversion_time_ms: float | None
    diffusion: bool


def _planes(dataset: Dataset, *, study: Dataset) -> list[_Plane]:
    """One plane of a classic image, or every frame of an enhanced one."""
    top = AttributeReader([dataset])
    problem = _identity_of_image_problem(top, AttributeReader([study]))
    if top.text("SOPClassUID") not in ENHANCED_MR_CLASSES:
        return [_plane(AttributeReader([dataset], problem), frame_number=1)]
    groups = top.items("PerFrameFunctionalGroupsSequence")
    stated = top.integer("NumberOfFrames")
    if stated != len(groups) or not 0 < len(groups) <= MAX_FRAMES_READ:
        detail = f"NumberOfFrames says {stated}, per-frame functional groups found for {len(groups)}"
        return [_plane(AttributeReader([dataset], (Reason.PIXEL_LENGTH.value, detail)), frame_number=1)]
    shared = [item for group in top.items("SharedFunctionalGroupsSequence")[:1] for item in _macros(group)]
    return [
        _plane(AttributeReader([*_macros(group), *shared, dataset], problem), frame_number=number)
        for number, group in enumerate(groups, start=1)
    ]


def _macros(group: Dataset) -> list[Dataset]:
    """The single items of the functional groups of one frame, in which the attributes stand."""
    return [item for element in group if element.VR == "SQ" and element.value for item in element.value[:1]]


def _identity_of_image_problem(image: AttributeReader, study: AttributeReader) -> tuple[str, str] | None:
    """Why an image cannot be told from others: a UID is missing, or its series claims two studies (B07, B46)."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not image.text(keyword):
            return Reason.TAG_INVALID.value, f"{keyword} is missing"
    if image.text("StudyInstanceUID") != study.text("StudyInstanceUID"):
        return Reason.CONFLICT.value, "images of one series name different studies"
    return None


def _plane(reader: AttributeReader, *, frame_number: int) -> _Plane:
    position, orientation = reader.numbers("ImagePositionPatient", 3), reader.numbers("ImageOrientationPatient", 6)
    spacing = reader.numbers("PixelSpacing", 2)
    inversion_time_ms = reader.number("InversionTime")
    if inversion_time_ms is None:
        inversion_time_ms = reader.number("InversionTimes")
    repetition_time_ms = reader.number("RepetitionTime")
    echo_time_ms = reader.number("EffectiveEchoTime")
    rows, columns = reader.integer("Rows") or 0, reader.integer("Columns") or 0
    slope, intercept = reader.number("RescaleSlope"), reader.number("RescaleIntercept")
    instance_number, thickness = reader.integer("InstanceNumber"), reader.number("SliceThickness")
    echo_time_ms = reader.number("EchoTime") if echo_time_ms is None else echo_time_ms
    b_value = reader.number("DiffusionBValue")
    problem = reader.problem or _value_problem(spacing, slope)
    frame = FrameHeader(
        sop_instance_uid=reader.text("SOPInstanceUID"),
        frame_number=frame_number,
        instance_number=instance_number,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=orientation,  # type: ignore[arg-type]  # numbers() returned exactly six
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness_mm=thickness,
        rows=rows,
        columns=columns,
        rescale_slope=1.0 if slope is None else slope,
        rescale_intercept=0.0 if intercept is None else intercept,
        frame_of_reference_uid=reader.text("FrameOfReferenceUID") or None,
        echo_time_ms=echo_time_ms,
        image_type=tuple(value.upper() for value in reader.texts("FrameType") or reader.texts("ImageType")),
        acquisition_number=reader.integer("AcquisitionNumber"),
        problem=problem,
    )
    return _Plane(
        frame=frame,
        reader=reader,
        repetition_time_ms=repetition_time_ms,
        inversion_time_ms=inversion_time_ms or None,  # scanners write 0 when there is no inversion
        diffusion=bool(b_value),
    )


def _value_problem(spacing: tuple[float, ...] | None, slope: float | None) -> tuple[str, str] | None:
    if spacing and min(spacing) <= 0:
        return Reason.TAG_INVALID.value, f"PixelSpacing (0028,0030): expected positive values, found {spacing}"
    if slope == 0:
        return Reason.TAG_INVALID.value, "RescaleSlope (0028,1053): expected a value other than 0"
    return None


def _identity(dataset: Dataset) -> PatientIdentity:
    reader = AttributeReader([dataset])
    return PatientIdentity(
        patient_id=reader.text("PatientID"),
        issuer=reader.text("IssuerOfPatientID"),
        name=reader.text("PatientName"),
        birth_date=reader.text("PatientBirthDate"),
        sex=reader.text("PatientSex"),
    )


def _acquired_at(reader: AttributeReader) -> datetime | None:
    """When the scanner measured: a derived series that keeps no acquisition time falls back to its series' time."""
    return (
        reader.moment("FrameAcquisitionDateTime")
        or reader.moment("AcquisitionDateTime")
        or reader.date_and_time("AcquisitionDate", "AcquisitionTime")
        or reader.date_and_time("SeriesDate", "SeriesTime")
        or reader.date_and_time("ContentDate", "ContentTime")
    )


def _transfer_syntax(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    return AttributeReader([meta]).text("TransferSyntaxUID") if meta is not None else ""


def _is_lossy(dataset: Dataset) -> bool:
    stated = AttributeReader([dataset]).text("LossyImageCompression") == "01"
    return stated or _transfer_syntax(dataset) in LOSSY_TRANSFER_SYNTAXES


def _contributing_devices(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """Model names in Contributing Equipment Sequence (0018,A001): who has worked on these images."""
    items = (item for dataset in datasets for item in AttributeReader([dataset]).items("ContributingEquipmentSequence"))
    names = (AttributeReader([item]).text("ManufacturerModelName") for item in items)
    return tuple(dict.fromkeys(filter(None, names)))


def _source_series(dataset: Dataset) -> list[str]:
    items = AttributeReader([dataset]).items("ReferencedSeriesSequence")
    return [uid for uid in (AttributeReader([item]).text("SeriesInstanceUID") for item in items) if uid]


def _source_instances(reader: AttributeReader) -> list[str]:
    """SOP Instance UIDs in Source Image Sequence; in enhanced images it stands in the Derivation Image macro."""
    items = reader.items("SourceImageSequence")
    return [uid for uid in (AttributeReader([item]).text("ReferencedSOPInstanceUID") for item in items) if uid]


def _common(values: set[Value | None]) -> Value | None:
    """The only value there is; None if there are several or none."""
    return next(iter(values)) if len(values) == 1 else None
