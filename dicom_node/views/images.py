"""Volumes as small NIfTI files: whole numbers and a slope instead of floats, at the same place in the patient."""

from __future__ import annotations

from typing import Final

import numpy as np

from dicom_node.encoding.nifti import nifti_bytes
from inference.geometry import Volume

STEPS: Final = 32766
"""Steps on either side of zero when measured values become int16: finer than any scanner's noise."""

FRACTION_STEPS: Final = 255

DESCRIPTION: Final = "Hydrops Node, research use only"


def image_file(volume: Volume) -> bytes:
    """Measured values (float, any sign) as int16 with a slope; right to 1/65532 of the largest value.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    values = np.asarray(volume.array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a picture is made of finite values")
    slope = float(np.abs(values).max()) / STEPS or 1.0
    stored = Volume(array=np.rint(values / slope).astype(np.int16), geometry=volume.geometry)
    return nifti_bytes(stored, description=DESCRIPTION, slope=slope)


def fraction_file(volume: Volume) -> bytes:
    """Parts of voxels (0..1) as uint8 with slope 1/255.

    Raises
    ------
    ValueError
        If a value lies outside 0..1.
    """
    values = np.asarray(volume.array, dtype=np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError("a fraction lies in 0..1")
    stored = Volume(array=np.rint(values * FRACTION_STEPS).astype(np.uint8), geometry=volume.geometry)
    return nifti_bytes(stored, description=DESCRIPTION, slope=1.0 / FRACTION_STEPS)


def label_file(volume: Volume) -> bytes:
    """Labels (uint8, 0 is background) as they are."""
    labels = Volume(array=np.asarray(volume.array, dtype=np.uint8), geometry=volume.geometry)
    return nifti_bytes(labels, description=DESCRIPTION)
