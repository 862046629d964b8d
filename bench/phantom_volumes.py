"""Volumes of phantom ears beside published ones: total fluid, endolymph, ratio. Writes the figure of docs/phantom.md.

    python bench/phantom_volumes.py                     # 200 ears -> docs/pictures/phantom-volumes.png
    python bench/phantom_volumes.py --ears 40 --out /tmp/volumes.png

Half of the ears are normal, half have hydrops with a ratio between 0.1 and 0.5; every person and pattern is drawn anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import torch
from suite import Benchmark, Better, Found, Measurement, run

from inference.anatomy import EarSide
from inference.phantom import motion
from inference.phantom.hydrops import HydropsPattern
from inference.phantom.labyrinth import Compartment, FluidPoints, fill, individual, place

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

OUT = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "phantom-volumes.png"
STEP_MM = 0.16


@dataclass(frozen=True, kw_only=True)
class Published:
    """A range from the literature, in the figure's unit, and who says so."""

    low: float
    high: float
    source: str


TOTAL_FLUID_MM3 = (
    Published(low=168, high=190, source="half maximum, 2 real ears (IE-Vnet samples)"),
    Published(low=190, high=225, source="anatomy (Buckingham, Igarashi)"),
)
NORMAL_MM3 = {
    "cochlear duct": Published(low=7.67, high=9.77, source="mean to upper limit,\n31 temporal bones"),
    "utricle + saccule": Published(low=13.07, high=20.13, source="mean to upper limit,\n31 temporal bones"),
    "all endolymph": Published(low=35, high=45, source="range, anatomy"),
}
NORMAL_RATIO = (
    Published(low=0.113, high=0.116, source="mean of patients (Yoo 2024)"),
    Published(low=35 / 225, high=45 / 190, source="anatomy: 35-45 of 190-225 mm3"),
)
UPPER_NORMAL = {Compartment.COCHLEA: 0.0884, Compartment.VESTIBULE: 0.332}
"""Upper limits of the normal endolymph share (temporal bones, 2025: 12 Meniere, 7 controls)."""


@dataclass(frozen=True, kw_only=True)
class EarVolumes:
    """One phantom ear: volumes in mm3 of the whole and of each compartment."""

    hydrops: bool
    total: float
    endolymph: float
    of: dict[Compartment, float]
    endolymph_of: dict[Compartment, float]

    @property
    def ratio(self) -> float:
        """Endolymph over total fluid."""
        return self.endolymph / self.total

    def share(self, compartment: Compartment) -> float:
        """Endolymph over fluid within a compartment."""
        return self.endolymph_of[compartment] / self.of[compartment]


def ear(seed: int, *, hydrops: bool) -> EarVolumes:
    """A random person's ear; scale SD 3 % as in `make_study`."""
    rng = np.random.default_rng([seed, 12])
    labyrinth = individual(rng)
    scale = float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07))
    to_lps = place(EarSide.LEFT, origin_lps_mm=np.zeros(3), rotation=motion.euler(0.0, 0.0, 0.0), scale=scale)
    ratio = float(rng.uniform(0.1, 0.5)) if hydrops else None
    found = fill(labyrinth, to_lps, eh_ratio=ratio, step_mm=STEP_MM, pattern=HydropsPattern.draw(rng))
    return EarVolumes(
        hydrops=hydrops,
        total=found.total_fluid_mm3,
        endolymph=found.endolymph_mm3,
        of={part: _volume(found, found.compartment == part) for part in Compartment},
        endolymph_of={part: _volume(found, found.is_endolymph & (found.compartment == part)) for part in Compartment},
    )


def _volume(found: FluidPoints, chosen: np.ndarray) -> float:
    return float(np.count_nonzero(chosen)) * found.volume_mm3


def draw(ears: Sequence[EarVolumes], out: Path) -> None:
    """The four panels."""
    normal = [one for one in ears if not one.hydrops]
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    _histogram(panels[0, 0], [one.total for one in ears], TOTAL_FLUID_MM3, "Total fluid (mm³), all ears")
    _histogram(panels[0, 1], [one.ratio for one in normal], NORMAL_RATIO, "Endolymph / total fluid, normal ears")
    _normal_endolymph(panels[1, 0], normal)
    _compartments(panels[1, 1], ears)
    figure.suptitle(f"{len(ears)} phantom ears (blue) beside published values (orange)")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def _histogram(axes: Axes, values: Sequence[float], published: Sequence[Published], title: str) -> None:
    axes.hist(values, bins=24, color="tab:blue", alpha=0.8)
    top = axes.get_ylim()[1]
    for row, known in enumerate(published):
        height = top * (1.06 + 0.12 * row)
        axes.plot([known.low, known.high], [height, height], color="tab:orange", lw=5, solid_capstyle="butt")
        axes.text(known.high, height, f"  {known.source}", va="center", fontsize=8)
    axes.set_ylim(0, top * (1.06 + 0.12 * len(published)))
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.6 * (high - low))
    axes.set_title(title)
    axes.set_ylabel("ears")


