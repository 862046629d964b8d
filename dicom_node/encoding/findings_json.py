"""findings.json: the same findings as SEG and SR for programs, with a published schema and no patient data.

``null`` means "not known" and is never zero. Ratios are 0..1 here (programs compute with them); people read per cent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, Protocol

from dicom_node import __version__
from dicom_node.encoding.codes import RESEARCH_USE_TEXT
from dicom_node.encoding.identity import InputKey
from dicom_node.encoding.measurements import (
    PreviousValue,
    StudyMeasurements,
    level_documents,
    previous_document,
    study_measurements,
)
from dicom_node.errors import Refusal
from inference.anatomy import EarSide
from inference.findings import Alignment, EarFindings, ModelIdentity, QualityFlag, StudyFindings

SCHEMA_VERSION: Final = "1.1"
"""Grows in the second place when a key is added, in the first when a reader would have to change."""

Json = dict[str, Any]


class DecidedSeries(Protocol):
    """What one series was taken as (`assembly.pairing.RoleDecision`)."""

    @property
    def series_instance_uid(self) -> str:
        """(0020,000E)."""

    @property
    def role(self) -> str:
        """The role's name."""

    @property
    def rule(self) -> str:
        """The rule that decided."""

    @property
    def reason(self) -> str:
        """Why, in a sentence."""


class NamedSeries(Protocol):
    """Any record of a series."""

    @property
    def series_instance_uid(self) -> str:
        """(0020,000E)."""


class ChosenSet(Protocol):
    """The series that went into the numbers (`assembly.pairing.SeriesSet`)."""

    @property
    def series(self) -> Mapping[Any, NamedSeries]:
        """By role."""

    @property
    def warnings(self) -> Sequence[Refusal]:
        """Remarks that did not stop the work."""


class LeftOutSeries(NamedSeries, Protocol):
    """A series that was not used (`assembly.pairing.LeftOut`)."""

    @property
    def reason(self) -> str:
        """Why, in a sentence."""


class AssembledStudy(Protocol):
    """What was decided about a study's series (`assembly.pairing.StudyAssembly`)."""

    @property
    def study_instance_uid(self) -> str:
        """(0020,000D)."""

    @property
    def decisions(self) -> Sequence[DecidedSeries]:
        """One per series."""

    @property
    def chosen(self) -> ChosenSet | None:
        """None if no set could be formed."""

    @property
    def left_out(self) -> Sequence[LeftOutSeries]:
        """The others, with the reason."""


def findings_document(
    assembly: AssembledStudy,
    findings: StudyFindings | None,
    *,
    key: InputKey,
    timings_s: Mapping[str, float],
    refusals: Sequence[Refusal] = (),
    model: ModelIdentity | None = None,
    measurements: StudyMeasurements | None = None,
    previous: Mapping[EarSide, PreviousValue] | None = None,
) -> Json:
    """The document of one study, checked against the published schema.

    Parameters
    ----------
    findings
        None if the study was refused; then `refusals` says why.
    model
        The model that would have been used, for a refused study.
    measurements, previous
        The findings as they are printed, and the earlier values in them; made here if they are not given.

    Raises
    ------
    ValueError
        If neither findings nor a refusal is given, or both.
    jsonschema.ValidationError
        If the document does not follow its own schema: a bug here, never a property of a study.
    """
    if (findings is None) is not bool(refusals):
        raise ValueError("a document states either findings or the reasons for having none")
    used_model = model if findings is None else findings.model
    if findings is not None and measurements is None:
        measurements = study_measurements(findings, previous=previous)
    document: Json = {
        "schema_version": SCHEMA_VERSION,
        "node_version": __version__,
        "research_use_only": RESEARCH_USE_TEXT,
        "study_instance_uid": assembly.study_instance_uid,
        "input_digest": key.digest,
        "status": "refused" if findings is None else "computed",
        "reasons": [_reason(refusal) for refusal in refusals],
        "ears": {side.value: _ear(side, findings, measurements, previous or {}) for side in EarSide},
        "quality": [] if findings is None else [_flag(flag) for flag in findings.quality],
        "remarks": [] if assembly.chosen is None else [_reason(remark) for remark in assembly.chosen.warnings],
        "series": _series(assembly),
        "alignments": [] if findings is None else [_alignment(*one) for one in findings.alignments.items()],
        "model": None if used_model is None else _model(used_model),
        "timings_s": {step: round(float(seconds), 3) for step, seconds in timings_s.items()},
    }
    check_document(document)
    return document


