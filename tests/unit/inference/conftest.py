"""One small patient for the tests of ears and fluid; making a phantom takes seconds, so they share it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inference.anatomy import EarSide
from inference.findings import EarImages, EarROI
from inference.phantom import PhantomOptions, PhantomStudy, make_study

TRUE_RATIO = {EarSide.LEFT: 0.35, EarSide.RIGHT: 0.12}
SMALL = {"matrix": (280, 160, 64), "step_mm": 0.15}
"""140 x 80 x 64 mm: both ears and the cisterns between them."""

EarCrop = Callable[[PhantomStudy, EarSide], EarImages]


@pytest.fixture(scope="session")
def patient() -> PhantomStudy:
    """A patient who lay still, with hydrops on the left."""
    return make_study(
        PhantomOptions(seed=31, eh_ratio=TRUE_RATIO, series=("MRC", "PPI", "HYDROPS", "REAL_IR"), **SMALL)
    )


def crop_at_truth(study: PhantomStudy, side: EarSide) -> EarImages:
    """One ear's images in a box around its true center."""
    volumes, center = study.volumes, np.array(study.truth.ears[side].center_lps_mm)
    grid = volumes["MRC"].geometry
    k, j, i = (np.rint(grid.to_index(center)).astype(int) - (13, 32, 32)).tolist()
    cropped = {role: volume.crop((k, j, i), (26, 64, 64)) for role, volume in volumes.items()}
    roi = EarROI(side=side, center_lps_mm=tuple(center.tolist()), geometry=cropped["MRC"].geometry, score=1.0)
    return EarImages(roi=roi, mrc=cropped["MRC"], hydrops=cropped["HYDROPS"], ppi=cropped.get("PPI"))


@pytest.fixture(scope="session")
def ear_crop() -> EarCrop:
    """How a test gets one ear's images."""
    return crop_at_truth
