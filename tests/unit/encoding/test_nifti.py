"""NIfTI out and in, on an oblique grid of which no axis and no size repeats; read back by nibabel and SimpleITK."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dicom_node.encoding.nifti import nifti_bytes, read_nifti
from dicom_node.errors import UnusableInput
from inference.geometry import Volume, VolumeGeometry

FRAME = "1.2.3"
SHAPE = (7, 11, 13)


def oblique_grid(*, mirrored: bool = False) -> VolumeGeometry:
    """Three spacings, three angles, off center; `mirrored` counts slices the other way (a left-handed grid)."""
    directions = Rotation.from_euler("xyz", [20.0, -35.0, 50.0], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = directions * (1.1, 0.6, 0.45)
    if mirrored:
        affine[:3, 0] *= -1.0
    affine[:3, 3] = (31.0, -18.0, 77.0)
    return VolumeGeometry(shape=SHAPE, index_to_lps=affine, frame_of_reference_uid=FRAME)


def marked(geometry: VolumeGeometry) -> Volume:
    """Every voxel holds another value."""
    return Volume(array=np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), geometry=geometry)


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_voxel_lies_where_it_lay_for_nibabel_and_for_simpleitk(mirrored: bool, tmp_path: Path) -> None:
    volume = marked(oblique_grid(mirrored=mirrored))
    path = tmp_path / "marked.nii.gz"
    path.write_bytes(nifti_bytes(volume))
    index = np.argwhere(np.ones(SHAPE, dtype=bool))
    lps = volume.geometry.to_lps(index)

    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    ras = nibabel.affines.apply_affine(image.affine, index[:, ::-1])
    assert np.abs(ras * (-1.0, -1.0, 1.0) - lps).max() < 1e-4
    assert np.array_equal(values[tuple(index[:, ::-1].T)], volume.array[tuple(index.T)])
    assert np.abs(image.get_qform(coded=False) - image.get_sform()).max() < 1e-3
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"

    read = sitk.ReadImage(str(path))
    for voxel in index[::97]:
        place = np.array(read.TransformIndexToPhysicalPoint([int(n) for n in voxel[::-1]]))
        assert np.abs(place - volume.geometry.to_lps(voxel)).max() < 1e-3
        assert read[[int(n) for n in voxel[::-1]]] == volume.array[tuple(voxel)]


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_was_written_is_read_back(mirrored: bool) -> None:
    volume = marked(oblique_grid(mirrored=mirrored))
    back = read_nifti(nifti_bytes(volume), name="a.nii.gz", frame_of_reference_uid=FRAME)
    assert back.geometry.same_grid(volume.geometry, tolerance_mm=1e-3)
    assert np.array_equal(back.array, volume.array)
    assert back.array.dtype == np.float32


def test_equal_volumes_give_equal_bytes_and_masks_become_numbers() -> None:
    mask = Volume(array=marked(oblique_grid()).array > 300, geometry=oblique_grid())
    content = nifti_bytes(mask, description="Research use only")
    assert nifti_bytes(mask, description="Research use only") == content
    assert b"Research use only" in gzip.decompress(content)
    back = read_nifti(content, name="mask.nii.gz", frame_of_reference_uid=FRAME)
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, mask.array)


def made(edit: Callable[[Any], None], array: NDArray[Any] | None = None) -> bytes:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32) if array is None else array, np.eye(4))
    image.header.set_xyzt_units(xyz="mm")
    edit(image)
    content: bytes = image.to_bytes()
    return content


def nowhere(image: Any) -> None:
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)


def in_two_places(image: Any) -> None:
    image.set_sform(np.diag([-1.0, 1.0, 1.0, 1.0]), code=1)
    image.set_qform(np.eye(4), code=1)


UNKNOWABLE = {
    "no orientation": (made(nowhere), "left and right cannot be told apart"),
    "two orientations": (made(in_two_places), r"differ by up to 2\.0 mm"),
    "an atlas": (made(lambda image: image.set_sform(np.eye(4), code=4)), "sform_code 4, an atlas"),
    "micrometers": (made(lambda image: image.header.set_xyzt_units(xyz="micron")), "with unit 'micron'"),
    "meters that nobody named": (
        made(lambda image: (image.header.set_xyzt_units(xyz=0), image.set_sform(np.diag([5e-4, 5e-4, 1e-3, 1.0])))),
        "expected a spacing in millimeters",
    ),
    "one slice": (made(lambda image: None, np.zeros((4, 5), np.float32)), r"three axes, found shape \(4, 5\)"),
    "a time series": (made(lambda image: None, np.zeros((4, 5, 6, 2), np.float32)), "three axes"),
    "colors": (
        made(lambda image: None, np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "one real number in each voxel",
    ),
    "complex numbers": (made(lambda image: None, np.zeros((4, 5, 6), np.complex64)), "one real number"),
    "half a file": (made(lambda image: None)[:600], "it cannot be read"),
    "half an archive": (gzip.compress(made(lambda image: None))[:-30], "it cannot be read"),
    "something else": (b"DICM" * 400, "does not begin like one"),
    "nothing": (b"", "does not begin like one"),
}


@pytest.mark.parametrize("kind", UNKNOWABLE)
def test_a_file_that_does_not_say_what_must_be_known_is_refused_by_name(kind: str) -> None:
    content, message = UNKNOWABLE[kind]
    with pytest.raises(UnusableInput, match=message) as refused:
        read_nifti(content, name="sub-07/mrc.nii.gz", frame_of_reference_uid=FRAME)
    assert str(refused.value).startswith("sub-07/mrc.nii.gz: ")


def test_a_header_that_announces_a_mountain_is_refused_before_memory_is_asked_for() -> None:
    content = bytearray(made(lambda image: None))
    content[40:56] = np.array([3, 30000, 30000, 30000, 1, 1, 1, 1], dtype="<i2").tobytes()
    with pytest.raises(UnusableInput, match="expected at most"):
        read_nifti(bytes(content), name="a.nii", frame_of_reference_uid=FRAME)


def test_a_file_without_unit_but_with_millimeters_is_read() -> None:
    content = made(lambda image: image.header.set_xyzt_units(xyz=0))
    assert read_nifti(content, name="a.nii", frame_of_reference_uid=FRAME).geometry.spacing_mm.tolist() == [1, 1, 1]
