"""A phantom study as the DICOM images a scanner would have sent: classic MR Image Storage, one instance per slice.

Pure: the same study gives the same data sets, UIDs included. The three vendor styles store pixels the way real files
of these vendors do, because that is where readers go wrong:

- Siemens: unsigned 12 bits without rescale; a subtraction that keeps its sign is stored signed; real-part images are
  raised by 2048 and say so in Rescale Intercept.
- Philips: unsigned 12 bits, another Rescale Slope in every series.
- GE: signed 16 bits without rescale.

The product HYDROPS x MRC overflows 16 bits, so it always carries a Rescale Slope.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node import __version__
from dicom_node.encoding.identity import derived_uid
from dicom_node.encoding.phantom_style import MANUFACTURER, STYLES, Vendor
from inference.geometry import Volume
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy
from inference.phantom.physics import SEQUENCES

SIEMENS_REAL_OFFSET: Final = 2048.0
"""Added to real-part images before they are stored unsigned."""

MI2_STEP: Final = 20.0
"""Rescale Slope of the product HYDROPS x MRC: fluid reaches 200 000, and 16 bits hold it in steps of 20."""

TWELVE_BITS: Final = 4095.0

DELAY_AFTER_CONTRAST: Final = timedelta(hours=4)
"""Time from the intravenous injection to the scan."""


DEFAULT_START: Final = datetime(2025, 3, 14, 13, 20, 0)  # noqa: DTZ001 - scanner clocks have no time zone


@dataclass(frozen=True, kw_only=True, eq=False)
class _StoredPixels:
    """(K, rows, columns) integers and how to turn them into values: stored * slope + intercept; None is not stated."""

    stored: NDArray[np.int32]
    signed: bool
    bits_stored: int
    slope: float | None = None
    intercept: float | None = None


def phantom_datasets(
    study: PhantomStudy,
    *,
    series: Sequence[str] | None = None,
    vendor: Vendor = Vendor.SIEMENS,
    started_at: datetime = DEFAULT_START,
) -> list[Dataset]:
    """Data sets ready to write (`save_as(..., enforce_file_format=True)`), series by series, slices along +k.

    Data sets share no elements, so tests may edit one without changing another.

    Parameters
    ----------
    study
        Values are rounded to integers as `vendor` stores them.
    series
        Roles to encode; None encodes every volume of the study.
    started_at
        Scanner clock at the start of the study.

    Raises
    ------
    KeyError
        If a role of `series` is not in the study.
    """
    roles = tuple(study.volumes) if series is None else tuple(series)
    return [dataset for role in roles for dataset in _series(study, role, vendor, started_at)]


def series_instance_uid(options: PhantomOptions, role: str, vendor: Vendor) -> str:
    """The Series Instance UID that `phantom_datasets` gives a role."""
    return _uid(options, vendor, "series", role)


def _series(study: PhantomStudy, role: str, vendor: Vendor, started_at: datetime) -> Iterator[Dataset]:
    volume = study.volumes[role]
    pixels = _stored(volume.array.astype(np.float64), role, vendor)
    common = Dataset()
    for module in (
        _patient_and_study(study.options, vendor, started_at),
        _series_and_equipment(study.options, role, vendor, started_at),
        _acquisition(role, volume, vendor),
        _contrast(study.options.contrast, started_at),
        _pixel_format(pixels),
    ):
        common.update(module)
    common.SourceImageSequence = _sources(study, role, vendor)
    if not common.SourceImageSequence:
        del common.SourceImageSequence
    for k in range(volume.geometry.shape[0]):
        yield _slice(common, study.options, role, vendor, volume, pixels, k)


def _slice(
    common: Dataset,
    options: PhantomOptions,
    role: str,
    vendor: Vendor,
    volume: Volume,
    pixels: _StoredPixels,
    k: int,
) -> Dataset:
    """Slice `k` as a data set of its own."""
    dataset = deepcopy(common)
    position = volume.geometry.to_lps((k, 0, 0))
    dataset.SOPInstanceUID = _uid(options, vendor, "instance", role, str(k))
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = _decimals(position)
    dataset.SliceLocation = _decimal(float(position @ volume.geometry.directions[:, 0]))
    dataset.PixelData = pixels.stored[k].astype("<i2" if pixels.signed else "<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _patient_and_study(options: PhantomOptions, vendor: Vendor, started_at: datetime) -> Dataset:
    return _dataset(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=MRImageStorage,
        PatientName="Phantom^Hydrops",
        PatientID=f"PHANTOM-{options.seed}",
        PatientBirthDate="19700101",
        PatientSex="O",
        PatientWeight="75",
        PatientPosition="HFS",
        StudyInstanceUID=_uid(options, vendor, "study"),
        StudyID=str(options.seed),
        StudyDate=f"{started_at:%Y%m%d}",
        StudyTime=f"{started_at:%H%M%S}",
        AccessionNumber=f"PH{options.seed}",
        ReferringPhysicianName="",
        StudyDescription="MR inner ear hydrops (synthetic)",
    )


def _series_and_equipment(options: PhantomOptions, role: str, vendor: Vendor, started_at: datetime) -> Dataset:
    style = STYLES[role]
    scanned_at = started_at + timedelta(minutes=style.minutes_after_start)
    shown_at = scanned_at + timedelta(seconds=style.duration_s)
    return _dataset(
        Modality="MR",
        SeriesInstanceUID=series_instance_uid(options, role, vendor),
        SeriesNumber=style.number,
        SeriesDescription=style.description,
        ProtocolName=style.description,
        SeriesDate=f"{scanned_at:%Y%m%d}",
        SeriesTime=f"{scanned_at:%H%M%S}",
        AcquisitionDate=f"{scanned_at:%Y%m%d}",
        AcquisitionTime=f"{scanned_at:%H%M%S}",
        ContentDate=f"{shown_at:%Y%m%d}",
        ContentTime=f"{shown_at:%H%M%S}",
        BodyPartExamined="HEAD",
        Manufacturer=MANUFACTURER[vendor],
        ManufacturerModelName="Hydrops phantom (synthetic)",
        InstitutionName="Synthetic data",
        SoftwareVersions=f"hydrops-node {__version__}",
        DeviceSerialNumber="0",
    )


def _acquisition(role: str, volume: Volume, vendor: Vendor) -> Dataset:
    """MR Image (PS3.3 C.8.3.1), Image Plane and Frame of Reference attributes."""
    style, geometry = STYLES[role], volume.geometry
    timing = SEQUENCES[style.timing]
    slice_mm, row_mm, column_mm = geometry.spacing_mm.tolist()
    inverted = timing.inversion_time_s is not None
    module = _dataset(
        ImageType=list(style.image_type[vendor]),
        FrameOfReferenceUID=geometry.frame_of_reference_uid,
        PositionReferenceIndicator="",
        AcquisitionNumber=1,
        ImagesInAcquisition=geometry.shape[0],
        ScanningSequence=["SE", "IR"] if inverted else "SE",
        SequenceVariant=["SK", "SP", "MP"] if inverted else ["SK", "SP"],
        ScanOptions="",
        MRAcquisitionType="3D",
        SequenceName=style.sequence_name if vendor is Vendor.SIEMENS else None,
        RepetitionTime=_decimal(timing.repetition_time_s * 1000.0),
        EchoTime=_decimal(timing.echo_time_s * 1000.0),
        InversionTime=_decimal(timing.inversion_time_s * 1000.0) if timing.inversion_time_s is not None else None,
        NumberOfAverages="2",
        ImagingFrequency="123.2",
        ImagedNucleus="1H",
        MagneticFieldStrength="3",
        EchoTrainLength=173,
        FlipAngle="120",
        PercentSampling="100",
        PercentPhaseFieldOfView="84.375",
        PixelBandwidth="434",
        SliceThickness=_decimal(slice_mm),
        SpacingBetweenSlices=_decimal(slice_mm),
        PixelSpacing=_decimals((row_mm, column_mm)),
        ImageOrientationPatient=_decimals([*geometry.directions[:, 2], *geometry.directions[:, 1]]),
        Rows=geometry.shape[1],
        Columns=geometry.shape[2],
    )
    if style.sources:
        module.DerivationDescription = {"HYDROPS": "PPI - PEI", "HYDROPS_MI2": "(PPI - PEI) x MRC"}[role]
    return module


def _contrast(contrast: ContrastState, started_at: datetime) -> Dataset:
    """Contrast/Bolus module, absent without contrast agent."""
    if contrast is ContrastState.NONE:
        return Dataset()
    injected_at = started_at - DELAY_AFTER_CONTRAST
    return _dataset(
        ContrastBolusAgent="Gadobutrol",
        ContrastBolusRoute="IV",
        ContrastBolusVolume="7.5",
        ContrastBolusStartTime=f"{injected_at:%H%M%S}",
        ContrastBolusIngredient="GADOLINIUM",
    )


def _sources(study: PhantomStudy, role: str, vendor: Vendor) -> list[Dataset]:
    """First image of each series that a computed series was made from; a console names the series this way."""
    return [
        _dataset(
            ReferencedSOPClassUID=MRImageStorage,
            ReferencedSOPInstanceUID=_uid(study.options, vendor, "instance", source, "0"),
        )
        for source in STYLES[role].sources
        if source in study.volumes
    ]


def _pixel_format(pixels: _StoredPixels) -> Dataset:
    low, high = np.percentile(pixels.stored[:: max(1, len(pixels.stored) // 8)], (1.0, 99.8)).tolist()
    module = _dataset(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=pixels.bits_stored,
        HighBit=pixels.bits_stored - 1,
        PixelRepresentation=int(pixels.signed),
    )
    slope, intercept = pixels.slope, pixels.intercept
    if slope is not None and intercept is not None:
        module.RescaleSlope, module.RescaleIntercept = _decimal(slope), _decimal(intercept)
        module.RescaleType = "US"
        low, high = low * slope + intercept, high * slope + intercept
    module.WindowCenter, module.WindowWidth = _decimal((low + high) / 2), _decimal(max(high - low, 1.0))
    return module


def _stored(values: NDArray[np.float64], role: str, vendor: Vendor) -> _StoredPixels:
    """`values` as `vendor` stores a series of this role; rescaled back they differ by half a step at most."""
    if role == "HYDROPS_MI2":
        signed = vendor is Vendor.GE or bool(values.min() < 0)
        return _integers(values, signed=signed, slope=MI2_STEP)
    if vendor is Vendor.PHILIPS:
        low = min(float(values.min()), 0.0)
        return _integers(values, signed=False, slope=(float(values.max()) - low) / TWELVE_BITS, intercept=low)
    if vendor is Vendor.SIEMENS and role == "REAL_IR":
        return _integers(values, signed=False, slope=1.0, intercept=-SIEMENS_REAL_OFFSET)
    return _integers(values, signed=vendor is Vendor.GE or bool(values.min() < 0))


def _integers(
    values: NDArray[np.float64], *, signed: bool, slope: float | None = None, intercept: float | None = None
) -> _StoredPixels:
    if slope is not None:
        # Through the decimal string that the header will carry, so that a reader gets exactly these steps.
        slope, intercept = float(_decimal(slope)), float(_decimal(intercept or 0.0))
        values = (values - intercept) / slope
    stored = np.rint(values).astype(np.int32)
    bits = 16 if signed or stored.max() > TWELVE_BITS else 12
    limits = (-32768, 32767) if signed else (0, 65535)
    return _StoredPixels(
        stored=np.clip(stored, *limits), signed=signed, bits_stored=bits, slope=slope, intercept=intercept
    )


def _uid(options: PhantomOptions, vendor: Vendor, *parts: str) -> str:
    return derived_uid("phantom", *_fingerprint(options), vendor.value, *parts)


def _fingerprint(options: PhantomOptions) -> Iterator[str]:
    """Every option that changes a pixel, in an order that does not depend on hashing."""
    for item in fields(options):
        value: Any = getattr(options, item.name)
        if item.name == "series":
            continue
        if isinstance(value, Mapping):
            value = sorted(value.items())
        elif isinstance(value, frozenset):
            value = sorted(value)
        yield f"{item.name}={value}"


def _dataset(**attributes: Any) -> Dataset:
    """A data set of these attributes; those that are None are left out."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def _decimal(value: float) -> str:
    """A decimal string (VR DS) of at most 16 characters with nanometer resolution."""
    return f"{round(value, 9) + 0.0:.12g}"


def _decimals(values: Iterable[float]) -> list[str]:
    return [_decimal(value) for value in values]
