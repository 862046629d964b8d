"""One synthetic left ear in a slab of its own, made in about two seconds: what the model and names checks work on."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inference.findings import EarImages
    from inference.phantom import PhantomStudy

RATIO: Final = 0.30
SEED: Final = 3
SLAB: Final = (80, 80, 36)
"""Columns, rows, slices of 0.5 x 0.5 x 1 mm: the ear with a margin, and no second one."""


@cache
def ear_study() -> PhantomStudy:
    """MRC, PPI and PEI of a slab around the left ear, and the truth."""
    from inference.anatomy import EarSide
    from inference.phantom import PhantomOptions, make_study
    from inference.phantom.head import EAR_LPS_MM

    return make_study(
        PhantomOptions(
            seed=SEED,
            ears=frozenset({EarSide.LEFT}),
            eh_ratio={EarSide.LEFT: RATIO},
            series=("MRC", "PPI", "PEI"),
            matrix=SLAB,
            slab_shift_mm=(EAR_LPS_MM[0], EAR_LPS_MM[1], 0.0),
            step_mm=0.15,
        )
    )


def ear_images() -> EarImages:
    """The same as a segmenter sees it."""
    from inference.anatomy import EarSide
    from inference.contrast import hydrops_from_ppi_pei
    from inference.findings import EarImages, EarROI

    study = ear_study()
    mrc, ppi, pei = (study.volumes[role] for role in ("MRC", "PPI", "PEI"))
    center = study.truth.ears[EarSide.LEFT].center_lps_mm
    roi = EarROI(side=EarSide.LEFT, center_lps_mm=center, geometry=mrc.geometry, score=1.0)
    return EarImages(roi=roi, mrc=mrc, ppi=ppi, hydrops=hydrops_from_ppi_pei(ppi, pei))
