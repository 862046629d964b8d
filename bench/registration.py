"""How well and how fast series are aligned to the MRC, measured on phantoms whose motion is known.

    python bench/registration.py                     # 5 motions x 3 patients x 4 series
    python bench/registration.py --contrast weak --roles PPI --seeds 5
    python bench/registration.py --oblique 25 0 0 --ears left

The error is the distance between where a point of the ear is brought and where it belongs (target registration
error, TRE), over the center and the corners of a 14 mm cube around each labyrinth. The ears given to the alignment
are displaced by up to 1.5 mm from the truth, as a localizer would. The rival looks at the whole head instead, as the
route by an atlas begins; it gets the same series in the same turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from suite import Benchmark, Better, Found, Measurement, run
from whole_head import WHOLE_HEAD, align_whole_head

from inference.anatomy import EarSide
from inference.findings import Alignment, EarROI
from inference.geometry import VolumeGeometry
from inference.phantom import ContrastState, PhantomOptions, PhantomStudy, make_study
from inference.registration import align

MOTIONS = ((0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (3.5, 3.5), (5.0, 5.0))
"""Displacement of the head's middle in mm, with rotation in degrees."""

ROLES = ("PEI", "PPI", "HYDROPS", "REAL_IR")
"""HYDROPS-Mi2 is left out: multiplied with an MRC in another pose it has no true place."""

ROI_MM = (24.0, 32.0, 32.0)
HALF_LABYRINTH_MM = 7.0
LOCALIZER_ERROR_MM = 1.5
GOAL_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One series aligned once; errors in mm at the ears."""

    role: str
    motion_mm: float
    motion_deg: float
    seed: int
    before_mm: float
    mean_mm: float
    max_mm: float
    seconds: float
    accepted: bool
    reason: str
    whole_head_s: float | None = None
    whole_head_max_mm: float | None = None


def ear_rois(study: PhantomStudy, rng: np.random.Generator) -> list[EarROI]:
    """The ears as a localizer with a small error would find them."""
    grid = study.volumes["MRC"].geometry
    return [ear_roi(side, np.array(ear.center_lps_mm) + jitter(rng), grid) for side, ear in study.truth.ears.items()]


def jitter(rng: np.random.Generator) -> NDArray[np.float64]:
    """A localizer's error: any direction, up to LOCALIZER_ERROR_MM."""
    direction = rng.normal(size=3)
    return direction / np.linalg.norm(direction) * rng.uniform(0.0, LOCALIZER_ERROR_MM)


def ear_roi(side: EarSide, center_mm: NDArray[np.float64], grid: VolumeGeometry) -> EarROI:
    """A box of the MRC grid around `center_mm`."""
    size = np.rint(np.array(ROI_MM) / grid.spacing_mm).astype(int)
    start = np.rint(grid.to_index(center_mm)).astype(int) - size // 2
    box = grid.crop(tuple(start.tolist()), tuple(size.tolist()))
    return EarROI(side=side, center_lps_mm=tuple(center_mm.tolist()), geometry=box, score=1.0)


def errors_mm(found: NDArray[np.float64], truth: NDArray[np.float64], study: PhantomStudy) -> NDArray[np.float64]:
    """TRE at the points of all ears: fixed points, sent back by the truth and forth by what was found."""
    corners = np.array([(0, 0, 0), *np.ndindex(2, 2, 2)], dtype=float)
    corners[1:] = (2 * corners[1:] - 1) * HALF_LABYRINTH_MM
    points = np.concatenate([corners + ear.center_lps_mm for ear in study.truth.ears.values()])
    homogeneous = np.column_stack([points, np.ones(len(points))])
    moved = homogeneous @ (found @ np.linalg.inv(truth)).T
    missed: NDArray[np.float64] = np.linalg.norm(moved[:, :3] - points, axis=1)
    return missed


def trials(
    study: PhantomStudy, roles: Sequence[str], rival_roles: Sequence[str] = (), *, threads: int = 2
) -> Iterator[Trial]:
    """Align every series of one study; PPI starts from the result of the PEI where both are asked for."""
    ears = ear_rois(study, np.random.default_rng([study.options.seed, 77]))
    found: dict[str, Alignment] = {}
    for role in roles:
        began = time.perf_counter()
        start = found.get("PEI") if role == "PPI" else None
        result = align(study.volumes[role], study.volumes["MRC"], ears, start=start)
        seconds = time.perf_counter() - began
        found[role] = result
        truth = study.truth.motion[role]
        after = errors_mm(result.moving_to_fixed, truth, study)
        whole_head_s = whole_head_max_mm = None
        if role in rival_roles:
            began = time.perf_counter()
            other = align_whole_head(study.volumes[role], study.volumes["MRC"], threads=threads)
            whole_head_s = time.perf_counter() - began
            whole_head_max_mm = float(errors_mm(other, truth, study).max())
        yield Trial(
            role=role,
            motion_mm=study.options.motion_mm,
            motion_deg=study.options.motion_deg,
            seed=study.options.seed,
            before_mm=float(errors_mm(np.eye(4), truth, study).max()),
            mean_mm=float(after.mean()),
            max_mm=float(after.max()),
            seconds=seconds,
            accepted=result.accepted,
            reason=result.reason,
            whole_head_s=whole_head_s,
            whole_head_max_mm=whole_head_max_mm,
        )


