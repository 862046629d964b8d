"""One measurement model: the same digits and sentences from findings, and from the findings.json made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from mr_sources import STUDY_UID, classic_series, enhanced_image, key_of, oblique_grid, study_findings

from dicom_node.assembly.pairing import StudyAssembly
from dicom_node.encoding.findings_json import findings_document
from dicom_node.encoding.measurements import PreviousValue, StudyMeasurements, read_measurements, study_measurements
from dicom_node.encoding.source_planes import read_source_grid, slice_names
from inference.anatomy import EarSide
from inference.findings import LevelRatio, StudyFindings

GRID = oblique_grid()
KEY = key_of(classic_series(GRID))
ASSEMBLY = StudyAssembly(study_instance_uid=STUDY_UID, decisions=(), chosen=None, refusal=None, left_out=())
LEVELS = (
    LevelRatio(part="vestibule", slice_index=20, total_fluid_mm2=12.345, endolymph_mm2=4.05, ratio=4.05 / 12.345),
    LevelRatio(part="cochlea", reason="fluid is missing in 40 % of where a cochlea lies"),
)
EARLIER = PreviousValue(
    study_instance_uid="1.2.3",
    study_date="20250301",
    ratio=0.2405,
    low=0.2,
    high=0.2805,
    model="threshold 1.0.0",
)


def findings(ears: tuple[EarSide, ...] = (EarSide.RIGHT, EarSide.LEFT)) -> StudyFindings:
    made = study_findings(GRID, ears=ears)
    return replace(
        made, ears={side: replace(ear, levels=LEVELS if ear.evaluated else ()) for side, ear in made.ears.items()}
    )


def measured(**options: object) -> StudyMeasurements:
    return study_measurements(findings(), slice_names=slice_names(read_source_grid(classic_series(GRID))), **options)  # type: ignore[arg-type]


def test_every_number_of_an_ear_is_said_once_in_plain_words() -> None:
    right = measured(previous={EarSide.RIGHT: EARLIER}).ear(EarSide.RIGHT)
    assert right.total_fluid is not None
    assert right.endolymph is not None
    assert right.sentences == (
        f"Right ear: EH ratio 27.1 % (95 % interval 24.4 % to 29.8 %), total fluid space {right.total_fluid.text}, "
        f"endolymph {right.endolymph.text}.",
        "2D area ratio, vestibule level (MRC image 21): 32.8 %, endolymph 4.1 mm2 of total fluid 12.3 mm2.",
        "2D area ratio, cochlea level: not told, because fluid is missing in 40 % of where a cochlea lies.",
        "Previous EH ratio 24.1 % (95 % interval 20.0 % to 28.1 %) on 2025-03-01, change +3.0 percentage points: "
        "the 95 % intervals overlap.",
        "Perilymph is only weakly enhanced.",
    )


def test_a_change_is_the_difference_of_the_digits_that_are_shown() -> None:
    before = replace(EARLIER, ratio=0.3155, low=0.3, high=0.33, model="ear 0.9", study_date="spring")
    shown = measured(previous={EarSide.LEFT: before}).ear(EarSide.LEFT).previous
    assert shown is not None
    assert (shown.ratio.text, shown.change.text) == ("31.6 %", "-4.5 percentage points")
    assert not shown.overlap
    assert shown.sentence.endswith(
        "on an unknown date, change -4.5 percentage points: the 95 % intervals do not overlap; "
        "measured then by another model (ear 0.9)."
    )


def test_an_ear_without_a_number_has_no_figure_and_no_change() -> None:
    shown = study_measurements(findings(ears=(EarSide.LEFT,)), previous={EarSide.RIGHT: EARLIER}).ear(EarSide.RIGHT)
    assert not shown.evaluated
    assert (shown.ratio, shown.total_fluid, shown.previous, shown.levels) == (None, None, None, ())
    assert shown.sentence == "Right ear: not evaluated."
    assert shown.interval_text == ""


def test_findings_json_gives_back_the_very_same_measurements() -> None:
    previous = {EarSide.RIGHT: EARLIER}
    made = measured(previous=previous)
    document = findings_document(ASSEMBLY, findings(), key=KEY, timings_s={}, measurements=made, previous=previous)
    assert read_measurements(json.loads(json.dumps(document))) == made
    assert document["ears"]["right"]["texts"] == list(made.ear(EarSide.RIGHT).sentences)


def test_a_document_from_before_there_were_levels_is_still_read() -> None:
    document = findings_document(ASSEMBLY, findings(), key=KEY, timings_s={})
    for ear in document["ears"].values():
        for key in ("levels", "previous", "texts"):
            del ear[key]
    shown = read_measurements(document)
    assert shown is not None
    assert shown.ear(EarSide.RIGHT).sentences[0].startswith("Right ear: EH ratio 27.1 %")


def test_a_refused_study_has_no_measurements() -> None:
    assert read_measurements({"status": "refused"}) is None
    assert read_measurements({}) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_a_slice_is_called_by_the_number_that_a_viewer_shows(reverse: bool) -> None:
    names = slice_names(read_source_grid(classic_series(GRID, reverse=reverse)))
    assert (names[0], names[-1]) == (("MRC image 40", "MRC image 1") if reverse else ("MRC image 1", "MRC image 40"))


def test_frames_and_images_without_a_number_are_named_too() -> None:
    frames = enhanced_image(GRID, frame_order=list(range(39, -1, -1)))
    assert slice_names(read_source_grid([frames]))[0] == "MRC frame 40"
    unnumbered = classic_series(GRID, drop=("InstanceNumber",))
    assert slice_names(read_source_grid(unnumbered))[4] == "MRC slice 5 of 40"
