"""The record of an evaluation: what it sums up, and that nothing is lost or let in on its way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.evaluation.record import Evaluation, EvaluationError, Source, evaluate, from_json, to_json
from inference.evaluation.scores import EarScore
from inference.evaluation.summary import Summary, severity_of, summarize
from inference.findings import ModelIdentity


def test_the_record_survives_json_unchanged(evaluation: Evaluation) -> None:
    assert from_json(to_json(evaluation)) == evaluation


def test_undefined_values_are_null_and_never_nan(evaluation: Evaluation) -> None:
    refused = [one for one in evaluation.scores if not one.measured]
    assert refused
    alone = evaluate(
        refused[:1],
        model=evaluation.model,
        source=evaluation.source,
        created="now",
        command="",
        node_version="0",
    )
    text = to_json(alone)
    assert "NaN" not in text
    overall = json.loads(text)["sections"][0]["overall"]
    assert overall["measured"] == 0
    assert {overall["ratio"][key] for key in ("mae", "bias", "icc", "coverage")} == {None}
    assert overall["total_fluid"]["dice"] is None
    assert from_json(text) == alone


def damaged(evaluation: Evaluation, **changes: object) -> str:
    return json.dumps(json.loads(to_json(evaluation)) | changes)


def test_a_document_of_another_kind_is_refused_with_what_is_wrong(evaluation: Evaluation) -> None:
    for text, message in (
        ("{", "expected an evaluation's JSON"),
        (damaged(evaluation, schema_version=2), "schema_version: expected 1, found 2"),
        (damaged(evaluation, scores="none"), "scores: .* found 'none'"),
        (damaged(evaluation, patient="somebody"), "keys that an evaluation of this version does not have"),
        ("[]", "document: "),
    ):
        with pytest.raises(EvaluationError, match=message):
            from_json(text)


def test_every_input_set_has_its_own_section_and_groups_share_out_its_ears(evaluation: Evaluation) -> None:
    assert [one.input_set for one in evaluation.sections] == ["PPI_PEI", "REAL_IR"]
    for section in evaluation.sections:
        assert section.overall.ears == 80
        for grouping in ("severity", "snr", "contrast"):
            assert sum(one.ears for one in section.groups if one.grouping == grouping) == 80


def test_compartments_are_summed_up_over_the_measured_ears(evaluation: Evaluation) -> None:
    overall = evaluation.sections[0].overall
    cochlea = overall.compartments["cochlea"]
    assert cochlea.ratio.ears == overall.measured
    assert overall.ratio.mae is not None
    assert cochlea.ratio.mae == pytest.approx(overall.ratio.mae / 2)
    assert cochlea.total_fluid.volume_bias_mm3 == pytest.approx(-2.0)


def group_of(evaluation: Evaluation, grouping: str, group: str) -> Summary:
    (found,) = (one for one in evaluation.sections[0].groups if (one.grouping, one.group) == (grouping, group))
    return found


def test_group_errors_are_those_of_the_groups_own_ears(evaluation: Evaluation) -> None:
    weak, normal = (group_of(evaluation, "contrast", name).ratio.mae for name in ("weak", "normal"))
    errors = [
        abs(one.ratio_error)
        for one in evaluation.scores
        if one.tags["input_set"] == "PPI_PEI" and one.tags["contrast"] == "weak" and one.ratio_error is not None
    ]
    assert weak == pytest.approx(np.mean(errors))
    assert normal is not None
    assert weak is not None
    assert normal < weak


def test_the_kruskal_wallis_test_finds_the_contrast_that_is_measured_worse(evaluation: Evaluation) -> None:
    tests = {(one.name, one.quantity, one.groups): one for one in evaluation.sections[0].tests}
    contrast = tests["Kruskal-Wallis", "absolute ratio error", ("normal", "weak")]
    assert contrast.p_value is not None
    assert contrast.p_value < 0.01
    numbered = [
        replace(one, tags=one.tags | {"domain": 1234567.0 + int(one.tags["seed"]) % 2}) for one in evaluation.scores
    ]
    again = evaluate(
        numbered, model=evaluation.model, source=evaluation.source, created="now", command="", node_version="0"
    )
    (domain,) = [
        one
        for one in again.sections[0].tests
        if (one.name, one.quantity, one.groups) == ("Kruskal-Wallis", "absolute ratio error", ("1234567", "1234568"))
    ]
    assert domain.counts == contrast.counts  # scanners named by numbers are groups, too
    sides = tests["Wilcoxon signed-rank", "absolute ratio error", ("right", "left")]
    assert sides.counts[0] == sides.counts[1] > 30
    assert sides.p_value is not None


def test_refusals_and_side_errors_are_counted_over_the_right_ears(evaluation: Evaluation) -> None:
    scores = [one for one in evaluation.scores if one.tags["input_set"] == "PPI_PEI"]
    refused = [one for one in scores if one.refusals]
    summary = summarize([replace(scores[0], side_error=True), *scores[1:]], "all", "all")
    assert summary.refusals == {"LOW_SIGNAL": len(refused)}
    assert summary.measured == len(scores) - len(refused)
    assert summary.side_errors == (1 if scores[0].measured else 0)


def test_a_readers_own_severity_goes_before_the_class_of_the_ratio() -> None:
    ear = EarScore(case="a", side=EarSide.LEFT, true_ratio=0.3)
    assert severity_of(ear) == "0.25 to 0.35"
    assert severity_of(replace(ear, tags={"severity": "mild"})) == "mild"
    assert severity_of(replace(ear, true_ratio=None)) is None


def test_an_interval_that_one_ear_lacks_gives_no_coverage(evaluation: Evaluation) -> None:
    measured = [one for one in evaluation.scores if one.measured]
    assert summarize(measured, "all", "all").ratio.coverage is not None
    lacking = [replace(measured[0], low=None, high=None), *measured[1:]]
    assert summarize(lacking, "all", "all").ratio.coverage is None


def test_of_no_scores_there_is_a_record_without_sections() -> None:
    nothing = evaluate(
        [],
        model=ModelIdentity(name="ear", version="1", sha256="0" * 64),
        source=Source(kind="cases", name="empty", description="none", studies=0),
        created="now",
        command="",
        node_version="0",
    )
    assert nothing.sections == ()
    assert from_json(to_json(nothing)) == nothing
