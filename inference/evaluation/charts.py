"""Charts of an evaluation: agreement, Bland-Altman, and errors by group. Drawn from the record alone, as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from inference.evaluation.record import Evaluation
from inference.evaluation.scores import EarScore
from inference.evaluation.summary import NOISE, SEVERITIES, Section, noise_of, severity_of, tag_text
from inference.evaluation.text import input_set_text, number_text, range_text

COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colors: they differ for color-blind readers, on white and on dark."""

MARKERS: Final = ("o", "^", "s", "D", "v", "P")
"""One per group beside its color, so that a printout without color can be read."""

RATIO_AXIS: Final = (0.0, 0.65)
"""True and found ratios of every ear that a phantom can have."""


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colors of a chart on a light or a dark page."""

    ink: str
    faint: str


LIGHT: Final = Theme(ink="#1c2430", faint="#c9d1da")
DARK: Final = Theme(ink="#e8edf3", faint="#45505e")


def ratio_scatter(evaluation: Evaluation, theme: Theme) -> str:
    """SVG: found against true ratio of every measured ear, with interval and ICC, one panel per input set."""

    def draw(axes: Axes, section: Section, scores: Sequence[EarScore]) -> None:
        axes.plot(RATIO_AXIS, RATIO_AXIS, color=theme.faint, linewidth=1.2, zorder=0)
        for number, (group, members) in enumerate(_by_contrast(scores).items()):
            true, found = _ratios(members)
            if all(one.low is not None and one.high is not None for one in members):
                low, high = (np.array([getattr(one, name) for one in members]) for name in ("low", "high"))
                spread = np.clip([found - low, high - found], 0.0, None)
                axes.errorbar(true, found, yerr=spread, fmt="none", ecolor=COLORS[number], alpha=0.25, linewidth=0.8)
            axes.scatter(true, found, s=16, color=COLORS[number], marker=MARKERS[number], label=group, linewidths=0)
        ratio = section.overall.ratio
        axes.set(xlim=RATIO_AXIS, ylim=RATIO_AXIS, xlabel="true EH ratio", ylabel="found EH ratio", aspect="equal")
        icc = f"ICC(2,1) {number_text(ratio.icc, 3)} ({range_text(ratio.icc_low, ratio.icc_high, 3)})"
        _note(axes, f"{icc}\nMAE {number_text(ratio.mae, 4)}, n = {ratio.ears}", theme)

    return _panels(evaluation, theme, draw)


def bland_altman(evaluation: Evaluation, theme: Theme) -> str:
    """SVG: difference against mean of found and true ratio, with bias and 95 % limits of agreement."""
    errors = [abs(one.ratio_error) for one in evaluation.scores if one.ratio_error is not None]
    reach = max(0.06, 1.3 * max(errors, default=0.0))

    def draw(axes: Axes, section: Section, scores: Sequence[EarScore]) -> None:
        for number, (group, members) in enumerate(_by_contrast(scores).items()):
            true, found = _ratios(members)
            mean, difference = (true + found) / 2, found - true
            axes.scatter(
                mean, difference, s=16, color=COLORS[number], marker=MARKERS[number], label=group, linewidths=0
            )
        ratio = section.overall.ratio
        axes.axhline(0.0, color=theme.faint, linewidth=1.0, zorder=0)
        for value, style in ((ratio.bias, "-"), (ratio.limit_low, "--"), (ratio.limit_high, "--")):
            if value is not None:
                axes.axhline(value, color=theme.ink, linewidth=1.0, linestyle=style)
        axes.set(
            xlim=RATIO_AXIS,
            ylim=(-reach, reach),
            xlabel="mean of true and found EH ratio",
            ylabel="found less true EH ratio",
        )
        limits = range_text(ratio.limit_low, ratio.limit_high, 3, sign=True)
        _note(axes, f"bias {number_text(ratio.bias, 4, sign=True)}\n95 % limits {limits}", theme)

    return _panels(evaluation, theme, draw)


def errors_by_group(evaluation: Evaluation, theme: Theme) -> str:
    """SVG: absolute ratio error and endolymph Dice by true ratio and by SNR, one box per input set and class."""
    rows = (("absolute ratio error", _ratio_error), ("endolymph Dice", _endolymph_dice))
    columns = (("true EH ratio", SEVERITIES, severity_of), ("fluid SNR on PPI", NOISE, noise_of))
    with _style(theme):
        figure = Figure(figsize=(10.0, 6.4), layout="constrained")
        panels = figure.subplots(2, 2, sharey="row")
        for (ylabel, value), line in zip(rows, panels, strict=True):
            for (xlabel, classes, key), axes in zip(columns, line, strict=True):
                _boxes(axes, evaluation, [name for name, _ in classes], key, value, theme)
                axes.set(xlabel=xlabel, ylabel=ylabel)
        handles = [
            Patch(color=COLORS[number], label=input_set_text(section.input_set))
            for number, section in enumerate(evaluation.sections)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(handles)), frameon=False)
        return _svg(figure)


def _boxes(
    axes: Axes,
    evaluation: Evaluation,
    classes: Sequence[str],
    key: Callable[[EarScore], str | None],
    value: Callable[[EarScore], float | None],
    theme: Theme,
) -> None:
    """Boxes from the first to the third quartile, whiskers from the 5th to the 95th percentile."""
    width = 0.8 / max(1, len(evaluation.sections))
    shown = [name for name in classes if any(key(one) == name for one in evaluation.scores)]
    for number, section in enumerate(evaluation.sections):
        of_set = _scores_of(evaluation, section)
        values = [[v for one in of_set if key(one) == name and (v := value(one)) is not None] for name in shown]
        places = [n + (number - (len(evaluation.sections) - 1) / 2) * width for n in range(len(shown))]
        filled = [(place, group) for place, group in zip(places, values, strict=True) if group]
        if not filled:
            continue
        axes.boxplot(
            [group for _, group in filled],
            positions=[place for place, _ in filled],
            widths=0.85 * width,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": COLORS[number], "edgecolor": theme.ink, "linewidth": 0.6},
            medianprops={"color": theme.ink, "linewidth": 1.2},
            whiskerprops={"color": theme.ink, "linewidth": 0.8},
            capprops={"color": theme.ink, "linewidth": 0.8},
        )
    axes.set_xticks(range(len(shown)), shown)
    axes.set_xlim(-0.6, max(0, len(shown) - 1) + 0.6)


def _ratios(scores: Sequence[EarScore]) -> NDArray[np.float64]:
    """(2, N) true and found ratios."""
    pairs = np.array([(one.true_ratio, one.ratio) for one in scores], dtype=np.float64)
    return pairs.reshape(-1, 2).T


def _ratio_error(score: EarScore) -> float | None:
    return None if score.ratio_error is None else abs(score.ratio_error)


def _endolymph_dice(score: EarScore) -> float | None:
    return None if score.endolymph is None else score.endolymph.dice


def _scores_of(evaluation: Evaluation, section: Section) -> list[EarScore]:
    """The section's ears that got a number and have a true one."""
    of_set = [one for one in evaluation.scores if one.tags.get("input_set", "unknown") == section.input_set]
    return [one for one in of_set if one.ratio_error is not None]


