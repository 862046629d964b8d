"""A view pack holds every ear at its place in the patient, and nothing about who the patient is."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from viewed_study import MOVED_MM, endolymph_center_mm, oblique_slab, viewed_study

from dicom_node.encoding.codes import RESEARCH_USE_TEXT
from dicom_node.views.pack import LABEL_NAMES, ViewPack, build_view_pack
from dicom_node.views.stills import ENDOLYMPH_COLOR, TOTAL_FLUID_COLOR
from inference.anatomy import EarSide

TURNED = [(False, False, False), (True, False, False), (False, True, True)]


@pytest.fixture(scope="module", params=TURNED, ids=["as usual", "feet to head", "from the other corner"])
def pack(request) -> ViewPack:
    slab = oblique_slab(turned=request.param)
    return build_view_pack(viewed_study(slab), slab)


def manifest_of(pack: ViewPack) -> dict:
    return json.loads(pack.files["manifest.json"])


def read(pack: ViewPack, name: str, folder: Path) -> sitk.Image:
    """The file as SimpleITK reads it: in LPS, by code that is not ours."""
    (folder / name).write_bytes(pack.files[name])
    return sitk.ReadImage(str(folder / name))


def center_of_mass(image: sitk.Image) -> NDArray[np.float64]:
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    index = (np.indices(values.shape) * values).sum(axis=(1, 2, 3)) / values.sum()
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(n) for n in index[::-1]]))


@pytest.mark.parametrize("side", EarSide)
def test_endolymph_lies_where_it_is_in_the_patient_when_another_program_reads_it(pack, side, tmp_path):
    found = center_of_mass(read(pack, f"{side}_endolymph.nii.gz", tmp_path))
    assert np.abs(found - endolymph_center_mm(side)).max() < 0.2
    assert np.sign(found[0]) == side.lps_sign


def test_hydrops_before_alignment_lay_where_the_patient_was(pack, tmp_path):
    aligned, before = (
        np.clip(sitk.GetArrayFromImage(image), 20.0, None) - 20.0
        for image in (
            read(pack, "left_hydrops.nii.gz", tmp_path),
            read(pack, "left_hydrops_before_alignment.nii.gz", tmp_path),
        )
    )
    image = read(pack, "left_mrc.nii.gz", tmp_path)
    places = []
    for values in (aligned, before):
        bright = sitk.GetImageFromArray(values)
        bright.CopyInformation(image)
        places.append(center_of_mass(bright))
    assert np.allclose(places[1] - places[0], (MOVED_MM, 0.0, 0.0), atol=0.25)


def test_values_survive_being_whole_numbers(tmp_path):
    slab = oblique_slab()
    findings = viewed_study(slab)
    pack = build_view_pack(findings, slab)
    ear = findings.ears[EarSide.RIGHT]
    for name, volume, tolerance in (
        ("right_hydrops.nii.gz", ear.images.hydrops, 0.01),
        ("right_total_fluid.nii.gz", ear.fluid.total_fluid_fraction, 0.003),
    ):
        values = sitk.GetArrayFromImage(read(pack, name, tmp_path))
        assert np.abs(values - volume.array).max() <= tolerance


def test_the_label_map_lies_on_the_whole_mrc_and_says_which_ear_is_which(pack, tmp_path):
    labels = read(pack, "labels.nii.gz", tmp_path)
    assert labels.GetSize() == oblique_slab().shape[::-1]
    values = sitk.GetArrayFromImage(labels)
    names = manifest_of(pack)["whole_grid"]["labels"]
    assert {int(label): name for label, name in names.items()} == LABEL_NAMES
    for label, name in LABEL_NAMES.items():
        index = np.argwhere(values == label).mean(axis=0)
        place = labels.TransformContinuousIndexToPhysicalPoint([float(n) for n in index[::-1]])
        assert ("left" in name) == (place[0] > 0)


def test_labels_of_an_ear_are_those_of_the_whole_grid(pack, tmp_path):
    whole = read(pack, "labels.nii.gz", tmp_path)
    own = read(pack, "left_labels.nii.gz", tmp_path)
    resampled = sitk.Resample(own, whole, sitk.Transform(), sitk.sitkNearestNeighbor)
    values = sitk.GetArrayFromImage(whole)
    assert np.array_equal(np.where(values > 2, values, 0), sitk.GetArrayFromImage(resampled))


def test_the_still_picture_shows_both_contours_and_right_on_the_left(pack):
    picture = np.asarray(Image.open(io.BytesIO(pack.files["left_slices.png"])))
    first = picture[:, : picture.shape[1] // 3]
    columns = {
        color: np.argwhere((first == color).all(axis=-1))[:, 1].mean() for color in (TOTAL_FLUID_COLOR, ENDOLYMPH_COLOR)
    }
    # The left ear's endolymph lies to the left of the middle of its fluid: on the viewer's right.
    assert columns[ENDOLYMPH_COLOR] > columns[TOTAL_FLUID_COLOR] + 3


def test_the_manifest_vouches_for_every_file_and_says_the_numbers_in_words(pack):
    manifest = manifest_of(pack)
    assert set(manifest["files"]) == set(pack.files) - {"manifest.json"}
    for name, listed in manifest["files"].items():
        assert hashlib.sha256(pack.files[name]).hexdigest() == listed["sha256"]
        assert len(pack.files[name]) == listed["bytes"]
    assert manifest["ears"]["right"]["numbers"] == (
        "Right ear: EH ratio 22.0 % (95 % interval 17.0 % to 27.0 %), total fluid space 271.0 mm3, endolymph 59.5 mm3."
    )
    assert manifest["research_use_only"] == RESEARCH_USE_TEXT


def test_no_file_names_the_frame_of_reference_or_anything_else_of_the_patient(pack):
    for name, data in pack.files.items():
        content = gzip.decompress(data) if name.endswith(".gz") else data
        assert b"2.25.7" not in content, name
        if name.endswith(".nii.gz"):
            described = content[148:228].rstrip(b"\0")
            assert described == b"Hydrops Node, research use only"
            assert content[228:252].rstrip(b"\0") == b""  # aux_file
            assert content[328:344].rstrip(b"\0") == b""  # intent_name


def test_the_same_findings_give_the_same_bytes():
    slab = oblique_slab()
    first, second = (build_view_pack(viewed_study(slab), slab) for _ in range(2))
    assert first.files == second.files


def test_an_ear_without_a_number_has_no_views():
    slab = oblique_slab()
    pack = build_view_pack(viewed_study(slab, sides=(EarSide.LEFT,)), slab)
    assert list(manifest_of(pack)["ears"]) == ["left"]
    assert not [name for name in pack.files if name.startswith("right")]


def test_a_measured_ear_that_kept_no_images_is_a_fault_and_is_said():
    slab = oblique_slab()
    findings = viewed_study(slab, sides=(EarSide.LEFT,))
    bare = replace(findings.ears[EarSide.LEFT], images=None)
    with pytest.raises(ValueError, match="left ear has a ratio, but kept no images"):
        build_view_pack(replace(findings, ears={EarSide.LEFT: bare}), slab)
