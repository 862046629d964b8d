"""A few synthetic ears for all tests of this folder: drawing one takes half a second."""

from __future__ import annotations

import pytest

from inference.training.crops import EarCrop, draw_crop

SEEDS = (101, 102, 103)


@pytest.fixture(scope="session")
def drawn() -> list[EarCrop]:
    """The ears of `SEEDS`."""
    return [draw_crop(seed) for seed in SEEDS]
