"""How surely and how fast ears are found, on many synthetic heads whose ears are known.

    python bench/localization.py                          # 100 heads at 1 mm, the spacing the search works at
    python bench/localization.py --heads 1000 --workers 2
    python bench/localization.py --heads 5 --clinical     # 384 x 324 x 104 voxels: what the time means

Heads differ in anatomy, hydrops, contrast agent, noise, coil gain, tilt, and motion between the series; slabs in
obliquity (45 degrees, upside down, any order of the axes) and in how much of the head they show. One head in ten lacks
an ear or both; one study in ten shows no ear at all. What is printed holds for these phantoms, not for patients.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from suite import Benchmark, Better, Found, Measurement, run

from inference.anatomy import EarSide
from inference.findings import QualityCode
from inference.geometry import Volume, VolumeGeometry
from inference.localization import EarSearch, locate_ears
from inference.phantom import ContrastState, PhantomOptions, make_study

FloatArray = NDArray[np.float64]

WHOLE_FROM_MM: Final = 7.0
"""An ear whose center lies at least this far inside the slab must be found; nearer than `CUT_BELOW_MM`, must not."""
CUT_BELOW_MM: Final = 4.0

GOAL_S: Final = 1.0
"""For a clinical slab."""

GOAL_MM: Final = 1.5
GOAL_LARGEST_MM: Final = 5.0
"""For whole ears: the median distance, and each one where there is contrast agent. Without it no ratio follows."""

NEAR_MM: Final = 5.0
"""A box farther than this from the ear of its side is a false ear."""

CONTRAST_ODDS: Final = {
    ContrastState.NONE: 0.1, ContrastState.WEAK: 0.2, ContrastState.NORMAL: 0.5, ContrastState.STRONG: 0.2
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """One study to be made: a phantom's options, how the head lies and how the array runs, or something else."""

    content: str
    phantom: PhantomOptions
    tilt_deg: tuple[float, float, float]
    axis_order: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Two series on one grid, and where the ears are (LPS mm) that the slab may show."""

    mrc: Volume
    hydrops: Volume
    ears: Mapping[EarSide, FloatArray]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One side of one study. `truth` is whole, edge, cut or absent; distances in mm, None where there is none."""

    seed: int
    content: str
    contrast: str
    side: str
    truth: str
    eh_ratio: float | None
    inside_mm: float | None
    found: bool
    error_mm: float | None
    other_ear_mm: float | None
    score: float | None
    seconds: float
    remarks: str


def draw_case(seed: int, *, clinical: bool) -> Case:
    """A study drawn from `seed`; `clinical` chooses clinical voxels instead of 1 mm."""
    rng = np.random.default_rng([seed, 815])
    content = str(rng.choice(["head", "head above the ears", "limbs", "blobs"], p=[0.9, 0.04, 0.03, 0.03]))
    partial_slab = rng.random() < 0.3
    size_mm = [rng.uniform(100, 192), rng.uniform(110, 162), rng.uniform(40, 70)] if partial_slab else [192, 162, 104]
    shift_mm = rng.uniform(-1, 1, 3) * ([30, 15, 15] if partial_slab else [8, 8, 15])
    spacing_mm = (0.5, 0.5, 1.0) if clinical else (1.0, 1.0, 1.0)
    if content == "head above the ears":
        shift_mm[2] = 95.0
    # Means of four clinical voxels have half their noise.
    quieter = 1.0 if clinical else 2.0
    ratios = rng.uniform(0.05, 0.55, 2)
    missing = rng.random()
    ears = list(EarSide) if missing < 0.9 else [EarSide.LEFT] if missing < 0.935 else [EarSide.RIGHT]
    flip = [0.0, 0.0, 0.0]
    if rng.random() < 0.25:
        flip[rng.integers(3)] = 180.0
    phantom = PhantomOptions(
        seed=seed,
        ears=frozenset(ears if missing < 0.97 else []),
        eh_ratio=dict(zip(EarSide, ratios.tolist(), strict=True)),
        contrast=ContrastState(str(rng.choice([c.value for c in CONTRAST_ODDS], p=list(CONTRAST_ODDS.values())))),
        series=("MRC", "HYDROPS"),
        matrix=tuple(round(mm / step) for mm, step in zip(size_mm, spacing_mm, strict=True)),
        spacing_mm=spacing_mm,
        oblique_deg=tuple((np.array(flip) + obliquity(rng)).tolist()),
        slab_shift_mm=tuple(shift_mm.tolist()),
        motion_mm=float(rng.uniform(0, 3)),
        motion_deg=float(rng.uniform(0, 3)),
        mrc_snr=float(rng.uniform(15, 60)) * quieter,
        contrast_snr=float(rng.uniform(3, 12)) * quieter,
        side_difference=float(rng.uniform(-0.35, 0.35)),
        resolution=1.15 if clinical else 1.0,
        step_mm=0.25,
    )
    tilt = np.clip(rng.normal(0, 6, 3), -15, 15)
    order = rng.permutation(3) if rng.random() < 0.3 else np.arange(3)
    return Case(
        content=content,
        phantom=phantom,
        tilt_deg=tuple(tilt.tolist()),
        axis_order=tuple(order.tolist()),
    )