def _normal_endolymph(axes: Axes, normal: Sequence[EarVolumes]) -> None:
    columns = {
        "cochlear duct": [one.endolymph_of[Compartment.COCHLEA] for one in normal],
        "utricle + saccule": [one.endolymph_of[Compartment.VESTIBULE] for one in normal],
        "all endolymph": [one.endolymph for one in normal],
    }
    labels = [f"{name}\n{NORMAL_MM3[name].source}" for name in columns]
    axes.boxplot(list(columns.values()), tick_labels=labels, whis=(0, 100), widths=0.35)
    axes.tick_params(axis="x", labelsize=7)
    for place_, known in enumerate((NORMAL_MM3[name] for name in columns), start=1):
        axes.plot([place_ + 0.3] * 2, [known.low, known.high], color="tab:orange", lw=5, solid_capstyle="butt")
    axes.set_title("Endolymph (mm³), normal ears")


def _compartments(axes: Axes, ears: Sequence[EarVolumes]) -> None:
    for part, color in ((Compartment.COCHLEA, "tab:green"), (Compartment.VESTIBULE, "tab:purple")):
        axes.scatter(
            [one.ratio for one in ears], [one.share(part) for one in ears], s=9, color=color, label=part.name.lower()
        )
        axes.axhline(UPPER_NORMAL[part], color=color, ls=":", lw=1)
    axes.set_xlabel("endolymph / total fluid of the ear")
    axes.set_ylabel("endolymph / fluid of the compartment")
    axes.set_title("Compartments (dotted: upper normal limits)")
    axes.legend()


def table(ears: Sequence[EarVolumes]) -> str:
    """Percentiles of what the figure shows."""
    normal = [one for one in ears if not one.hydrops]
    rows = {
        "total fluid, mm3": [one.total for one in ears],
        "endolymph of normal ears, mm3": [one.endolymph for one in normal],
        "  cochlear duct": [one.endolymph_of[Compartment.COCHLEA] for one in normal],
        "  utricle + saccule": [one.endolymph_of[Compartment.VESTIBULE] for one in normal],
        "ratio of normal ears": [one.ratio for one in normal],
        "  share in the cochlea": [one.share(Compartment.COCHLEA) for one in normal],
        "  share in the vestibule": [one.share(Compartment.VESTIBULE) for one in normal],
    }
    lines = [f"{'':32s}{'min':>8s}{'5 %':>8s}{'median':>8s}{'95 %':>8s}{'max':>8s}"]
    for name, values in rows.items():
        numbers = np.percentile(values, [0, 5, 50, 95, 100])
        lines.append(f"{name:32s}" + "".join(f"{number:8.3g}" for number in numbers))
    return "\n".join(lines)


def measured(ears: Sequence[EarVolumes]) -> tuple[Measurement, ...]:
    """Volumes, with the published ones in their names: they are to be alike, and no side is better."""
    total, endolymph = TOTAL_FLUID_MM3[1], NORMAL_MM3["all endolymph"]
    alike = {
        f"total fluid; published {total.low:g} to {total.high:g}": [one.total for one in ears],
        f"endolymph of normal ears; published {endolymph.low:g} to {endolymph.high:g}": [
            one.endolymph for one in ears if not one.hydrops
        ],
    }
    return tuple(
        Measurement(what=what, unit="mm3", better=Better.LOWER, values=tuple(values)) for what, values in alike.items()
    )


def measure(asked: argparse.Namespace) -> Found:
    """Draw the ears, print the table, write the figure."""
    torch.set_num_threads(1)
    ears = [ear(seed, hydrops=seed % 2 == 1) for seed in range(asked.ears)]
    print(table(ears))
    draw(ears, asked.out)
    return Found(measurements=measured(ears))


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--ears", type=int, default=200)
    parser.add_argument("--out", type=Path, default=OUT, help="where the figure goes (default %(default)s)")


BENCHMARK: Final = Benchmark(
    name="phantom_volumes",
    question="Are phantom ears as large as published ones?",
    measure=measure,
    add_options=options,
    quick=("--ears", "20", "--out", "build/phantom-volumes.png"),
)

if __name__ == "__main__":
    run(BENCHMARK)