def table(results: Sequence[Trial]) -> str:
    """One line per series and motion."""
    lines = [
        f"{'series':12} {'motion':>14} {'before':>7} {'TRE mean':>9} {'TRE max':>8} {'seconds':>8} {'accepted':>9}"
    ]
    for role in dict.fromkeys(trial.role for trial in results):
        for motion in dict.fromkeys((trial.motion_mm, trial.motion_deg) for trial in results):
            group = [t for t in results if t.role == role and (t.motion_mm, t.motion_deg) == motion]
            lines.append(
                f"{role:12} {motion[0]:4.1f} mm {motion[1]:4.1f}\N{DEGREE SIGN} "
                f"{max(t.before_mm for t in group):7.2f} {statistics.mean(t.mean_mm for t in group):9.3f} "
                f"{max(t.max_mm for t in group):8.3f} {statistics.median(t.seconds for t in group):8.2f} "
                f"{sum(t.accepted for t in group):5d}/{len(group)}"
            )
    return "\n".join(lines)


def studies(asked: argparse.Namespace) -> Iterator[PhantomStudy]:
    """Every motion and patient that was asked for."""
    motions = [(mm, mm) for mm in asked.motions] if asked.motions else MOTIONS
    ears = frozenset(EarSide) if asked.ears == "both" else frozenset({EarSide(asked.ears)})
    for motion_mm, motion_deg in motions:
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            yield make_study(
                PhantomOptions(
                    seed=seed,
                    ears=ears,
                    contrast=ContrastState(asked.contrast),
                    contrast_snr=asked.snr,
                    oblique_deg=tuple(asked.oblique),
                    motion_mm=motion_mm,
                    motion_deg=motion_deg,
                    series=("MRC", *asked.roles),
                )
            )


def of_a_study(results: Sequence[Trial]) -> tuple[float, ...]:
    """Seconds for PEI and PPI of each study that was asked for both, as a study with the two takes them."""
    studies: dict[tuple[int, float], dict[str, float]] = {}
    for one in results:
        studies.setdefault((one.seed, one.motion_mm), {})[one.role] = one.seconds
    return tuple(taken["PEI"] + taken["PPI"] for taken in studies.values() if {"PEI", "PPI"} <= taken.keys())


def measured(results: Sequence[Trial]) -> Iterator[Measurement]:
    """Seconds and errors of every series, then beside the rival where it was asked for the same."""
    if together := of_a_study(results):
        yield Measurement(
            what="PEI and PPI, all of a study", unit="s", better=Better.LOWER, values=together, goal=GOAL_S
        )
    for role in dict.fromkeys(one.role for one in results):
        group = [one for one in results if one.role == role]
        seconds = tuple(one.seconds for one in group)
        worst = tuple(one.max_mm for one in group)
        both = [one for one in group if one.whole_head_s is not None and one.whole_head_max_mm is not None]
        yield Measurement(what=f"{role} aligned", unit="s", better=Better.LOWER, values=seconds)
        yield Measurement(what=f"{role}: largest error at the ears", unit="mm", better=Better.LOWER, values=worst)
        moved = [one for one in both if one.max_mm > 0.0]  # who did not move keeps the header's place: no ratio to zero
        if both:
            yield Measurement(
                what=f"{role} aligned, beside the whole head",
                unit="s",
                better=Better.LOWER,
                values=tuple(one.seconds for one in both),
                rival=WHOLE_HEAD,
                rival_values=tuple(float(one.whole_head_s or 0.0) for one in both),
                gated=True,
            )
        if moved:
            yield Measurement(
                what=f"{role}: largest error, beside the whole head",
                unit="mm",
                better=Better.LOWER,
                values=tuple(one.max_mm for one in moved),
                rival=WHOLE_HEAD,
                rival_values=tuple(float(one.whole_head_max_mm or 0.0) for one in moved),
            )


def measure(asked: argparse.Namespace) -> Found:
    """Make the studies, align them, print the table."""
    results = [
        one for study in studies(asked) for one in trials(study, asked.roles, asked.rival_roles, threads=asked.threads)
    ]
    print(table(results))
    for trial in results:
        if not trial.accepted or trial.max_mm > 0.3:
            print(f"{trial.role} {trial.motion_mm:g} mm seed {trial.seed}: TRE {trial.max_mm:.2f} mm; {trial.reason}")
    return Found(measurements=tuple(measured(results)), details={"trials": [asdict(one) for one in results]})


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--roles", nargs="+", default=list(ROLES), choices=ROLES)
    parser.add_argument("--seeds", type=int, default=3, help="patients per motion")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--motions", nargs="+", type=float, help="only these shifts in mm, each with as many degrees")
    parser.add_argument("--contrast", default="normal", choices=[state.value for state in ContrastState])
    parser.add_argument("--snr", type=float, default=12.0, help="perilymph over noise SD in the PPI")
    parser.add_argument("--ears", default="both", choices=["both", "left", "right"])
    parser.add_argument("--oblique", nargs=3, type=float, default=(0.0, 0.0, 0.0), metavar=("X", "Y", "Z"))
    parser.add_argument("--threads", type=int, default=2, help="of the rival; the node aligns in one")
    parser.add_argument("--rival-roles", nargs="*", default=["PEI"], choices=ROLES, help="aligned by the rival, too")


BENCHMARK: Final = Benchmark(
    name="registration",
    question="How well and how fast are series aligned to the MRC?",
    measure=measure,
    add_options=options,
    quick=("--seeds", "1", "--motions", "0", "2"),
    gate=("--seeds", "3", "--motions", "2", "--roles", "PEI", "--threads", "1"),
)

if __name__ == "__main__":
    run(BENCHMARK)
