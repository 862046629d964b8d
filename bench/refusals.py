"""Does the node refuse what it cannot judge, and measure what it can? Bad and good studies, from series to numbers.

    python bench/refusals.py                          # every kind, 2 patients each, threshold method
    python bench/refusals.py --patients 4 --kinds contrast swapped
    python bench/refusals.py --model inference/models/ear

For every kind of bad study it is laid down what must happen; a number that happens to be right does not count. What is
printed holds for these phantoms, not for patients.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from spoiled_studies import KINDS, Kind, Must, drawn
from suite import Benchmark, Better, Found, Measurement, run

from dicom_node.assembly.headers import SeriesRole
from dicom_node.errors import RejectedStudy
from dicom_node.pipeline import PipelineOptions, StepTimer, measure_study
from inference.anatomy import EarSide
from inference.findings import EarFindings, Severity
from inference.phantom import PhantomStudy
from inference.segmentation import FluidSegmenter, ThresholdSegmenter

GOOD_PER_BAD = 4
"""There are few good kinds and many bad ones; the rates of both should mean something."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One study: `met` if what must happen did, `coded` if one of the kind's codes was among the reasons."""

    kind: str
    must: str
    seed: int
    met: bool
    coded: bool
    ears: int
    numbers: int
    inside: int
    codes: tuple[str, ...]
    said: str
    seconds: float


def trial(kind: Kind, seed: int, segmenter: FluidSegmenter) -> Trial:
    """Draw, spoil and measure one study, and hold it against what must happen."""
    study = drawn(kind.options(seed))
    series = kind.spoil({role: study.volumes[role] for role in study.options.series}, study)
    volumes = {SeriesRole(role): volume for role, volume in series.items()}
    began = time.perf_counter()
    ears: Mapping[EarSide, EarFindings] = {}
    try:
        ears = measure_study(
            volumes, segmenter=segmenter, options=PipelineOptions(), step=StepTimer(time.perf_counter)
        ).ears
        codes, said = remarks(ears)
    except RejectedStudy as rejected:
        codes = tuple(dict.fromkeys(one.reason.value for one in rejected.refusals))
        said = "; ".join(one.detail for one in rejected.refusals)
    measured = {side: ear for side, ear in ears.items() if ear.evaluated}
    inside = {side for side, ear in measured.items() if covers(ear, study, side)}
    return Trial(
        kind=kind.name,
        must=kind.must.value,
        seed=seed,
        met=met(kind, measured, inside),
        coded=not kind.codes or bool(kind.codes & set(codes)),
        ears=len(study.options.ears),
        numbers=len(measured),
        inside=len(inside),
        codes=codes,
        said=said,
        seconds=round(time.perf_counter() - began, 2),
    )


def remarks(ears: Mapping[EarSide, EarFindings]) -> tuple[tuple[str, ...], str]:
    """Codes and sentences of all ears; a STOP is marked."""
    flags = [flag for ear in ears.values() for flag in ear.quality]
    said = "; ".join(f"{flag.message}{' [STOP]' if flag.severity is Severity.STOP else ''}" for flag in flags)
    return tuple(dict.fromkeys(flag.code.value for flag in flags)), said


def covers(ear: EarFindings, study: PhantomStudy, side: EarSide) -> bool:
    """True if the ear's interval holds its true ratio."""
    truth = study.truth.ears.get(side)
    return ear.ratio is not None and truth is not None and ear.ratio.low <= truth.eh_ratio <= ear.ratio.high


def met(kind: Kind, measured: Mapping[EarSide, EarFindings], inside: set[EarSide]) -> bool:
    """True if what must happen to this kind did."""
    if kind.must is Must.MEASURED:
        return len(measured) == len(EarSide)
    if kind.must is Must.REFUSED:
        return not measured
    if kind.must is Must.EAR_REFUSED:
        return EarSide.LEFT not in measured
    warned = {side for side, ear in measured.items() if kind.codes & {flag.code.value for flag in ear.quality}}
    return all(side in warned & inside for side in measured)


