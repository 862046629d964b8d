"""NIfTI files in memory: the one place where NIfTI's coordinates meet ours, written and read.

NIfTI counts (i, j, k) and speaks RAS, +x to the patient's right; here arrays are (k, j, i) in LPS. So the columns of
an affine are reversed and its first two rows change sign. Both transforms of a file, sform and qform, are written with
code 1 (scanner coordinates): 3D Slicer, ITK-SNAP and FSL each trust another one.
"""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO
from typing import Any, Final

import nibabel
import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import UnusableInput
from inference.geometry import GeometryError, Volume, VolumeGeometry

RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])

SCANNER_COORDINATES: Final = 1
"""NIFTI_XFORM_SCANNER_ANAT; 2 is another scan of the patient, 3 and more are atlases."""

SAME_PLACE_MM: Final = 0.1
"""Largest difference of two orientations of one file that are rounded versions of the same."""

MM_SPACING: Final = (0.05, 20.0)
"""Voxels of an MR image in millimeters. A file that names no unit (many programs write none) is believed to mean
millimeters if all its spacings lie here: in meters they would be below, in micrometers above."""

MAX_VOXELS: Final = 2**29
"""1 GiB of 16-bit values, forty times a clinical slab: a header that announces more is damaged or hostile."""

GZIP_MAGIC: Final = b"\x1f\x8b"

LEVEL: Final = 1
"""Of gzip: noise hardly shrinks further, and higher levels take several times as long."""

Affine = NDArray[np.float64]


def ras_affine(geometry: VolumeGeometry) -> Affine:
    """(4, 4), NIfTI's (i, j, k) to RAS mm: where `geometry` lies."""
    affine: Affine = (RAS_TO_LPS @ geometry.index_to_lps)[:, [2, 1, 0, 3]]
    return affine


def nifti_bytes(volume: Volume, *, description: str = "", slope: float = 1.0) -> bytes:
    """`volume` as a complete .nii.gz file; equal volumes give equal bytes.

    Parameters
    ----------
    volume
        Bool is written as uint8; every other type as it is.
    description
        At most 79 ASCII characters, shown by viewers. Nothing about the patient belongs here.
    slope
        What readers multiply the voxels of `volume` by: measured values fit into whole numbers that way.
    """
    array = np.asarray(volume.array)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    affine = ras_affine(volume.geometry)
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units(xyz="mm")
    image.header.set_slope_inter(slope, 0.0)
    image.header["descrip"] = description.encode("ascii")[:79]
    image.set_sform(affine, code=SCANNER_COORDINATES)
    image.set_qform(affine, code=SCANNER_COORDINATES)
    return gzip.compress(image.to_bytes(), compresslevel=LEVEL, mtime=0)


def read_nifti(content: bytes, *, name: str, frame_of_reference_uid: str) -> Volume:
    """The values of a .nii or .nii.gz file at their place in LPS, as they are stored after scaling.

    Read by nibabel, because SimpleITK's reader turns NaN into 0.

    Parameters
    ----------
    name
        The file's, for messages.
    frame_of_reference_uid
        Which frame its coordinates are meant in; a NIfTI file cannot say.

    Raises
    ------
    UnusableInput
        If it is no NIfTI file or damaged, not one three-dimensional real image, without a unit that can be known, or
        without one orientation in the patient: then it has no sides.
    """
    try:
        image = _image(content, name)
        array = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise UnusableInput(f"{name}: expected a NIfTI image; it cannot be read: {error}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UnusableInput(f"{name}: expected a NIfTI image; it cannot be read: {error}") from None
    if array.dtype.kind not in "biuf":
        raise UnusableInput(f"{name}: expected one real number in each voxel, found values of type {array.dtype}")
    _check_unit(image, name)
    _check_orientation(image.header, name)
    i, j, k = array.shape
    try:
        index_to_lps = (RAS_TO_LPS @ image.affine)[:, [2, 1, 0, 3]]
        geometry = VolumeGeometry(
            shape=(k, j, i), index_to_lps=index_to_lps, frame_of_reference_uid=frame_of_reference_uid
        )
    except GeometryError as error:
        raise UnusableInput(f"{name}: {error}") from None
    return Volume(array=np.ascontiguousarray(array.transpose(2, 1, 0)), geometry=geometry)


def _image(content: bytes, name: str) -> Any:
    """The image with its header read and its voxels not yet."""
    stream = gzip.GzipFile(fileobj=BytesIO(content)) if content.startswith(GZIP_MAGIC) else BytesIO(content)
    head = stream.read(4)
    stream.seek(0)
    kinds = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}  # sizeof_hdr, in either byte order
    kind = kinds.get(int.from_bytes(head, "little")) or kinds.get(int.from_bytes(head, "big"))
    if kind is None:
        raise UnusableInput(f"{name}: expected a NIfTI image, found a file that does not begin like one")
    image = kind.from_stream(stream)
    if len(image.shape) != 3:
        raise UnusableInput(f"{name}: expected one volume of three axes, found shape {image.shape}")
    if np.prod(image.shape, dtype=np.float64) > MAX_VOXELS:
        raise UnusableInput(f"{name}: expected at most {MAX_VOXELS} voxels, found shape {image.shape}")
    return image


def _check_unit(image: Any, name: str) -> None:
    unit = image.header.get_xyzt_units()[0]
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0).round(6).tolist()
    if unit == "mm" or (unit == "unknown" and all(MM_SPACING[0] <= mm <= MM_SPACING[1] for mm in spacing)):
        return
    raise UnusableInput(
        f"{name}: expected a spacing in millimeters, found {spacing} with unit '{unit}'; convert it, or set xyzt_units "
        "if the file is in millimeters and only says otherwise"
    )


def _check_orientation(header: Any, name: str) -> None:
    """One orientation in scanner coordinates; a file whose two disagree, or that has none, has no sides."""
    own, scanner = header.get_sform(coded=True), header.get_qform(coded=True)
    if own[0] is None and scanner[0] is None:
        raise UnusableInput(
            f"{name}: expected an orientation, found qform_code 0 and sform_code 0: left and right cannot be told "
            "apart; export it again with its scanner coordinates"
        )
    if max(own[1], scanner[1]) > 2:
        raise UnusableInput(
            f"{name}: expected scanner coordinates, found qform_code {scanner[1]} and sform_code {own[1]}, an atlas: "
            "volumes there are not the patient's; use the image before it was normalized"
        )
    if own[0] is not None and scanner[0] is not None and np.abs(own[0] - scanner[0]).max() > SAME_PLACE_MM:
        raise UnusableInput(
            f"{name}: expected one orientation, found a qform and an sform that differ by up to "
            f"{np.abs(own[0] - scanner[0]).max():.1f} mm; remove the one that is wrong"
        )
