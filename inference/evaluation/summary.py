"""What groups of ears amount to: means, agreement, refusals, and whether groups differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.anatomy import EarSide
from inference.evaluation.agreement import Agreement, GroupTest, compare_groups, compare_pairs, ratio_agreement
from inference.evaluation.overlap import Overlap
from inference.evaluation.scores import EarScore

SEVERITIES: Final = (("below 0.15", 0.15), ("0.15 to 0.25", 0.25), ("0.25 to 0.35", 0.35), ("0.35 and more", 1.01))
"""Classes of the TRUE EH ratio and where each ends. Normal ears have about 0.12 of the whole labyrinth; the classes
divide 0.06 to 0.5 evenly for reading and are no clinical grades."""

NOISE: Final = (("3 to 5", 5.0), ("5 to 8", 8.0), ("8 to 12", 12.01), ("above 12", math.inf))
"""Classes of the fluid's SNR on PPI and where each ends; single images of patients lie between 3 and 12."""


@dataclass(frozen=True, kw_only=True)
class OverlapMeans:
    """Means over the measured ears; distances in mm, volumes in mm3; None where no ear has the value.

    `volume_bias` and `volume_mae` are found less true volume and its magnitude, `volume_bias_share` the bias over the
    mean true volume.
    """

    dice: float | None
    dice_worst: float | None
    iou: float | None
    fraction_dice: float | None
    hausdorff_mm: float | None
    hausdorff95_mm: float | None
    surface_distance_mm: float | None
    volume_mae_mm3: float | None
    volume_bias_mm3: float | None
    volume_bias_share: float | None


@dataclass(frozen=True, kw_only=True)
class CompartmentSummary:
    """One compartment over the measured ears whose truth tells compartments apart."""

    total_fluid: OverlapMeans
    endolymph: OverlapMeans
    ratio: Agreement


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one group of ears amounts to. `grouping` is "all", "severity", "snr", "contrast" or "domain".

    `refusals` counts codes; an ear may have several. `center_error_mm` is the median, `seconds` the median per study.
    """

    grouping: str
    group: str
    ears: int
    measured: int
    refusals: Mapping[str, int]
    side_errors: int
    total_fluid: OverlapMeans
    endolymph: OverlapMeans
    ratio: Agreement
    compartments: Mapping[str, CompartmentSummary]
    center_error_mm: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Section:
    """One input set: all ears, then group by group, then tests between groups."""

    input_set: str
    overall: Summary
    groups: tuple[Summary, ...]
    tests: tuple[GroupTest, ...]


def severity_of(score: EarScore) -> str | None:
    """The class of the true ratio, or the case's own `severity` where its reader gave one."""
    if "severity" in score.tags:
        return tag_text(score.tags["severity"])
    return None if score.true_ratio is None else _class_of(score.true_ratio, SEVERITIES)


def noise_of(score: EarScore) -> str | None:
    """The class of the fluid's SNR; None if it is not known."""
    snr = score.tags.get("snr")
    return _class_of(float(snr), NOISE) if isinstance(snr, int | float) else None


def _tag(name: str) -> Callable[[EarScore], str | None]:
    return lambda score: tag_text(score.tags[name]) if name in score.tags else None


def tag_text(tag: str | float) -> str:
    """A group's name: a scanner that was written as 1 is not 1.0 after it was stored."""
    return str(int(tag)) if isinstance(tag, float) and tag.is_integer() else str(tag)


GROUPINGS: Final[Mapping[str, Callable[[EarScore], str | None]]] = {
    "severity": severity_of,
    "snr": noise_of,
    "contrast": _tag("contrast"),
    "domain": _tag("domain"),
}


def _class_of(value: float, classes: Sequence[tuple[str, float]]) -> str:
    return next(name for name, end in classes if value < end)


def section(input_set: str, scores: Sequence[EarScore]) -> Section:
    """One input set's ears, all together, group by group, and compared between groups."""
    groups = []
    for grouping, key in GROUPINGS.items():
        members: dict[str, list[EarScore]] = {}
        for score in scores:
            if (group := key(score)) is not None:
                members.setdefault(group, []).append(score)
        groups += [summarize(members[group], grouping, group) for group in sorted(members, key=_in_class_order)]
    tests = (*_side_tests(scores), *_group_tests("contrast", scores), *_group_tests("domain", scores))
    return Section(input_set=input_set, overall=summarize(scores, "all", "all"), groups=tuple(groups), tests=tests)


def _in_class_order(group: str) -> tuple[int, str]:
    names = [name for name, _ in (*SEVERITIES, *NOISE)]
    return (names.index(group) if group in names else len(names), group)


