"""The tables of an evaluation, as text: the HTML report and the model card print the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from inference.evaluation.agreement import share_interval
from inference.evaluation.record import Evaluation
from inference.evaluation.scores import EarScore
from inference.evaluation.summary import Section, Summary
from inference.evaluation.text import UNDEFINED, input_set_text, number_text, percent_text, range_text

GROUPING_TITLES: Final = {
    "severity": "By true EH ratio",
    "snr": "By fluid SNR on PPI",
    "contrast": "By enhancement of the perilymph",
    "domain": "By domain",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts by row; the first column names the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the shipped model is meant to reach: `floor` must be, `aim` is hoped for; `higher` says which way is better.

    The floors of Dice, MAE and limits are the best figures published for patients (Yoo et al. 2024, 3D nnU-Net with
    paired input, 0.957 and 0.840; MAE 0.0146; limits -+0.041). Here they are reached or missed on phantoms.
    """

    name: str
    floor: float
    aim: float
    higher: bool
    digits: int
    value: Callable[[Summary], float | None]

    def verdict(self, value: float | None) -> str:
        """ "aim", "floor", "missed", or "undefined"."""
        if value is None:
            return "undefined"
        for level, name in ((self.aim, "aim"), (self.floor, "floor")):
            if value >= level if self.higher else value <= level:
                return name
        return "missed"


def _widest_limit(summary: Summary) -> float | None:
    low, high = summary.ratio.limit_low, summary.ratio.limit_high
    return None if low is None or high is None else max(abs(low), abs(high))


MIN_COVERED: Final = 50
"""Ears; of fewer, one is more than the 0.02 that are allowed, and decides between reached and missed."""


def _coverage_gap(summary: Summary) -> float | None:
    if summary.ratio.coverage is None or summary.ratio.ears < MIN_COVERED:
        return None
    return abs(summary.ratio.coverage - 0.95)


def _refused_share(summary: Summary) -> float | None:
    return 1.0 - summary.measured / summary.ears if summary.ears else None


TARGETS: Final = (
    Target(name="total fluid Dice", floor=0.96, aim=0.97, higher=True, digits=3, value=lambda s: s.total_fluid.dice),
    Target(name="endolymph Dice", floor=0.84, aim=0.88, higher=True, digits=3, value=lambda s: s.endolymph.dice),
    Target(name="EH ratio, mean absolute error", floor=0.0146, aim=0.010, higher=False, digits=4,
           value=lambda s: s.ratio.mae),
    Target(name="EH ratio, wider 95 % limit", floor=0.041, aim=0.03, higher=False, digits=3, value=_widest_limit),
    Target(name="EH ratio, ICC(2,1)", floor=0.97, aim=0.97, higher=True, digits=3, value=lambda s: s.ratio.icc),
    Target(name="interval coverage, distance from 95 %", floor=0.02, aim=0.02, higher=False, digits=3,
           value=_coverage_gap),
    Target(name="ears on the wrong side", floor=0, aim=0, higher=False, digits=0, value=lambda s: s.side_errors),
    Target(name="good ears refused", floor=0.02, aim=0.02, higher=False, digits=3, value=_refused_share),
)  # fmt: skip


def target_table(evaluation: Evaluation) -> Table:
    """Each target, then what each input set reached, with "aim", "floor" or "missed" after the value."""
    rows = []
    for target in TARGETS:
        sign = "≥" if target.higher else "≤"
        wanted = f"{sign} {number_text(target.floor, target.digits)}"
        if target.aim != target.floor:
            wanted += f", aim {number_text(target.aim, target.digits)}"
        reached = []
        for section in evaluation.sections:
            value = target.value(section.overall)
            reached.append(f"{number_text(value, target.digits)} ({target.verdict(value)})")
        rows.append((target.name, wanted, *reached))
    return Table(columns=("target", "wanted", *_set_names(evaluation)), rows=tuple(rows))


