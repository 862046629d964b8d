"""Scores of made-up ears, whose numbers the tests can count on: no image is needed to test statistics and reports."""

from __future__ import annotations

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.evaluation.overlap import Overlap
from inference.evaluation.record import Evaluation, Source, evaluate
from inference.evaluation.scores import CompartmentScore, EarScore
from inference.findings import ModelIdentity

IDENTITY = ModelIdentity(name="ear", version="7", sha256="ab" * 32)


def overlap_of(dice: float, volume_mm3: float, true_volume_mm3: float) -> Overlap:
    return Overlap(
        dice=dice,
        iou=dice / (2.0 - dice),
        fraction_dice=dice,
        hausdorff_mm=1.5,
        hausdorff95_mm=0.5,
        surface_distance_mm=0.05,
        volume_mm3=volume_mm3,
        true_volume_mm3=true_volume_mm3,
    )


def made_up_ear(seed: int, side: EarSide, input_set: str, rng: np.random.Generator) -> EarScore:
    """An ear whose ratio is found within about 0.01, weak contrast three times as badly; one in twenty is refused."""
    contrast = ("normal", "weak")[seed % 2]
    true, snr = float(rng.uniform(0.06, 0.5)), float(rng.uniform(3.0, 12.0))
    tags = {"case": f"phantom {seed}", "input_set": input_set, "contrast": contrast, "snr": snr, "seed": float(seed)}
    if rng.uniform() < 0.05:
        return EarScore(case=f"phantom {seed}", side=side, tags=tags, true_ratio=true, refusals=("LOW_SIGNAL",))
    ratio = float(np.clip(true + rng.normal(0.0, 0.03 if contrast == "weak" else 0.01), 0.0, 1.0))
    return EarScore(
        case=f"phantom {seed}",
        side=side,
        tags=tags,
        true_ratio=true,
        ratio=ratio,
        low=max(0.0, ratio - 0.03),
        high=ratio + 0.03,
        total_fluid=overlap_of(float(rng.uniform(0.95, 0.98)), 190.0, 192.0),
        endolymph=overlap_of(float(rng.uniform(0.8, 0.92)), 190.0 * ratio, 192.0 * true),
        compartments={
            "cochlea": CompartmentScore(
                total_fluid=overlap_of(0.95, 80.0, 82.0),
                endolymph=overlap_of(0.8, 20.0, 21.0),
                true_ratio=true / 2,
                ratio=ratio / 2,
            )
        },
        center_error_mm=float(rng.uniform(0.1, 1.0)),
        seconds=2.5,
    )


def made_up_evaluation(studies: int = 40, input_sets: tuple[str, ...] = ("PPI_PEI", "REAL_IR")) -> Evaluation:
    rng = np.random.default_rng(8)
    scores = [
        made_up_ear(900_000 + n, side, name, rng) for n in range(studies) for name in input_sets for side in EarSide
    ]
    return evaluate(
        scores,
        model=IDENTITY,
        source=Source(kind="phantoms", name="realistic-1", description="made up", studies=studies, first_seed=900_000),
        created="2026-03-01T12:00:00+00:00",
        command="hydrops-node evaluate --phantoms 40",
        node_version="0.1.0",
    )


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    """Forty made-up patients with two input sets."""
    return made_up_evaluation()