def obliquity(rng: np.random.Generator) -> FloatArray:
    """A turn of the slab about x, y and z, at most 45 degrees about each; half of all slabs are nearly axial."""
    return rng.uniform(-1, 1, 3) * (45.0 if rng.random() < 0.5 else 10.0)


def scan(case: Case) -> Scan:
    """The study of a case."""
    if case.content in ("limbs", "blobs"):
        return something_else(case)
    study = make_study(case.phantom)
    # To tilt the head in the scanner is to turn everything, grid and ears, in patient space.
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xyz", case.tilt_deg, degrees=True).as_matrix()
    return Scan(
        mrc=turned(study.volumes["MRC"], tilt, case.axis_order),
        hydrops=turned(study.volumes["HYDROPS"], tilt, case.axis_order),
        ears={side: tilt[:3, :3] @ ear.center_lps_mm for side, ear in study.truth.ears.items()},
    )


def turned(volume: Volume, move: FloatArray, order: tuple[int, int, int]) -> Volume:
    """The same voxels elsewhere in patient space, stored with their axes in another order."""
    affine = move @ volume.geometry.index_to_lps
    affine[:3, :3] = affine[:3, :3][:, order]
    geometry = VolumeGeometry(
        shape=tuple(volume.array.shape[axis] for axis in order),
        index_to_lps=affine,
        frame_of_reference_uid=volume.geometry.frame_of_reference_uid,
    )
    return Volume(array=np.ascontiguousarray(volume.array.transpose(order)), geometry=geometry)


