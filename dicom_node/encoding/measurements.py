"""What was measured, as everybody reads it: the one source of digits and sentences for all renderings.

SR, findings.json, the summary's pixels and PDF, `status` and the dashboard take their numbers from here, so no two of
them can differ by a rounding. Made from findings while a study is worked on, and read back from findings.json by
whoever has only that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dicom_node.encoding.numbers import Figure, area_figure, change_figure, ratio_figure, volume_figure
from dicom_node.errors import Refusal
from inference.anatomy import EarSide, FluidSpace
from inference.findings import EarFindings, EHRatio, LevelRatio, StudyFindings

SIDES: Final = (EarSide.RIGHT, EarSide.LEFT)
"""Right first, as images show them from left to right."""

INTERVAL_NAME: Final = "95 % interval"


@dataclass(frozen=True, kw_only=True)
class PreviousValue:
    """An ear's ratio in an earlier study of the same patient, as it was measured then.

    Ratios are 0..1; `study_date` is YYYYMMDD; `model` is name and version.
    """

    study_instance_uid: str
    study_date: str
    ratio: float
    low: float
    high: float
    model: str


@dataclass(frozen=True, kw_only=True)
class PreviousMeasurement:
    """The previous value beside the present one; `same_model` and `overlap` say how far they can be compared."""

    study_date: str
    ratio: Figure
    low: Figure
    high: Figure
    change: Figure
    model: str
    same_model: bool
    overlap: bool

    @property
    def date_text(self) -> str:
        """The earlier study's date as 2025-03-01; "an unknown date" if it has none."""
        date = self.study_date
        return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else "an unknown date"

    @property
    def sentence(self) -> str:
        """Value, date and change in one line, with what limits the comparison."""
        limits = f"the {INTERVAL_NAME}s {'overlap' if self.overlap else 'do not overlap'}"
        other = "" if self.same_model else f"; measured then by another model ({self.model})"
        return (
            f"Previous EH ratio {self.ratio.text} ({INTERVAL_NAME} {self.low.text} to {self.high.text}) on "
            f"{self.date_text}, change {self.change.text}: {limits}{other}."
        )


@dataclass(frozen=True, kw_only=True)
class LevelMeasurement:
    """The 2D area ratio of one part on its own slice, or why the level cannot be told; never a grade.

    `where` names the image, e.g. "MRC image 34".
    """

    part: str
    where: str
    ratio: Figure | None
    total_fluid: Figure | None
    endolymph: Figure | None
    reason: str

    @property
    def name(self) -> str:
        """What the number is called wherever it is shown."""
        return f"2D area ratio, {self.part} level"

    @property
    def sentence(self) -> str:
        """The level in one line."""
        if self.ratio is None or self.total_fluid is None or self.endolymph is None:
            return f"{self.name}: not told, because {self.reason}."
        areas = f"endolymph {self.endolymph.text} of total fluid {self.total_fluid.text}"
        return f"{self.name} ({self.where}): {self.ratio.text}, {areas}."