def _by_contrast(scores: Sequence[EarScore]) -> dict[str, list[EarScore]]:
    """Ears by contrast state or domain; one group where neither is known."""
    groups: dict[str, list[EarScore]] = {}
    for score in scores:
        name = score.tags.get("contrast", score.tags.get("domain", "all ears"))
        groups.setdefault(tag_text(name), []).append(score)
    return dict(sorted(groups.items())[: len(COLORS)])


def _panels(evaluation: Evaluation, theme: Theme, draw: Callable[[Axes, Section, Sequence[EarScore]], None]) -> str:
    columns = min(2, len(evaluation.sections)) or 1
    rows = -(-len(evaluation.sections) // columns) or 1
    with _style(theme):
        figure = Figure(figsize=(5.0 * columns, 4.6 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, section in zip(panels, evaluation.sections, strict=False):
            draw(axes, section, _scores_of(evaluation, section))
            axes.set_title(input_set_text(section.input_set))
        for axes in panels[len(evaluation.sections) :]:
            axes.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        return _svg(figure)


def _note(axes: Axes, text: str, theme: Theme) -> None:
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=9, color=theme.ink)


def _style(theme: Theme) -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "text.color": theme.ink,
            "axes.labelcolor": theme.ink,
            "axes.edgecolor": theme.faint,
            "xtick.color": theme.ink,
            "ytick.color": theme.ink,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 10,
            "svg.hashsalt": "hydrops-node",
        }
    )


def _svg(figure: Figure) -> str:
    """The figure as an SVG document that is the same in every run."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
