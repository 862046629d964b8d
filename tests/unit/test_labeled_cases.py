"""Cases from NIfTI files: balls of fluid at known RAS coordinates, read back in LPS and compared with SimpleITK."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from dicom_node.errors import UnusableInput
from dicom_node.labeled_cases import case_folders, input_sets, read_case
from inference.anatomy import EarSide
from inference.cases import EarCase, InputSet
from inference.geometry import Volume
from inference.resampling import from_sitk

LEFT_EAR_RAS = (-38.0, -12.0, 4.0)
RIGHT_EAR_RAS = (41.0, -10.0, 6.0)
RADIUS_MM = 4.0

AXIAL = np.diag([-1.0, 1.0, 1.0, 1.0])
"""i grows to the patient's left, as scanners store axial slices."""

AffineEdit = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def affine_from(directions: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """RAS affine of a grid of 1 mm voxels centered on the patient's origin."""
    affine = directions.copy()
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2.0
    return affine


def distance_to(point_ras: tuple[float, float, float], affine: NDArray[np.float64], shape: tuple[int, int, int]):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return np.linalg.norm(nibabel.affines.apply_affine(affine, index) - point_ras, axis=-1)


def write(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_qform(affine, code=1)
    nibabel.save(image, path)


def write_case(
    folder: Path,
    *ears_ras: tuple[float, float, float],
    directions: NDArray[np.float64] = AXIAL,
    shape: tuple[int, int, int] = (120, 60, 40),
    **tags: str | float,
) -> Path:
    """A case whose ears are balls; endolymph is their inner half, and the noise is not constant."""
    folder.mkdir()
    affine = affine_from(directions, shape)
    distance = np.min([distance_to(ear, affine, shape) for ear in ears_ras], axis=0)
    total, endolymph = distance <= RADIUS_MM, distance <= RADIUS_MM / 2
    noise = np.random.default_rng(1).normal(0.0, 1.0, shape)
    perilymph = total & ~endolymph
    write(folder / "mrc.nii.gz", (1000.0 * total + np.abs(noise)).astype(np.float32), affine)
    write(folder / "hydrops.nii.gz", (100.0 * perilymph - 50.0 * endolymph + noise).astype(np.float32), affine)
    write(folder / "ppi.nii.gz", (120.0 * perilymph + 20.0 + noise).astype(np.float32), affine)
    write(folder / "pei.nii.gz", (50.0 * endolymph + 20.0 + noise).astype(np.float32), affine)
    write(folder / "total_fluid.nii.gz", total.astype(np.uint8), affine)
    write(folder / "endolymph.nii.gz", endolymph.astype(np.float32), affine)
    if tags:
        (folder / "case.json").write_text(json.dumps(tags), encoding="utf-8")
    return folder


def center_of(volume: Volume) -> NDArray[np.float64]:
    return volume.geometry.to_lps(np.argwhere(volume.array > 0)).mean(axis=0)


def ear_of(folder: Path, inputs: InputSet | None = None) -> EarCase:
    (case,) = read_case(folder, inputs=inputs)
    return case


CORONAL_FEET_FIRST = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
TILTED = np.array([[-1.0, 0, 0, 0], [0, np.cos(0.3), -np.sin(0.3), 0], [0, np.sin(0.3), np.cos(0.3), 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("directions", [AXIAL, CORONAL_FEET_FIRST, TILTED], ids=["axial", "coronal", "tilted"])
def test_an_ear_stands_at_its_nifti_coordinates_and_on_its_side_however_the_axes_run(
    tmp_path: Path, directions: NDArray[np.float64]
) -> None:
    shape = (120, 60, 60)
    case = ear_of(write_case(tmp_path / "a", LEFT_EAR_RAS, directions=directions, shape=shape))
    expected_lps = np.array([-1.0, -1.0, 1.0]) * LEFT_EAR_RAS
    assert case.images.roi.side is EarSide.LEFT
    for volume in (case.total_fluid, case.endolymph):
        assert np.abs(center_of(volume) - expected_lps).max() < 0.2
    brightest = np.asarray(case.images.mrc.array) > 500.0
    assert np.array_equal(brightest, case.total_fluid.array > 0)
    assert np.abs(np.array(case.images.roi.center_lps_mm) - expected_lps).max() < 0.2


@pytest.mark.parametrize("directions", [AXIAL, CORONAL_FEET_FIRST, TILTED], ids=["axial", "coronal", "tilted"])
def test_simpleitk_puts_every_value_at_the_same_place(tmp_path: Path, directions: NDArray[np.float64]) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS, directions=directions, shape=(120, 60, 60))
    own = ear_of(folder).images.mrc
    other = from_sitk(sitk.ReadImage(str(folder / "mrc.nii.gz")), own.geometry.frame_of_reference_uid)
    start = tuple(np.rint(other.geometry.to_index(own.geometry.to_lps((0, 0, 0)))).astype(int).tolist())
    cut = other.crop(start, own.geometry.shape)
    assert cut.geometry.same_grid(own.geometry)
    assert np.array_equal(cut.array, own.array)


def test_two_labeled_ears_become_two_cases_right_ear_first_and_neither_sees_the_other(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "both", LEFT_EAR_RAS, RIGHT_EAR_RAS, domain="scanner A", snr=7.5)
    right, left = read_case(folder)
    assert (right.images.roi.side, left.images.roi.side) == (EarSide.RIGHT, EarSide.LEFT)
    assert center_of(right.total_fluid)[0] == pytest.approx(-41.0, abs=0.2)
    assert center_of(left.total_fluid)[0] == pytest.approx(38.0, abs=0.2)
    assert left.tags == {"case": "both", "domain": "scanner A", "snr": 7.5, "side": "left", "input_set": "PPI_PEI"}


def test_ppi_and_pei_are_subtracted_and_hydrops_can_be_asked_for_instead(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS)
    assert input_sets(folder) == (InputSet.PPI_PEI, InputSet.HYDROPS)
    pair, given = ear_of(folder), ear_of(folder, InputSet.HYDROPS)
    inner = pair.endolymph.array > 0
    assert np.median(pair.images.hydrops.array[inner]) == pytest.approx(-50.0, abs=2.0)
    assert np.median(given.images.hydrops.array[inner]) == pytest.approx(-50.0, abs=2.0)
    assert pair.images.ppi is not None
    assert np.median(pair.images.ppi.array[inner]) == pytest.approx(20.0, abs=2.0)
    assert not given.images.phase_sensitive


def test_a_contrast_series_on_its_own_grid_is_brought_to_the_mrc(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS)
    shape = (70, 64, 46)
    affine = affine_from(np.diag([1.0, -1.0, 0.9, 1.0]), shape)
    affine[:3, 3] += (-38.0, -10.0, 0.0)
    bright = distance_to(LEFT_EAR_RAS, affine, shape) <= RADIUS_MM
    write(folder / "hydrops.nii.gz", (100.0 * bright - 1.0).astype(np.float32), affine)
    case = ear_of(folder, InputSet.HYDROPS)
    assert case.images.hydrops.geometry.same_grid(case.images.mrc.geometry)
    weight = np.clip(np.asarray(case.images.hydrops.array) + 1.0, 0.0, None)
    seen_at = np.average(np.argwhere(weight > 0), axis=0, weights=weight[weight > 0])
    assert np.abs(case.images.mrc.geometry.to_lps(seen_at) - case.images.roi.center_lps_mm).max() < 0.3


def test_the_side_of_a_crop_without_scanner_coordinates_comes_from_case_json(tmp_path: Path) -> None:
    middle = (2.0, 0.0, 0.0)
    assert ear_of(write_case(tmp_path / "told", middle, side="right")).images.roi.side is EarSide.RIGHT
    with pytest.raises(UnusableInput, match=r"does not tell its side; add case\.json"):
        read_case(write_case(tmp_path / "untold", middle))
    with pytest.raises(UnusableInput, match=r"case\.json says right, found the ear at x = 38 mm"):
        read_case(write_case(tmp_path / "contradiction", LEFT_EAR_RAS, side="right"))


def overwrite(name: str, change: Callable[[NDArray[np.float64]], NDArray[np.generic]], moved: AffineEdit = np.copy):
    def spoil(folder: Path) -> None:
        image = nibabel.load(folder / name)
        write(folder / name, change(np.asarray(image.get_fdata())).astype(np.float32), moved(image.affine))

    return spoil


def with_nan(array: NDArray[np.float64]) -> NDArray[np.float64]:
    array[3, 3, 3] = np.nan
    return array


def with_a_second_orientation(folder: Path) -> None:
    image = nibabel.load(folder / "mrc.nii.gz")
    image.header.set_qform(image.affine @ np.diag([-1.0, 1.0, 1.0, 1.0]), code=1)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), folder / "mrc.nii.gz")


def truncated(folder: Path) -> None:
    data = (folder / "pei.nii.gz").read_bytes()
    (folder / "pei.nii.gz").write_bytes(data[: len(data) // 2])


def without_orientation(folder: Path) -> None:
    image = nibabel.load(folder / "mrc.nii.gz")
    array = np.asarray(image.get_fdata(), dtype=np.float32)
    bare = nibabel.Nifti1Image(array, None)
    bare.header.set_qform(None, code=0)
    bare.header.set_sform(None, code=0)
    nibabel.save(bare, folder / "mrc.nii.gz")


SPOILED = {
    "a missing label": (lambda folder: (folder / "endolymph.nii.gz").unlink(), "expected endolymph.nii.gz, found case"),
    "an unknown file": (
        lambda folder: (folder / "mrc.nii.gz").rename(folder / "mrc2.nii.gz"),
        "cannot tell what mrc2.nii.gz is; expected mrc.nii.gz",
    ),
    "nothing that shows endolymph": (
        lambda folder: [(folder / f"{name}.nii.gz").unlink() for name in ("hydrops", "pei")],
        "nothing shows endolymph; expected ppi and pei",
    ),
    "NaN": (overwrite("mrc.nii.gz", with_nan), r"mrc.nii.gz: expected finite values, found 1"),
    "a constant image": (
        overwrite("pei.nii.gz", lambda array: 0 * array + 7),
        "pei.nii.gz: expected an image, found 7",
    ),
    "another label value": (
        overwrite("total_fluid.nii.gz", lambda array: 2 * array),
        r"0 and 1 .* found values such as \[0.0, 2.0\]",
    ),
    "an empty label": (overwrite("total_fluid.nii.gz", lambda array: 0 * array), "found no voxel above 0"),
    "a label of another shape": (
        overwrite("total_fluid.nii.gz", lambda array: array[1:]),
        r"total_fluid.nii.gz: expected the grid of the MRC, .*\(40, 60, 120\).* found .*\(40, 60, 119\)",
    ),
    "a label at another place": (
        overwrite("endolymph.nii.gz", lambda array: array, lambda affine: affine + 0.5 * np.eye(4, k=3)),
        "endolymph.nii.gz: expected the grid of the MRC",
    ),
    "endolymph outside the fluid": (
        overwrite("endolymph.nii.gz", lambda array: np.roll(array, 4, axis=0)),
        r"expected endolymph inside total_fluid, found \d+% of it outside",
    ),
    "a label far from the ear": (
        overwrite("total_fluid.nii.gz", lambda array: np.maximum(array, np.roll(array, 25, axis=1))),
        "the left ear's total_fluid reaches over 32 mm",
    ),
    "four dimensions": (
        overwrite("pei.nii.gz", lambda array: np.stack([array, array], axis=-1)),
        "pei.nii.gz: expected one volume of three axes, found shape",
    ),
    "no orientation": (without_orientation, "found qform_code 0 and sform_code 0: left and right cannot be told apart"),
    "two orientations": (with_a_second_orientation, "found a qform and an sform that differ by up to"),
    "half a file": (truncated, "pei.nii.gz: expected a NIfTI image; it cannot be read"),
    "no image at all": (
        lambda folder: (folder / "mrc.nii.gz").write_bytes(b"not a NIfTI file"),
        "mrc.nii.gz: expected a NIfTI image",
    ),
    "a tag that is no number": (
        lambda folder: (folder / "case.json").write_text('{"snr": NaN}'),
        "case.json: expected JSON, found NaN, which is no number",
    ),
    "tags that are no tags": (
        lambda folder: (folder / "case.json").write_text('{"side": "both"}'),
        'side: expected "left" or "right", found \'both\'',
    ),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_case_that_cannot_be_used_says_which_file_what_was_expected_and_what_was_found(
    tmp_path: Path, spoil: str
) -> None:
    folder = write_case(tmp_path / "case", LEFT_EAR_RAS, domain="scanner A")
    damage, message = SPOILED[spoil]
    damage(folder)
    with pytest.raises(UnusableInput, match=message):
        read_case(folder)


def test_an_ear_without_a_label_for_endolymph_is_refused_not_taken_for_one_without_hydrops(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS, RIGHT_EAR_RAS)
    right = np.asarray(nibabel.load(folder / "total_fluid.nii.gz").affine)[0, 3] > 0
    keep = slice(None, 60) if not right else slice(60, None)

    def one_side(array: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros_like(array)
        out[keep] = array[keep]
        return out

    overwrite("endolymph.nii.gz", one_side)(folder)
    with pytest.raises(
        UnusableInput, match=r"expected endolymph in the (left|right) ear, too, found total_fluid alone"
    ):
        read_case(folder)


def test_compartments_come_along_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS)
    label = nibabel.load(folder / "total_fluid.nii.gz")
    inside = np.asarray(label.get_fdata())
    write(folder / "compartments.nii.gz", (2 * inside).astype(np.uint8), label.affine)
    case = ear_of(folder)
    assert case.compartments is not None
    assert np.array_equal(case.compartments.array == 2, case.total_fluid.array > 0)
    write(folder / "compartments.nii.gz", (7 * inside).astype(np.uint8), label.affine)
    with pytest.raises(
        UnusableInput, match=r"expected 0, 1 cochlea, 2 vestibule, 3 canals; found values such as \[0, 7\]"
    ):
        read_case(folder)


def test_unsigned_hydrops_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS)
    overwrite("hydrops.nii.gz", lambda array: array + 2048.0)(folder)
    with pytest.raises(UnusableInput, match=r"expected signed values .* subtract the console's offset"):
        read_case(folder, inputs=InputSet.HYDROPS)


def test_endolymph_that_leaves_the_fluid_by_rounding_is_taken_back_inside(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "a", LEFT_EAR_RAS)
    total = np.asarray(nibabel.load(folder / "total_fluid.nii.gz").get_fdata())
    overwrite("endolymph.nii.gz", lambda array: np.maximum(array, 0.001 * (1.0 - total) * np.roll(total, 1, 0)))(folder)
    case = ear_of(folder)
    assert (case.endolymph.array <= case.total_fluid.array).all()


def test_case_folders_are_found_at_any_depth_and_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    second, first = write_case(tmp_path / "site" / "b", LEFT_EAR_RAS), write_case(tmp_path / "a", LEFT_EAR_RAS)
    assert case_folders(tmp_path) == [first, second]
    assert case_folders(first) == [first]
    (second / "mrc.nii.gz").unlink()
    assert case_folders(tmp_path) == [first, second]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UnusableInput, match=r"expected one folder per case with mrc\.nii\.gz in it, found none"):
        case_folders(empty)