@dataclass(frozen=True, kw_only=True)
class EarMeasurements:
    """One ear: all five figures, or none of them and the reasons in `quality`.

    `quality` holds sentences for people, the most serious first.
    """

    side: EarSide
    total_fluid: Figure | None
    endolymph: Figure | None
    ratio: Figure | None
    low: Figure | None
    high: Figure | None
    levels: tuple[LevelMeasurement, ...]
    quality: tuple[str, ...]
    previous: PreviousMeasurement | None

    @property
    def evaluated(self) -> bool:
        """True if this ear has numbers."""
        return self.ratio is not None

    @property
    def name(self) -> str:
        """The ear as a heading: "Right ear"."""
        return f"{self.side.value.capitalize()} ear"

    def volume(self, space: FluidSpace) -> Figure | None:
        """The volume of one fluid."""
        return self.total_fluid if space is FluidSpace.TOTAL_FLUID_SPACE else self.endolymph

    @property
    def interval_text(self) -> str:
        """The interval's two ends: "24.4 % to 29.8 %"; empty if there is no number."""
        return "" if self.low is None or self.high is None else f"{self.low.text} to {self.high.text}"

    @property
    def sentence(self) -> str:
        """The ear in one line that survives copying into a dictated report."""
        if self.ratio is None or self.total_fluid is None or self.endolymph is None:
            return f"{self.name}: not evaluated."
        return (
            f"{self.name}: EH ratio {self.ratio.text} ({INTERVAL_NAME} {self.interval_text}), "
            f"total fluid space {self.total_fluid.text}, endolymph {self.endolymph.text}."
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything that is said of the ear, its quality last."""
        levels = tuple(level.sentence for level in self.levels)
        previous = () if self.previous is None else (self.previous.sentence,)
        return (self.sentence, *levels, *previous, *self.quality)


@dataclass(frozen=True, kw_only=True)
class StudyMeasurements:
    """Both ears, right first, and what holds for the whole examination; `model` is name and version."""

    ears: tuple[EarMeasurements, ...]
    quality: tuple[str, ...]
    model: str

    def ear(self, side: EarSide) -> EarMeasurements:
        """The ear of one side."""
        return next(ear for ear in self.ears if ear.side is side)


def study_measurements(
    findings: StudyFindings,
    *,
    slice_names: Sequence[str] = (),
    previous: Mapping[EarSide, PreviousValue] | None = None,
    remarks: Sequence[Refusal] = (),
) -> StudyMeasurements:
    """The measurements of a computed study.

    Parameters
    ----------
    slice_names
        What each slice of the MRC grid is called, k growing (`source_planes.slice_names`); without them slices are
        counted from 1.
    previous
        The last earlier value of each ear, where the node knows one.
    remarks
        What was noticed when the series were chosen.
    """
    model = f"{findings.model.name} {findings.model.version}"
    known = previous or {}
    return StudyMeasurements(
        ears=tuple(
            _ear(findings.ears[side], slice_names, known.get(side), model) for side in SIDES if side in findings.ears
        ),
        quality=(
            *(flag.message for flag in findings.quality),
            *(f"{remark.reason.sentence} {remark.detail}".strip() for remark in remarks),
        ),
        model=model,
    )


def _ear(ear: EarFindings, slice_names: Sequence[str], previous: PreviousValue | None, model: str) -> EarMeasurements:
    return _assembled(
        ear.side,
        ear.ratio,
        levels=tuple(_level(level, _slice_name(level.slice_index, slice_names)) for level in ear.levels),
        quality=tuple(flag.message for flag in ear.quality),
        previous=previous,
        model=model,
    )


def _slice_name(index: int | None, names: Sequence[str]) -> str:
    if index is None:
        return ""
    return names[index] if index < len(names) else f"MRC slice {index + 1}"


def _assembled(
    side: EarSide,
    ratio: EHRatio | None,
    *,
    levels: tuple[LevelMeasurement, ...],
    quality: tuple[str, ...],
    previous: PreviousValue | None,
    model: str,
) -> EarMeasurements:
    """One ear from unrounded numbers."""
    return EarMeasurements(
        side=side,
        total_fluid=None if ratio is None else volume_figure(ratio.total_fluid_mm3),
        endolymph=None if ratio is None else volume_figure(ratio.endolymph_mm3),
        ratio=None if ratio is None else ratio_figure(ratio.value),
        low=None if ratio is None else ratio_figure(ratio.low),
        high=None if ratio is None else ratio_figure(ratio.high),
        levels=levels,
        quality=quality,
        previous=None if ratio is None or previous is None else _compared(ratio, previous, model),
    )


def _compared(ratio: EHRatio, previous: PreviousValue, model: str) -> PreviousMeasurement:
    before = ratio_figure(previous.ratio)
    return PreviousMeasurement(
        study_date=previous.study_date,
        ratio=before,
        low=ratio_figure(previous.low),
        high=ratio_figure(previous.high),
        change=change_figure(ratio_figure(ratio.value), before),
        model=previous.model,
        same_model=previous.model == model,
        overlap=previous.low <= ratio.high and ratio.low <= previous.high,
    )


def _level(level: LevelRatio, where: str) -> LevelMeasurement:
    told = level.ratio is not None and level.total_fluid_mm2 is not None and level.endolymph_mm2 is not None
    return LevelMeasurement(
        part=level.part,
        where=where,
        ratio=None if level.ratio is None else ratio_figure(level.ratio),
        total_fluid=None if level.total_fluid_mm2 is None else area_figure(level.total_fluid_mm2),
        endolymph=None if level.endolymph_mm2 is None else area_figure(level.endolymph_mm2),
        reason="" if told else level.reason,
    )


def level_documents(ear: EarFindings, measured: EarMeasurements) -> list[dict[str, Any]]:
    """The levels for findings.json: unrounded numbers, and what the slice is called."""
    return [
        {
            "part": level.part,
            "slice_index": level.slice_index,
            "where": shown.where or None,
            "total_fluid_mm2": level.total_fluid_mm2,
            "endolymph_mm2": level.endolymph_mm2,
            "ratio": level.ratio,
            "reason": level.reason or None,
        }
        for level, shown in zip(ear.levels, measured.levels, strict=True)
    ]


def previous_document(previous: PreviousValue | None) -> dict[str, Any] | None:
    """A previous value for findings.json: unrounded numbers."""
    if previous is None:
        return None
    return {
        "study_instance_uid": previous.study_instance_uid,
        "study_date": previous.study_date,
        "model": previous.model,
        "eh_ratio": {"value": previous.ratio, "low": previous.low, "high": previous.high},
    }


def read_measurements(document: Mapping[str, Any]) -> StudyMeasurements | None:
    """The measurements of a findings.json document of any version 1.x; None if the study was refused."""
    if document.get("status") != "computed":
        return None
    model = f"{document['model']['name']} {document['model']['version']}"
    return StudyMeasurements(
        ears=tuple(_read_ear(side, document["ears"][side.value], model) for side in SIDES),
        quality=tuple(one["message"] for one in (*document["quality"], *document["remarks"])),
        model=model,
    )


def _read_ear(side: EarSide, ear: Mapping[str, Any], model: str) -> EarMeasurements:
    return _assembled(
        side,
        _read_ratio(ear),
        levels=tuple(_read_level(one) for one in ear.get("levels", ())),
        quality=tuple(one["message"] for one in ear["quality"]),
        previous=_read_previous(ear.get("previous")),
        model=model,
    )


def _read_ratio(ear: Mapping[str, Any]) -> EHRatio | None:
    if not ear["evaluated"]:
        return None
    ratio = ear["eh_ratio"]
    return EHRatio(
        endolymph_mm3=ear["endolymph_mm3"],
        total_fluid_mm3=ear["total_fluid_mm3"],
        value=ratio["value"],
        low=ratio["low"],
        high=ratio["high"],
    )


def _read_previous(before: Mapping[str, Any] | None) -> PreviousValue | None:
    if before is None:
        return None
    ratio = before["eh_ratio"]
    return PreviousValue(
        study_instance_uid=before["study_instance_uid"],
        study_date=before["study_date"],
        ratio=ratio["value"],
        low=ratio["low"],
        high=ratio["high"],
        model=before["model"],
    )


def _read_level(level: Mapping[str, Any]) -> LevelMeasurement:
    numbers = LevelRatio(
        part=level["part"],
        slice_index=level["slice_index"],
        total_fluid_mm2=level["total_fluid_mm2"],
        endolymph_mm2=level["endolymph_mm2"],
        ratio=level["ratio"],
        reason=level["reason"] or "",
    )
    return _level(numbers, level["where"] or "")
