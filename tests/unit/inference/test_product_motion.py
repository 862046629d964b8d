"""A HYDROPS-Mi2 tells whether the patient lay elsewhere for HYDROPS than for the MRC; such ears get no number."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.findings import EarROI, QualityCode, Severity
from inference.geometry import Volume, VolumeGeometry
from inference.phantom import PhantomOptions, PhantomStudy, make_study
from inference.product_motion import check_product, displacement

SERIES = ("MRC", "HYDROPS_MI2")


def scanned(motion_mm: float) -> PhantomStudy:
    return make_study(
        PhantomOptions(
            seed=31,
            eh_ratio={EarSide.LEFT: 0.35, EarSide.RIGHT: 0.12},
            series=SERIES,
            matrix=(280, 160, 64),
            step_mm=0.2,
            contrast_snr=5.0,
            motion_mm=motion_mm,
        )
    )


def ears_of(study: PhantomStudy) -> list[EarROI]:
    grid = study.volumes["MRC"].geometry
    return [
        EarROI(side=side, center_lps_mm=ear.center_lps_mm, geometry=grid, score=1.0)
        for side, ear in study.truth.ears.items()
    ]


@pytest.fixture(scope="module")
def still() -> PhantomStudy:
    return scanned(0.0)


@pytest.fixture(scope="module")
def moved() -> PhantomStudy:
    return scanned(2.0)


def test_a_patient_who_lay_still_gets_no_remark(still: PhantomStudy) -> None:
    mrc, product = (still.volumes[role] for role in SERIES)
    assert check_product(product, mrc, ears_of(still)) == dict.fromkeys(EarSide, ())


def test_a_patient_who_moved_is_stopped_at_both_ears_with_the_distance(moved: PhantomStudy) -> None:
    mrc, product = (moved.volumes[role] for role in SERIES)
    for flags in check_product(product, mrc, ears_of(moved)).values():
        (flag,) = flags
        assert (flag.code, flag.severity) == (QualityCode.MOTION, Severity.STOP)
        assert flag.measured == pytest.approx(2.0, abs=0.5)
        assert "send HYDROPS" in flag.message


def test_a_product_on_another_grid_is_read_where_it_lies(moved: PhantomStudy) -> None:
    mrc, product = (moved.volumes[role] for role in SERIES)
    part = product.crop((2, 3, 4), (60, 150, 270))
    for flags in check_product(part, mrc, ears_of(moved)).values():
        assert flags[0].measured == pytest.approx(2.0, abs=0.6)


@pytest.mark.parametrize("distance_mm", [0.7, 1.5])
def test_the_remark_grows_with_the_distance(distance_mm: float) -> None:
    """Fluid in an open space, seen twice: as it is, and displaced by a part of a voxel."""
    rng = np.random.default_rng(4)
    spheres = rng.uniform(12.0, 38.0, (14, 3))
    places = np.moveaxis(np.indices((50, 50, 50)), 0, -1).astype(np.float64)

    def fluid(at: NDArray[np.float64]) -> NDArray[np.float64]:
        nearest = np.min([np.linalg.norm(at - sphere, axis=-1) for sphere in spheres], axis=0)
        return np.asarray(np.clip(6.0 - nearest, 0.0, 1.0))

    grid = VolumeGeometry(shape=(50, 50, 50), index_to_lps=np.eye(4), frame_of_reference_uid="2.25.7")
    mrc = Volume(array=fluid(places).astype(np.float32), geometry=grid)
    product = -fluid(places) * fluid(places + np.array([0.0, distance_mm, 0.0]))
    found = displacement(Volume(array=product.astype(np.float32), geometry=grid), mrc, (25.0, 25.0, 25.0))
    assert found is not None
    assert found.distance_mm == pytest.approx(distance_mm, abs=0.3)
    assert found.gain >= 1.0


def test_without_csf_around_the_ear_it_is_said_that_nothing_can_be_seen(still: PhantomStudy) -> None:
    mrc, product = (still.volumes[role] for role in SERIES)
    dark = Volume(array=np.zeros_like(mrc.array), geometry=mrc.geometry)
    for flags in check_product(product, dark, ears_of(still)).values():
        assert [(flag.code, flag.severity) for flag in flags] == [(QualityCode.MOTION, Severity.WARN)]
        assert "too little CSF" in flags[0].message