def table(trials: Sequence[Trial]) -> str:
    """One line per kind, then both sums."""
    lines = [
        f"{'kind':28} {'must be':13} {'studies':>7} {'met':>7} {'coded':>6} {'ears':>5} {'numbers':>7} {'in 95 %':>7}"
    ]
    for name in dict.fromkeys(one.kind for one in trials):
        group = [one for one in trials if one.kind == name]
        seen = Counter(code for one in group for code in one.codes)
        numbers = sum(one.numbers for one in group)
        covered = f"{sum(one.inside for one in group) / numbers:7.0%}" if numbers else f"{'-':>7}"
        lines.append(
            f"{name:28} {group[0].must:13} {len(group):7d} {sum(one.met for one in group):7d}"
            f" {sum(one.coded for one in group):6d} {sum(one.ears for one in group):5d} {numbers:7d} {covered}"
            f"  {', '.join(f'{code} {count}' for code, count in seen.most_common())}"
        )
    good = [one for one in trials if one.must == Must.MEASURED.value]
    bad = [one for one in trials if one.must != Must.MEASURED.value]
    lines += [f"{name} studies: {rate}" for name, rate in rates(good, bad).items()]
    return "\n".join(lines)


def rates(good: Sequence[Trial], bad: Sequence[Trial]) -> dict[str, str]:
    """What the issue is about, in words."""
    said = {}
    if good:
        ears, numbers = sum(one.ears for one in good), sum(one.numbers for one in good)
        said["good"] = f"{len(good)}, of {ears} ears {ears - numbers} refused ({(ears - numbers) / ears:.1%})"
    if bad:
        kept = sum(one.met and one.coded for one in bad)
        said["bad"] = f"{len(bad)}, {kept} handled as they must be, with a fitting code ({kept / len(bad):.1%})"
    return said


def method(model: Path | None) -> FluidSegmenter:
    """The threshold method, or the network of a model folder."""
    if model is None:
        return ThresholdSegmenter()
    from inference.learned import NetworkSegmenter
    from inference.model_store import load_model

    return NetworkSegmenter(model=load_model(model))


def measured(trials: Sequence[Trial]) -> Iterator[Measurement]:
    """How often what must happen did, and how long it took."""
    for name, group in (
        ("good studies measured", [one for one in trials if one.must == Must.MEASURED.value]),
        ("bad studies handled as they must be", [one for one in trials if one.must != Must.MEASURED.value]),
    ):
        if group:
            share = 100.0 * sum(one.met and one.coded for one in group) / len(group)
            yield Measurement(what=f"{name}, of {len(group)}", unit="%", better=Better.HIGHER, values=(share,))
    seconds = tuple(one.seconds for one in trials)
    yield Measurement(what="a study measured or refused", unit="s", better=Better.LOWER, values=seconds)


def measure(asked: argparse.Namespace) -> Found:
    """Draw the studies, measure them, print every kind and every mistake."""
    segmenter = method(asked.model)
    print(f"method {segmenter.identity.name} {segmenter.identity.version}", flush=True)
    trials: list[Trial] = []
    wanted = [kind for kind in KINDS if not asked.kinds or any(word in kind.name for word in asked.kinds)]
    for seed in range(asked.first_seed, asked.first_seed + GOOD_PER_BAD * asked.patients):
        bad_too = seed < asked.first_seed + asked.patients
        kinds = [kind for kind in wanted if bad_too or kind.must is Must.MEASURED]
        # Kinds that spoil the same study follow each other, and it is drawn once.
        kinds.sort(key=lambda kind, seed=seed: repr(kind.options(seed)))
        trials += [trial(kind, seed, segmenter) for kind in kinds]
    order = [kind.name for kind in KINDS]
    trials.sort(key=lambda one: (order.index(one.kind), one.seed))
    print(table(trials))
    for one in trials:
        if not one.met or not one.coded:
            print(f"{one.kind}, seed {one.seed}: {one.numbers} numbers, {one.inside} right; {one.said}")
    details = {"method": asdict(segmenter.identity), "trials": [asdict(one) for one in trials]}
    return Found(measurements=tuple(measured(trials)), details=details)


def options(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--patients", type=int, default=2, help="of each bad kind; of good kinds four times as many")
    parser.add_argument("--first-seed", type=int, default=7000)
    parser.add_argument("--kinds", nargs="+", metavar="WORD", help="only kinds whose name holds one of these words")
    parser.add_argument("--model", type=Path, help="folder of a trained model; without it the threshold method")


BENCHMARK: Final = Benchmark(
    name="refusals",
    question="Does the node refuse what it cannot judge, and measure what it can?",
    measure=measure,
    add_options=options,
    quick=("--patients", "1", "--kinds", "swapped", "inverted", "clipped"),
)

if __name__ == "__main__":
    run(BENCHMARK)