def something_else(case: Case) -> Scan:
    """No head: two limbs with joint fluid, or blobs of fluid anywhere; the fluid may well be positive on HYDROPS."""
    rng = np.random.default_rng([case.phantom.seed, 816])
    columns, rows, slices = case.phantom.matrix
    shape = (slices, rows, columns)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(case.phantom.spacing_mm)[:, ::-1]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    geometry = VolumeGeometry(shape=shape, index_to_lps=affine, frame_of_reference_uid="2.25.816")
    points = geometry.to_lps(np.moveaxis(np.indices(shape), 0, -1)).astype(np.float32)
    mrc = np.zeros(shape, np.float32)
    sign = np.zeros(shape, np.float32)
    limbs = case.content == "limbs"
    middles = [(-42.0, 0.0), (42.0, 0.0)] if limbs else [(0.0, 0.0)]
    for x, y in middles:
        radius = np.hypot(points[..., 0] - x, points[..., 1] - y)
        mrc[radius < (36.0 if limbs else 75.0)] = 150.0
        mrc[radius < (17.0 if limbs else 20.0)] = 30.0
    for number in range(24 if limbs else 40):
        x, y = middles[number % len(middles)]
        near = (12.0, 12.0, 12.0) if limbs else (70.0, 60.0, 30.0)
        center = np.array([x, y, 0.0]) + rng.normal(0.0, near)
        axes = np.exp(rng.uniform(np.log(0.8), np.log(7.0), 3))
        turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
        blob = np.linalg.norm((points - center) @ (turn / axes[:, None]).T, axis=-1) < 1.0
        mrc[blob] = 1000.0 * rng.uniform(0.6, 1.1)
        sign[blob] = 60.0 if rng.random() < 0.5 else -60.0
    noise = 1000.0 / case.phantom.mrc_snr
    mrc = np.hypot(mrc + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
    hydrops = ndimage.gaussian_filter(sign, 0.5) + rng.normal(0, 100.0 / case.phantom.contrast_snr, shape)
    volumes = [Volume(array=image.astype(np.float32), geometry=geometry) for image in (mrc, hydrops)]
    return Scan(mrc=volumes[0], hydrops=volumes[1], ears={})


def inside_mm(point: FloatArray, grid: VolumeGeometry) -> float:
    """Distance of a point from the slab's nearest border; negative outside."""
    index = grid.to_index(point)
    return float((np.minimum(index + 0.5, np.array(grid.shape) - 0.5 - index) * grid.spacing_mm).min())


def expected(depth_mm: float | None) -> str:
    """What a perfect search does with an ear this deep inside the slab; None is a missing ear."""
    if depth_mm is None or depth_mm < -WHOLE_FROM_MM:
        return "absent"
    if depth_mm >= WHOLE_FROM_MM:
        return "whole"
    return "cut" if depth_mm < CUT_BELOW_MM else "edge"


def judge(case: Case, seen: Scan, found: EarSearch, seconds: float) -> list[Trial]:
    """Both sides of a study against the truth."""
    trials = []
    for side in EarSide:
        truth, roi = seen.ears.get(side), found.rois.get(side)
        depth = None if truth is None else inside_mm(truth, seen.mrc.geometry)
        away = {
            name: float(np.linalg.norm(center - roi.center_lps_mm)) for name, center in seen.ears.items() if roi
        }  # fmt: skip
        trials.append(
            Trial(
                seed=case.phantom.seed,
                content=case.content,
                contrast=case.phantom.contrast.value,
                side=side.value,
                truth=expected(depth),
                eh_ratio=None if truth is None else case.phantom.eh_ratio[side],
                inside_mm=depth,
                found=roi is not None,
                error_mm=away.get(side),
                other_ear_mm=min((mm for name, mm in away.items() if name is not side), default=None),
                score=None if roi is None else roi.score,
                seconds=seconds,
                remarks=" ".join(flag.code.value for flag in found.by_side.get(side, ())),
            )
        )
    return trials


def search(seed: int, *, clinical: bool, threads: int) -> list[Trial]:
    """Make one study and search it."""
    torch.set_num_threads(threads)
    case = draw_case(seed, clinical=clinical)
    seen = scan(case)
    began = time.perf_counter()
    found = locate_ears(seen.mrc, seen.hydrops)
    return judge(case, seen, found, time.perf_counter() - began)


def false_ear(trial: Trial) -> bool:
    """A box that is not at the ear of its side."""
    return trial.found and (trial.error_mm is None or trial.error_mm > NEAR_MM)


def swapped(trial: Trial) -> bool:
    """A box at the other side's ear: the worst there is."""
    return false_ear(trial) and trial.other_ear_mm is not None and trial.other_ear_mm <= NEAR_MM


def mistaken(trial: Trial) -> bool:
    """A box where none should be, or none where one should: the gates after the search must know what to do."""
    return false_ear(trial) or (trial.found != (trial.truth == "whole") and trial.truth in ("whole", "cut"))


def table(trials: Sequence[Trial]) -> str:
    """One line per contrast state, then all; whole ears only, except for the last two columns."""
    lines = [
        f"{'contrast':9} {'ears':>5} {'missed':>6} {'no contrast':>11} {'median mm':>9} {'95 %':>6} {'max':>6}"
        f" {'false ears':>10} {'swapped':>7}"
    ]
    for contrast in [*(state.value for state in ContrastState), "all"]:
        group = [t for t in trials if contrast in (t.contrast, "all")]
        whole = [t for t in group if t.truth == "whole"]
        if not group:
            continue
        errors = [t.error_mm for t in whole if t.found and t.error_mm is not None]
        missed = [t for t in whole if not t.found]
        told = sum(QualityCode.NO_CONTRAST.value in t.remarks for t in missed)
        spread = np.percentile(errors, (50, 95, 100)) if errors else (np.nan,) * 3
        lines.append(
            f"{contrast:9} {len(whole):5d} {len(missed) - told:6d} {told:11d} {spread[0]:9.2f} {spread[1]:6.2f}"
            f" {spread[2]:6.2f} {sum(map(false_ear, group)):10d} {sum(map(swapped, group)):7d}"
        )
    return "\n".join(lines)


def measured(trials: Sequence[Trial], *, clinical: bool) -> Iterator[Measurement]:
    """How far, how often wrong, how long."""
    whole = [one for one in trials if one.truth == "whole"]
    errors = [one.error_mm for one in whole if one.found and one.error_mm is not None]

    def figure(what: str, unit: str, values: Sequence[float], goal: float | None = None) -> Measurement:
        return Measurement(what=what, unit=unit, better=Better.LOWER, values=tuple(values), goal=goal)

    enhanced = [one for one in whole if one.contrast != ContrastState.NONE.value]
    farthest = [one.error_mm for one in enhanced if one.error_mm is not None]
    if errors:
        yield figure("distance from the ear's middle", "mm", errors, GOAL_MM)
    if farthest:
        what = f"largest distance, with contrast agent, of {len(enhanced)} ears"
        yield figure(what, "mm", [max(farthest)], GOAL_LARGEST_MM)
    yield figure(f"whole ears not found, of {len(whole)}", "ears", [float(sum(not one.found for one in whole))])
    yield figure(f"false ears, of {len(trials)} sides", "ears", [float(sum(map(false_ear, trials)))], goal=0.0)
    yield figure(f"sides swapped, of {len(trials)} sides", "ears", [float(sum(map(swapped, trials)))], goal=0.0)
    size = "384 x 324 x 104 voxels" if clinical else "slabs at 1 mm"
    seconds = [one.seconds for one in trials[::2]]  # both sides of a study were found in one search
    yield figure(f"search, {size}", "s", seconds, goal=GOAL_S if clinical else None)


def measure(asked: argparse.Namespace) -> Found:
    """Make the studies, search them, print the table and every mistake."""
    one = partial(search, clinical=asked.clinical, threads=asked.threads)
    seeds = range(asked.first_seed, asked.first_seed + asked.heads)
    with ProcessPoolExecutor(asked.workers) as pool:
        trials = [trial for both in pool.map(one, seeds) for trial in both]
    print(table(trials))
    print("sides by what they are:", dict(Counter(f"{t.truth}, {'found' if t.found else 'not found'}" for t in trials)))
    mistakes = [trial for trial in trials if mistaken(trial)]
    for trial in mistakes:
        print(trial)
    found = measured(trials, clinical=asked.clinical)
    return Found(measurements=tuple(found), details={"mistakes": [asdict(trial) for trial in mistakes]})


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--heads", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=5000)
    parser.add_argument("--clinical", action="store_true", help="0.5 x 0.5 x 1.0 mm voxels instead of 1 mm")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=2, help="per process")


BENCHMARK: Final = Benchmark(
    name="localization",
    question="How surely, how exactly and how fast are ears found?",
    measure=measure,
    add_options=options,
    quick=("--heads", "8"),
)

if __name__ == "__main__":
    run(BENCHMARK)
