"""The vestibule's and the cochlea's level on phantom ears whose parts are known, at every tilt and on both sides."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
from ball_ears import ball_ear, grid_around
from known_ears import CENTER_MM, KnownEar, ear_grid_around, ear_on, fluid_of
from numpy.typing import NDArray

from inference.anatomy import EarSide
from inference.findings import EarFluid, LevelRatio
from inference.labyrinth_parts import MAX_DISTANCE_MM, LabyrinthPart, LabyrinthParts, labyrinth_parts
from inference.levels import level_ratios, tilt_deg
from inference.phantom.average_ear import average_ear
from inference.phantom.labyrinth import Compartment

WITHIN = 0.09
"""What the border between the parts does to a ratio: on 25 other ears at most 0.08. Where a canal's ampulla begins, and
where the cochlea's hook, is a matter of definition."""


def known_ear(
    seed: int,
    side: EarSide = EarSide.LEFT,
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
    flip: bool = False,
) -> KnownEar:
    return ear_on(ear_grid_around(side, flip=flip), seed, side, turn_deg=turn_deg)


def area_mm2(ear: KnownEar, which: int, part: LabyrinthPart) -> NDArray[np.float64]:
    """Of total fluid (0) or endolymph (1) of one part in every slice."""
    geometry = ear.fluid.roi.geometry
    pixel_mm2 = geometry.voxel_volume_mm3 / geometry.spacing_mm[0]
    areas: NDArray[np.float64] = ear.truth[which, Compartment[part.name]].sum(axis=(1, 2), dtype=float) * pixel_mm2
    return areas


def levels_of(fluid: EarFluid, **options: int) -> dict[str, LevelRatio]:
    return {one.part: one for one in level_ratios(fluid, **options)}


def test_the_shipped_average_labyrinth_is_the_one_the_phantom_draws() -> None:
    shipped = json.loads(files("inference").joinpath("labyrinth_parts.json").read_text(encoding="utf-8"))
    drawn = average_ear()
    assert shipped["frame"] == drawn["frame"]
    for part in LabyrinthPart:
        np.testing.assert_allclose(shipped["points_mm"][part.value], drawn["points_mm"][part.value], atol=0.011)


@pytest.mark.parametrize(
    ("seed", "side", "turn_deg", "flip"),
    [
        (1, EarSide.LEFT, (0.0, 0.0, 0.0), False),
        (2, EarSide.RIGHT, (20.0, 5.0, -10.0), False),
        (3, EarSide.RIGHT, (-20.0, -10.0, 15.0), True),
        (4, EarSide.LEFT, (25.0, 0.0, 20.0), True),
        (5, EarSide.LEFT, (-15.0, 12.0, -20.0), False),
    ],
)
def test_levels_lie_where_the_parts_are_largest_and_their_ratios_are_those_of_the_parts(
    seed: int, side: EarSide, turn_deg: tuple[float, float, float], flip: bool
) -> None:
    ear = known_ear(seed, side, turn_deg, flip)
    for part in (LabyrinthPart.VESTIBULE, LabyrinthPart.COCHLEA):
        found = levels_of(ear.fluid)[part.value]
        assert found.slice_index is not None, found.reason
        total, endolymph = area_mm2(ear, 0, part), area_mm2(ear, 1, part)
        assert total[found.slice_index] > 0.9 * total.max()
        assert found.total_fluid_mm2 == pytest.approx(total[found.slice_index], rel=0.2)
        assert found.ratio == pytest.approx(endolymph[found.slice_index] / total[found.slice_index], abs=WITHIN)


def test_slices_are_counted_on_the_whole_series() -> None:
    ear = known_ear(1)
    here, there = levels_of(ear.fluid), levels_of(ear.fluid, first_slice=30)
    for part in here:
        assert here[part].slice_index is not None
        assert there[part].slice_index == here[part].slice_index + 30  # type: ignore[operator]


def test_an_individual_ear_stays_well_within_the_distance_of_a_usual_form() -> None:
    distances = []
    for seed in range(10, 20):
        parts = labyrinth_parts(known_ear(seed, turn_deg=(float(seed - 15) * 4, 0.0, float(15 - seed) * 3)).fluid)
        assert isinstance(parts, LabyrinthParts)
        distances.append(parts.distance_mm)
    assert max(distances) < 0.85 * MAX_DISTANCE_MM


def test_a_cochlea_filled_with_bone_has_no_level_and_the_vestibule_keeps_its_own() -> None:
    ear = known_ear(1)
    total, endolymph = (maps[Compartment.VESTIBULE] + maps[Compartment.CANALS] for maps in ear.truth)
    found = levels_of(fluid_of(EarSide.LEFT, ear.fluid.roi.geometry, total, endolymph))
    assert found["cochlea"].ratio is None
    assert found["cochlea"].reason


def test_fluid_that_is_no_labyrinth_has_no_levels() -> None:
    ball = ball_ear()
    grid = ball.total_fluid.geometry
    found = levels_of(
        fluid_of(EarSide.LEFT, grid, np.asarray(ball.total_fluid.array), np.asarray(ball.endolymph.array))
    )
    assert {one.ratio for one in found.values()} == {None}
    assert all("usual form" in one.reason for one in found.values())


def test_an_empty_ear_has_no_levels() -> None:
    grid = grid_around(CENTER_MM)
    found = levels_of(fluid_of(EarSide.LEFT, grid, np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)))
    assert all("too little fluid" in one.reason for one in found.values())


def test_coronal_and_sagittal_slices_are_no_levels() -> None:
    superior, posterior, left = np.eye(3)[2], np.eye(3)[1], np.eye(3)[0]
    for axes in ((posterior, superior, left), (left, superior, posterior)):
        grid = grid_around(CENTER_MM, axes=axes)
        assert tilt_deg(grid) == pytest.approx(90.0)
        found = levels_of(
            fluid_of(EarSide.LEFT, grid, np.ones(grid.shape, np.float32), np.ones(grid.shape, np.float32))
        )
        assert all("tilted by 90 degrees" in one.reason for one in found.values())


def test_a_level_has_its_numbers_or_its_reason_and_never_both() -> None:
    with pytest.raises(ValueError, match="need either"):
        LevelRatio(part="cochlea")
    with pytest.raises(ValueError, match="need either"):
        LevelRatio(part="cochlea", ratio=0.1, reason="no slice")
