"""Patients that several stories share; made once."""

from __future__ import annotations

import pytest

from inference.anatomy import EarSide
from inference.phantom import PhantomOptions, PhantomStudy, make_study


@pytest.fixture(scope="session")
def patient() -> PhantomStudy:
    """Left ear hydropic, oblique slab, moved between the series."""
    return make_study(
        PhantomOptions(
            seed=11,
            eh_ratio={EarSide.RIGHT: 0.12, EarSide.LEFT: 0.36},
            oblique_deg=(14.0, -6.0, 4.0),
            motion_mm=1.2,
            motion_deg=1.0,
        )
    )
