"""The summary page as DICOM: a Secondary Capture image (PS3.3 A.8.1), and an Encapsulated PDF (PS3.3 A.45.1).

A single-frame image in RGB, 8 bit and uncompressed, because every PACS and viewer shows that. Both are derived objects
of the patient's study, each in a series of its own, with UIDs that follow from the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from dicom_node.encoding import codes
from dicom_node.encoding.identity import InputKey, ResultKind, result_uid
from dicom_node.encoding.patient_module import EQUIPMENT_ATTRIBUTES, inherit_modules, required_uid
from dicom_node.encoding.provenance import ResultOptions, contributing_equipment
from dicom_node.errors import Reason
from inference.findings import ModelIdentity

PDF_MEDIA_TYPE: Final = "application/pdf"


@dataclass(frozen=True, kw_only=True, eq=False)
class SummarySource:
    """What both objects of one page have in common.

    Parameters
    ----------
    header
        Of any image of the study: patient and study are copied from it.
    instances
        Headers of the images that the page was made from; none for a page without pictures.
    reasons
        Why there is no result; empty for the summary of a computed study.
    """

    header: pydicom.Dataset
    instances: Sequence[pydicom.Dataset]
    key: InputKey
    options: ResultOptions
    model: ModelIdentity | None
    encoded_at: datetime
    reasons: tuple[Reason, ...] = ()

    @property
    def description(self) -> str:
        """Series description of both objects."""
        return codes.SUMMARY_NOT_COMPUTED_DESCRIPTION if self.reasons else codes.SUMMARY_DESCRIPTION

    def uid(self, computed: ResultKind, not_computed: ResultKind) -> str:
        """The UID of one of the two kinds, whichever this summary is."""
        details = tuple(reason.value for reason in self.reasons)
        return result_uid(not_computed if self.reasons else computed, self.key, *details)


def build_summary_image(pixels: NDArray[np.uint8], source: SummarySource) -> pydicom.Dataset:
    """The page as a Secondary Capture image.

    Parameters
    ----------
    pixels
        (rows, columns, 3) RGB.

    Raises
    ------
    RejectedStudy
        If the source's identity is missing or illegal.
    """
    written = _common(source, SecondaryCaptureImageStorage)
    written.Modality = "OT"
    written.SeriesInstanceUID = source.uid(ResultKind.SUMMARY_SERIES, ResultKind.NOT_COMPUTED_SUMMARY_SERIES)
    written.SOPInstanceUID = source.uid(ResultKind.SUMMARY, ResultKind.NOT_COMPUTED_SUMMARY)
    written.SeriesNumber = source.options.summary_series_number
    written.ImageType = ["DERIVED", "SECONDARY"]
    written.PatientOrientation = None  # a page has none; the letters stand in the pixels
    written.Laterality = None  # of a paired organ, and the page shows both
    written.ImageComments = codes.RESEARCH_USE_TEXT
    written.DerivationDescription = "Summary page drawn from the referenced images and the results of this node"
    written.SourceImageSequence = [_reference(one) for one in source.instances]
    written.LossyImageCompression = "00"
    written.SamplesPerPixel = 3
    written.PhotometricInterpretation = "RGB"
    written.PlanarConfiguration = 0
    written.Rows, written.Columns = pixels.shape[:2]
    written.BitsAllocated = written.BitsStored = 8
    written.HighBit = 7
    written.PixelRepresentation = 0
    written.PixelData = np.ascontiguousarray(pixels).tobytes()
    return _finished(written)


def build_summary_document(pdf: bytes, source: SummarySource) -> pydicom.Dataset:
    """The page as an Encapsulated PDF.

    Raises
    ------
    RejectedStudy
        If the source's identity is missing or illegal.
    """
    written = _common(source, EncapsulatedPDFStorage)
    written.Modality = "DOC"
    written.SeriesInstanceUID = source.uid(ResultKind.DOCUMENT_SERIES, ResultKind.NOT_COMPUTED_DOCUMENT_SERIES)
    written.SOPInstanceUID = source.uid(ResultKind.DOCUMENT, ResultKind.NOT_COMPUTED_DOCUMENT)
    written.SeriesNumber = source.options.document_series_number
    written.AcquisitionDateTime = None
    written.DocumentTitle = source.description
    written.ConceptNameCodeSequence = [_code(codes.DIAGNOSTIC_IMAGING_REPORT)]
    written.SourceInstanceSequence = [_reference(one) for one in source.instances]
    written.MIMETypeOfEncapsulatedDocument = PDF_MEDIA_TYPE
    written.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    written.EncapsulatedDocumentLength = len(pdf)
    return _finished(written)


def _common(source: SummarySource, sop_class_uid: str) -> pydicom.Dataset:
    """Patient, study, equipment, and what else an image and a document share."""
    written = inherit_modules(source.header).dataset
    for keyword in (*EQUIPMENT_ATTRIBUTES, "FrameOfReferenceUID", "PositionReferenceIndicator"):
        if keyword in written:
            delattr(written, keyword)  # this node's equipment follows; a page lies nowhere in the patient
    date, time = source.encoded_at.strftime("%Y%m%d"), source.encoded_at.strftime("%H%M%S.%f")
    written.SOPClassUID = sop_class_uid
    written.InstanceNumber = 1
    written.SeriesDescription = source.description
    written.Manufacturer = codes.NODE_MANUFACTURER
    written.ManufacturerModelName = codes.NODE_MODEL_NAME
    written.DeviceSerialNumber = source.options.device_serial_number
    written.SoftwareVersions = source.options.software_version
    written.ConversionType = "WSD"
    written.BurnedInAnnotation = "YES"
    written.RecognizableVisualFeatures = "NO"
    for kind in ("InstanceCreation", "Content", "Series"):
        setattr(written, f"{kind}Date", date)
        setattr(written, f"{kind}Time", time)
    made_by = contributing_equipment(source.key, source.options, source.model, source.encoded_at)
    written.ContributingEquipmentSequence = [made_by]
    return written


def _reference(header: pydicom.Dataset) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = required_uid(header, "SOPClassUID")
    item.ReferencedSOPInstanceUID = required_uid(header, "SOPInstanceUID")
    return item


def _code(code: Code) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _finished(written: pydicom.Dataset) -> pydicom.Dataset:
    """With its file meta information; without attributes that must not be there when they are empty."""
    written.file_meta = FileMetaDataset()
    written.file_meta.MediaStorageSOPClassUID = written.SOPClassUID
    written.file_meta.MediaStorageSOPInstanceUID = written.SOPInstanceUID
    written.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("SourceImageSequence", "SourceInstanceSequence"):
        if keyword in written and not written[keyword].value:
            del written[keyword]
    return written
