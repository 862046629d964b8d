"""How well the node measures ears, on phantoms whose fluid is known: from series to numbers, alignment included.

    python bench/segmentation.py                        # 20 patients, PPI + PEI
    python bench/segmentation.py --set hydrops --patients 40 --json result.json

Patients differ in hydrops (ratio 0.06 to 0.5 per ear), contrast, noise, obliquity (to 25 degrees) and motion between
series (to 3 mm and 3 degrees). What is printed holds for these phantoms, not for patients.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import RejectedStudy
from dicom_node.pipeline import PipelineOptions, StepTimer, measure_study
from inference.anatomy import EarSide
from inference.findings import EarFindings, StudyFindings
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy, make_study
from inference.segmentation import ThresholdSegmenter

SETS = {
    "ppi-pei": ("MRC", "PPI", "PEI"),
    "hydrops": ("MRC", "HYDROPS"),
    "mi2": ("MRC", "HYDROPS_MI2"),
    "real-ir": ("MRC", "REAL_IR"),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One ear: what was found next to what is true. Errors are None where the ear got no number."""

    seed: int
    side: str
    contrast: str
    true_ratio: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    volume_error: float | None = None
    fluid_dice: float | None = None
    endolymph_dice: float | None = None
    center_error_mm: float | None = None
    seconds: float = 0.0
    remarks: str = ""


def patient(seed: int, series: Sequence[str]) -> PhantomOptions:
    """A patient and a scan, drawn from `seed`."""
    rng = np.random.default_rng([seed, 4711])
    left, right = rng.uniform(0.06, 0.5, 2)
    states = [ContrastState.NORMAL] * 3 + [ContrastState.STRONG, ContrastState.WEAK]
    return PhantomOptions(
        seed=seed,
        eh_ratio={EarSide.LEFT: float(left), EarSide.RIGHT: float(right)},
        contrast=states[seed % len(states)],
        series=tuple(series),
        oblique_deg=(float(rng.uniform(-25, 25)), float(rng.uniform(-10, 10)), float(rng.uniform(-10, 10))),
        contrast_snr=float(rng.choice([8.0, 12.0, 20.0])),
        mrc_snr=float(rng.choice([30.0, 60.0])),
        motion_mm=float(rng.uniform(0, 3)),
        motion_deg=float(rng.uniform(0, 3)),
    )


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Twice the overlap over the sum; 1 if both are empty."""
    size = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / size if size else 1.0


def compare(study: PhantomStudy, found: EarFindings, side: EarSide, seconds: float) -> Trial:
    """One measured ear against its truth."""
    truth, fluid, ratio = study.truth.ears[side], found.fluid, found.ratio
    assert fluid is not None
    assert ratio is not None
    grid = study.volumes["MRC"].geometry
    k, j, i = np.rint(grid.to_index(fluid.roi.geometry.to_lps((0, 0, 0)))).astype(int).tolist()
    total = study.truth.total_fluid_fraction.crop((k, j, i), fluid.roi.geometry.shape).array
    endolymph = study.truth.endolymph_fraction.crop((k, j, i), fluid.roi.geometry.shape).array
    inside = total >= 0.5
    return Trial(
        seed=study.options.seed,
        side=side.value,
        contrast=study.options.contrast.value,
        true_ratio=truth.eh_ratio,
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        volume_error=ratio.total_fluid_mm3 / truth.total_fluid_mm3 - 1.0,
        fluid_dice=dice(fluid.total_fluid_mask.array, inside),
        endolymph_dice=dice(fluid.endolymph_mask.array, inside & (endolymph >= 0.5 * total)),
        center_error_mm=float(np.linalg.norm(np.array(truth.center_lps_mm) - fluid.roi.center_lps_mm)),
        seconds=seconds,
        remarks=" ".join(flag.code.value for flag in found.quality),
    )


def trials(study: PhantomStudy) -> list[Trial]:
    """Both ears of one study."""
    volumes = {SeriesRole(role): volume for role, volume in study.volumes.items()}
    began = time.perf_counter()
    findings: StudyFindings | None = None
    refusal = ""
    try:
        findings = measure_study(
            volumes, segmenter=ThresholdSegmenter(), options=PipelineOptions(), step=StepTimer(time.perf_counter)
        )
    except RejectedStudy as rejected:
        refusal = str(rejected)
    seconds = time.perf_counter() - began
    results = []
    for side, truth in study.truth.ears.items():
        if findings is not None and findings.ears[side].evaluated:
            results.append(compare(study, findings.ears[side], side, seconds))
            continue
        why = refusal or " ".join(flag.message for flag in findings.ears[side].quality) if findings else refusal
        contrast = study.options.contrast.value
        results.append(
            Trial(seed=study.options.seed, side=side.value, contrast=contrast, true_ratio=truth.eh_ratio, remarks=why)
        )
    return results


def table(results: Sequence[Trial]) -> str:
    """One line per contrast state, then all ears."""
    lines = [
        f"{'contrast':9} {'ears':>5} {'no number':>9} {'center mm':>14} {'fluid Dice':>10} {'endo Dice':>9}"
        f" {'volume':>7} {'ratio MAE':>9} {'bias':>7} {'in 95 %':>7} {'width':>6} {'s':>5}"
    ]
    for contrast in [*dict.fromkeys(trial.contrast for trial in results), "all"]:
        group = [trial for trial in results if contrast in (trial.contrast, "all")]
        lines.append(f"{contrast:9} {len(group):5d} {row([t for t in group if t.ratio is not None], len(group))}")
    return "\n".join(lines)


def row(measured: Sequence[Trial], count: int) -> str:
    """Means over the ears that got a number."""
    if not measured:
        return f"{count:9d}"
    center, fluid, endolymph, volume, ratio, truth, low, high, seconds = np.array(
        [
            (t.center_error_mm, t.fluid_dice, t.endolymph_dice, t.volume_error, t.ratio, t.true_ratio, t.low, t.high,
             t.seconds)
            for t in measured
        ],
        dtype=float,
    ).T  # fmt: skip
    error, covered = ratio - truth, (low <= truth) & (truth <= high)
    return (
        f"{count - len(measured):9d} {np.median(center):6.2f} max{center.max():5.2f} {fluid.mean():10.3f}"
        f" {endolymph.mean():9.3f} {volume.mean():+7.3f} {np.abs(error).mean():9.4f} {error.mean():+7.4f}"
        f" {covered.mean():7.2f} {(high - low).mean():6.3f} {np.median(seconds):5.2f}"
    )


def main() -> None:
    """Make the studies, measure them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="ppi-pei", choices=sorted(SETS), help="which series the study has")
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all trials here")
    asked = parser.parse_args()
    results: list[Trial] = []
    for seed in range(asked.first_seed, asked.first_seed + asked.patients):
        results.extend(trials(make_study(patient(seed, SETS[asked.set]))))
    print(table(results))
    for trial in results:
        if trial.ratio is None:
            print(f"seed {trial.seed} {trial.side} ({trial.contrast}, ratio {trial.true_ratio:.2f}): {trial.remarks}")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(trial) for trial in results], indent=1))


if __name__ == "__main__":
    main()
