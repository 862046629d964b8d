"""Tiny but valid MR images and their bytes in any uncompressed encoding."""

from __future__ import annotations

import io

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

STUDY, SERIES = "1.2.826.0.1.3680043.10.1", "1.2.826.0.1.3680043.10.1.1"
EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


def make_mr(*, size: int = 16, **attributes: object) -> Dataset:
    """A valid MR image of `size` x `size` pixels; keywords are attributes to set, None takes one away."""
    image = Dataset()
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, SERIES
    image.Modality, image.PatientName, image.PatientID = "MR", "Marker^Name", "MARKER-ID"
    image.Rows = image.Columns = size
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = b"".join((n * 37 % 4096).to_bytes(2, "little") for n in range(size * size))
    for keyword, value in attributes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


def encode(image: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    """The bytes of a data set as they would cross the network, without File Meta Information."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, Dataset(image), implicit_vr=implicit, little_endian=little, force_encoding=True)
    return buffer.getvalue()


def as_file(image: Dataset) -> bytes:
    """A DICOM file of an image, explicit VR little endian."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, image, enforce_file_format=True)
    return buffer.getvalue()


def data_set_bytes(part10: bytes) -> bytes:
    """What follows the File Meta Information in a DICOM file, found by its group length."""
    return part10[144 + int.from_bytes(part10[140:144], "little") :]
