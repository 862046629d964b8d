from dataclasses import replace
from itertools import product

import highdicom
import numpy as np
import pydicom
import pytest
from mr_sources import (
    EAR_CENTER_MM,
    ENCODED_AT,
    FRAME_UID,
    MODEL,
    MRC_UID,
    STUDY_UID,
    classic_series,
    enhanced_image,
    key_of,
    oblique_grid,
    study_findings,
)
from result_objects import OPTIONS, make_results

from dicom_node.encoding.identity import tracking_id
from dicom_node.encoding.part10 import part10_bytes
from dicom_node.encoding.segmentation import SegmentMask, build_segmentation, in_viewer_order
from dicom_node.encoding.source_planes import read_source_grid
from dicom_node.errors import OutputMismatch
from inference.anatomy import EarSide, FluidSpace
from inference.findings import StudyFindings
from inference.geometry import Volume

GRID = oblique_grid()


def build(findings: StudyFindings, source: list[pydicom.Dataset]) -> pydicom.Dataset:
    return build_segmentation(findings, source, key=key_of(source), options=OPTIONS, encoded_at=ENCODED_AT)


def expected_volume(findings: StudyFindings, side: EarSide, space: FluidSpace) -> np.ndarray:
    """The ear's mask pasted into the whole grid by coordinates, voxel for voxel."""
    fluid = findings.ears[side].fluid
    mask = fluid.total_fluid_mask if space is FluidSpace.TOTAL_FLUID_SPACE else fluid.endolymph_mask
    whole = np.zeros(GRID.shape, dtype=np.uint8)
    index = np.rint(GRID.to_index(mask.geometry.to_lps(np.argwhere(mask.array)))).astype(int)
    inside = ((index >= 0) & (index < GRID.shape)).all(axis=1)
    whole[tuple(index[inside].T)] = 1
    return whole


def read_with_highdicom(seg: pydicom.Dataset) -> highdicom.seg.Segmentation:
    from io import BytesIO

    return highdicom.seg.segread(BytesIO(part10_bytes(seg)))