LINES: Final[Sequence[tuple[str, Callable[[Summary], str]]]] = (
    ("ears", lambda s: str(s.ears)),
    ("ears with a number", lambda s: str(s.measured)),
    ("ears on the wrong side", lambda s: str(s.side_errors)),
    ("box center error, median", lambda s: _with_unit(s.center_error_mm, 2, "mm")),
    ("total fluid Dice (worst ear)", lambda s: _with_worst(s.total_fluid.dice, s.total_fluid.dice_worst)),
    ("total fluid IoU", lambda s: number_text(s.total_fluid.iou, 3)),
    ("total fluid Hausdorff distance, max", lambda s: _with_unit(s.total_fluid.hausdorff_mm, 2, "mm")),
    ("total fluid Hausdorff distance, 95 %", lambda s: _with_unit(s.total_fluid.hausdorff95_mm, 2, "mm")),
    ("total fluid mean surface distance", lambda s: _with_unit(s.total_fluid.surface_distance_mm, 3, "mm")),
    ("total fluid volume, mean absolute error", lambda s: _with_unit(s.total_fluid.volume_mae_mm3, 1, "mm³")),
    ("total fluid volume, bias", lambda s: percent_text(s.total_fluid.volume_bias_share, sign=True)),
    ("endolymph Dice (worst ear)", lambda s: _with_worst(s.endolymph.dice, s.endolymph.dice_worst)),
    ("endolymph IoU", lambda s: number_text(s.endolymph.iou, 3)),
    ("endolymph Hausdorff distance, max", lambda s: _with_unit(s.endolymph.hausdorff_mm, 2, "mm")),
    ("endolymph Hausdorff distance, 95 %", lambda s: _with_unit(s.endolymph.hausdorff95_mm, 2, "mm")),
    ("endolymph mean surface distance", lambda s: _with_unit(s.endolymph.surface_distance_mm, 3, "mm")),
    ("endolymph volume, mean absolute error", lambda s: _with_unit(s.endolymph.volume_mae_mm3, 1, "mm³")),
    ("endolymph volume, bias", lambda s: percent_text(s.endolymph.volume_bias_share, sign=True)),
    ("EH ratio, mean absolute error", lambda s: number_text(s.ratio.mae, 4)),
    ("EH ratio, bias", lambda s: number_text(s.ratio.bias, 4, sign=True)),
    ("EH ratio, 95 % limits of agreement", lambda s: range_text(s.ratio.limit_low, s.ratio.limit_high, 3, sign=True)),
    ("EH ratio, ICC(2,1)", lambda s: number_text(s.ratio.icc, 3)),
    ("its 95 % interval", lambda s: range_text(s.ratio.icc_low, s.ratio.icc_high, 3)),
    ("true ratio inside the stated interval", lambda s: percent_text(s.ratio.coverage)),
    ("what so many ears can tell of that share", lambda s: _share_range(s.ratio.coverage, s.ratio.ears)),
    ("stated interval, mean half width", lambda s: number_text(s.ratio.mean_half_width, 3)),
    ("time per study, median", lambda s: _with_unit(s.seconds, 1, "s")),
)


def overall_table(evaluation: Evaluation) -> Table:
    """Every metric, one column per input set."""
    return Table(
        columns=("all ears", *_set_names(evaluation)),
        rows=tuple((name, *(text(one.overall) for one in evaluation.sections)) for name, text in LINES),
    )


GROUP_COLUMNS: Final[Sequence[tuple[str, Callable[[Summary], str]]]] = (
    ("ears", lambda s: str(s.ears)),
    ("refused", lambda s: str(s.ears - s.measured)),
    ("total fluid Dice", lambda s: number_text(s.total_fluid.dice, 3)),
    ("endolymph Dice", lambda s: number_text(s.endolymph.dice, 3)),
    ("volume bias", lambda s: percent_text(s.total_fluid.volume_bias_share, sign=True)),
    ("ratio MAE", lambda s: number_text(s.ratio.mae, 4)),
    ("ratio bias", lambda s: number_text(s.ratio.bias, 4, sign=True)),
    ("95 % limits", lambda s: range_text(s.ratio.limit_low, s.ratio.limit_high, 3, sign=True)),
    ("in interval", lambda s: percent_text(s.ratio.coverage, 0)),
)


def group_table(section: Section, grouping: str) -> Table | None:
    """The section's groups of one kind; None if its ears do not have the property."""
    groups = [one for one in section.groups if one.grouping == grouping]
    if not groups:
        return None
    return Table(
        columns=("group", *(name for name, _ in GROUP_COLUMNS)),
        rows=tuple((one.group, *(text(one) for _, text in GROUP_COLUMNS)) for one in groups),
    )