def check_document(document: Json) -> None:
    """Raise jsonschema.ValidationError if `document` does not follow the published schema."""
    from jsonschema import Draft202012Validator

    Draft202012Validator(findings_schema()).validate(document)


@cache
def findings_schema() -> Json:
    """The published JSON schema of findings.json."""
    schema: Json = json.loads(files(__package__).joinpath("findings.schema.json").read_text(encoding="utf-8"))
    return schema


def _reason(refusal: Refusal) -> Json:
    return {
        "code": refusal.reason.value,
        "message": f"{refusal.reason.sentence} {refusal.detail}".strip(),
        "series_instance_uid": refusal.series_instance_uid,
    }


def _ear(
    side: EarSide,
    findings: StudyFindings | None,
    measurements: StudyMeasurements | None,
    previous: Mapping[EarSide, PreviousValue],
) -> Json:
    ear = None if findings is None else findings.ears.get(side)
    if ear is None or measurements is None:
        return _numbers(EarFindings(side=side, ratio=None, fluid=None)) | {
            "levels": [],
            "previous": None,
            "texts": [],
        }
    shown = measurements.ear(side)
    return _numbers(ear) | {
        "levels": level_documents(ear, shown),
        "previous": previous_document(previous.get(side)) if ear.evaluated else None,
        "texts": list(shown.sentences),
    }


def _numbers(ear: EarFindings) -> Json:
    ratio = ear.ratio
    return {
        "evaluated": ratio is not None,
        "total_fluid_mm3": None if ratio is None else float(ratio.total_fluid_mm3),
        "endolymph_mm3": None if ratio is None else float(ratio.endolymph_mm3),
        "eh_ratio": {
            "value": None if ratio is None else float(ratio.value),
            "low": None if ratio is None else float(ratio.low),
            "high": None if ratio is None else float(ratio.high),
        },
        "slices": [
            {
                "slice_index": int(one.slice_index),
                "total_fluid_mm2": float(one.total_fluid_mm2),
                "endolymph_mm2": float(one.endolymph_mm2),
                "ratio": float(one.ratio),
            }
            for one in ear.slices
        ],
        "quality": [_flag(flag) for flag in ear.quality],
    }


def _flag(flag: QualityFlag) -> Json:
    return {
        "code": flag.code.value,
        "severity": flag.severity.value,
        "message": flag.message,
        "measured": None if flag.measured is None else float(flag.measured),
        "limit": None if flag.limit is None else float(flag.limit),
    }


def _series(assembly: AssembledStudy) -> list[Json]:
    chosen = () if assembly.chosen is None else assembly.chosen.series.values()
    used = {series.series_instance_uid for series in chosen}
    left_out = {series.series_instance_uid: series.reason for series in assembly.left_out}
    return [
        {
            "series_instance_uid": decision.series_instance_uid,
            "role": str(decision.role),
            "rule": decision.rule,
            "reason": decision.reason,
            "used": decision.series_instance_uid in used,
            "left_out_because": left_out.get(decision.series_instance_uid),
        }
        for decision in assembly.decisions
    ]


def _alignment(role: str, alignment: Alignment) -> Json:
    return {
        "role": role,
        "accepted": bool(alignment.accepted),
        "reason": alignment.reason,
        "translation_mm": float(alignment.translation_mm),
        "rotation_deg": float(alignment.rotation_deg),
        "metric_before": float(alignment.metric_before),
        "metric_after": float(alignment.metric_after),
        "moving_to_fixed": [[float(value) for value in row] for row in alignment.moving_to_fixed],
    }


def _model(model: ModelIdentity) -> Json:
    return {"name": model.name, "version": model.version, "sha256": model.sha256}
