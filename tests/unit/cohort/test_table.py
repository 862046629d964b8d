"""The cohort's table: unrounded, typed, and inert in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from dicom_node.cohort.outcome import SourceOutcome, SourceState
from dicom_node.cohort.table import COLUMNS, PATIENT_ID, csv_table, parquet_table

RATIO = 0.27123456789012345
LEVEL = {"part": "cochlea", "ratio": 0.4, "total_fluid_mm2": 12.5, "endolymph_mm2": 5.0}


def computed(**identity: str) -> SourceOutcome:
    ear: dict[str, Any] = {
        "evaluated": True,
        "total_fluid_mm3": 200.125,
        "endolymph_mm3": 54.25,
        "eh_ratio": {"value": RATIO, "low": 0.1, "high": 0.4},
        "levels": [LEVEL],
        "quality": [{"code": "LOW_DEPTH", "message": "thin"}],
    }
    missing = {
        "evaluated": False,
        "total_fluid_mm3": None,
        "endolymph_mm3": None,
        "eh_ratio": {"value": None, "low": None, "high": None},
        "levels": [],
        "quality": [{"code": "EAR_NOT_FOUND", "message": "no ear"}],
    }
    findings = {
        "status": "computed",
        "study_instance_uid": "1.2.3",
        "ears": {"right": ear, "left": missing},
        "reasons": [],
        "quality": [{"code": "MOTION", "message": "moved"}],
        "remarks": [],
        "series": [{"role": "PPI", "used": True}, {"role": "MRC", "used": True}, {"role": "OTHER", "used": False}],
        "model": {"name": "m", "version": "1", "sha256": "ab"},
        "node_version": "0.1.0",
        "input_digest": "cd",
        "timings_s": {"a": 1.5, "b": 2.0},
        "research_use_only": "Research use only.",
    }
    named = {"name": "1.2.3", "folder": "in", **identity}
    return SourceOutcome(state=SourceState.COMPUTED, findings=findings, **named)


def failed(problem: str) -> SourceOutcome:
    return SourceOutcome(name="x", folder="in", state=SourceState.UNUSABLE, problem=problem)


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def test_every_source_has_a_row_for_each_ear_with_every_digit() -> None:
    right, left = read(csv_table([computed()]))
    assert (right["side"], left["side"]) == ("right", "left")
    assert float(right["eh_ratio"]) == RATIO
    assert (right["total_fluid_mm3"], right["endolymph_mm3"]) == ("200.125", "54.25")
    assert (right["cochlea_area_ratio"], right["vestibule_area_ratio"]) == ("0.4", "")
    assert (right["remark_codes"], right["remarks"]) == ("LOW_DEPTH; MOTION", "thin; moved")
    assert (right["series_used"], right["computing_s"]) == ("MRC+PPI", "3.5")


def test_what_is_not_known_is_empty_and_never_zero() -> None:
    _, left = read(csv_table([computed()]))
    numbers = [column.name for column in COLUMNS if column.kind == "number" and column.name != "computing_s"]
    assert {left[name] for name in numbers} == {""}
    assert (left["evaluated"], left["remarks"]) == ("false", "no ear; moved")


def test_a_source_without_findings_says_why_in_both_rows() -> None:
    rows = read(csv_table([failed("mrc.nii.gz: expected an orientation")]))
    assert [(row["state"], row["reasons"]) for row in rows] == [("unusable", "mrc.nii.gz: expected an orientation")] * 2


HOSTILE = ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_a_formula_for_a_spreadsheet(text: str) -> None:
    content = csv_table([computed(patient_id=text, folder=text, scanner=text)], patient_id=True)
    for row in read(content):
        for name in ("patient_id", "source", "scanner"):
            assert row[name].startswith("'")
    assert len(read(content)) == 2
    assert not re.search(rb'(^|,)"?[ \t\r]*[=+@-]', content, re.MULTILINE)


def test_quotes_commas_and_line_ends_stay_inside_their_cell() -> None:
    (row, _) = read(csv_table([computed(scanner='a "b", c\r\nd\x00e')]))
    assert row["scanner"] == 'a "b", c d e'


def test_who_the_patient_is_is_told_only_on_demand() -> None:
    outcome = computed(patient_id="MARKER-ID")
    assert b"MARKER-ID" not in csv_table([outcome])
    assert read(csv_table([outcome], patient_id=True))[0][PATIENT_ID.name] == "MARKER-ID"


def test_parquet_holds_the_same_with_types_and_meanings(tmp_path: Path) -> None:
    path = tmp_path / "cohort.parquet"
    path.write_bytes(parquet_table([computed(folder="a\udcff"), failed("=1")]))
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == [column.name for column in COLUMNS]
    assert table.column("eh_ratio").to_pylist() == [RATIO, None, None, None]
    assert table.column("evaluated").to_pylist() == [True, False, False, False]
    assert table.column("reasons").to_pylist()[2] == "=1"
    assert table.column("source").to_pylist()[0] == "a\\udcff"
    assert table.schema.field("eh_ratio").metadata == {b"meaning": b"endolymph / total fluid, 0..1"}


def test_units_stand_in_the_names() -> None:
    unitless = {"eh_ratio", "eh_ratio_low", "eh_ratio_high", "vestibule_area_ratio", "cochlea_area_ratio"}
    numbers = {column.name for column in COLUMNS if column.kind == "number"}
    assert all(name.endswith(("_mm3", "_mm2", "_s")) for name in numbers - unitless)