def compartment_table(section: Section) -> Table | None:
    """The section's ears compartment by compartment; None if their truth does not tell compartments apart."""
    compartments = section.overall.compartments
    if not compartments:
        return None
    return Table(
        columns=(
            "compartment", "ears", "total fluid Dice", "endolymph Dice", "endolymph Hausdorff 95 %", "volume bias",
            "ratio MAE", "ratio bias", "95 % limits",
        ),
        rows=tuple(
            (
                name,
                str(one.ratio.ears),
                number_text(one.total_fluid.dice, 3),
                number_text(one.endolymph.dice, 3),
                _with_unit(one.endolymph.hausdorff95_mm, 2, "mm"),
                percent_text(one.total_fluid.volume_bias_share, sign=True),
                number_text(one.ratio.mae, 4),
                number_text(one.ratio.bias, 4, sign=True),
                range_text(one.ratio.limit_low, one.ratio.limit_high, 3, sign=True),
            )
            for name, one in compartments.items()
        ),
    )  # fmt: skip


def section_tables(section: Section) -> list[tuple[str, Table]]:
    """Every table of one input set that its ears allow, with its title: compartments, then groups."""
    titled = [("By compartment", compartment_table(section))]
    titled += [(title, group_table(section, grouping)) for grouping, title in GROUPING_TITLES.items()]
    return [(title, table) for title, table in titled if table is not None]


def refusal_table(evaluation: Evaluation) -> Table | None:
    """How often each code stopped a number, by input set; None if every ear got one."""
    codes = sorted({code for section in evaluation.sections for code in section.overall.refusals})
    if not codes:
        return None
    return Table(
        columns=("reason", *_set_names(evaluation)),
        rows=tuple((code, *(str(one.overall.refusals.get(code, 0)) for one in evaluation.sections)) for code in codes),
    )


def test_table(evaluation: Evaluation) -> Table:
    """Whether sides and domains are measured equally well."""
    return Table(
        columns=("input set", "test", "of", "groups", "statistic", "p"),
        rows=tuple(
            (
                input_set_text(section.input_set),
                test.name,
                test.quantity,
                ", ".join(f"{name} ({count})" for name, count in zip(test.groups, test.counts, strict=True)),
                number_text(test.statistic, 1),
                UNDEFINED if test.p_value is None else f"{test.p_value:.3g}",
            )
            for section in evaluation.sections
            for test in section.tests
        ),
    )


def ear_table(evaluation: Evaluation) -> Table:
    """Every ear, the largest ratio error first, ears without a number before all."""
    by_error = sorted(
        evaluation.scores, key=lambda one: (one.ratio_error is None, abs(one.ratio_error or 0.0)), reverse=True
    )
    return Table(
        columns=("ear", "input set", "true", "found", "interval", "total fluid Dice", "endolymph Dice", "remarks"),
        rows=tuple(
            (
                f"{one.case}, {one.side}",
                input_set_text(str(one.tags.get("input_set", ""))),
                number_text(one.true_ratio, 3),
                number_text(one.ratio, 3),
                range_text(one.low, one.high, 3),
                number_text(one.total_fluid.dice if one.total_fluid else None, 3),
                number_text(one.endolymph.dice if one.endolymph else None, 3),
                ", ".join((*one.refusals, *one.remarks)),
            )
            for one in by_error
        ),
    )


def ear_caption(score: EarScore) -> str:
    """One measured ear in three lines: which, true and found ratio, both Dice."""
    fluid, endolymph = score.total_fluid, score.endolymph
    return (
        f"{score.case}, {score.side}\nratio {number_text(score.ratio, 3)} (true {number_text(score.true_ratio, 3)})\n"
        f"Dice {number_text(fluid.dice if fluid else None, 3)} and "
        f"{number_text(endolymph.dice if endolymph else None, 3)}"
    )


def _set_names(evaluation: Evaluation) -> tuple[str, ...]:
    return tuple(input_set_text(section.input_set) for section in evaluation.sections)


def _share_range(share: float | None, of: int) -> str:
    if share is None:
        return UNDEFINED
    low, high = share_interval(share, of)
    return f"{percent_text(low, 0)} to {percent_text(high, 0)}"


def _with_unit(value: float | None, digits: int, unit: str) -> str:
    return UNDEFINED if value is None else f"{number_text(value, digits)} {unit}"


def _with_worst(mean: float | None, worst: float | None) -> str:
    return UNDEFINED if mean is None else f"{number_text(mean, 3)} ({number_text(worst, 3)})"