SOURCES = {
    "classic": lambda: classic_series(GRID),
    "reversed": lambda: classic_series(GRID, reverse=True),
    "enhanced": lambda: [enhanced_image(GRID)],
    "enhanced, frames reversed": lambda: [enhanced_image(GRID, frame_order=range(39, -1, -1))],
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_highdicom_reads_back_every_voxel_in_its_place(source):
    findings = study_findings(GRID)
    seg = read_with_highdicom(build(findings, source()))
    volume = seg.get_volume(combine_segments=False, allow_missing_positions=True)
    found = volume.array
    index_to_lps = volume.affine
    labels = [str(item.SegmentLabel) for item in seg.SegmentSequence]
    for side, space in product(EarSide, FluidSpace):
        number = labels.index(tracking_id(side, space))
        expected = expected_volume(findings, side, space)
        points = (index_to_lps @ np.c_[np.argwhere(found[..., number]), np.ones(int(found[..., number].sum()))].T)[:3].T
        index = np.rint(GRID.to_index(points)).astype(int)
        back = np.zeros(GRID.shape, dtype=np.uint8)
        back[tuple(index.T)] = 1
        assert (back == expected).all()


def test_segments_are_total_fluid_then_endolymph_and_right_before_left():
    seg = make_results().seg
    assert [item.SegmentLabel for item in seg.SegmentSequence] == [
        "Right total fluid space",
        "Left total fluid space",
        "Right endolymph",
        "Left endolymph",
    ]
    assert [item.SegmentNumber for item in seg.SegmentSequence] == [1, 2, 3, 4]
    assert seg.SegmentsOverlap == "YES"
    assert seg.SegmentationType == "BINARY"


def slab(side: EarSide, space: FluidSpace, slices: range) -> SegmentMask:
    """A segment on some slices, 2 x 2 voxels on each; the ears lie apart, the two fluids of one ear upon each other."""
    column = 4 if side is EarSide.RIGHT else 20
    return SegmentMask(side=side, space=space, start=(slices[0], 8, column), mask=np.ones((len(slices), 2, 2), bool))


def shown_by_ohif(segments: list[SegmentMask], stack: list[int]) -> int:
    """How many voxels OHIF 3.13 keeps: its layers, as its code merges them. `stack[i]` is our slice at its index i."""
    layers: list[dict[int, dict[int, set[tuple[int, int]]]]] = []
    for number, segment in enumerate(segments):
        _, j, i = segment.start
        own = {(j + row, i + column) for row in range(2) for column in range(2)}
        slices = {stack.index(segment.start[0] + k): own for k in range(len(segment.mask))}
        for layer in layers:
            if any(own & set().union(*layer[index].values()) for index in slices if index in layer):
                continue
            longer = layer if max(layer) > max(slices) else slices
            for index in [index for index in longer if index in slices]:
                layer.setdefault(index, {})[number] = own
            break
        else:
            layers.append({index: {number: own} for index in slices})
    return sum(len(voxels) for layer in layers for shown in layer.values() for voxels in shown.values())


@pytest.mark.parametrize("frames", [None, range(40), range(39, -1, -1)], ids=["classic", "enhanced", "reversed frames"])
@pytest.mark.parametrize(
    ("right", "left"),
    [
        (range(10, 20), range(12, 24)),
        (range(12, 24), range(10, 20)),
        (range(8, 24), range(10, 20)),
        (range(10, 20), range(8, 24)),
        (range(2, 8), range(30, 36)),
        (range(30, 36), range(2, 8)),
    ],
)
def test_ohif_loses_no_slice_of_an_ear_whatever_lies_higher(right, left, frames):
    source = classic_series(GRID) if frames is None else [enhanced_image(GRID, frame_order=frames)]
    grid = read_source_grid(source)
    stack = list(range(len(grid.planes) - 1, -1, -1))
    if frames is not None:
        stack = [k for _, k in sorted((plane.frame_number or 0, k) for k, plane in enumerate(grid.planes))]
    inner = {EarSide.RIGHT: right[3:], EarSide.LEFT: left[:-3]}
    segments = [
        slab(side, space, slices if space is FluidSpace.TOTAL_FLUID_SPACE else inner[side])
        for space in FluidSpace
        for side, slices in ((EarSide.RIGHT, right), (EarSide.LEFT, left))
    ]
    voxels = sum(int(segment.mask.sum()) for segment in segments)
    assert shown_by_ohif(in_viewer_order(segments, grid), stack) == voxels


@pytest.mark.parametrize("side", list(EarSide))
def test_an_ear_without_a_number_has_no_segment_and_numbers_have_no_gap(side):
    seg = make_results(study_findings(GRID, ears=(side,))).seg
    assert [item.SegmentNumber for item in seg.SegmentSequence] == [1, 2]
    assert {item.SegmentLabel.split()[0] for item in seg.SegmentSequence} == {side.value.capitalize()}


def test_a_study_without_a_number_gets_no_empty_segmentation():
    with pytest.raises(ValueError, match="no ear"):
        build(study_findings(GRID, ears=()), classic_series(GRID))


def test_endolymph_without_a_voxel_has_no_segment():
    findings = study_findings(GRID, ears=(EarSide.LEFT,))
    ear = findings.ears[EarSide.LEFT]
    nothing = Volume(array=np.zeros(ear.fluid.roi.geometry.shape, dtype=bool), geometry=ear.fluid.roi.geometry)
    ears = {EarSide.LEFT: replace(ear, fluid=replace(ear.fluid, endolymph_mask=nothing))}
    seg = make_results(replace(findings, ears=ears)).seg
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Left total fluid space"]


def test_an_ear_reaching_outside_the_slab_is_cut_at_its_edge_and_nowhere_else():
    low = {EarSide.LEFT: (38.0, -6.0, -14.0)}
    findings = study_findings(GRID, ears=(EarSide.LEFT,), center_mm={**EAR_CENTER_MM, **low})
    roi = findings.ears[EarSide.LEFT].fluid.roi.geometry
    assert GRID.to_index(roi.to_lps((0, 0, 0)))[0] < -0.5, "the box must reach outside for this test to mean something"
    results = make_results(findings)
    voxels = results.seg.pixel_array.reshape(-1, *GRID.shape[1:]).sum()
    assert voxels == sum(expected_volume(findings, EarSide.LEFT, space).sum() for space in FluidSpace)


def test_masks_of_another_grid_are_not_pasted():
    shifted = oblique_grid(angles_deg=(12.0, -8.0, 6.0))
    with pytest.raises(OutputMismatch, match="not a crop"):
        build(study_findings(shifted), classic_series(GRID))


def test_codes_name_substance_fluid_ear_and_side():
    endolymph = make_results().seg.SegmentSequence[2]
    assert endolymph.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91720002"
    kind = endolymph.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("FMA", "61112")
    region = endolymph.AnatomicRegionSequence[0]
    assert region.CodeValue == "22945000"
    assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Right"


def test_private_codes_say_whose_they_are():
    schemes = {item.CodingSchemeDesignator for item in make_results().seg.CodingSchemeIdentificationSequence}
    assert schemes == {"99EHNODE", "FMA"}


@pytest.mark.parametrize(("learned", "family"), [(False, "Histogram Analysis"), (True, "Artificial Intelligence")])
def test_only_a_trained_model_is_called_artificial_intelligence(learned, family):
    findings = study_findings(GRID, model=replace(MODEL, learned=learned))
    algorithm = make_results(findings).seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == family
    assert MODEL.sha256[:12] in algorithm.AlgorithmVersion


def test_the_node_signs_as_contributing_equipment_with_model_and_weights():
    items = make_results().seg.ContributingEquipmentSequence
    ours = next(item for item in items if item.get("ManufacturerModelName") == "Hydrops Node")
    assert f"{MODEL.name} {MODEL.version}" in ours.SoftwareVersions
    assert MODEL.sha256 in ours.SoftwareVersions


def test_positions_are_the_digits_of_the_source():
    results = make_results()
    positions = {str(header.SOPInstanceUID): header.ImagePositionPatient for header in results.source}
    for frame in results.seg.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        written = frame.PlanePositionSequence[0].ImagePositionPatient
        assert [str(value) for value in written] == [str(value) for value in positions[image]]


def test_slice_spacing_is_the_series_spacing_even_where_slices_without_fluid_lie_between():
    apart = {EarSide.RIGHT: (-36.0, -8.0, -12.0), EarSide.LEFT: (38.0, -6.0, 9.0)}
    seg = make_results(study_findings(GRID, center_mm=apart)).seg
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices) == 1.0


def test_only_images_that_show_fluid_are_referenced():
    results = make_results()
    used = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in results.seg.PerFrameFunctionalGroupsSequence
    }
    series = results.seg.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == MRC_UID
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == used
    assert len(used) < len(results.source)


def test_study_patient_and_frame_of_reference_are_those_of_the_source():
    seg = make_results().seg
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID, seg.PatientID) == (STUDY_UID, FRAME_UID, "P-0001")


def test_the_description_says_research():
    seg = make_results().seg
    assert "RESEARCH" in seg.SeriesDescription
    assert "Research use only" in seg.ContentDescription


def test_equal_inputs_give_equal_bytes():
    assert make_results().seg_bytes == make_results(source=classic_series(GRID, reverse=True)).seg_bytes


def test_a_lossy_source_makes_a_lossy_result():
    source = classic_series(GRID)
    source[7].LossyImageCompression = "01"
    assert make_results(source=source).seg.LossyImageCompression == "01"


def test_the_source_headers_are_left_as_they_were():
    source = classic_series(GRID, drop=["PatientSex"])
    before = [part10_bytes(header) for header in source]
    make_results(source=source)
    assert [part10_bytes(header) for header in source] == before
