"""A phantom series as one Enhanced MR Image Storage instance (PS3.3 A.36.2), as newer scanners send it.

Made from the classic slices, so both say the same about pixels and places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from dicom_node.encoding.identity import derived_uid

_KEPT: Final = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientWeight",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "SeriesDate",
    "SeriesTime",
    "ProtocolName",
    "BodyPartExamined",
    "PatientPosition",
    "Manufacturer",
    "ManufacturerModelName",
    "InstitutionName",
    "SoftwareVersions",
    "DeviceSerialNumber",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "AcquisitionNumber",
    "MRAcquisitionType",
    "MagneticFieldStrength",
    "ContentDate",
    "ContentTime",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "Rows",
    "Columns",
)
"""Attributes that stand at the top of both kinds of image with the same meaning."""

_STACK_ID: Final = "1"


def enhanced_dataset(slices: Sequence[Dataset]) -> Dataset:
    """One multi-frame data set with the pixels, geometry and timing of the classic `slices` of one original series.

    Frames keep the order of `slices`. UIDs follow from theirs.

    Raises
    ------
    ValueError
        If the series is computed (DERIVED): computed images need other functional groups.
    """
    first = slices[0]
    if first.ImageType[0] != "ORIGINAL":
        raise ValueError(f"expected an ORIGINAL series, found image type {list(first.ImageType)}")
    dataset = Dataset()
    for keyword in _KEPT:
        if keyword in first:
            dataset[keyword] = deepcopy(first[keyword])
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.SOPInstanceUID = derived_uid("enhanced", str(first.SeriesInstanceUID))
    _set(dataset, _enhanced_image(first) | _pulse_sequence(first))
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = len(slices)
    _add_dimensions(dataset)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(first)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_groups(frame, k) for k, frame in enumerate(slices, start=1)]
    dataset.PixelData = b"".join(frame.PixelData for frame in slices)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _component(first: Dataset) -> str:
    return "REAL" if {"R", "REAL"} & set(first.ImageType) else "MAGNITUDE"


def _frame_type(first: Dataset) -> dict[str, Any]:
    """What kind of pixels these are (PS3.3 C.8.13.3.1)."""
    return {
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": _component(first),
        "AcquisitionContrast": "FLUID_ATTENUATED" if "InversionTime" in first else "T2",
    }


def _enhanced_image(first: Dataset) -> dict[str, Any]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "AcquisitionDateTime": f"{first.AcquisitionDate}{first.AcquisitionTime}",
        "AcquisitionDuration": 480.0,
        "ResonantNucleus": "1H",
        "KSpaceFiltering": "NONE",
        "ApplicableSafetyStandardAgency": "IEC",
        "ContentQualification": "RESEARCH",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
        "AcquisitionContextSequence": [],
        **_frame_type(first),
    }


def _pulse_sequence(first: Dataset) -> dict[str, Any]:
    """MR Pulse Sequence module (PS3.3 C.8.13.4)."""
    return {
        "PulseSequenceName": first.get("SequenceName") or "SPACE",
        "EchoPulseSequence": "SPIN",
        "MultipleSpinEcho": "YES",
        "MultiPlanarExcitation": "NO",
        "PhaseContrast": "NO",
        "TimeOfFlightContrast": "NO",
        "SteadyStatePulseSequence": "NONE",
        "EchoPlanarPulseSequence": "NO",
        "SaturationRecovery": "NO",
        "SpectrallySelectedSuppression": "NONE",
        "OversamplingPhase": "NONE",
        "GeometryOfKSpaceTraversal": "RECTILINEAR",
        "SegmentedKSpaceTraversal": "PARTIAL",
        "RectilinearPhaseEncodeReordering": "LINEAR",
        "NumberOfKSpaceTrajectories": 1,
        "CoverageOfKSpace": "FULL",
    }


def _add_dimensions(dataset: Dataset) -> None:
    """Frames are ordered by their place in one stack."""
    organization = derived_uid("dimension", str(dataset.SeriesInstanceUID))
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,
            DimensionDescriptionLabel=label,
        )
        for pointer, label in ((0x00209056, "Stack ID"), (0x00209057, "In-stack position"))
    ]


def _shared_groups(first: Dataset) -> Dataset:
    """Functional groups that hold for every frame."""
    inner_ear = _item(CodeValue="22945000", CodingSchemeDesignator="SCT", CodeMeaning="Inner ear")
    groups = {
        "PixelMeasuresSequence": _item(
            PixelSpacing=first.PixelSpacing,
            SliceThickness=first.SliceThickness,
            SpacingBetweenSlices=first.SpacingBetweenSlices,
        ),
        "PlaneOrientationSequence": _item(ImageOrientationPatient=first.ImageOrientationPatient),
        "FrameAnatomySequence": _item(AnatomicRegionSequence=[inner_ear], FrameLaterality="B"),
        "PixelValueTransformationSequence": _item(
            RescaleIntercept=first.get("RescaleIntercept", "0"),
            RescaleSlope=first.get("RescaleSlope", "1"),
            RescaleType="US",
        ),
        "FrameVOILUTSequence": _item(WindowCenter=first.WindowCenter, WindowWidth=first.WindowWidth),
        "MRImageFrameTypeSequence": _item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], **_frame_type(first)),
        **_mr_groups(first),
    }
    return _item(**{keyword: [item] for keyword, item in groups.items()})


def _mr_groups(first: Dataset) -> Mapping[str, Dataset]:
    """Functional groups of the acquisition itself (PS3.3 C.8.13.5)."""
    inverted = "InversionTime" in first
    return {
        "MRTimingAndRelatedParametersSequence": _item(
            RepetitionTime=first.RepetitionTime,
            FlipAngle=first.FlipAngle,
            EchoTrainLength=first.EchoTrainLength,
            RFEchoTrainLength=int(first.EchoTrainLength),
            GradientEchoTrainLength=0,
            SpecificAbsorptionRateSequence=[
                _item(SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.5)
            ],
            OperatingModeSequence=[
                _item(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL"),
            ],
            GradientOutputType="DB_DT",
            GradientOutput=20.0,
        ),
        "MRFOVGeometrySequence": _item(
            InPlanePhaseEncodingDirection="ROW",
            MRAcquisitionFrequencyEncodingSteps=int(first.Rows),
            MRAcquisitionPhaseEncodingStepsInPlane=int(first.Columns),
            MRAcquisitionPhaseEncodingStepsOutOfPlane=int(first.ImagesInAcquisition),
            PercentSampling=first.PercentSampling,
            PercentPhaseFieldOfView=first.PercentPhaseFieldOfView,
        ),
        "MREchoSequence": _item(EffectiveEchoTime=float(first.EchoTime)),
        "MRModifierSequence": _item(
            InversionRecovery="YES" if inverted else "NO",
            InversionTimes=float(first.InversionTime) if inverted else None,
            FlowCompensation="NONE",
            Spoiling="RF",
            T2Preparation="NO",
            SpectrallySelectedExcitation="NONE",
            SpatialPresaturation="NONE",
            PartialFourier="NO",
            ParallelAcquisition="NO",
        ),
        "MRImagingModifierSequence": _item(
            MagnetizationTransfer="NONE",
            BloodSignalNulling="NO",
            Tagging="NONE",
            TransmitterFrequency=123.2,
            PixelBandwidth=first.PixelBandwidth,
        ),
        "MRReceiveCoilSequence": _item(
            ReceiveCoilName="Head_64",
            ReceiveCoilManufacturerName="",
            ReceiveCoilType="MULTICOIL",
            QuadratureReceiveCoil="NO",
            MultiCoilDefinitionSequence=[_item(MultiCoilElementName="H1", MultiCoilElementUsed="YES")],
        ),
        "MRTransmitCoilSequence": _item(
            TransmitCoilName="Body", TransmitCoilManufacturerName="", TransmitCoilType="BODY"
        ),
        "MRAveragesSequence": _item(NumberOfAverages=first.NumberOfAverages),
    }


def _frame_groups(frame: Dataset, k: int) -> Dataset:
    """Functional groups of frame `k` (from 1)."""
    return _item(
        FrameContentSequence=[
            _item(
                FrameReferenceDateTime=f"{frame.AcquisitionDate}{frame.AcquisitionTime}",
                FrameAcquisitionDateTime=f"{frame.AcquisitionDate}{frame.AcquisitionTime}",
                FrameAcquisitionDuration=480000.0,
                FrameAcquisitionNumber=1,
                StackID=_STACK_ID,
                InStackPositionNumber=k,
                DimensionIndexValues=[1, k],
            )
        ],
        PlanePositionSequence=[_item(ImagePositionPatient=frame.ImagePositionPatient)],
    )


def _item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    _set(dataset, attributes)
    return dataset


def _set(dataset: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