def summarize(scores: Sequence[EarScore], grouping: str, group: str) -> Summary:
    """What a group of ears amounts to; means are over the ears that got a number."""
    measured = [score for score in scores if score.measured]
    return Summary(
        grouping=grouping,
        group=group,
        ears=len(scores),
        measured=len(measured),
        refusals=dict(sorted(Counter(code for score in scores for code in score.refusals).items())),
        side_errors=sum(score.side_error for score in measured),
        total_fluid=_overlap_means([score.total_fluid for score in measured]),
        endolymph=_overlap_means([score.endolymph for score in measured]),
        ratio=_agreement(measured),
        compartments=_compartments(measured),
        center_error_mm=_median(score.center_error_mm for score in measured),
        seconds=_median(score.seconds for score in scores),
    )


def _agreement(scores: Iterable[EarScore]) -> Agreement:
    """Of the ears with a true and a found ratio; intervals count only if every ear states one."""
    rated = [(one, one.true_ratio, one.ratio) for one in scores]
    pairs = [(one, true, found) for one, true, found in rated if true is not None and found is not None]
    intervals = [(one.low, one.high) for one, _, _ in pairs]
    stated = [(low, high) for low, high in intervals if low is not None and high is not None]
    return ratio_agreement(
        [true for _, true, _ in pairs],
        [found for _, _, found in pairs],
        stated if len(stated) == len(pairs) else [],
    )


def _compartments(scores: Sequence[EarScore]) -> dict[str, CompartmentSummary]:
    names = dict.fromkeys(name for score in scores for name in score.compartments)
    summaries = {}
    for name in names:
        parts = [score.compartments[name] for score in scores if name in score.compartments]
        pairs = [(one.true_ratio, one.ratio) for one in parts]
        rated = [(true, found) for true, found in pairs if true is not None and found is not None]
        summaries[name] = CompartmentSummary(
            total_fluid=_overlap_means(one.total_fluid for one in parts),
            endolymph=_overlap_means(one.endolymph for one in parts),
            ratio=ratio_agreement([true for true, _ in rated], [found for _, found in rated], []),
        )
    return summaries


def _overlap_means(overlaps: Iterable[Overlap | None]) -> OverlapMeans:
    known = [one for one in overlaps if one is not None]
    errors = [one.volume_mm3 - one.true_volume_mm3 for one in known]
    bias, true = _mean(errors), _mean(one.true_volume_mm3 for one in known)
    dices = [one.dice for one in known if one.dice is not None]
    return OverlapMeans(
        dice=_mean(dices),
        dice_worst=min(dices, default=None),
        iou=_mean(one.iou for one in known),
        fraction_dice=_mean(one.fraction_dice for one in known),
        hausdorff_mm=_mean(one.hausdorff_mm for one in known),
        hausdorff95_mm=_mean(one.hausdorff95_mm for one in known),
        surface_distance_mm=_mean(one.surface_distance_mm for one in known),
        volume_mae_mm3=_mean(abs(error) for error in errors),
        volume_bias_mm3=bias,
        volume_bias_share=None if bias is None or not true else bias / true,
    )


def _side_tests(scores: Sequence[EarScore]) -> list[GroupTest]:
    """Left against right ears of the same patients: is one side measured worse than the other?"""
    by_case: dict[str, dict[EarSide, EarScore]] = {}
    for score in scores:
        by_case.setdefault(score.case, {})[score.side] = score
    pairs = [ears for ears in by_case.values() if len(ears) == 2 and all(ear.measured for ear in ears.values())]
    return [
        compare_pairs(quantity, {side.value: [value(ears[side]) for ears in complete] for side in EarSide})
        for quantity, value in QUANTITIES.items()
        if (complete := [ears for ears in pairs if not any(math.isnan(value(ear)) for ear in ears.values())])
    ]


def _group_tests(tag: str, scores: Sequence[EarScore]) -> list[GroupTest]:
    group_of = _tag(tag)
    names = sorted({name for score in scores if (name := group_of(score)) is not None})
    if len(names) < 2:
        return []
    measured = [score for score in scores if score.measured]
    return [
        compare_groups(
            quantity,
            {
                name: [value(one) for one in measured if group_of(one) == name and not math.isnan(value(one))]
                for name in names
            },
        )
        for quantity, value in QUANTITIES.items()
    ]


def _absolute_ratio_error(score: EarScore) -> float:
    return math.nan if score.ratio_error is None else abs(score.ratio_error)


def _endolymph_dice(score: EarScore) -> float:
    found = score.endolymph
    return math.nan if found is None or found.dice is None else found.dice


QUANTITIES: Final[Mapping[str, Callable[[EarScore], float]]] = {
    "absolute ratio error": _absolute_ratio_error,
    "endolymph Dice": _endolymph_dice,
}
"""What groups are compared by; NaN, which leaves an ear out, stays inside this module."""


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
