import json
from dataclasses import replace

import jsonschema
import pytest
from mr_sources import HYDROPS_UID, MODEL, MRC_UID, STUDY_UID, classic_series, key_of, oblique_grid, study_findings

from dicom_node.assembly.classification import RoleDecision
from dicom_node.assembly.headers import SeriesRole, read_series_header
from dicom_node.assembly.pairing import LeftOut, SeriesSet, StudyAssembly
from dicom_node.encoding.findings_json import check_document, findings_document, findings_schema
from dicom_node.errors import Reason, Refusal
from inference.anatomy import EarSide

GRID = oblique_grid()
SOURCE = classic_series(GRID)
KEY = key_of(SOURCE)
OTHER_UID = "2.25.5000"
REMARK = Refusal(reason=Reason.FOR_DIFFERS, detail="aligned by pixels", series_instance_uid=HYDROPS_UID)
REFUSAL = Refusal(reason=Reason.REG_POOR, detail="HYDROPS: similarity 0.1, needed 0.3", series_instance_uid=HYDROPS_UID)


def assembly(*, chosen: bool = True) -> StudyAssembly:
    contrast = classic_series(GRID, series_uid=HYDROPS_UID)
    series = {SeriesRole.MRC: read_series_header(SOURCE), SeriesRole.HYDROPS: read_series_header(contrast)}
    roles = {MRC_UID: SeriesRole.MRC, HYDROPS_UID: SeriesRole.HYDROPS, OTHER_UID: SeriesRole.OTHER}
    return StudyAssembly(
        study_instance_uid=STUDY_UID,
        decisions=tuple(
            RoleDecision(series_instance_uid=uid, role=role, rule="physics", reason=f"looks like {role}")
            for uid, role in roles.items()
        ),
        chosen=SeriesSet(series=series, warnings=(REMARK,)) if chosen else None,
        left_out=(LeftOut(series_instance_uid=OTHER_UID, role=SeriesRole.OTHER, reason="a localizer"),),
        refusal=None if chosen else REFUSAL,
    )


def computed(**options: object) -> dict:
    return findings_document(assembly(), study_findings(GRID, **options), key=KEY, timings_s={"segment": 0.51234})


def refused() -> dict:
    return findings_document(assembly(chosen=False), None, key=KEY, timings_s={}, refusals=(REFUSAL,), model=MODEL)


def test_a_computed_study_states_ratio_volumes_and_quality_per_ear():
    findings = study_findings(GRID)
    left = computed()["ears"]["left"]
    ratio = findings.ears[EarSide.LEFT].ratio
    assert left["eh_ratio"] == {"value": ratio.value, "low": ratio.low, "high": ratio.high}
    assert (left["total_fluid_mm3"], left["endolymph_mm3"]) == (ratio.total_fluid_mm3, ratio.endolymph_mm3)
    assert left["quality"][0]["code"] == "WEAK_CONTRAST"
    assert left["slices"][0]["slice_index"] == 20


def test_an_ear_without_a_number_is_null_and_never_zero():
    right = computed(ears=(EarSide.LEFT,))["ears"]["right"]
    assert right["total_fluid_mm3"] is None
    assert right["endolymph_mm3"] is None
    assert right["eh_ratio"] == {"value": None, "low": None, "high": None}
    assert right["quality"][0]["severity"] == "stop"


def test_a_refused_study_states_every_reason_and_no_number():
    document = refused()
    assert document["status"] == "refused"
    assert document["reasons"] == [
        {
            "code": "REG_POOR",
            "message": f"{Reason.REG_POOR.sentence} {REFUSAL.detail}",
            "series_instance_uid": HYDROPS_UID,
        }
    ]
    assert not any(ear["evaluated"] for ear in document["ears"].values())
    assert document["model"]["name"] == MODEL.name


def test_every_series_says_what_it_was_taken_as_and_whether_it_was_used():
    series = {item["series_instance_uid"]: item for item in computed()["series"]}
    assert (series[MRC_UID]["role"], series[MRC_UID]["used"]) == ("MRC", True)
    assert (series[OTHER_UID]["used"], series[OTHER_UID]["left_out_because"]) == (False, "a localizer")
    assert all(item["rule"] and item["reason"] for item in series.values())


@pytest.mark.parametrize("uid", ["1.02.3", "", "KÞ", "9." * 40], ids=["leading zero", "missing", "no UID", "too long"])
def test_b07_a_series_that_names_itself_unlawfully_is_stated_as_it_is(uid: str):
    study = assembly()
    decisions = (*study.decisions[:-1], replace(study.decisions[-1], series_instance_uid=uid))
    document = findings_document(
        replace(study, decisions=decisions, left_out=()), study_findings(GRID), key=KEY, timings_s={}
    )
    assert [one["series_instance_uid"] for one in document["series"]] == [MRC_UID, HYDROPS_UID, uid]


def test_what_was_noticed_while_choosing_is_kept():
    assert [remark["code"] for remark in computed()["remarks"]] == ["FOR_DIFFERS"]


def test_no_patient_and_no_lost_research_text():
    for document in (computed(), refused()):
        text = json.dumps(document)
        assert "P-0001" not in text
        assert "Phantom" not in text
        assert document["research_use_only"].startswith("Research use only.")


def test_the_document_survives_json():
    document = computed()
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_schema_is_itself_a_legal_schema():
    jsonschema.Draft202012Validator.check_schema(findings_schema())


def tampered(change: dict, *path: str) -> dict:
    document = json.loads(json.dumps(computed()))
    target = document
    for key in path:
        target = target[key]
    target.update(change)
    return document


@pytest.mark.parametrize(
    "document",
    [
        tampered({"status": "done"}),
        tampered({"patient_id": "P-0001"}),
        tampered({"value": 27.1}, "ears", "left", "eh_ratio"),
        tampered({"value": None}, "ears", "left", "eh_ratio"),
        tampered({"total_fluid_mm3": -1.0}, "ears", "left"),
        tampered({"evaluated": False}, "ears", "left"),
        tampered({"status": "refused"}),
        tampered({"model": None}),
        tampered({"sha256": "short"}, "model"),
        tampered({"research_use_only": ""}),
    ],
    ids=[
        "unknown status",
        "patient data",
        "ratio in per cent",
        "evaluated ear without ratio",
        "negative volume",
        "numbers of an ear that was not evaluated",
        "refused without reason",
        "computed by nothing",
        "no digest",
        "no research text",
    ],
)
def test_the_schema_refuses_what_a_reader_could_misunderstand(document):
    with pytest.raises(jsonschema.ValidationError):
        check_document(document)


def test_findings_and_refusals_exclude_each_other():
    with pytest.raises(ValueError, match="either"):
        findings_document(assembly(), study_findings(GRID), key=KEY, timings_s={}, refusals=(REFUSAL,))
    with pytest.raises(ValueError, match="either"):
        findings_document(assembly(), None, key=KEY, timings_s={})


def test_a_model_that_is_not_described_by_the_schema_is_our_bug_and_flies():
    findings = study_findings(GRID, model=replace(MODEL, sha256="not a digest"))
    with pytest.raises(jsonschema.ValidationError):
        findings_document(assembly(), findings, key=KEY, timings_s={})
